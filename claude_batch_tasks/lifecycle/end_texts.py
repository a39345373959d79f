"""The line about the end of a job: how it ended, what failed, which answers are not complete, and what it cost."""

from __future__ import annotations

from typing import cast

from claude_batch_tasks.formatting import format_dollars, format_unpriced
from claude_batch_tasks.records import Summary
from claude_batch_tasks.wire import answer_texts, failure_types, result_rows

#: The most types of errors in the line.
_TYPES = 5


def describe_end(summary: Summary, reason: str | None) -> str:
    """Return in one line how a job has ended: why it failed, its outcomes, what is not complete, and the cost.

    Args:
        reason: why it failed; None: it has not failed.
    """
    counts = {name: count for name in result_rows.OUTCOMES if (count := cast("dict[str, int]", summary)[name])}
    parts = [f"{count:,} {name}{_list_errors(summary) if name == 'errored' else ''}" for name, count in counts.items()]
    begin = ", ".join(filter(None, (summary["state"], answer_texts.format_incomplete(summary.get("incomplete") or {}))))
    begin = begin if reason is None else f"{begin}: {reason}"
    known = "" if summary["cost"] is None else format_dollars(summary["cost"])
    cost = " and ".join(filter(None, (known, format_unpriced(summary["cost_unknown"]))))
    repairs = answer_texts.format_repairs(summary.get("repairs") or {})  # one of an earlier release has none
    return "; ".join(filter(None, (begin, ", ".join(parts) or "no outcomes", repairs, cost)))


def _list_errors(summary: Summary) -> str:
    """Return in brackets the types of a job's errors, the most frequent first."""
    failures = summary.get("failures") or {}  # one of an earlier release has none
    types = [(name, count) for name, count in failures.items() if name not in failure_types.FAILED_OUTCOMES]
    parts = [f"{count:,} {name}" for name, count in types[:_TYPES]]
    parts += [f"{len(types) - _TYPES} more types"] if types[_TYPES:] else []
    return f" ({', '.join(parts)})" if parts else ""
