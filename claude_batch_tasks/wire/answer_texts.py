"""How answers that are not complete, and their repairs, are counted and written for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from claude_batch_tasks.formatting import format_count
from claude_batch_tasks.records import BatchRecord
from claude_batch_tasks.wire.answers import INCOMPLETE, merge_reasons

#: What an answer lacks, by why it is not complete.
MEANINGS: Mapping[str, str] = {
    "refusal": "the model refused to answer",
    "max_tokens": "the answer was cut at max_tokens",
    "pause_turn": "the model paused in the middle of a server tool",
    "model_context_window_exceeded": "the answer was cut where the context window was full",
    "empty": "the answer has no text",
    "invalid": "the answer does not have the wanted form",
}


def sum_incomplete(batches: Iterable[BatchRecord]) -> dict[str, int]:
    """Count the answers that are not complete, by reason, over all batches, without those that are to be repaired."""
    return merge_reasons(*map(count_reasons, batches))


def count_reasons(batch: BatchRecord) -> dict[str, int]:
    """Count the answers of a batch that are not complete, by reason, without those that are to be repaired."""
    if batch.final or batch.done or batch.again is None:
        return batch.incomplete
    waiting = batch.again.incomplete
    return {reason: max(count - waiting.get(reason, 0), 0) for reason, count in batch.incomplete.items()}


def sum_repairs(batches: Iterable[BatchRecord]) -> dict[str, int]:
    """Count how many times requests were sent again to repair their answers, by kind, over all batches."""
    return merge_reasons(*(batch.repairs for batch in batches))


def count_incomplete(counts: Mapping[str, int]) -> int:
    """Return how many answers are not complete, without those whose stop reason is not known."""
    return sum(count for reason, count in counts.items() if reason in INCOMPLETE)


def format_incomplete(counts: Mapping[str, int]) -> str:
    """Format answers that are not complete: ``10 answers are incomplete (7 refusal, 3 max_tokens)``.

    Those whose stop reason is not known follow: ``2 answers have an unknown stop reason (2 out_of_patience)``. Empty if
    there are none of both.
    """
    known = {reason: count for reason, count in counts.items() if reason in INCOMPLETE}
    unknown = {reason: count for reason, count in counts.items() if reason not in INCOMPLETE}
    parts = (
        _format_part(known, "is", "are", "incomplete"),
        _format_part(unknown, "has", "have", "an unknown stop reason"),
    )
    return ", ".join(filter(None, parts))


def _format_part(counts: Mapping[str, int], one: str, many: str, what: str) -> str:
    total = sum(counts.values())
    verb = one if total == 1 else many
    return f"{format_count(total, 'answer')} {verb} {what} ({format_reasons(counts)})" if total else ""


def format_repairs(repairs: Mapping[str, int]) -> str:
    """Format repairs: ``12 repairs (8 max_tokens, 4 continue)``; empty if there are none."""
    total = sum(repairs.values())
    return f"{format_count(total, 'repair')} ({format_reasons(repairs)})" if total else ""


def format_reasons(counts: Mapping[str, int]) -> str:
    """Format counts by reason or kind, the largest first: ``7 refusal, 3 max_tokens``."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{count:,} {name}" for name, count in ordered if count)
