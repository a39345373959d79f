"""The positions of a batch's requests that are, were or may be sent again."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

from claude_batch_tasks.errors import ResultsMissing
from claude_batch_tasks.records import Again, BatchRecord, JobRecord
from claude_batch_tasks.steps import Step
from claude_batch_tasks.store import HasResults
from claude_batch_tasks.wire import batch_requests


def nonce_of_round(job: JobRecord, record: BatchRecord) -> str:
    """Return the nonce in the wire ids of the batch that is, or will be, at Anthropic."""
    return batch_requests.round_nonce(job.nonce, len(record.rounds))


def holds_request(job: JobRecord, record: BatchRecord, custom_id: str) -> bool:
    """Return whether a custom_id on the wire is that of a request of the batch that is at Anthropic."""
    index = batch_requests.index_of(nonce_of_round(job, record), custom_id)
    # The whole job has one nonce: its other batches may be of the same size.
    return index is not None and 0 <= index - record.first < record.count


def positions_in_batch(store: HasResults, job_id: str, batch: int, record: BatchRecord) -> Sequence[int]:
    """Return the positions of the requests in the batch that is, or will be, at Anthropic, in their order."""
    if not record.rounds:
        return range(record.count)
    past = record.rounds[-1]
    if past.again is not None:
        return _read_again(store, job_id, batch, past.attempt, past.again)
    return _unpack_positions(store.results.read_eligible(job_id, batch, past.attempt), past.eligible)


def positions_left(store: HasResults, job_id: str, batch: int, record: BatchRecord) -> Sequence[int]:
    """Return the positions of the requests that are eligible for the Messages API, in their order."""
    if not record.layers:
        return range(record.count)
    # Before the batch has rows of its own, the eligible requests are those of the last round.
    expected = record.eligible if record.published is not None else record.rounds[-1].eligible
    return _unpack_positions(store.results.read_eligible(job_id, batch, record.layers[0][0]), expected)


def positions_carried(
    store: HasResults, job_id: str, batch: int, record: BatchRecord, places: Sequence[int]
) -> Iterator[int]:
    """Return the positions of the requests that may go to the Messages API and are not in the present batch.

    Args:
        places: the positions of the requests in the present batch.
    """
    past, sent = record.rounds[-1], bytearray(record.count)
    for place in places:
        sent[place] = True
    left = _unpack_positions(store.results.read_eligible(job_id, batch, past.attempt), past.eligible)
    return (place for place in left if not sent[place])


def final_positions(step: Step) -> Iterator[int]:
    """Return the positions of the batch's requests that are not sent again."""
    store, job_id, batch, record = step.store, step.unit.job_id, step.unit.batch or 0, step.batch
    left = bytearray(record.count)
    for place in positions_left(store, job_id, batch, record):
        left[place] = True
    if record.published is not None and record.again is not None:
        for place in _read_again(store, job_id, batch, record.published, record.again):
            left[place] = True
    return (place for place in range(record.count) if not left[place])


def _read_again(store: HasResults, job_id: str, batch: int, attempt: int, again: Again) -> Sequence[int]:
    """Return the positions of the requests in a next batch, without those for which it has no room."""
    packed = store.results.read_again(job_id, batch, attempt)
    _unpack_positions(packed, again.count + again.left)
    return _unpack_positions(packed[: 4 * again.count], again.count)


def _unpack_positions(packed: bytes, expected: int) -> Sequence[int]:
    found = array("I")
    if len(packed) != expected * found.itemsize:
        raise ResultsMissing(
            f"which {expected:,} requests are to be sent again is gone from the store, or was changed there", expected
        )
    found.frombytes(packed)
    return array("I", sorted(found))
