"""The lines of text that show people which requests failed, and which answers are not complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from claude_batch_tasks.cli.output import Line
from claude_batch_tasks.jobs.job_status import FailureCount
from claude_batch_tasks.results import failures
from claude_batch_tasks.results.reader import RequestResult

#: The width of a failure type, and of an example's custom_id.
_TYPE, _ID = 29, 20


def format_counts(counts: Iterable[FailureCount]) -> Iterator[Line]:
    """Yield a table with a line for each failure type, and each reason: how many, and an example."""
    yield Line(click.style(f"{'FAILURE':{_TYPE}}  {'COUNT':>7}  {'EXAMPLE':{_ID}} MESSAGE", bold=True), cut=True)
    for count in counts:
        head = f"{_color_type(count.type, count.outcome)}  {count.count:>7,}  {count.example or '-':{_ID}} "
        yield Line(f"{head}{_join_lines(count.message)}".rstrip(), indent=_TYPE + 2 + 7 + 2)


def format_failures(found: Iterable[RequestResult]) -> Iterator[Line]:
    """Yield a table with a line for each failed request, and each answer that is not complete."""
    yield Line(click.style(f"{'FAILURE':{_TYPE}}  {'CUSTOM_ID':{_ID}} MESSAGE", bold=True), cut=True)
    for result in found:
        head = f"{_color_type(failures.name_result(result), result.type)}  {result.custom_id:{_ID}} "
        yield Line(f"{head}{_join_lines(failures.explain_result(result))}".rstrip(), indent=_TYPE + 2)


def _color_type(name: str, outcome: str) -> str:
    return click.style(f"{name:{_TYPE}}", fg="red" if outcome == "errored" else "yellow")


def _join_lines(text: str | None) -> str:
    return " ".join((text or "").split())
