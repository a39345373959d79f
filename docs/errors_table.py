"""Writes docs/reference/errors.md, from checks/error_entries.py and problems.py: ``python docs/errors_table.py``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Formatter

from claude_batch_tasks.checks import error_entries
from claude_batch_tasks.checks.error_entries import Entry
from claude_batch_tasks.checks.problems import list_problems

PAGE = Path(__file__).parent / "reference" / "errors.md"

_HEAD = """# Errors

Every error that you can meet, and what to do.
The page is made from the table in `claude_batch_tasks/checks/error_entries.py`: `python docs/errors_table.py`.
`tests/errors` provokes each error, does what its entry advises, and checks that nothing is paid twice.

The text of an error has the details: the job's id, the numbers of requests, the names of settings.
All exceptions are in `claude_batch_tasks.errors`, and all of them are a `BatchTasksError`.

* [Errors of a call](#errors-of-a-call): raised where you call this package.
* [Errors of a job](#errors-of-a-job): a job ends with one of them.
* [Errors that pass](#errors-that-pass): the reason of a retry.
* [Bases and old names](#bases-and-old-names)
* [Problems of a set-up](#problems-of-a-set-up): what workers log and `claude-batch doctor` finds.
"""

_PARTS = {
    "Errors of a call": (
        "Raised by `run_batch.delay()`, `ask.delay()` and its result, the methods of `BatchJob`, `adopt()` "
        "and `list_jobs()`.",
        error_entries.OF_CALLS,
    ),
    "Errors of a job": (
        "`result.get()` and `BatchJob.get()` raise it; `status().error` has its text.\n"
        "The text says what is stored and what to do for this job.",
        error_entries.OF_JOBS,
    ),
    "Errors that pass": (
        "They are the reason of a retry, in logs, in the history and in Flower.\n"
        "Only a job in eager mode may raise one of them.",
        error_entries.OF_RETRIES,
    ),
}


def page() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD.rstrip("\n")
    for title, (about, entries) in _PARTS.items():
        yield from ("", f"## {title}", "", about)
        yield from _of_entries({f"`{name}`": entry for name, entry in entries.items()}, _plain)
    yield from ("", "## Bases and old names", "", "| name | what it is |", "|---|---|")
    yield from (f"| `{name}` | {text} |" for name, text in error_entries.BASES.items())
    yield from ("", "## Problems of a set-up", "")
    yield "Names in italics stand for what differs from one finding to the next."
    found = {problem.id: error_entries.explain_problem(problem) for problem in list_problems()}
    yield from _of_entries({f"`{name}`": entry for name, entry in found.items()}, _shown)


def _of_entries(entries: Mapping[str, Entry], shown: object) -> Iterator[str]:
    for name, entry in entries.items():
        yield from ("", f"### {name}", "", "| | |", "|---|---|")
        for label, text in zip(("What happened", "Stored", "Paid", "What to do"), entry, strict=True):
            yield f"| {label} | {shown(text)} |"  # type: ignore[operator]


def _plain(text: str) -> str:
    return text.replace("|", "\\|")


def _shown(template: str) -> str:
    """With what differs from one finding to the next in italics."""
    return "".join(_pieces(template)).replace("|", "\\|")


def _pieces(template: str) -> Iterator[str]:
    for text, name, _, _ in Formatter().parse(template):
        yield text.replace("*", "\\*").replace("<", "&lt;")
        if name is not None:
            yield f"*{name}*"


if __name__ == "__main__":
    PAGE.write_text(page())
