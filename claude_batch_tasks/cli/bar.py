"""The live bar on a terminal's standard error; what is printed there meanwhile appears above it."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from claude_batch_tasks.cli import job_texts
from claude_batch_tasks.jobs.job_status import JobStatus


class Bar(Progress):
    """A bar that shows how far a job is."""

    def __init__(self) -> None:
        super().__init__(
            SpinnerColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=Console(stderr=True, highlight=False),
            transient=True,
            expand=True,
        )
        self._bar = self.add_task("", total=None)

    def show_status(self, status: JobStatus) -> None:
        """Show a status of the job."""
        # The number of an adopted job's requests is not known before its batch was seen.
        self.update(
            self._bar,
            total=status.requests or None,
            completed=status.done,
            description=job_texts.format_progress(status),
        )
