"""What applications hold: BatchJob, JobStatus, RequestResult."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import IO, Any

import msgspec
from celery import Celery

from claude_batch_tasks import export, index, line, totals
from claude_batch_tasks import requests as wire
from claude_batch_tasks.errors import JobNotFound, JobRunning, RequestNotFound
from claude_batch_tasks.reading import Order, Reader, RequestResult, Type, as_result
from claude_batch_tasks.results import OUTCOMES
from claude_batch_tasks.settings import Settings, configured_app
from claude_batch_tasks.store import JobRecord, JobState, open_store

_ENDED = ("completed", "canceled", "failed", "revoked")


class BatchStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One batch of a job, as last seen."""

    batch_id: str | None
    state: str
    requests: int
    looks: int
    not_found: int
    next_look: datetime | None
    error: str | None


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job is. The outcome counts stay zero until a whole batch has ended: so Anthropic counts."""

    job_id: str
    state: JobState
    requests: int
    processing: int
    succeeded: int
    errored: int
    expired: int
    canceled: int
    batches: tuple[BatchStatus, ...]
    looks: int
    not_found: int
    """404s the API gave for this job's batches so far."""
    next_look: datetime | None
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    error: str | None
    summary: dict[str, Any] | None
    """What ``result.get()`` returns, once the job has ended."""

    @property
    def done(self) -> int:
        """Requests that have an outcome."""
        return self.succeeded + self.errored + self.expired + self.canceled


class BatchJob:
    """A job in the store, by the id that ``run_batch.delay()`` returned. Needs no worker and no API key.

    Args:
        job_id: the id of the AsyncResult.
        app: the Celery app whose settings say where the store is; default: the current one.

    Every method raises ``JobNotFound`` if the store has no such job, ``StoreUnavailable`` if it does not answer.
    """

    def __init__(self, job_id: str, app: Celery | None = None) -> None:
        self.job_id = job_id
        self._app = app or configured_app()
        url = Settings.of(self._app).store_url
        assert url is not None
        self._store = open_store(url)

    def __repr__(self) -> str:
        return f"BatchJob({self.job_id!r})"

    def status(self) -> JobStatus:
        """How far the job is, from the store alone."""
        job = self._job()
        batches = self._store.batches(self.job_id)
        counts = totals.tally(batches)
        ended = job.state in _ENDED
        return JobStatus(
            job_id=self.job_id,
            state=job.state,
            requests=job.requests,
            processing=0 if ended else max(job.requests - sum(counts.values()), 0),
            **{name: counts[name] for name in OUTCOMES},
            batches=tuple(
                BatchStatus(
                    batch_id=batch.batch_id,
                    state="done" if batch.done and batch.state == "fetched" else batch.state,
                    requests=batch.count,
                    looks=batch.looks,
                    not_found=batch.not_found,
                    next_look=None if batch.done else totals.moment(batch.due_at),
                    error=str(batch.error[1][0]) if batch.error else None,
                )
                for batch in batches
            ),
            looks=sum(batch.looks for batch in batches),
            not_found=sum(batch.not_found for batch in batches),
            next_look=totals.moment(totals.next_look(batches)),
            submitted_at=datetime.fromtimestamp(job.submitted_at, timezone.utc),
            started_at=totals.moment(job.started_at),
            ended_at=totals.moment(job.ended_at),
            error=job.error,
            summary=job.summary,
        )

    def results(self, type: Type | None = None, *, order: Order = "stored") -> Iterator[RequestResult]:
        """Each request's outcome, in constant memory.

        While the job runs: of the batches that are finished. Safe to call at any time and from anywhere.

        Args:
            type: only those that ``succeeded``, ``errored``, ``expired`` or were ``canceled``.
            order: ``stored``, as they came from Anthropic, or ``request``, as the requests were handed over, for
                which a batch's outcomes go through a temporary file.

        Raises:
            ValueError: there is no such type or order.
        """
        readers = self._readers(type, order)
        return (result for reader in readers for result in reader.results(type, order))

    def result(self, custom_id: str) -> RequestResult:
        """One request's outcome; looks at nothing but what holds it.

        Raises:
            RequestNotFound: the job has no such request, or it has no outcome (yet).
        """
        job = self._job()
        where = index.find(self._store.index_part(self.job_id, index.part(custom_id)), custom_id)
        batches = self._store.batches(self.job_id) if where is not None else ()
        for number, batch in enumerate(batches):
            place = (where or 0) - batch.first
            if 0 <= place < batch.count and self._store.custom_id(self.job_id, number, place) == custom_id:
                reader = Reader(self._store, self.job_id, job, number, batch)
                outcome = reader.outcome(place) if batch.done else None
                if outcome is None:
                    raise RequestNotFound(f"request {custom_id!r} of job {self.job_id} has no outcome yet")
                return as_result(custom_id, outcome)
        raise RequestNotFound(f"job {self.job_id} has no request {custom_id!r}")

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
        """The requests as they were handed over, as ``run_batch`` takes them; for submitting them again."""
        self._job()
        for number, _ in enumerate(self._store.batches(self.job_id)):
            pieces = zip(
                self._store.custom_ids(self.job_id, number), self._store.bodies(self.job_id, number), strict=True
            )
            for ids, body in pieces:
                for custom_id, params in zip(ids, wire.pick(body, range(len(ids))), strict=True):
                    yield {"custom_id": custom_id, "params": msgspec.json.decode(params)}

    def cancel(self) -> None:
        """Ask for the job to be canceled: what Anthropic has processed keeps its results, the rest ends as canceled.

        Returns at once; a worker asks Anthropic. The job's AsyncResult then ends with a summary whose ``state`` is
        ``canceled``. A job that has ended already is left as it is.
        """
        from claude_batch_tasks.tasks import cancel_batch

        job = self._job()
        if job.state in _ENDED:
            return
        self._store.update_job(self.job_id, cancel_requested=True)
        task = self._app.tasks[cancel_batch.name]
        for number in range(job.batches):
            task.apply_async((self.job_id, number), **line.routed(job.queue))

    def delete(self) -> None:
        """Remove all of the job from the store now: requests, results and record. Its AsyncResult stays.

        Raises:
            JobRunning: it has not ended; nothing was removed.
        """
        # One that has not begun is revoked first: a worker that takes its message now must not pay for it.
        if not self._store.update_job(self.job_id, only="staged", state="revoked", ended_at=time.time()):
            state = self._job().state
            if state not in _ENDED:
                raise JobRunning(
                    f"job {self.job_id} is {state}, and what it pays for would be lost; "
                    "cancel() it, and delete it when it has ended"
                )
        self._store.delete(self.job_id, remember=True)

    def _job(self) -> JobRecord:
        if (job := self._store.job(self.job_id)) is None:
            raise JobNotFound(
                f"no job {self.job_id} in the store: it was never submitted there, or its record has expired"
            )
        return job

    def _readers(self, only: str | None, order: str) -> Iterator[Reader]:
        """Of the batches that are finished by now."""
        _one_of("type", only, (*OUTCOMES, None))
        _one_of("order", order, ("stored", "request"))
        job = self._job()
        done = [(number, batch) for number, batch in enumerate(self._store.batches(self.job_id)) if batch.done]
        wanted = ((number, batch) for number, batch in done if only is None or batch.counts.get(only))
        return (Reader(self._store, self.job_id, job, number, batch) for number, batch in wanted)


def _one_of(name: str, value: Any, known: tuple[Any, ...]) -> Any:
    if value not in known:
        raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, not {value!r}")
    return value
