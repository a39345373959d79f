"""The AsyncResult of a job: it also reports what the store or the result back end lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult
from celery.states import FAILURE, READY_STATES, SUCCESS

from claude_batch_tasks import errors
from claude_batch_tasks.formatting import describe_missing_job
from claude_batch_tasks.records import Summary
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import open_store

#: Seconds between two queries of the store, and for how long the store must differ from the result back end.
_EVERY, CERTAIN = 5.0, 10.0

#: The shortest wait, seconds: in Celery 5.5 a wait of 0 seconds has no end.
_LEAST = 0.001

#: Seconds for which a job may be absent that this process has not seen in the store. At first it may exist only
#: elsewhere: the message that puts it into the store is still on its way.
UNSEEN = 30.0


if TYPE_CHECKING:
    _AsyncResult = AsyncResult[Summary]
else:  # before Celery 5.6 it takes no parameter
    _AsyncResult = AsyncResult


class StoredResult(_AsyncResult):
    """Celery's AsyncResult, except that what the store has lost ends, and what the back end has lost is reported.

    Nobody has a message for what the store has lost, so nobody would end it.
    """

    _odd_since: float | None = None
    _next_question = 0.0
    _transaction: str | None = None

    def __init__(self, id: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(str(id), *args, **kwargs)  # Celery 5.5 finds nothing under a UUID

    def _check_transaction(self) -> None:
        """Refuse to wait for what begins only after the caller's own transaction.

        Raises:
            BatchTasksError: this thread is in that transaction.
        """
        if (
            self._transaction is not None
            and self._transaction == open_store(Settings.of(self.app)).transactions.current()
        ):
            raise errors.BatchTasksError(
                f"{self.id} was submitted in this transaction and begins when that commits: waiting for it here "
                "would have no end. Call get() after the commit"
            )

    def _wait(self, timeout: float | None, propagate: bool, *args: Any, **options: Any) -> Any:
        """Return the result as Celery's AsyncResult does, and ask the store now and then.

        Raises:
            BatchTasksError: it begins only after the transaction that this thread is in.
        """
        self._check_transaction()
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _EVERY if ends is None else ends - time.monotonic()
            try:
                return super().get(max(min(left, _EVERY), _LEAST), propagate, *args, **options)
            except CeleryTimeoutError:
                if left <= _EVERY and ends is not None:
                    raise
                # This tells how it has ended, if it is lost.
                self._get_task_meta()

    def _get_task_meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = super()._get_task_meta()  # type: ignore[misc]
        now = time.monotonic()
        if meta["status"] in READY_STATES or now < self._next_question:
            return meta
        self._next_question = now + _EVERY
        try:
            ending = self._find_ending()
        except errors.BatchTasksError:  # the store does not answer, which proves nothing
            return meta
        if ending is None:
            self._odd_since = None
            return meta
        self._odd_since = self._odd_since or now
        if now - self._odd_since < self._certain_after():
            return meta
        return self._end_as(FAILURE if isinstance(ending, Exception) else SUCCESS, ending)

    def _end_as(self, status: str, value: Any) -> dict[str, Any]:
        """End with a value that the result back end does not have."""
        meta = {"status": status, "result": value, "traceback": None, "children": [], "task_id": self.id}
        self._set_cache(meta)  # type: ignore[attr-defined]
        self.on_ready(self)
        return meta

    def _find_ending(self) -> Any:
        """Return how it has ended although the back end does not say so; None if it may still run."""
        raise NotImplementedError

    def _certain_after(self) -> float:
        """Return the seconds for which the store must differ from the result back end."""
        return CERTAIN


class JobResult(StoredResult):
    """Celery's AsyncResult, except that a job that its store has lost ends with ``JobNotFound``.

    A store loses a job by FLUSHALL, or by a failover without it. Nobody has a message for such a job, so nobody would
    end it. A job whose result the back end has lost ends as the store says.

    Args:
        expected: the job is, or was, in the store. Otherwise it counts as lost only after it was seen there: a later
            link of a chain is put into the store when its turn comes.
    """

    _seen = False

    def __init__(self, id: str, *args: Any, expected: bool = False, **kwargs: Any) -> None:
        self._expected = expected
        super().__init__(id, *args, **kwargs)

    def expect_job(self, transaction: str | None = None) -> None:
        """Record that the job is in the store.

        Args:
            transaction: the one of the caller's that it is a part of, as ``store.transactions`` names it.
        """
        self._seen = True
        self._transaction = transaction or self._transaction

    def get(self, timeout: float | None = None, propagate: bool = True, *args: Any, **options: Any) -> Summary:
        """Return the result as Celery's AsyncResult does.

        Raises:
            JobNotFound: the store has lost the job.
            BatchTasksError: the job is a part of a transaction that this thread is still in.
        """
        found: Summary = self._wait(timeout, propagate, *args, **options)
        return found

    def _certain_after(self) -> float:
        return CERTAIN if self._seen else UNSEEN

    def _find_ending(self) -> Summary | errors.BatchTasksError | None:
        """Return how the job has ended although the back end does not say so; None if it may still run."""
        store, job_id = open_store(Settings.of(self.app)), str(self.id)
        job = store.jobs.read_job(job_id)
        if job is None:
            return errors.JobNotFound(describe_missing_job(job_id)) if self._seen or self._expected else None
        self._seen = True
        if job.state in ("completed", "canceled"):
            return cast("Summary", job.summary)  # its result has expired there, or was evicted
        if job.state == "failed":
            names = (
                batch.error[0] for batch in store.records.find_batches(job_id) if batch is not None and batch.error
            )
            return errors.error_class(next(names, "StepFailed"))(job.error or "the job failed")
        return None
