"""What applications hold: BatchJob, JobStatus, RequestResult."""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, cast, get_args

import msgspec
from celery import Celery
from celery.result import AsyncResult

from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.errors import JobNotFound, JobRunning, RequestNotFound, RequestsUnknown, ResultsMissing
from claude_batch_tasks.jobs import resuming
from claude_batch_tasks.jobs.job_status import JobStatus, batch_status_of
from claude_batch_tasks.lifecycle import resubmission
from claude_batch_tasks.records import BatchRecord, Costs, HistoryEvent, JobRecord, JobState, Summary, Unit
from claude_batch_tasks.results import export
from claude_batch_tasks.results.async_result import JobResult
from claude_batch_tasks.results.reader import Ids, Order, Reader, RequestResult, Type, as_result, names
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import job_summary, message_headers, routing
from claude_batch_tasks.store import history, lost_records, open_store
from claude_batch_tasks.wire import batch_requests, custom_ids
from claude_batch_tasks.wire.result_rows import OUTCOMES

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from claude_batch_tasks.settings.job_options import JobSettings

_ENDED = ("completed", "canceled", "failed", "revoked")


class BatchJob:
    """A job in the store, by the id that ``run_batch.delay()`` returned. Needs no worker and no API key.

    Args:
        job_id: the id of the AsyncResult.
        app: the Celery app whose settings say where the store is; default: the current one.

    Every method raises ``JobNotFound`` if the store has no such job, ``StoreUnavailable`` if it does not answer. Those
    that read results or requests raise ``ResultsMissing`` where the store has lost some of them.
    """

    def __init__(self, job_id: str, app: Celery | None = None) -> None:
        self.job_id = job_id
        self._app = app or configured_app()
        self._store = open_store(Settings.of(self._app))
        self._result: AsyncResult[Summary] | None = None
        """What to wait for, where it is not the job's own: ``task_always_eager`` had it run in this process, and no
        result back end knows of it, or what it had lost is fetched again."""

    def __repr__(self) -> str:
        return f"BatchJob({self.job_id!r})"

    def status(self) -> JobStatus:
        """How far the job is, from the store alone."""
        return self._status(self._job())

    def _status(self, job: JobRecord) -> JobStatus:
        records = self._store.records.find_batches(self.job_id)
        batches = [record for record in records if record is not None]
        counts: Mapping[str, int] = job_summary.count_outcomes(batches)
        ended, costs = job.state in _ENDED, job_summary.sum_costs(batches)
        if len(batches) < len(records) and job.summary:
            counts, costs = job.summary, cast("Costs", job.summary)  # it was made when all were there
        return JobStatus(
            job_id=self.job_id,
            state=job.state,
            requests=job.requests,
            processing=0 if ended else max(job.requests - sum(counts[name] for name in OUTCOMES), 0),
            **{name: counts[name] for name in OUTCOMES},
            batches=tuple(map(batch_status_of, records)),
            looks=sum(batch.looks for batch in batches),
            not_found=sum(batch.not_found for batch in batches),
            resubmitted=sum(batch.resubmitted for batch in batches),
            fallback=sum(batch.answered for batch in batches),
            fallback_skipped=sum(batch.skipped for batch in batches),
            stopped=job.stopped,
            not_sent=job.not_sent,
            on_result_error=job.on_result_error,
            cost=costs["cost"],
            cost_by_model=costs["cost_by_model"],
            cost_unknown=costs["cost_unknown"],
            next_look=job_summary.to_datetime(job_summary.next_poll_at(batches)),
            submitted_at=datetime.fromtimestamp(job.submitted_at, timezone.utc),
            started_at=job_summary.to_datetime(job.started_at),
            ended_at=job_summary.to_datetime(job.ended_at),
            error=job.error,
            summary=cast("Summary | None", job.summary),
        )

    def history(self) -> list[HistoryEvent]:
        """What happened to the job, the oldest first: created, each 404 and the countdown it became, ended, fetched.

        At most 1,000 entries: of a longer story the first 200, the last 800, and between them one, ``left_out``, that
        says how many are not kept.
        """
        self._job()
        return self._store.history.read_events(self.job_id)

    def results(
        self, type: Type | None = None, *, order: Order = "stored", ids: Iterable[str] | None = None
    ) -> Iterator[RequestResult]:
        """Each request's outcome, in constant memory.

        While the job runs: of the batches that are finished. Safe to call at any time and from anywhere.

        Args:
            type: only those that ``succeeded``, ``errored``, ``expired`` or were ``canceled``.
            order: ``stored``, as they came from Anthropic, or ``request``, as the requests were handed over, for
                which a batch's outcomes go through a temporary file.
            ids: only those of these custom_ids, such as ``on_result`` is called with, in no order: also of batches
                that are not finished, as soon as they are final. Ids that the job does not have are left out.

        Raises:
            ValueError: there is no such type or order.
        """
        if ids is not None:
            _check(type, order)
            return (result for result in self._chosen(self._places(ids)) if type in (None, result.type))
        readers = self._readers(type, order)
        return (result for reader in readers for result in reader.results(type, order))

    def result(self, custom_id: str) -> RequestResult:
        """One request's outcome; looks at nothing but what holds it.

        Raises:
            RequestNotFound: the job has no such request, or it has no outcome (yet).
        """
        places = self._places([custom_id])
        if not places:
            raise RequestNotFound(f"job {self.job_id} has no request {custom_id!r}")
        for result in self._chosen(places):
            return result
        raise RequestNotFound(f"request {custom_id!r} of job {self.job_id} has no outcome yet")

    def _places(self, ids: Iterable[str]) -> dict[int, dict[int, str]]:
        """Of those ids that the job has: by batch, the position of each."""
        job, records = self._job(), self._store.records.find_batches(self.job_id)
        if None in records and (error := lost_records.of_records(self.job_id, job, records)):
            raise error
        batches = [record for record in records if record is not None]
        # An adopted job's index came with its results.
        with_results = {"batch": 0, "attempt": batches[0].published} if job.adopted else {}
        firsts = [batch.first for batch in batches]
        parts: dict[int, bytes] = {}
        places: dict[int, dict[int, str]] = {}
        absent: set[str] = set()
        for custom_id in ids:
            if (number := custom_ids.part(custom_id)) not in parts:
                parts[number] = self._store.payloads.read_index(self.job_id, number, **with_results)
            if (where := custom_ids.find(parts[number], custom_id)) is not None:
                batch = bisect_right(firsts, where) - 1
                places.setdefault(batch, {})[where - firsts[batch]] = custom_id
            else:
                absent.add(custom_id)
        if absent and self._index_is_gone(job, batches):
            return self._search(job, batches, absent.union(*(found.values() for found in places.values())))
        if job.adopted:
            return places
        # The index knows the digests of ids only.
        for batch, found in places.items():
            sent = self._names(job, batch, batches[batch]) if len(found) > 1 else None
            for place, custom_id in list(found.items()):
                if custom_id != (sent[place] if sent else self._name(job, batch, batches[batch], place)):
                    del found[place]
        return {batch: found for batch, found in places.items() if found}

    def _index_is_gone(self, job: JobRecord, batches: list[BatchRecord]) -> bool:
        """Whether that an id is not in the index means nothing."""
        if job.adopted:
            attempt = batches[0].published
            return attempt is not None and bool(self._store.records.missing_keys(self.job_id, 0, [f"index:{attempt}"]))
        return bool(self._store.records.missing_keys(self.job_id, None, ["index"]))

    def _search(self, job: JobRecord, batches: list[BatchRecord], ids: Collection[str]) -> dict[int, dict[int, str]]:
        """As ``_places``, without the index: all ids are read."""
        places: dict[int, dict[int, str]] = {}
        for number, batch in enumerate(batches):
            if job.adopted:
                outcomes = Reader(self._store, self.job_id, job, number, batch).outcomes()
                named: Iterable[tuple[int, str]] = ((outcome.place, outcome.row.custom_id) for outcome in outcomes)
            else:
                named = enumerate(self._names(job, number, batch))
            if found := {place: custom_id for place, custom_id in named if custom_id in ids}:
                places[number] = found
        return places

    def _names(self, job: JobRecord, number: int, batch: BatchRecord) -> Ids:
        return names(self._store, self.job_id, job, number, batch)

    def _name(self, job: JobRecord, number: int, batch: BatchRecord, place: int) -> str:
        try:
            return self._store.payloads.find_custom_id(self.job_id, number, place)
        except (ResultsMissing, IndexError):
            return self._names(job, number, batch)[place]

    def _chosen(self, places: dict[int, dict[int, str]]) -> Iterator[RequestResult]:
        """The outcomes of requests that have a final one."""
        job = self._job()
        for number, wanted in places.items():
            if (batch := self._store.records.read_batch(self.job_id, number)) is not None:
                for outcome in Reader(self._store, self.job_id, job, number, batch).chosen(wanted):
                    yield as_result(wanted[outcome.place], outcome)

    def export(
        self,
        file: str | os.PathLike[str] | IO[Any],
        format: str = "jsonl",
        *,
        type: Type | None = None,
        order: Order = "stored",
    ) -> int:
        """Write the outcomes to a file, in constant memory; like ``results()``, those of finished batches.

        Args:
            file: a path, where the file appears when it is complete, or an open file.
            format: ``jsonl``: Anthropic's result lines, ``{"custom_id", "source", "result"}`` with your custom_id;
                ``parquet``: one flat row for each, for pandas, Arrow, DuckDB (needs the extra ``arrow``).
            type, order: as for ``results()``.

        Returns:
            The number of outcomes written.

        Raises:
            ValueError: there is no such format, type or order.
            ImportError: ``parquet`` without pyarrow.
        """
        write = export.FORMATS[_one_of("format", format, tuple(export.FORMATS))]
        readers = self._readers(type, order)
        with export.opened(file) as out:
            return write(readers, out, type, order)

    def requests(self) -> Iterator[dict[str, Any]]:
        """The requests as they were handed over, as ``run_batch`` takes them; what has an outcome is paid for.

        Raises:
            RequestsUnknown: the job was adopted.
        """
        if self._job().adopted:
            raise RequestsUnknown(f"job {self.job_id} was adopted: what was sent was never here")
        return self._requests()

    def _requests(self) -> Iterator[dict[str, Any]]:
        job, records, total = self._job(), self._store.records.find_batches(self.job_id), 0
        for number, record in enumerate(records):
            count = 0
            with suppress(ResultsMissing):
                for ids, body in resubmission.read_staged(self._store, self.job_id, number):
                    for custom_id, params in zip(ids, batch_requests.pick_requests(body, range(len(ids))), strict=True):
                        yield {"custom_id": custom_id, "params": msgspec.json.decode(params)}
                    count += len(ids)
            total += count
            if record is not None and count != record.count:
                raise lost_records.of_requests(self._store, self.job_id, job, number, record)
        if total != job.requests and (error := lost_records.of_records(self.job_id, job, records)):
            raise error

    def cancel(self) -> None:
        """Ask for the job to be canceled: what Anthropic has processed keeps its results, the rest ends as canceled.

        Returns at once; a worker asks Anthropic. The job's AsyncResult then ends with a summary whose ``state`` is
        ``canceled``. A job that has ended already is left as it is.
        """
        from claude_batch_tasks.tasks import cancel_batch

        job = self._job()
        if job.state in _ENDED:
            return
        self._store.jobs.update_job(self.job_id, cancel_requested=True)
        history.note(self._store, Unit(self.job_id), "cancel", "cancel asked for")
        # Should the messages get lost: the next look sees to it.
        self._store.schedule.wake_units(Unit(self.job_id, number) for number in range(job.batches))
        task = self._app.tasks[cancel_batch.name]
        for number in range(job.batches):
            task.apply_async(
                (self.job_id, number),
                **message_headers.headers_option(job),
                **routing.follow_route(self._app, job, task.name),
            )

    def resume(self, **options: Unpack[JobSettings]) -> AsyncResult[Summary]:
        """Take a failed job up again where it stands; it keeps its id, and its AsyncResult waits once more.

        A batch that exists is looked at, never created again; one whose create was not answered is searched for first.
        ``max_wait`` counts from now. What is linked to the job and follows it in a chain runs when it ends; a chord
        that has failed with it stays failed.

        Args:
            options: per-job settings from now on, such as ``max_wait=86_400``.

        Returns:
            The AsyncResult, to wait on; one from before shows how the job had failed.

        Raises:
            JobNotResumable: it has not failed, or what it needs has expired.
            InvalidSettings: an option is unknown or makes no sense.
        """
        self._result = resuming.resume(self._app, self.job_id, self._job(), options)
        return self._result

    def get(self, timeout: float | None = None, **options: Any) -> Summary:
        """Wait for the summary: ``AsyncResult(job_id).get(timeout=...)``, which takes the same options.

        Raises:
            JobNotFound: the store has no such job (any more), and no result of it is known.
        """
        found = self._result or JobResult(self.job_id, app=self._app, expected=True)
        return found.get(timeout=timeout, **options)

    @property
    def id(self) -> str:
        """The job's id, as its AsyncResult calls it."""
        return self.job_id

    def delete(self) -> None:
        """Remove all of the job from the store now: requests, results and record. Its AsyncResult stays.

        Raises:
            JobRunning: it has not ended; nothing was removed.
        """
        # One that has not begun is revoked first: a worker that takes its message now must not pay for it.
        if not self._store.jobs.update_job(self.job_id, only="staged", state="revoked", ended_at=self._store.now()):
            state = self._job().state
            if state not in _ENDED:
                raise JobRunning(
                    f"job {self.job_id} is {state}, and what it pays for would be lost; "
                    "cancel() it, and delete it when it has ended"
                )
        self._store.jobs.delete_job(self.job_id, remember=True)

    def _job(self) -> JobRecord:
        if (job := self._store.jobs.read_job(self.job_id)) is None:
            raise JobNotFound(
                f"no job {self.job_id} in the store: it was never submitted there, or its record has expired"
            )
        return job

    def _readers(self, only: str | None, order: str) -> Iterator[Reader]:
        """Of the batches that are finished by now."""
        _check(only, order)
        return self._counted_readers(self._job(), self._store.records.find_batches(self.job_id), only)

    def _counted_readers(self, job: JobRecord, records: list[BatchRecord | None], only: str | None) -> Iterator[Reader]:
        for number, batch in enumerate(records):
            if batch is not None and batch.done and (only is None or batch.counts.get(only)):
                yield Reader(self._store, self.job_id, job, number, batch)
        if error := lost_records.of_records(self.job_id, job, records):
            raise error


def adopt(
    batch_id: str,
    *,
    client: str = "default",
    queue: str | None = None,
    app: Celery | None = None,
    **options: Unpack[JobSettings],
) -> BatchJob:
    """Make a job of a batch that was created elsewhere (in the Console, by a script): poll, fetch, results.

    Its custom_ids are those at Anthropic, its requests are not known here: what failed is not sent again. Workers begin
    within a second. A batch that the account does not show ends the job with ``BatchLost``.

    Args:
        batch_id: Anthropic's, ``msgbatch_...``.
        client: alias of the account it is on.
        queue: the queue its steps are to follow.
        app: the Celery app; default: the current one.
        options: per-job settings, such as ``max_wait=86_400``.

    Raises:
        ValueError: it is no id of a batch.
        BatchTasksError: another job has the batch.
        InvalidSettings: an option is unknown or makes no sense.
        StoreUnavailable: the store does not answer.
    """
    app = app or configured_app()
    result = resuming.adopt(app, batch_id, client, queue, options)
    job = BatchJob(result.id, app)
    job._result = result if app.conf.task_always_eager else None
    return job


def list_jobs(
    *,
    states: Collection[JobState] | None = None,
    before: datetime | None = None,
    limit: int | None = None,
    app: Celery | None = None,
) -> Iterator[JobStatus]:
    """The jobs in the store, the newest first; one at a time is read.

    Args:
        states: only those that are ``staged`` (sent, and not begun), ``running``, ``completed``, ``canceled``,
            ``failed`` or ``revoked``.
        before: only those that were submitted before that moment, which has a time zone.
        limit: so many at most.
        app: the Celery app whose settings say where the store is; default: the current one.

    Raises:
        ValueError: there is no such state, or the moment has no time zone.
        StoreUnavailable: the store does not answer.
    """
    known = get_args(JobState)
    for state in states or ():
        _one_of("states", state, known)
    if before is not None and before.tzinfo is None:
        raise ValueError(f"before must have a time zone, not {before!r}")
    app = app or configured_app()
    ids = open_store(Settings.of(app)).jobs.job_ids(math.inf if before is None else before.timestamp())
    jobs = (BatchJob(job_id, app) for job_id in ids)
    records = ((job, job._store.jobs.read_job(job.job_id)) for job in jobs)
    chosen = ((job, record) for job, record in records if record and (states is None or record.state in states))
    return (job._status(record) for job, record in islice(chosen, limit))


def _check(type: Any, order: Any) -> None:
    _one_of("type", type, (*OUTCOMES, None))
    _one_of("order", order, ("stored", "request"))


def _one_of(name: str, value: Any, known: tuple[Any, ...]) -> Any:
    if value not in known:
        raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, not {value!r}")
    return value
