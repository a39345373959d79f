"""The rounds of a batch: how each begins, and what its results add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from claude_batch_tasks import metrics, rules
from claude_batch_tasks.formatting import format_duration
from claude_batch_tasks.lifecycle.resubmission.sent_requests import read_chunks
from claude_batch_tasks.pricing import spending
from claude_batch_tasks.records import BatchRecord, JobRecord, Round, reset_fields
from claude_batch_tasks.steps import Step
from claude_batch_tasks.store import ReadableStore
from claude_batch_tasks.wire import answers, batch_requests, failure_types
from claude_batch_tasks.wire.completeness import Completeness

#: What the history says of requests that are sent again, by why they are.
_AS = {
    "resubmission": "because they failed for a cause that passes",
    "refusal_model": "to another model, because they were refused",
    "max_tokens": "with more max_tokens, because their answers were cut",
    "continue": "to continue answers that paused",
    "reask": "with what is wrong with their answers",
}


def begin_round(store: ReadableStore, job_id: str, job: JobRecord, batch: int, record: BatchRecord) -> dict[str, Any]:
    """Return the changes in a batch's record when the next round begins."""
    assert record.published is not None
    past = Round(
        batch_id=record.batch_id,
        attempt=record.published,
        counts=record.counts,
        usage=record.usage,
        costs=record.costs,
        unpriced=record.unpriced,
        eligible=record.eligible,
        open=record.open,
        failed_types=failure_types.tallies_now(record),
        incomplete=record.incomplete,
        again=record.again,
        created_at=record.created_at,
    )
    rounds = [*record.rounds, past]
    following = BatchRecord(first=record.first, count=record.count, body_bytes=0, rounds=rounds)
    bodies = [len(piece) for piece in read_chunks(store, job_id, job, batch, following)]
    return {
        **reset_fields("round"),
        "rounds": rounds,
        "smaller": past.sent,
        "smaller_bytes": sum(bodies) + len(bodies) - 1 + sum(map(len, batch_requests.ENVELOPE)),
        "turn": record.turn + 1,
        "attempts_before": record.attempt,
        # However the next search ends: it does not look for this batch.
        "rejected_ids": [*record.rejected_ids, *([record.batch_id] if record.batch_id else [])],
    }


def start_round(step: Step) -> None:
    """Begin the next round: send requests again as a smaller batch."""
    record = step.batch
    changes = begin_round(step.store, step.unit.job_id, step.job, step.unit.batch or 0, record)
    wait = step.bound_wait(step.draw_countdown(len(record.rounds) + rules.RESUBMIT_AFTER))
    text = f"{changes['smaller']:,} of its requests are sent again in a smaller batch in {format_duration(wait)}"
    kinds = {} if record.again is None else record.again.kinds
    if kinds.keys() - {"resubmission"}:
        text += f": {', '.join(f'{count:,} {_AS[kind]}' for kind, count in kinds.items())}"
    if record.again is not None and record.again.left:
        text += f"; {record.again.left:,} more have no room in it, and keep their answers"
    step.record_event(
        "resubmitted",
        text,
        requests=changes["smaller"],
        kinds=kinds or None,
        round=len(changes["rounds"]),
        countdown=round(wait, 1),
    )
    step.update_record(**changes, failures=0, due_at=step.now() + wait)
    metrics.count("smaller_batches")


def merge_rows(record: BatchRecord, seen: Completeness) -> dict[str, Any]:
    """Combine the rows of a batch's present round with the last round's: they replace what was sent again of that."""
    judged = seen.judged
    again = None if judged.sent_again is None else msgspec.structs.replace(judged.sent_again, attempt=record.attempt)
    changes: dict[str, Any] = {
        "counts": dict(judged.outcomes),
        "usage": dict(seen.usage),
        "costs": seen.meter.sum_costs(),
        "unpriced": seen.meter.count_unpriced(),
        "eligible": len(judged.eligible),
        "open": dict(judged.open),
        "again": again,
        "rows": {**record.rows, str(record.attempt): seen.distinct},
        "failed_types": judged.failed.tallies,
        "incomplete": dict(judged.incomplete),
        "incomplete_examples": {**record.incomplete_examples, **judged.incomplete_examples},
        "failed_types_of": [record.attempt, record.answered],
    }
    if not record.rounds:
        return changes
    past = record.rounds[-1]
    counts, failed = Counter(past.counts), failure_types.tallies_of_round(past)
    incomplete = past.incomplete
    if seen.complete:  # otherwise the job fails, and nobody knows which rows of the last round are replaced
        counts.subtract(past.sent_outcomes)
        counts.update(judged.outcomes)
        failed = failure_types.merge_tallies(past, judged.failed.tallies)
        left = Counter(past.incomplete)
        left.subtract({} if past.again is None else past.again.incomplete)
        incomplete = answers.merge_reasons(left, judged.incomplete)
    changes |= {
        "failed_types": failed,
        "incomplete": incomplete,
        "repairs": count_repairs(record.rounds),
        "counts": dict(counts),
        "usage": dict(Counter(past.usage) + seen.usage),
        "costs": spending.merge_costs(past.costs, changes["costs"]),
        "unpriced": dict(Counter(past.unpriced) + Counter(changes["unpriced"])),
        "resubmitted": record.rounds[0].sent if seen.complete else seen.distinct,
    }
    return changes


def count_repairs(rounds: Iterable[Round]) -> dict[str, int]:
    """Count the requests that were sent for each kind of repair after these rounds."""
    kinds: Counter[str] = Counter()
    for past in rounds:
        kinds.update({} if past.again is None else past.again.kinds)
    del kinds["resubmission"]
    return dict(kinds)


def count_sources(record: BatchRecord) -> Counter[tuple[str, str]]:
    """Count the requests by outcome and by source: the results of the first batch, or those of a smaller one."""
    own = Counter(record.counts)
    if record.rounds and record.resubmitted:
        own = Counter(record.rounds[0].counts)
        own.subtract(record.rounds[0].sent_outcomes)
    found = Counter({(outcome, "batch"): count for outcome, count in own.items()})
    for outcome, count in record.counts.items():
        found[outcome, "resubmitted"] = count - own[outcome]
    return +found
