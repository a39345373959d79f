"""Resubmission at half the price: the open requests of a batch are sent again as a smaller one, a few times at most.

Rounds are counted from 0, the batch as it was submitted. Each round has wire ids of its own, so that rows say to which
round they belong. The outcome of a request is its row in the last round that has one.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

from claude_batch_tasks import metrics, rules
from claude_batch_tasks.errors import ResultsMissing
from claude_batch_tasks.formatting import format_duration
from claude_batch_tasks.pricing import spending
from claude_batch_tasks.records import BatchRecord, JobRecord, Round, batch_number, reset_fields
from claude_batch_tasks.steps import Step
from claude_batch_tasks.store import HasPayloads, HasResults, JobContents
from claude_batch_tasks.wire import batch_requests, failure_types
from claude_batch_tasks.wire.completeness import AdoptedCompleteness, Completeness


def nonce_of_round(job: JobRecord, record: BatchRecord) -> str:
    """Return the nonce in the wire ids of the batch that is, or will be, at Anthropic."""
    return batch_requests.round_nonce(job.nonce, len(record.rounds))


def holds_request(job: JobRecord, record: BatchRecord, custom_id: str) -> bool:
    """Return whether a custom_id on the wire is that of a request of the batch that is at Anthropic."""
    index = batch_requests.index_of(nonce_of_round(job, record), custom_id)
    # The whole job has one nonce: its other batches may be of the same size.
    return index is not None and 0 <= index - record.first < record.count


def expect_rows(
    store: HasResults, job_id: str, job: JobRecord, batch: int, record: BatchRecord, **options: Any
) -> Completeness:
    """Return what accepts the rows of the batch that is at Anthropic.

    Args:
        options: more arguments of ``Completeness``.
    """
    accepts = AdoptedCompleteness if job.adopted else Completeness
    places = positions_in_batch(store, job_id, batch, record) if record.rounds else None
    return accepts(nonce_of_round(job, record), record.first, record.count, places=places, **options)


def stored_index(seen: Completeness) -> Iterator[tuple[int, bytes]]:
    """Yield the parts of the index of the custom_ids of a batch that was created elsewhere; none of another."""
    if isinstance(seen, AdoptedCompleteness):
        yield from seen.index.list_parts()


def positions_in_batch(store: HasResults, job_id: str, batch: int, record: BatchRecord) -> Sequence[int]:
    """Return the positions of the requests in the batch that is, or will be, at Anthropic, in their order."""
    if not record.rounds:
        return range(record.count)
    past = record.rounds[-1]
    return _unpack_positions(store.results.read_eligible(job_id, batch, past.attempt), past.eligible)


def positions_left(store: HasResults, job_id: str, batch: int, record: BatchRecord) -> Sequence[int]:
    """Return the positions of the requests that are eligible for resubmission or fallback, in their order."""
    if not record.layers:
        return range(record.count)
    # Before the batch has rows of its own, the eligible requests are those of the last round.
    expected = record.eligible if record.published is not None else record.rounds[-1].eligible
    return _unpack_positions(store.results.read_eligible(job_id, batch, record.layers[0][0]), expected)


def final_positions(step: Step) -> Iterator[int]:
    """Return the positions of the batch's requests that are not sent again."""
    left = bytearray(step.batch.count)
    for place in positions_left(step.store, step.unit.job_id, step.unit.batch or 0, step.batch):
        left[place] = True
    return (place for place in range(step.batch.count) if not left[place])


def _unpack_positions(packed: bytes, expected: int) -> Sequence[int]:
    found = array("I")
    if len(packed) != expected * found.itemsize:
        raise ResultsMissing(
            f"which {expected:,} requests are eligible for fallback is gone from the store, or was changed there",
            expected,
        )
    found.frombytes(packed)
    return array("I", sorted(found))


def read_chunks(store: JobContents, job_id: str, job: JobRecord, batch: int, record: BatchRecord) -> Iterator[bytes]:
    """Yield the requests of a smaller batch in their wire form, in chunks, joined by commas."""
    name = nonce_of_round(job, record)
    for first, body, chosen in _read_chosen(store, job_id, batch, positions_in_batch(store, job_id, batch, record)):
        ids = (batch_requests.wire_id(name, record.first + first + at) for at in chosen)
        yield b",".join(batch_requests.rewrite_ids(body, chosen, ids))


def begin_round(store: JobContents, job_id: str, job: JobRecord, batch: int, record: BatchRecord) -> dict[str, Any]:
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
    )
    rounds = [*record.rounds, past]
    following = BatchRecord(first=record.first, count=record.count, body_bytes=0, rounds=rounds)
    bodies = [len(piece) for piece in read_chunks(store, job_id, job, batch, following)]
    return {
        **reset_fields("round"),
        "rounds": rounds,
        "smaller": record.eligible,
        "smaller_bytes": sum(bodies) + len(bodies) - 1 + sum(map(len, batch_requests.ENVELOPE)),
        "turn": record.turn + 1,
        "attempts_before": record.attempt,
        # However the next search ends: it does not look for this batch.
        "rejected_ids": [*record.rejected_ids, *([record.batch_id] if record.batch_id else [])],
    }


def read_staged(store: HasPayloads, job_id: str, batch: int) -> Iterator[tuple[list[str], bytes]]:
    """Yield the chunks of a batch as it was submitted: custom_ids, and the requests in their wire form.

    Raises:
        ResultsMissing: some chunks are gone.
    """
    nothing: Any = object()
    for ids, body in zip_longest(
        store.payloads.read_custom_ids(job_id, batch), store.payloads.read_bodies(job_id, batch), fillvalue=nothing
    ):
        if ids is nothing or body is nothing:
            raise ResultsMissing(
                f"the requests of batch {batch_number(batch)} of job {job_id} are no longer all in the store"
            )
        yield ids, body


def read_params_left(store: JobContents, job_id: str, batch: int, record: BatchRecord) -> Iterator[bytes]:
    """Yield the params, as JSON, of the requests that are eligible for resubmission or fallback."""
    for _, body, chosen in _read_chosen(store, job_id, batch, positions_left(store, job_id, batch, record)):
        yield from batch_requests.pick_requests(body, chosen)


def merge_rows(record: BatchRecord, seen: Completeness) -> dict[str, Any]:
    """Combine the rows of a batch's present round with the last round's: they replace the open requests of that."""
    changes: dict[str, Any] = {
        "counts": dict(seen.tallies),
        "usage": dict(seen.usage),
        "costs": seen.meter.sum_costs(),
        "unpriced": seen.meter.count_unpriced(),
        "eligible": len(seen.eligible),
        "open": dict(seen.open),
        "rows": {**record.rows, str(record.attempt): seen.distinct},
        "failed_types": seen.failed.tallies,
        "incomplete": dict(seen.incomplete),
        "incomplete_examples": {**record.incomplete_examples, **seen.incomplete_examples},
        "failed_types_of": [record.attempt, record.answered],
    }
    if not record.rounds:
        return changes
    past = record.rounds[-1]
    counts, failed = Counter(past.counts), failure_types.tallies_of_round(past)
    if seen.complete:  # otherwise the job fails, and nobody knows which rows of the last round are replaced
        counts.subtract(past.open)
        counts.update(seen.tallies)
        failed = failure_types.merge_tallies(failed, seen.failed.tallies)
    changes |= {
        "failed_types": failed,
        "counts": dict(counts),
        "usage": dict(Counter(past.usage) + seen.usage),
        "costs": spending.merge_costs(past.costs, changes["costs"]),
        "unpriced": dict(Counter(past.unpriced) + Counter(changes["unpriced"])),
        "resubmitted": record.rounds[0].eligible if seen.complete else seen.distinct,
    }
    return changes


def count_sources(record: BatchRecord) -> Counter[tuple[str, str]]:
    """Count the requests by outcome and by source: the results of the first batch, or those of a smaller one."""
    own = Counter(record.counts)
    if record.rounds and record.resubmitted:
        own = Counter(record.rounds[0].counts)
        own.subtract(record.rounds[0].open)
    found = Counter({(outcome, "batch"): count for outcome, count in own.items()})
    for outcome, count in record.counts.items():
        found[outcome, "resubmitted"] = count - own[outcome]
    return +found


def start_round(step: Step) -> None:
    """Begin the next round: resubmit the open requests as a smaller batch."""
    record = step.batch
    changes = begin_round(step.store, step.unit.job_id, step.job, step.unit.batch or 0, record)
    wait = step.bound_wait(step.draw_countdown(len(record.rounds) + rules.RESUBMIT_AFTER))
    text = f"{changes['smaller']:,} of its requests are sent again in a smaller batch in {format_duration(wait)}"
    step.record_event(
        "resubmitted", text, requests=changes["smaller"], round=len(changes["rounds"]), countdown=round(wait, 1)
    )
    step.update_record(**changes, failures=0, due_at=step.now() + wait)
    metrics.count("smaller_batches")


def _read_chosen(
    store: HasPayloads, job_id: str, batch: int, wanted: Sequence[int]
) -> Iterator[tuple[int, bytes, list[int]]]:
    """Yield the chunks that hold wanted requests: where each begins, its body, and which of its requests are wanted."""
    first = at = 0
    for ids, body in read_staged(store, job_id, batch):
        end = bisect_left(wanted, first + len(ids), lo=at)
        if end > at:
            yield first, body, [place - first for place in wanted[at:end]]
        first, at = first + len(ids), end
