"""What the store must have of a job, and what a reader says if some of it is lost.

A Redis that evicts takes single keys, at any moment. Every reader of outcomes counts them, and a reader that finds
fewer than the job's records say raises what is made here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal, Protocol

from claude_batch_tasks import rules
from claude_batch_tasks.errors import BatchTasksError, JobNotFound, ResultsMissing, StoreUnavailable
from claude_batch_tasks.formatting import describe_missing_job, format_count, format_time
from claude_batch_tasks.records import BatchRecord, JobRecord, Unit, batch_index, batch_number
from claude_batch_tasks.store import history
from claude_batch_tasks.store.interface import HasHistory, HasJobs, HasPayloads, HasPools, HasRecords, Journal, Ledger
from claude_batch_tasks.wire import batch_requests

Absence = Literal["job gone", "lost", "fetched again", "derived", "harmless", "repaired"]

#: How the name of an object begins, which has payloads in place of the store, and what to do where such are lost.
_OBJECTS = ("s3://", "gs://", "az://", "file://")
_KEEP_OBJECTS = "Let nobody, and no lifecycle rule, remove objects of jobs that the store still has."

#: What it means that a key of a job is not there.
#: ``job gone``: everybody who asks for the job gets JobNotFound.
#: ``lost``: it cannot be had again; whoever needs it gets ResultsMissing.
#: ``fetched again``: likewise, until a worker has downloaded it once more, which is not billed.
#: ``derived``: readers find out from other keys what it says.
#: ``repaired``: steps or the workers' watch make it anew, or end what needs it, without paying for anything twice.
#: ``harmless``: nobody's outcome, and nothing that is paid for, depends on it.
OF_A_JOB: dict[str, Absence] = {
    "job": "job gone",
    "batch": "repaired",
    "body": "lost",  # requests(); a batch that was not created fails before anything of it is sent
    "ids": "lost",
    "outcomes": "lost",
    "rows": "fetched again",
    "sizes": "derived",  # from ids
    "index": "derived",  # from ids; an adopted job's from its rows
    "pieces": "derived",  # from rows
    "eligible": "repaired",  # with the rows, before a step needs it
    "again": "repaired",
    "to_send": "repaired",  # what was in it is not sent: it may have been
    "sent": "repaired",
    "lanes": "repaired",
    "money": "repaired",  # nothing more is paid for where a limit is set
    "refused": "harmless",
    "announced": "harmless",  # on_result may be called a second time with the same ids
    "delivered": "harmless",  # redeliver() may hand over again what was delivered
    "undelivered": "harmless",
    "given_up": "harmless",  # an answer that comes late does not replace what was written in its place
    "history": "harmless",
    "staging": "lost",  # the job is not made
}

#: And of one of all jobs' keys.
OF_ALL_JOBS: dict[str, Absence] = {
    "due": "repaired",
    "waiting": "repaired",
    "jobs": "repaired",
    "schema": "repaired",
    "identity": "harmless",  # what was written to an object store under the old one is left to its lifecycle rule
    "restore": "harmless",  # the next who reads asks again
    "first": "harmless",
    "deleted": "harmless",
    "owner": "harmless",  # what another job finds instead is confirmed by the ids in its results
    "account": "harmless",
    "held": "harmless",
    "late": "harmless",
    "pace": "harmless",
    "census": "harmless",
}

#: Keys that an error names.
_NAMED = 5

#: Downloads of a batch whose record is gone that may be in the store: the next is not to be taken for one of them.
_ATTEMPTS = 20


def rows_expected(batch: BatchRecord, attempt: int, round_: int) -> int | None:
    """Return how many rows a published attempt has; None: not known."""
    if (known := batch.rows.get(str(attempt))) is not None:
        return known
    # An earlier release did not count them; what is published and did not fail is whole.
    if batch.error is not None and round_ == len(batch.rounds):
        return None
    return batch.rounds[round_ - 1].sent if round_ else batch.count


def answers_lost(batch: BatchRecord, *, stored: int, answers: int) -> int:
    """Return how many outcomes of the Messages API are missing.

    Args:
        stored: requests that have one, or the reason why they have none.
        answers: those that have one.
    """
    return max(batch.stored - stored, batch.answered - answers if batch.final else 0, 0)


def names_fetched(batch: BatchRecord, attempt: int, round_: int) -> list[str]:
    """Return the names of the keys that a published attempt has."""
    again = (batch.rounds[round_] if round_ < len(batch.rounds) else batch).again
    names = ("rows", "pieces", "eligible") if again is None else ("rows", "pieces", "eligible", "again")
    return [f"{name}:{attempt}" for name in names]


def all_names_fetched(batch: BatchRecord) -> list[str]:
    """Return the names of the keys of all published attempts of a batch."""
    return [name for attempt, round_ in batch.layers for name in names_fetched(batch, attempt, round_)]


def layer_names(batch: BatchRecord, *names: str) -> list[str]:
    """Return the names of such keys, one for each published attempt."""
    return [f"{name}:{attempt}" for attempt, _ in batch.layers for name in names]


class JobsAndPools(HasJobs, HasPools, Protocol):
    """Jobs, and the pools that become jobs of the same ids."""


def of_job(store: JobsAndPools, job_id: str) -> JobNotFound:
    """Return the error for a reader of a job that the store does not know."""
    pool = store.pools.read_pool(job_id)
    if pool is None or pool.state in ("sealed", "divided"):
        return JobNotFound(f"no job {job_id} in the store: it was never submitted there, or its record has expired")
    asks = format_count(pool.count - pool.withdrawn, "ask")
    return JobNotFound(f"{job_id} is a pool of {asks}, and no job yet: claude-batch pools shows when it becomes one")


def of_outcomes(
    store: Ledger, job_id: str, job: JobRecord, number: int, batch: BatchRecord, missing: int, answers: int = 0
) -> BatchTasksError:
    """Return the error for a reader that found fewer outcomes of a batch than its record counts.

    Args:
        missing: how many.
        answers: of these, how many came through the Messages API.
    """
    if store.jobs.read_job(job_id) is None:
        return JobNotFound(describe_missing_job(job_id))
    now = store.records.read_batch(job_id, number)
    if now is not None and now.layers != batch.layers:
        return ResultsMissing(f"{_name(job_id, job, number)} was fetched again while it was read; read it again")
    rows = store.storage.missing_keys(job_id, number, layer_names(batch, "rows"))
    keys = rows + (store.storage.missing_keys(job_id, number, ["outcomes"]) if answers else [])
    text = f"{_name(job_id, job, number)}: {_are_gone(missing, 'outcome', batch.count, keys)}."
    if answers:
        text += f" {answers:,} of them came through the Messages API: they were paid for, and cannot be fetched again."
    if missing > answers or rows:
        text += f" {_fetched_again(store, job_id, batch)}"
    return ResultsMissing(f"{text} {_advise(store, keys)}", missing, keys)


def of_names(store: Ledger, job_id: str, job: JobRecord, number: int, batch: BatchRecord) -> BatchTasksError:
    """Return the error for a reader that cannot say which outcome is which request's."""
    if store.jobs.read_job(job_id) is None:
        return JobNotFound(describe_missing_job(job_id))
    keys = store.storage.missing_keys(job_id, number, ["ids"])
    text = f"{_name(job_id, job, number)}: {_are_gone(batch.count, 'custom_id', batch.count, keys)}."
    if batch.batch_id:
        text += (
            f" The answers are in {batch.batch_id} at Anthropic{_until(batch)}, where each custom_id ends with the "
            f"position of its request in the job, from {batch.first} on."
        )
    return ResultsMissing(f"{text} {_advise(store, keys)}", batch.count, keys)


def of_requests(store: Ledger, job_id: str, job: JobRecord, number: int, batch: BatchRecord) -> BatchTasksError:
    """Return the error for requests of a batch that are gone."""
    if store.jobs.read_job(job_id) is None:
        return JobNotFound(describe_missing_job(job_id))
    keys = store.storage.missing_keys(job_id, number, ["body", "ids"])
    text = f"{_name(job_id, job, number)}: {_are_gone(batch.count, 'request', batch.count, keys)}."
    return ResultsMissing(f"{text} {_advise(store, keys)}", batch.count, keys)


def of_records(
    store: HasRecords, job_id: str, job: JobRecord, records: Sequence[BatchRecord | None]
) -> ResultsMissing | None:
    """Return the error for a reader of the whole job if records are gone, or the job has ended without outcomes."""
    known = [record for record in records if record is not None]
    if len(known) < len(records):
        return _of_gone(store, job_id, job, records, known)
    if job.state in ("completed", "canceled"):
        return _of_unfinished(job_id, job, [record for record in known if not record.done])
    return None


def _of_gone(
    store: HasRecords,
    job_id: str,
    job: JobRecord,
    records: Sequence[BatchRecord | None],
    known: Sequence[BatchRecord],
) -> ResultsMissing:
    gone = [number for number, record in enumerate(records) if record is None]
    keys = [store.records.name_batch(job_id, number) for number in gone[:_NAMED]]
    missing = max(job.requests - sum(record.count for record in known), 0)
    return ResultsMissing(
        f"job {job_id}: the records of {len(gone):,} of its {format_count(job.batches, 'batch')} are gone from the "
        f"store ({', '.join(keys)}), and with them the location of the outcomes of {format_count(missing, 'request')}. "
        f"To fetch again what is at Anthropic, free of charge: BatchJob({job_id!r}).resume(). "
        f"{store.records.loss_advice}",
        missing,
        keys,
    )


def _of_unfinished(job_id: str, job: JobRecord, left: Sequence[BatchRecord]) -> ResultsMissing | None:
    if missing := sum(record.count for record in left):
        return ResultsMissing(
            f"job {job_id}: it ended without the outcomes of {format_count(missing, 'request')} "
            f"in {len(left):,} of its {format_count(job.batches, 'batch')}. "
            f"To continue, which creates nothing a second time: BatchJob({job_id!r}).resume()",
            missing,
        )
    return None


def extent(
    store: HasPayloads, job_id: str, job: JobRecord, records: Sequence[BatchRecord | None], number: int
) -> tuple[int, int]:
    """Return the first request of a batch whose record is gone, and how many there are.

    Raises:
        ResultsMissing: nothing is left that says so.
    """
    before = records[number - 1] if number else None
    if before is not None:
        first = before.first + before.count
    else:
        first = sum(extent(store, job_id, job, records, number - 1)) if number else 0
    if number + 1 == job.batches:
        return first, job.requests - first
    after = records[number + 1]
    return first, (
        after.first - first if after is not None else sum(map(len, store.payloads.read_custom_ids(job_id, number)))
    )


def batches_to_restore(store: Ledger, job_id: str, records: Sequence[BatchRecord | None]) -> list[int]:
    """Return the batches of which a worker may download something again."""
    return [
        number
        for number, record in enumerate(records)
        if (
            record is not None
            and record.batch_id is not None
            and record.layers
            and store.now() < (record.created_at or math.inf) + rules.RETENTION
            and store.storage.missing_keys(job_id, number, all_names_fetched(record))
        )
    ]


class Replaceable(Ledger, Journal, HasPayloads, Protocol):
    """What it takes to replace the lost record of a batch."""


def replace_lost_batches(store: Replaceable, job_id: str, job: JobRecord) -> int:
    """Replace each lost batch record by one that has failed, so that the job can end; return how many.

    If the history says which batch it was at Anthropic, the record has its id: resuming the job downloads its results.
    """
    records = store.records.find_batches(job_id)
    gone = [number for number, record in enumerate(records) if record is None]
    if not gone:
        return 0
    created, further = _from_history(store, job_id)
    # What a retry took may be paid for, and the lost record had which requests those are.
    further.update(int(number) for retry in job.retries for number in retry.taken)
    for number in gone:
        try:
            first, count = extent(store, job_id, job, records, number)
        except ResultsMissing:
            first = count = 0
        batch_id = created.get(number)
        may_exist = batch_id is None and number < job.admitted
        what = f"the record of batch {batch_number(number)}, {format_count(count, 'request')}, is gone from the store"
        record = BatchRecord(
            first=first,
            count=count,
            body_bytes=sum(map(len, batch_requests.ENVELOPE)) - 1,
            state="failed",
            batch_id=batch_id,
            intent_at=job.started_at if may_exist else None,
            attempt=_ATTEMPTS,
            read_only=number in further,
            error=["ResultsMissing", [what, count, [store.records.name_batch(job_id, number)]]],
            done=True,
        )
        record.body_bytes += _sum_body(store, job_id, number)
        if store.records.replace_batch(job_id, number, record, job.batches):
            history.note(store, Unit(job_id, number), "failed", what, level=logging.WARNING, job=job, batch_id=batch_id)
    return len(gone)


def _sum_body(store: HasPayloads, job_id: str, number: int) -> int:
    """Return how many bytes the requests of a batch have in the body of a create, as far as they are there."""
    size = 0
    with suppress(ResultsMissing):
        for chunk in store.payloads.read_bodies(job_id, number):
            size += len(chunk) + 1
    return size


def _from_history(store: HasHistory, job_id: str) -> tuple[dict[int, str], set[int]]:
    """Return what the history says of batches, by index: their ids at Anthropic, and which were sent again."""
    created: dict[int, str] = {}
    further: set[int] = set()
    for event in store.history.read_events(job_id):
        if event.batch is None:
            continue
        index, batch_id = batch_index(event.batch), event.details.get("batch_id")
        if event.event in ("resubmitted", "messages"):
            further.add(index)
        elif event.event == "given_back":
            created.pop(index, None)
        elif event.event in ("created", "adopted", "seen", "ended") and batch_id and index not in further:
            created[index] = batch_id
    return created, further


def _name(job_id: str, job: JobRecord, number: int) -> str:
    return f"job {job_id}, batch {batch_number(number)} of {job.batches}"


def _are_gone(missing: int, what: str, count: int, keys: Sequence[str]) -> str:
    named = ", ".join(keys[:_NAMED]) + (f" and {len(keys) - _NAMED} more" if keys[_NAMED:] else "")
    return f"{missing:,} of {format_count(count, what)} are gone from the store" + (f" ({named})" if named else "")


def _advise(store: HasRecords, keys: Sequence[str]) -> str:
    """Return what an operator is to do about a store that loses these."""
    return _KEEP_OBJECTS if any(key.startswith(_OBJECTS) for key in keys) else store.records.loss_advice


def _until(batch: BatchRecord) -> str:
    return f" until {format_time(batch.created_at + rules.RETENTION)}" if batch.created_at is not None else ""


def _fetched_again(store: Ledger, job_id: str, batch: BatchRecord) -> str:
    """Ask a worker to download the rows again, and say so."""
    until = math.inf if batch.created_at is None else batch.created_at + rules.RETENTION
    if store.now() > until:
        return f"Anthropic deleted them at {format_time(until)}: they are no longer available."
    with suppress(StoreUnavailable):  # it may be for reading only
        store.records.request_restore(job_id)
    return (
        f"They are at Anthropic{_until(batch)}, and workers fetch them again, free of charge; "
        f"BatchJob({job_id!r}).resume() does it at once."
    )
