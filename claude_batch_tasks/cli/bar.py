"""The live bar on a terminal's standard error; what is printed meanwhile appears above it."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Column

from claude_batch_tasks.cli import job_texts, output
from claude_batch_tasks.jobs.job_status import JobStatus


class Bar:
    """A bar that shows how far a job is, as long as it is entered."""

    def __init__(self) -> None:
        console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=max(10, min(40, console.width // 8))),
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            TextColumn("{task.fields[age]}"),
            console=console,
            transient=True,
            expand=True,
        )
        self._task = self._progress.add_task("", total=None, age="")
        self._stack = ExitStack()

    def __enter__(self) -> Bar:
        self._stack.enter_context(output.use_live(self._progress.console))
        self._stack.enter_context(self._progress)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def show_status(self, status: JobStatus) -> None:
        """Show a status of the job."""
        fraction = None if status.progress is None else status.progress.fraction
        self._progress.update(
            self._task,
            total=None if fraction is None else 1,
            completed=fraction or 0,
            description=job_texts.format_bar(status),
            age=job_texts.format_age(status.submitted_at),
        )
