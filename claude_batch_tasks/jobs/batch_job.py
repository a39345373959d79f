"""``BatchJob``, a job as applications hold it."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

from celery import Celery
from celery.result import AsyncResult

from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.jobs import changes, sent_requests
from claude_batch_tasks.jobs.job_status import JobStatus, Waits, read_status
from claude_batch_tasks.records import HistoryEvent, JobRecord, Summary
from claude_batch_tasks.results.async_reading import iterate_in_threads
from claude_batch_tasks.results.async_result import JobResult
from claude_batch_tasks.results.job_results import JobResults, read_job
from claude_batch_tasks.results.reader import Order, RequestResult, Type
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import open_store

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow
    from typing_extensions import Unpack

    from claude_batch_tasks.settings.job_options import JobSettings, RetryOptions


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
        settings = Settings.of(self._app)
        self._store = open_store(settings)
        self._job_results = JobResults(self._store, job_id, settings.price_list)
        self._result: AsyncResult[Summary] | None = None
        """What to wait for, where it is not the job's own: ``task_always_eager`` had it run in this process, and no
        result back end knows of it, or what it had lost is fetched again."""

    def __repr__(self) -> str:
        return f"BatchJob({self.job_id!r})"

    def status(self) -> JobStatus:
        """Return how far the job is, from the store alone.

        Where requests failed, an example of each failure type is read from the results.
        """
        job = self._require_job()
        found = read_status(self._store, self.job_id, job, examples=True)
        return Waits(self._app, self._store).explain(found, job)

    def history(self) -> list[HistoryEvent]:
        """Return what happened to the job, the oldest first: created, each 404 and its countdown, ended, fetched.

        At most 1,000 entries: of a longer story the first 200, the last 800, and between them one, ``left_out``, that
        says how many are left out.
        """
        self._require_job()
        return self._store.history.read_events(self.job_id)

    def results(
        self,
        type: Type | None = None,
        *,
        order: Order = "stored",
        ids: Iterable[str] | None = None,
        with_retries: bool = False,
    ) -> Iterator[RequestResult]:
        """Return each request's outcome, in constant memory.

        While the job runs: of the batches that are finished. Safe to call at any time and from anywhere.

        Args:
            type: only those that ``succeeded``, ``errored``, ``expired`` or were ``canceled``.
            order: ``stored``, as they came from Anthropic, or ``request``, as the requests were handed over, for
                which a batch's outcomes go through a temporary file.
            ids: only those of these custom_ids, such as ``on_result`` is called with, in no order: also of batches
                that are not finished, as soon as they are final. Ids that the job does not have are left out.
            with_retries: read this job and its retries as one: each request of this job once, with its newest outcome.
                That is the outcome in the last retry in which it has a final one, else the outcome here.

        Raises:
            ValueError: there is no such type or order.
        """
        if with_retries:
            return self._job_results.read_combined(type, order, ids)
        return self._job_results.read_results(type, order, ids)

    def aresults(
        self,
        type: Type | None = None,
        *,
        order: Order = "stored",
        ids: Iterable[str] | None = None,
        with_retries: bool = False,
    ) -> AsyncGenerator[RequestResult, None]:
        """Return what ``results()`` does, for ``async for``: the event loop continues while the store is read.

        Threads read, a part at a time; none is held in between. Errors are raised where the first result is asked for.

        Args:
            type, order, ids, with_retries: as for ``results()``.
        """
        return iterate_in_threads(lambda: self.results(type, order=order, ids=ids, with_retries=with_retries))

    def result(self, custom_id: str, *, with_retries: bool = False) -> RequestResult:
        """Return one request's outcome; only the parts of the store that hold it are read.

        Args:
            with_retries: the newest outcome, of this job or of one of its retries.

        Raises:
            RequestNotFound: the job has no such request, or it has no outcome (yet).
        """
        return self._job_results.find_combined(custom_id) if with_retries else self._job_results.find_result(custom_id)

    def failures(self, types: Collection[str] | None = None) -> Iterator[RequestResult]:
        """Return which requests failed, or have answers that are not complete, and why; in constant memory.

        Like ``results()``, those of finished batches. ``status().failures`` has the counts, and reads no results.

        Args:
            types: only these: the type of an error (``invalid_request_error``, ``overloaded_error``), ``expired`` or
                ``canceled``; ``errored`` for all errors, ``unknown`` for errors without a type; why an answer is not
                complete (``refusal``, ``max_tokens``); ``incomplete`` for all such answers.

        Raises:
            ValueError: these are no failure types.
        """
        return self._job_results.read_failures(types)

    def export(
        self,
        file: str | os.PathLike[str] | IO[Any],
        format: str | None = None,
        *,
        type: Type | None = None,
        order: Order = "stored",
        failures: bool | Collection[str] = False,
        with_retries: bool = False,
    ) -> int:
        """Write the outcomes to a file, in constant memory; like ``results()``, those of finished batches.

        Args:
            file: a path, where the file appears when it is complete, or an open file.
            format: ``jsonl``: Anthropic's result lines, ``{"custom_id", "source", "result"}`` with your custom_id;
                ``csv``: a header and one flat row for each, in UTF-8; ``parquet``: the same columns, for Arrow, DuckDB
                and the like (needs the extra ``arrow``). Default: what the path's suffix says, else ``jsonl``.
            type, order: as for ``results()``.
            failures: only what ``failures()`` returns, of all types or of these; without the other choices.
            with_retries: as for ``results()``.

        Returns:
            The number of outcomes written.

        Raises:
            ValueError: there is no such format, type or order, these are no failure types, or the suffix is that of a
                format that is not supported.
            ImportError: ``parquet`` without pyarrow.
        """
        if failures is False:
            return self._job_results.export_results(file, format, type, order, with_retries=with_retries)
        if type is not None or order != "stored" or with_retries:
            raise ValueError("failures are written as they are stored: without type, order and with_retries")
        return self._job_results.export_failures(file, format, None if failures is True else failures)

    def to_pandas(self, *, type: Type | None = None, order: Order = "stored") -> pandas.DataFrame:
        """Return the outcomes as a pandas DataFrame: the columns of a CSV export, one row for each.

        All of them are in memory. Needs the extra ``pandas``.

        Args:
            type, order: as for ``results()``.

        Raises:
            ValueError: there is no such type or order.
            ImportError: pandas is not installed.
        """
        return self._job_results.to_pandas(type, order)

    def to_polars(self, *, type: Type | None = None, order: Order = "stored") -> polars.DataFrame:
        """Return the outcomes as a Polars DataFrame; like ``to_pandas()``. Needs the extra ``polars``.

        Raises:
            ValueError: there is no such type or order.
            ImportError: Polars is not installed.
        """
        return self._job_results.to_polars(type, order)

    def to_arrow(self, *, type: Type | None = None, order: Order = "stored") -> pyarrow.Table:
        """Return the outcomes as an Arrow table; like ``to_pandas()``. Needs the extra ``arrow``.

        Raises:
            ValueError: there is no such type or order.
            ImportError: pyarrow is not installed.
        """
        return self._job_results.to_arrow(type, order)

    def requests(self) -> Iterator[dict[str, Any]]:
        """Return the requests as they were handed over, as ``run_batch`` takes them; what has an outcome is paid for.

        Raises:
            RequestsUnknown: the job was adopted.
        """
        return sent_requests.read_requests(self._store, self.job_id)

    def cancel(self) -> None:
        """Ask for the job to be canceled: what Anthropic has processed keeps its results, the rest ends as canceled.

        Returns at once; a worker asks Anthropic. The job's AsyncResult then ends with a summary whose ``state`` is
        ``canceled``. A job that has ended already is left as it is.
        """
        changes.cancel_job(self._app, self._store, self.job_id, self._require_job())

    def resume(self, **options: Unpack[JobSettings]) -> AsyncResult[Summary]:
        """Continue a failed job; it keeps its id, and its AsyncResult waits again.

        A batch that exists is polled, never created again; a batch whose create was not answered is searched for first.
        ``max_wait`` counts from now. What is linked to the job and follows it in a chain runs when it ends; a chord
        that has failed with it stays failed.

        Args:
            options: per-job settings from now on, such as ``max_wait=86_400``.

        Returns:
            The AsyncResult, to wait on; one from before shows how the job had failed.

        Raises:
            JobNotResumable: it has not failed, or what it needs has expired.
            InvalidSettings: an option is unknown or is not valid.
        """
        self._result = changes.resume_job(self._app, self.job_id, self._require_job(), options)
        return self._result

    @property
    def delivered(self) -> int:
        """How many answers were handed over: for so many requests the task ``on_result`` ended successfully.

        Zero of a job without ``on_result``. ``status()`` has more: how many calls failed, and why.
        """
        job = self._require_job()
        return self._store.deliveries.count_deliveries(self.job_id, job.batches).delivered

    def redeliver(self, *, all: bool = False) -> int:
        """Hand answers over again: call ``on_result`` with the custom_ids of what is not known to be delivered.

        That is what its calls failed for, and what they were never confirmed for, so also calls that still wait in
        their queue. ``on_result`` may get an answer twice and must accept that. Nothing is sent to Anthropic.

        Args:
            all: of all requests with a final outcome, also of those that were delivered; they count as not delivered
                until the new calls end.

        Returns:
            The number of requests.

        Raises:
            NotDeliverable: the job has no ``on_result``, or the call cannot be made.
            ResultsMissing: the custom_ids are gone from the store.
            kombu.exceptions.OperationalError: the broker does not answer; call this again when it does.
        """
        job = self._require_job()
        return changes.redeliver_job(self._app, self._store, self.job_id, job, everything=all)

    def retry_failed(
        self, types: Collection[str] | None = None, **options: Unpack[RetryOptions]
    ) -> AsyncResult[Summary]:
        """Send the requests that failed again, and only these, as a new job; their custom_ids are the same.

        Nothing is paid for twice: a request that has succeeded, may still be running, or may have been billed is not
        sent again. So a second call leaves out what the first one has sent again, unless that failed too.
        ``results(with_retries=True)`` has the outcomes of both. Workers begin within a second.

        Args:
            types: only these failure types, as for ``failures()``; default: all. Answers that are not complete are
                paid for, and are never sent again here.
            options: options of ``run_batch``, and ``queue``; what is not given is as in this job. Limits such as
                ``max_cost`` hold for the new job by itself.

        Returns:
            The AsyncResult of the new job, whose id is its job id.

        Raises:
            NothingToRetry: no request qualifies; the text says what became of those that failed.
            JobRunning: the job has not ended.
            RequestsUnknown: the job was adopted.
            InvalidSettings: an option is unknown or is not valid.
            ValueError: these are no failure types.
        """
        return changes.retry_job(self._app, self.job_id, self._require_job(), types, options)

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
        changes.delete_job(self._store, self.job_id)

    def _require_job(self) -> JobRecord:
        return read_job(self._store, self.job_id)
