"""The requests of a batch: as they were submitted, and as they are sent in a smaller batch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

from claude_batch_tasks import outputs
from claude_batch_tasks.errors import ResultsMissing
from claude_batch_tasks.lifecycle.resubmission.positions import nonce_of_round, positions_in_batch, positions_left
from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.records import BatchRecord, JobRecord, RepairOptions, batch_number
from claude_batch_tasks.results.stored.batch_rows import BatchRows
from claude_batch_tasks.store import HasPayloads, JobContents, ReadableStore
from claude_batch_tasks.wire import batch_requests, repairs
from claude_batch_tasks.wire.stored_rows import EarlierRows, Origin, Sending

#: What 0.2.0 sends again: everything that had failed, as it was submitted.
_ALL_FAILED = RepairOptions(retries=1_000_000_000)


def read_chunks(store: ReadableStore, job_id: str, job: JobRecord, batch: int, record: BatchRecord) -> Iterator[bytes]:
    """Yield the requests of a smaller batch in their wire form, in chunks, joined by commas."""
    name = nonce_of_round(job, record)
    for sent in _read_sent(store, job_id, job, batch, record):
        yield b",".join(
            batch_requests.encode_item(batch_requests.wire_id(name, record.first + place), params)
            for place, params in sent
        )


def read_params_sent(
    store: ReadableStore, job_id: str, job: JobRecord, batch: int, record: BatchRecord
) -> Iterator[bytes]:
    """Yield the params, as JSON, of the requests of the batch that is, or will be, at Anthropic."""
    for sent in _read_sent(store, job_id, job, batch, record):
        yield from (params for _, params in sent)


def _read_sent(
    store: ReadableStore, job_id: str, job: JobRecord, batch: int, record: BatchRecord
) -> Iterator[list[tuple[int, bytes]]]:
    """Yield the positions and params of the requests of the present batch, chunk by chunk."""
    places = positions_in_batch(store, job_id, batch, record)
    past = record.rounds[-1].again if record.rounds else None
    find = None if past is None else find_sendings(store, job_id, job, batch, record, places)
    for first, body, chosen in read_chosen(store, job_id, batch, places):
        found = zip((first + at for at in chosen), batch_requests.pick_requests(body, chosen), strict=True)
        if find is None or past is None:
            yield list(found)
        else:
            yield [(place, repairs.repair_params(params, find(place), past.options)) for place, params in found]


def find_sendings(
    store: ReadableStore,
    job_id: str,
    job: JobRecord,
    batch: int,
    record: BatchRecord,
    places: Sequence[int],
    prices: Prices | None = None,
) -> Callable[[int], Sending]:
    """Return what says how each request of a smaller batch was, or is, sent.

    Args:
        places: the positions of its requests.
        prices: what models cost.

    Raises:
        ResultsMissing: rows of the round before are gone.
    """
    origins = [Origin(past.batch_id, prices or Prices(), past.created_at) for past in record.rounds]
    found, wanted = EarlierRows(record.count, origins), bytearray(record.count)
    for place in places:
        wanted[place] = True
    # Before its own rows: those of the rounds that are over.
    then = BatchRecord(first=record.first, count=record.count, body_bytes=0, rounds=record.rounds)
    for place, line, round_ in BatchRows(store, job_id, job, batch, then, prices or Prices()).read_last_rows(wanted):
        found.add_row(place, line, round_)
    if found.found < len(places):
        missing = len(places) - found.found
        raise ResultsMissing(f"{missing:,} rows are gone from the store of requests that are sent again", missing)
    past = record.rounds[-1].again
    options = _ALL_FAILED if past is None else past.options
    return lambda place: Sending(found[place], options, outputs.make_turns)


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
    """Yield the params, as JSON, of the requests that are eligible for the Messages API."""
    yield from read_params(store, job_id, batch, positions_left(store, job_id, batch, record))


def read_params(store: HasPayloads, job_id: str, batch: int, wanted: Sequence[int]) -> Iterator[bytes]:
    """Yield the params of wanted requests as they were submitted, as JSON."""
    for _, body, chosen in read_chosen(store, job_id, batch, wanted):
        yield from batch_requests.pick_requests(body, chosen)


def read_chosen(
    store: HasPayloads, job_id: str, batch: int, wanted: Sequence[int]
) -> Iterator[tuple[int, bytes, list[int]]]:
    """Yield the chunks that hold wanted requests: where each begins, its body, and which of its requests are wanted."""
    first = at = 0
    for ids, body in read_staged(store, job_id, batch):
        end = bisect_left(wanted, first + len(ids), lo=at)
        if end > at:
            yield first, body, [place - first for place in wanted[at:end]]
        first, at = first + len(ids), end
