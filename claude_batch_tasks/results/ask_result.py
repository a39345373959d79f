"""The AsyncResult of an ask: its ``get()`` returns the answer itself, its state says where it waits."""

from __future__ import annotations

import asyncio
import importlib
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.exceptions import TaskRevokedError, TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult, EagerResult
from celery.states import FAILURE, PENDING, READY_STATES, REVOKED, SUCCESS

from claude_batch_tasks import errors
from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.formatting import describe_missing_job
from claude_batch_tasks.pool_records import AskPlace
from claude_batch_tasks.results.answers_by_reference import Answer
from claude_batch_tasks.results.ask_failures import explain_result, make_error
from claude_batch_tasks.results.async_result import CERTAIN, UNSEEN, StoredResult
from claude_batch_tasks.results.reader import RequestResult
from claude_batch_tasks.results.waiting import watch_asks
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import Store, open_store

#: The name of the task.
ASK = "claude_batch_tasks.ask"

#: Seconds between two questions about an ask that the store does not know, where an event loop waits for it.
_ASK_AGAIN = 0.5

if TYPE_CHECKING:
    from claude_batch_tasks.jobs.batch_job import BatchJob

    _EagerResult = EagerResult[Any]
else:  # before Celery 5.6 it takes no parameter
    _EagerResult = EagerResult


class AskResult(StoredResult):
    """Celery's AsyncResult of an ask.

    While it waits, its state is PROGRESS, and ``info`` has ``pool``, ``job_id`` and ``position``. An ask whose result
    the back end has lost ends as the store says; one that the store has lost ends with ``JobNotFound``.

    Args:
        id: that of the ask; any process may read its answer.
        app: the Celery app; default: the current one.
        backend, task_name, parent: as for Celery's AsyncResult.
        expected: the ask is, or was, in the store. Otherwise it counts as lost only after it was seen there: a later
            link of a chain is put into the store when its turn comes. ``ask.AsyncResult(id)`` is for these.
    """

    _place: AskPlace | None = None
    _settings: Settings | None = None
    """Those of the app, if they were read already: thousands may wait in one event loop."""

    def __init__(
        self,
        id: str,
        backend: Any = None,
        task_name: str | None = None,
        app: Celery | None = None,
        parent: Any = None,
        *,
        expected: bool = True,
    ) -> None:
        self._expected = expected
        # Celery's implicit app, in a program or a thread without one, has no result back end.
        super().__init__(id, backend, task_name, app or configured_app(), parent)

    def expect_place(self, place: AskPlace, settings: Settings, transaction: str | None = None) -> None:
        """Record where the ask is in the store.

        Args:
            settings: those of the app.
            transaction: the one of the caller's that it is a part of, as ``store.transactions`` names it.
        """
        self._place, self._settings, self._transaction = place, settings, transaction

    def get(  # type: ignore[override]
        self, timeout: float | None = None, propagate: bool = True, *args: Any, **options: Any
    ) -> RequestResult:
        """Wait for the answer, and return it.

        Raises:
            RequestFailed: there is none; the text says why.
            JobNotFound: the store has lost the ask, or its answer.
            BatchTasksError: it is a part of a transaction that this thread is still in.
            celery.exceptions.TimeoutError: it did not come in time; it is still asked for.
        """
        found: RequestResult = read_reference(self._wait(timeout, propagate, *args, **options), self.app)
        return found

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> RequestResult:
        """Wait for the answer as ``get`` does, while the event loop continues, and return it.

        No thread waits for it: one thread and one subscription serve all who wait in a process.

        Raises:
            RequestFailed: there is none; the text says why.
            JobNotFound: the store has lost the ask, or its answer.
            celery.exceptions.TimeoutError: it did not come in time; it is still asked for.
        """
        try:
            await asyncio.wait_for(self._wait_until_ready(), timeout)
        except asyncio.TimeoutError:  # that of the language from Python 3.11 on
            raise CeleryTimeoutError("The operation timed out.") from None
        return await asyncio.to_thread(self._read_answer, propagate)

    async def _wait_until_ready(self) -> None:
        self._check_transaction()
        watch = watch_asks(self._store)
        await watch.wait_for_end(str(self.id))
        while not await asyncio.to_thread(self._has_ended):
            # The store may not know it yet: a later link of a chain is put into its pool when its turn comes.
            await asyncio.sleep(_ASK_AGAIN)
            await watch.wait_for_end(str(self.id))

    def _has_ended(self) -> bool:
        """Return whether it has ended.

        Raises:
            Exception: what the ask follows in its chain has failed.
        """
        self._maybe_reraise_parent_error()  # type: ignore[attr-defined]
        return self._get_task_meta()["status"] in READY_STATES

    def _read_answer(self, propagate: bool) -> RequestResult:
        self.maybe_throw(propagate)
        found: RequestResult = read_reference(self.result, self.app)
        return found

    @property
    def custom_id(self) -> str:
        """The id of its request in the job."""
        return str(self.id)

    @property
    def job(self) -> BatchJob:
        """The job, a ``BatchJob``, that its pool is or becomes; until then its methods raise ``JobNotFound``.

        Raises:
            JobNotFound: the store does not know the ask (any more).
        """
        place = self._read_place()
        if place is None:
            raise self._make_lost_error()
        return open_job(place.job_id, self.app)

    def _read_place(self) -> AskPlace | None:
        """Return where the ask is now: a pool may have been divided."""
        place = self._store.asks.read_places([str(self.id)])[0]
        self._place = place or self._place
        return place

    @property
    def _store(self) -> Store:
        self._settings = self._settings or Settings.of(self.app)
        return open_store(self._settings)

    def _get_task_meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = AsyncResult._get_task_meta(self)  # type: ignore[attr-defined]
        if meta["status"] in READY_STATES:
            return meta
        try:
            place = self._read_place()
            if place is None:
                return self._judge_absence(meta, errors.JobNotFound(str(self._make_lost_error())))
            if place.state != "waiting":
                # The result back end gets the end before the store: it may have got it since it was asked.
                meta = AsyncResult._get_task_meta(self)  # type: ignore[attr-defined]
                return meta if meta["status"] in READY_STATES else self._end_as(*self._read_ending(place))
            return self._describe_waiting(meta, place)
        except errors.StoreUnavailable:  # which proves nothing
            return meta

    def _maybe_set_cache(self, meta: Any) -> Any:
        """Take the state that the result back end has, but not that the ask is revoked before the store says so.

        Celery's workers store that of each id in a revoke; an ask in a batch ends with its answer.
        """
        if meta and meta["status"] == REVOKED and self._still_waits():
            meta = {**meta, "status": PENDING, "result": None}
        return super()._maybe_set_cache(meta)  # type: ignore[misc]

    def _still_waits(self) -> bool:
        try:
            place = self._read_place()
        except errors.StoreUnavailable:  # which proves nothing
            return False
        return place is not None and place.state == "waiting"

    def _describe_waiting(self, meta: dict[str, Any], place: AskPlace) -> dict[str, Any]:
        pool, job = self._store.pools.read_pool(place.job_id), None
        if pool is None and (job := self._store.jobs.read_job(place.job_id)) is None:
            return self._judge_absence(meta, errors.JobNotFound(describe_missing_job(place.job_id)))
        self._odd_since = None
        if meta["status"] != PENDING:
            return meta
        where = {
            "pool": pool.name if pool is not None else job.pool if job is not None else None,
            "job_id": place.job_id,
            "position": place.position,
            "asked_at": place.asked_at,
        }
        return {**meta, "status": "PROGRESS", "result": where}

    def _judge_absence(self, meta: dict[str, Any], error: errors.JobNotFound) -> dict[str, Any]:
        """End the ask if the store should know it, and has not for long enough."""
        if self._place is None and not self._expected:
            return meta
        now = time.monotonic()
        self._odd_since = self._odd_since or now
        if now - self._odd_since < (UNSEEN if self._place is None else CERTAIN):
            return meta
        return self._end_as(FAILURE, error)

    def _read_ending(self, place: AskPlace) -> tuple[str, Any]:
        """Return how the ask ended, as the store has it."""
        answer = Answer(place.job_id, str(self.id), self.app)
        if place.state == "succeeded":
            return SUCCESS, answer
        if place.state == "revoked":
            return REVOKED, TaskRevokedError("revoked")
        with suppress(errors.RequestNotFound, errors.JobNotFound):
            if (result := answer.result).type != "succeeded":
                return FAILURE, explain_result(place.job_id, result)
        job = self._store.jobs.read_job(place.job_id)
        return FAILURE, make_error(place.job_id, str(self.id), (job.error if job is not None else None) or "")

    def _make_lost_error(self) -> errors.JobNotFound:
        return errors.JobNotFound(
            f"the store does not know the ask {self.id}: it has ended long ago, the store has lost it, or this is "
            "another store"
        )

    def cancel(self) -> bool:
        """Take the ask out of its pool; return whether it will never be sent.

        False: its batch is being made or was made, or it has ended. A batch can be canceled as a whole only:
        ``job.cancel()``.
        """
        importlib.import_module("claude_batch_tasks.tasks")  # registers them; they stand above this module
        task: Any = self.app.tasks[ASK]
        [withdrawn] = task.revoke_asks([str(self.id)])
        return bool(withdrawn)

    def revoke(self, *args: Any, **options: Any) -> None:
        """Revoke the ask as Celery revokes a task: it is not sent, if its pool is still open.

        With ``terminate=True`` it ends as revoked also while it is in a batch; its request is processed and paid for.
        """
        if not self.cancel():
            super().revoke(*args, **options)


class EagerAskResult(_EagerResult):
    """The AsyncResult of an ask that ran in this process."""

    app: Celery

    @classmethod
    def of(cls, found: Any, app: Celery) -> EagerAskResult:
        """Return a result of Celery's as one of an ask."""
        made = cls(*found.__reduce_args__())
        made.app = app
        return made

    def get(self, *args: Any, **options: Any) -> RequestResult:
        """Return the answer, as ``AskResult.get`` does."""
        found: RequestResult = read_reference(super().get(*args, **options), self.app)
        return found

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> RequestResult:
        """Return the answer, as ``AskResult.aget`` does."""
        return await asyncio.to_thread(self.get, timeout, propagate)

    @property
    def custom_id(self) -> str:
        """The id of its request in the job."""
        return str(self.id)

    @property
    def job(self) -> BatchJob:
        """The job, a ``BatchJob``."""
        return open_job(getattr(self.result, "job_id", ""), self.app)

    def cancel(self) -> bool:
        """Return False: it has ended."""
        return False


def read_reference(found: Any, app: Celery) -> Any:
    """Return the result that a reference leads to; return other values unchanged."""
    return Answer(found.job_id, found.custom_id, app).result if isinstance(found, Answer) else found


def open_job(job_id: str, app: Celery) -> BatchJob:
    """Return the ``BatchJob`` of an id. Its module stands above this one, and is loaded when it is asked for."""
    found: BatchJob = importlib.import_module("claude_batch_tasks.jobs.batch_job").BatchJob(job_id, app)
    return found
