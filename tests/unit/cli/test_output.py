"""What people see: on a terminal in its colours and its width, anywhere else as plain text."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import click
import pytest
from rich.console import Console

from claude_batch_tasks import BatchStatus, FailureCount, JobStatus, Progress, RequestResult
from claude_batch_tasks.cli import failure_texts, job_texts, output
from claude_batch_tasks.cli.output import Line

PARAGRAPH = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., io.StringIO]:
    """``terminal(width)``: what commands print goes to one, and is returned without colours."""

    def open_terminal(width: int, **options: Any) -> io.StringIO:
        shown = io.StringIO()
        console = Console(file=shown, width=width, highlight=False, force_terminal=True, **options)
        monkeypatch.setattr(output, "_open_console", lambda err: console)
        return shown

    return open_terminal


def plain(shown: io.StringIO) -> list[str]:
    return click.unstyle(shown.getvalue()).splitlines()


def make_progress(fraction: float, *, measured: bool) -> Progress:
    return Progress(fraction=fraction, measured=measured, text=f"{fraction:.0%} of the requests")


def make_job(**changes: Any) -> JobStatus:
    now = datetime.now(timezone.utc)
    batch = BatchStatus(
        number=1,
        batch_id="msgbatch_01KfKDDyPLmbJGPp66cm8St5",
        state="in_progress",
        requests=1_000,
        polls=7,
        polls_404=2,
        next_poll_at=now + timedelta(seconds=40),
        error=None,
    )
    fields: dict[str, Any] = {
        "job_id": "4f0c2a8e-6d0b-4a53-9c55-2f1b6c6b0a11",
        "state": "running",
        "phase": changes.get("state", "running"),
        "requests": 100_000,
        "processing": 98_000,
        "succeeded": 1_500,
        "errored": 300,
        "expired": 150,
        "canceled": 50,
        "batches": (batch,),
        "polls": 7,
        "polls_404": 2,
        "resubmitted": 0,
        "fallback": 0,
        "fallback_skipped": 0,
        "stopped": None,
        "cost": 1234.5,
        "cost_by_model": {"claude-haiku-4-5": 1234.5},
        "next_poll_at": now + timedelta(seconds=40),
        "submitted_at": now - timedelta(minutes=5),
        "started_at": now - timedelta(minutes=5),
        "ended_at": None,
        "error": None,
        "summary": None,
    }
    return JobStatus(**{**fields, **changes})


class TestALine:
    def test_is_as_long_as_it_is_where_there_is_no_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.say(Line(click.style(PARAGRAPH, fg="red"), indent=4))
        output.show([Line(PARAGRAPH, cut=True)])
        shown = capsys.readouterr()
        assert (shown.err, shown.out) == (PARAGRAPH + "\n", PARAGRAPH + "\n")

    def test_goes_on_under_its_beginning(self, terminal: Callable[..., io.StringIO]) -> None:
        shown = terminal(80)
        output.say(Line(f"    {PARAGRAPH}", indent=4))
        first, second = plain(shown)
        assert first.startswith("    one two")
        assert second.startswith(("    thirteen", "    fourteen"))

    def test_of_a_table_is_cut_off(self, terminal: Callable[..., io.StringIO]) -> None:
        shown = terminal(80)
        output.show([Line(PARAGRAPH, cut=True)])
        [line] = plain(shown)
        assert (len(line), line[-1]) == (80, "…")

    def test_with_a_command_can_be_copied(self, terminal: Callable[..., io.StringIO]) -> None:
        shown = terminal(80)
        command = f"celery -A some.project claude-batch watch {'x' * 36} --quiet"
        output.hint_command("To follow it", command)
        assert plain(shown) == ["To follow it:", f"  {command}"]

    def test_has_brackets_and_colons_as_they_are(self, terminal: Callable[..., io.StringIO]) -> None:
        shown = terminal(80)
        output.say("[red]not markup[/red] :smile: [id-1]")
        assert plain(shown) == ["[red]not markup[/red] :smile: [id-1]"]

    def test_has_no_colours_where_nobody_wants_them(
        self, terminal: Callable[..., io.StringIO], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        shown = terminal(80)
        output.say(click.style("bad", fg="red"))
        assert shown.getvalue() == "bad\n"


class TestTheTableOfJobs:
    REASON = "the API refused the key: invalid x-api-key (authentication_error)"

    def show(self, shown: io.StringIO) -> list[str]:
        failed = make_job(state="failed", error=self.REASON, label="nightly")
        output.show(
            job_texts.format_jobs(
                [make_job(label="a" * 30, progress=make_progress(0.02, measured=True)), failed], output.terminal_width()
            )
        )
        return plain(shown)

    def test_fits_into_80_columns(self, terminal: Callable[..., io.StringIO]) -> None:
        lines = self.show(terminal(80))
        assert max(map(len, lines)) <= 80
        assert lines[1].startswith("4f0c2a8e  running 2%      100,000    500 $1,234.50   5m")
        assert lines[2] == " " * 10 + "a" * 30
        assert lines[3].endswith("5m  nightly")
        assert lines[4] == " " * 10 + self.REASON

    def test_fits_into_140_columns(self, terminal: Callable[..., io.StringIO]) -> None:
        lines = self.show(terminal(140))
        assert [len(line) <= 140 for line in lines] == [True] * 3
        assert lines[1].startswith("4f0c2a8e-6d0b-4a53-9c55-2f1b6c6b0a11  running")
        assert "5m  nightly: the API refused the key" in lines[2]

    def test_shortens_nothing_in_a_pipe(self) -> None:
        long = "because " * 20
        rows = [line.text for line in job_texts.format_jobs([make_job(state="failed", error=f"{long}\n{long}")], None)]
        assert click.unstyle(rows[1]).startswith("4f0c2a8e-6d0b-4a53-9c55-2f1b6c6b0a11  failed")
        assert click.unstyle(rows[1]).endswith(f"5m  {long}{long}".rstrip())


def test_an_estimate_of_the_progress_is_marked() -> None:
    job = make_job(progress=make_progress(0.4, measured=False))
    rows = [click.unstyle(line.text) for line in job_texts.format_jobs([job], None)]
    assert "  running ~40%  " in rows[1]
    assert job_texts.format_bar(job) == "running: 40% of the requests; next poll in 40 s"


@pytest.mark.parametrize("width", [80, 140])
def test_a_status_fits(terminal: Callable[..., io.StringIO], width: int) -> None:
    shown = terminal(width)
    output.show(job_texts.format_status(make_job(), []))
    lines = plain(shown)
    assert max(map(len, lines)) <= width
    assert "Job        4f0c2a8e-6d0b-4a53-9c55-2f1b6c6b0a11" in lines
    assert any("in 40 s" in line for line in lines)


def test_a_failed_job_is_listed_with_its_reason_alone() -> None:
    said = "create: Anthropic answered 401 authentication_error: invalid x-api-key"
    error = f"job {make_job().job_id}, batch 1 of 2 failed: {said}. Stored for 7 days: the requests."
    job = make_job(state="failed", phase="failed", error=error)
    row = [click.unstyle(line.text) for line in job_texts.format_jobs([job], None)][1]
    assert row.endswith(f"batch 1 of 2: {said}")
    assert f" failed: batch 1 of 2: {said}. Stored for 7 days" in click.unstyle(job_texts.format_ending(job))


def test_calls_of_on_result_that_failed_are_listed() -> None:
    rows = [click.unstyle(line.text) for line in job_texts.format_jobs([make_job(delivery_failures=3)], None)]
    assert rows[1].endswith("on_result failed 3")


class TestAnswersThatAreNotComplete:
    JOB = make_job(
        state="completed",
        phase="completed",
        next_poll_at=None,
        ended_at=datetime.now(timezone.utc),
        incomplete={"max_tokens": 3, "refusal": 7, "out_of_patience": 1},
        repairs={"continue": 4},
        failures=(
            FailureCount(outcome="expired", error_type=None, count=150),
            FailureCount(outcome="succeeded", error_type=None, count=7, incomplete="refusal", message="it refused"),
        ),
    )
    SAID = (
        "10 answers are incomplete (7 refusal, 3 max_tokens), 1 answer has an unknown stop reason (1 out_of_patience)"
    )

    def test_are_in_the_first_line_of_a_status(self) -> None:
        lines = [click.unstyle(line.text) for line in job_texts.format_status(self.JOB, [])]
        assert f"State      completed: {self.SAID}" in lines
        assert "Failures   150 expired" in lines
        assert "Incomplete 7 refusal, 3 max_tokens, 1 out_of_patience" in lines
        assert "Repairs    4 continue" in lines

    def test_are_listed(self) -> None:
        rows = [click.unstyle(line.text) for line in job_texts.format_jobs([self.JOB], None)]
        assert rows[1].endswith("expired 150, incomplete 10")

    def test_are_said_at_the_end(self) -> None:
        said = click.unstyle(job_texts.format_ending(self.JOB))
        assert f" completed: {self.SAID}; 1,500 succeeded, " in said

    def test_are_said_by_the_status_itself(self) -> None:
        assert str(self.JOB) == (
            f"job {self.JOB.job_id} completed, {self.SAID}: 1,500 succeeded, 300 errored, 150 expired, 50 canceled, "
            "98,000 processing"
        )

    def test_are_counted_among_the_failures(self) -> None:
        lines = [click.unstyle(line.text) for line in failure_texts.format_counts(self.JOB.failures)]
        assert lines[2].split() == ["refusal", "7", "-", "it", "refused"]

    def test_are_listed_with_what_they_lack(self) -> None:
        result = RequestResult(custom_id="a", type="succeeded", source="batch", incomplete="empty")
        lines = [click.unstyle(line.text) for line in failure_texts.format_failures([result])]
        assert lines[1].split() == ["empty", "a", "the", "answer", "has", "no", "text"]
