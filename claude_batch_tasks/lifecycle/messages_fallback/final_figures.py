"""The final figures of a batch: its outcomes by type and by source, and what the Messages API had a part in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from claude_batch_tasks.lifecycle import resubmission
from claude_batch_tasks.pricing import spending
from claude_batch_tasks.results.stored.batch_reader import Reader
from claude_batch_tasks.results.stored.messages_outcomes import decode_unchanged
from claude_batch_tasks.steps import Step
from claude_batch_tasks.wire import answers, failure_types, result_rows


def sum_outcomes(step: Step) -> tuple[dict[str, Any], Mapping[tuple[str, str], int]]:
    """Return the final changes in a batch's record, and the number of its requests by outcome and source."""
    record = step.batch
    if not record.granted and not record.read_only:
        return {"skipped": record.eligible} if record.note is not None else {}, resubmission.count_sources(record)
    job_id, batch = step.unit.job_id, step.unit.batch or 0
    sources: Counter[tuple[str, str]] = Counter()
    usage: Counter[str] = Counter(record.usage)
    incomplete: Counter[str] = Counter()
    examples: dict[str, int] = {}
    meter, failed = spending.Meter(step.settings.price_list, batch=False), failure_types.FailureCounter()
    for outcome in Reader(step.store, job_id, step.job, batch, record).read_outcomes():
        sources[outcome.type, outcome.source] += 1
        if outcome.source == "messages":
            usage.update(outcome.row.usage)
            result_rows.count_answers(meter, outcome.row.paid_messages)
        if outcome.type != "succeeded":
            failed.add_failure(outcome.type, outcome.row.error_type, outcome.place)
        elif (reason := outcome.row.counted_reason) is not None:
            answers.add_reason(incomplete, reason)
            examples.setdefault(reason, outcome.place)
    counts, by_source = _add_up(sources, 0), _add_up(sources, 1)
    answered = by_source["messages"]
    changes = {
        "counts": dict(counts),
        "usage": dict(usage),
        "costs": spending.merge_costs(record.costs, meter.sum_costs()),
        "unpriced": dict(Counter(record.unpriced) + Counter(meter.count_unpriced())),
        "answered": answered,
        "resubmitted": by_source["resubmitted"],
        "skipped": record.eligible - answered - _count_tried(step),
        "note": _why_not_sent(step),
        "failed_types": failed.tallies,
        "incomplete": dict(incomplete),
        "incomplete_examples": {reason: examples[reason] for reason in incomplete if reason in examples},
        "failed_types_of": failure_types.fingerprint(record, answered),
    }
    return changes, sources


def _add_up(sources: Mapping[tuple[str, str], int], part: int) -> Counter[str]:
    """Return the number of requests by outcome (part 0) or by source (1)."""
    counts: Counter[str] = Counter()
    for key, count in sources.items():
        counts[key[part]] += count
    return counts


def _count_tried(step: Step) -> int:
    """Count the requests that keep their outcomes although they were sent through the Messages API."""
    stored = (
        decode_unchanged(one) for _, one in step.store.results.read_outcomes(step.unit.job_id, step.unit.batch or 0)
    )
    return sum(kept is not None and kept.tried for kept in stored)


def _why_not_sent(step: Step) -> str | None:
    """Return why requests were not sent again that are eligible for it."""
    note = step.batch.note or step.job.stopped
    if note is None and step.past_deadline:
        return f"the job waited longer than max_wait ({step.settings.max_wait:g} s)"
    return note
