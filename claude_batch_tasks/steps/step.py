"""A step of a job while it runs: its lease, its records, and the events it reports."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from celery.utils.dispatch import Signal
from kombu.exceptions import OperationalError

from claude_batch_tasks import api, errors, rules, steady
from claude_batch_tasks.formatting import format_duration
from claude_batch_tasks.records import BatchRecord, JobRecord, Lease, Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import credentials
from claude_batch_tasks.steps.rate_limit import RateLimits
from claude_batch_tasks.store import Store, history, lost_records

_T = TypeVar("_T")


class LeaseLost(Exception):
    """Another message took this step over; whatever this one still wanted to write must not be written."""


class JobEnded(Exception):
    """The job has failed, and this task reports it to Celery: ``error`` is what the caller's ``get()`` raises.

    Nothing else that a step raises may reach Celery as a failure. The error is one of this package, or says why the
    tasks that follow the job cannot be sent.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class NoThread(RuntimeError):
    """This process cannot start a thread: the limit of its container or its user is reached."""


class NotRun(RuntimeError):
    """The ``__call__`` of the app's task class ended without a call of ``run``."""


@dataclass
class Attempt:
    """How one run of a task went inside the ``__call__`` of the app's task class, whatever that class reports."""

    ran: bool = False
    """The task ran to its end."""
    ended_by: BaseException | None = None
    """The exception that ended it otherwise."""


@dataclass
class Step:
    """The state and operations of a running step.

    Every write is refused once another owner has the lease.
    """

    store: Store
    settings: Settings
    job: JobRecord
    unit: Unit
    owner: str
    args: tuple[str, int, int, int]
    """The arguments of the message: job id, batch number, generation, sequence number."""
    task: Any
    """The task that runs the step; the sender of signals."""
    lost: threading.Event = field(default_factory=threading.Event)
    """Set when another owner is known to have the lease."""
    also_held: list[Callable[[], None]] = field(default_factory=list)
    """Functions to call whenever the lease is renewed, in the thread that renews it."""
    seen: api.Account = field(default_factory=api.Account)
    """The account that the last answer of the API named."""
    failures: int = 0
    """How often in a row the step was interrupted, before this attempt."""
    failure: str | None = None
    """What interrupted it the last time; None: its worker was killed, or lost the lease."""
    through: int | None = None
    """How many of the job's batches had finished when this step finished its own; None: it did not finish it."""
    released: bool = False
    """The unit has advanced, or waits: nothing that is raised from now on concerns it."""

    def now(self) -> float:
        """Return the time in epoch seconds, by the clock that all workers use: the store's."""
        return self.store.now()

    @cached_property
    def batch(self) -> BatchRecord:
        """The current record of the batch; ``update_record`` keeps it up to date."""
        batch = self.store.records.read_batch(self.unit.job_id, self.unit.batch or 0)
        if batch is None:
            raise errors.JobNotFound(f"job {self.unit.job_id} is gone from the store")
        return batch

    @property
    def client(self) -> api.Caller:
        """The client of the job's account."""
        return credentials.make_caller(self.settings, self.job, lambda seen: credentials.compare_account(self, seen))

    @cached_property
    def account(self) -> str:
        """The name of that client's account in the store."""
        return credentials.name_account(self.client, self.settings, self.job)

    @property
    def rate_limits(self) -> RateLimits:
        """The account's rate limits."""
        return RateLimits(self.store, self.account)

    @cached_property
    def past_batches(self) -> list[tuple[int, float]]:
        """The account's past batches: requests and seconds of each."""
        return self.store.in_flight.past_durations(self.account)

    def confirm_lease(self, place: int | None = None) -> None:
        """Renew the lease now, however long this process slept; call this last before sending what costs money.

        Args:
            place: the position of the request that is about to be sent, which must still belong to the sender.

        Raises:
            LeaseLost: another owner has the lease.
            StoreUnavailable: the owner of the lease is not known.
        """
        lease = self.settings.lease
        while True:
            asked = steady.monotonic_now()
            if place is None:
                held = self.store.leases.renew_lease(self.unit, self.owner, lease)
            else:
                held = self.store.message_queue.confirm_request(self.unit, self.owner, place, lease)
            if not held:
                raise LeaseLost
            if steady.monotonic_now() - asked < lease / 2:  # else this process slept after the answer
                return

    def while_held(self, parts: Iterable[_T]) -> Iterator[_T]:
        """Yield the parts of something long until the lease is lost."""
        for part in parts:
            if self.lost.is_set():
                raise LeaseLost
            yield part

    def update_record(self, **changes: Any) -> None:
        """Write changes to the record of the unit."""
        if changes.get("done"):
            recorded = self.through = self.store.leases.end_batch(self.unit, self.owner, **changes)
        else:
            recorded = self.store.leases.write_record(self.unit, self.owner, **changes) or None
        if recorded is None:
            raise LeaseLost
        if self.unit.lane is None and self.unit.batch is not None:
            self._apply_changes(changes)

    def claim_batch(
        self, batch_id: str, /, *, instead_of: Unit | None = None, force: bool = False, **changes: Any
    ) -> bool:
        """Claim a batch at Anthropic for this unit and change the record, in one step; False if another has it."""
        holder = self.store.batch_ids.claim_id(
            self.unit, self.owner, batch_id, instead_of=instead_of, force=force, **changes
        )
        if holder is None:
            raise LeaseLost
        if holder == self.unit:
            self._apply_changes(changes)
        return holder == self.unit

    def release_batch(self, batch_id: str, /, **changes: Any) -> None:
        """Release a batch that is not this unit's and change the record, in one step."""
        if not self.store.batch_ids.release_id(self.unit, self.owner, batch_id, **changes):
            raise LeaseLost
        self._apply_changes(changes)

    def _apply_changes(self, changes: Mapping[str, Any]) -> None:
        for name, value in changes.items():
            setattr(self.batch, name, value)

    def fail_batch(self, error: errors.BatchTasksError, *, done: bool = False) -> str:
        """Fail the batch before its time; the job reports the error when its other batches have finished.

        Args:
            done: no step comes after this one.
        """
        # The API's counts are not our outcomes if its results were not published.
        counts = self.batch.counts if self.batch.layers else {}
        self.update_record(state="failed", error=[type(error).__name__, list(error.args)], counts=counts, done=done)
        self.record_event(
            "failed", f"failed: {error}", level=logging.WARNING, error=type(error).__name__, **call_details(error)
        )
        return f"failed: {error}"

    @property
    def ran(self) -> dict[str, Any]:
        """The changes in the record of a unit whose step was interrupted before, and has run now."""
        return {"step_failures": 0, "step_failure": None} if self.failures else {}

    @property
    def deadline(self) -> float | None:
        """The deadline (``max_wait``) at which the job gives up waiting, in epoch seconds."""
        limit, begun = self.settings.max_wait, self.job.resumed_at or self.job.started_at
        return None if limit is None or begun is None else begun + limit

    @property
    def past_deadline(self) -> bool:
        """Whether that deadline has passed."""
        return self.deadline is not None and self.now() >= self.deadline

    @property
    def cut_at(self) -> float | None:
        """When the batch is canceled if it still runs, so that the job's ``answer_by`` is met, epoch seconds.

        It is not created from then on. None: there is no such deadline, nothing could be sent instead, or it was done.
        """
        job, settings = self.job, self.settings
        if job.answer_by is None or self.unit.batch is None or self.unit.lane is not None or not self._may_be_cut():
            return None
        record = self.batch
        begun = record.created_at - record.api_ahead if record.created_at is not None else job.started_at
        calls = settings.max_messages_in_flight
        return rules.cancel_moment(job.answer_by, begun=begun or job.submitted_at, requests=record.sending, calls=calls)

    def _may_be_cut(self) -> bool:
        """Return whether the batch may be canceled, and its requests may be sent through the Messages API."""
        record, job = self.batch, self.job
        barred = job.cancel_requested or job.stopped is not None or record.read_only or record.provisional
        return not (barred or record.cut_short) and self.settings.fallback == "messages"

    @property
    def hurried_interval(self) -> float:
        """The longest time between two runs while the batch is about to be canceled, or was, for ``answer_by``."""
        return max(self.settings.poll_min, min(self.settings.poll_max, rules.CANCELED_POLL))

    @property
    def run_by(self) -> float | None:
        """When the step has to run again at the latest because of the job's ``answer_by``; None: when it likes."""
        answer_by, now = self.job.answer_by, self.now()
        if answer_by is None or now >= answer_by or self.unit.batch is None or self.unit.lane is not None:
            return None
        if self.cut_at is None and not self.batch.cut_short:
            return None
        cut_at = self.cut_at or 0.0
        return cut_at if cut_at > now else now + self.hurried_interval

    def bound_wait(self, wait: float, at_least: float | None = None) -> float:
        """Return how long to wait; in eager mode, where a caller is blocked, a share of the time the job has run.

        Args:
            at_least: the wait that the API asked for.
        """
        if not self.task.request.is_eager:
            return wait
        begun = self.job.resumed_at or self.job.started_at or self.job.submitted_at
        share = rules.EAGER_WAIT_SHARE * (self.now() - begun)
        return min(wait, max(share, rules.EAGER_MIN_WAIT, at_least or 0.0))

    def draw_countdown(self, failures: int, exc: Exception | None = None) -> float:
        """Draw the countdown after so many failures in a row.

        Args:
            exc: the last of them.
        """
        if isinstance(exc, errors.CreateUnresolved):
            # Not exponentially: list calls may be due until ``create_settle`` is over, and one answer ends the search.
            searched_for = 0.0 if self.batch.ambiguous_at is None else self.now() - self.batch.ambiguous_at
            wait = rules.poll_interval(
                searched_for, poll_min=self.settings.retry_min, poll_max=self.settings.retry_max, rand=random.random()
            )
            return max(wait, exc.retry_after or 0)
        retry_min, retry_max = retry_limits(self.settings, exc)
        at_least = getattr(exc, "retry_after", None)
        return rules.retry_countdown(
            failures, retry_min=retry_min, retry_max=retry_max, at_least=at_least, rand=random.random()
        )

    def draw_outage_countdown(self, exc: errors.StoreUnavailable) -> float:
        """Draw the countdown while the store does not say how many failures there were in a row."""
        return retry_limits(self.settings, exc)[1] * random.random()

    def draw_poll_interval(self) -> float:
        """Draw the time until the next poll of something of which no typical duration is known."""
        poll_min, poll_max = self.settings.poll_min, self.settings.poll_max
        return rules.poll_interval(0, poll_min=poll_min, poll_max=poll_max, rand=random.random())

    def check_deadline(self, more: float = 0.0, met: object = None) -> None:
        """Raise an error if the job's deadline passed ``more`` seconds ago or earlier.

        Args:
            more: seconds allowed past the deadline.
            met: the reason for which the step would wait.

        Raises:
            WaitExceeded: the deadline has passed.
        """
        if self.deadline is not None and self.now() >= self.deadline + more:
            last = f"; the last reason to wait: {met}" if met else ""
            raise errors.WaitExceeded(f"the job waited longer than max_wait ({self.settings.max_wait:g} s){last}")

    def check_refusals(self, met: Exception | None) -> None:
        """Wait until something in front of the API stops refusing calls, for a limited time.

        Args:
            met: the reason why the step would retry.

        Raises:
            PermanentError: the refusals have lasted for ``proxy_error_grace`` seconds.
        """
        if not isinstance(met, (errors.TransientError, errors.NotFoundError)) or self.unit.lane is not None:
            return
        if not rules.is_foreign_refusal(met.status, met.error_type):
            return
        now, grace = self.now(), self.settings.proxy_error_grace
        if (since := self.batch.refused_since) is None:
            with contextlib.suppress(errors.StoreUnavailable):
                self.update_record(refused_since=now)
        elif now - since >= grace:
            raise errors.PermanentError(
                f"{met}; this has lasted for {format_duration(now - since)} (proxy_error_grace)", *met.args[1:]
            )

    def check_eager_failures(self, exc: Exception | None) -> None:
        """Limit how long failures last in eager mode, where a program, or a test, waits.

        Args:
            exc: the last failure.

        Raises:
            WaitExceeded: the failures have lasted for too long.
        """
        request = self.task.request
        since = getattr(request, "failing_since", None)
        if isinstance(exc, errors.CreateUnresolved):
            request.update(failing_since=None)
        elif since is None:
            request.update(failing_since=steady.monotonic_now())
        elif steady.monotonic_now() - since >= rules.EAGER_MAX_FAILING:
            longest = format_duration(rules.EAGER_MAX_FAILING)
            raise errors.WaitExceeded(
                f"only failures for {longest}, the longest time in eager mode; the last one: {exc}"
            )

    def measure_api_ahead(self, date: float | None) -> float:
        """Return by how many seconds the API's clock is ahead of the store's.

        Args:
            date: what the API's clock said in the answer that just came.
        """
        return rules.clock_offset(date, self.now())

    def find_job(self) -> JobRecord | None:
        """Return the job's record as it is now, after replacing lost records of its batches; None if it is gone."""
        job = self.store.jobs.read_job(self.unit.job_id)
        if job is not None:
            lost_records.replace_lost_batches(self.store, self.unit.job_id, job)
        return job

    def send_signal(self, signal: Signal, **more: Any) -> None:
        """Send a signal about the job, with the batch's index and number if the unit has one."""
        batch = {} if self.unit.batch is None else {"batch": self.unit.batch, "number": self.unit.number}
        signal.send(sender=self.task, job_id=self.unit.job_id, **batch, **more)

    def record_event(self, event: history.Event, text: str, *, level: int = logging.INFO, **details: Any) -> None:
        """Record an event of the unit in the log and in the job's history; see ``history.note``."""
        details = {"batch_id": self._batch_id, **details}
        history.note(self.store, self.unit, event, text, level=level, job=self.job, **details)

    def fields(self, event: str, **details: Any) -> dict[str, Any]:
        """Return the ``extra`` of a log line about the unit."""
        return history.fields(self.unit, event, job=self.job, batch_id=self._batch_id, **details)

    def stop_job(self, reason: str) -> None:
        """Stop the job from spending more; a job that was stopped once stays stopped, for the first reason."""
        had, self.job.stopped = self.job.stopped, self.store.jobs.set_once(self.unit.job_id, "stopped", reason)
        if had is None:
            self.record_event(
                "stopped", f"nothing more is sent for this job: {self.job.stopped}", level=logging.WARNING
            )

    def note_limit(self, reason: str) -> None:
        """Record, once for the job, that a limit stops requests from being sent, and say how to allow more."""
        if self.job.limited is not None:
            return
        self.job.limited = str(self.store.jobs.set_once(self.unit.job_id, "limited", reason))
        if self.store.statistics.is_first(f"said:limited:{self.job.resumed_at}:{self.unit.job_id}", rules.RETENTION):
            self.record_event("limited", f"a limit stops the fallback: {self.job.limited}", level=logging.WARNING)

    @property
    def where(self) -> str:
        """The name of the unit and its batch id in logs, after the word "job"."""
        return history.where(self.unit, self._batch_id)

    @property
    def _batch_id(self) -> str | None:
        known: BatchRecord | None = vars(self).get("batch")  # no log line is worth a call of the store
        return known.batch_id if known and self.unit.batch is not None and self.unit.lane is None else None


def take_lease(task: Any, args: tuple[str, int, int, int]) -> Step | Lease:
    """Take the lease for a step's message; return the step to run, or the lease that says why none is run.

    Args:
        task: the task that runs the step.
        args: the arguments of the message.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    job_id, batch, turn, seq = args
    store, settings, job = task.open_job(job_id)
    if job is None:
        return Lease("gone")
    if task.request.is_eager and settings.max_wait is None:
        settings = settings.override({"max_wait": rules.EAGER_MAX_WAIT})
    task.check_job(job)
    unit, position = task.unit(job_id, batch, turn), task.position(turn, seq)
    owner = f"{task.request.hostname or 'eager'}/{uuid.uuid4().hex[:12]}"
    lease: Lease = store.leases.acquire_lease(unit, position, owner, settings.lease)
    if lease.state == "gone":
        # Only the batch's record is gone: a new record replaces it, which ends the batch.
        lost_records.replace_lost_batches(store, job_id, job)
        lease = store.leases.acquire_lease(unit, position, owner, settings.lease)
    if lease.state not in ("taken", "taken_over"):
        return lease
    return Step(store, settings, job, unit, owner, args, task, failures=lease.failures, failure=lease.failure)


@contextlib.contextmanager
def keep_lease(step: Step) -> Iterator[None]:
    """Keep a living owner's lease from expiring while its step runs, however long a download or a create takes."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(step.settings.lease / 3):
            with contextlib.suppress(errors.StoreUnavailable):
                if not step.store.leases.renew_lease(step.unit, step.owner, step.settings.lease):
                    step.lost.set()
                    return
                for hold in tuple(step.also_held):
                    hold()

    try:
        threading.Thread(target=renew, name="claude-batch-lease", daemon=True).start()
    except RuntimeError as exc:
        raise NoThread(f"this worker cannot start a thread ({exc}): raise its limit of processes or threads") from None
    try:
        yield
    finally:
        done.set()


def retry_limits(settings: Settings, exc: Exception | None) -> tuple[float, float]:
    """Return the upper bound of the first countdown, and that of every countdown, after an error."""
    most = settings.retry_max
    if isinstance(exc, (errors.StoreUnavailable, OperationalError)):
        most = min(most, rules.OUTAGE_RETRY_MAX)
    return min(settings.retry_min, most), most


def call_details(exc: Exception | None) -> dict[str, Any]:
    """Return the details of a failed call for the log."""
    if not isinstance(exc, errors.ApiError):
        return {}
    return {"endpoint": exc.endpoint, "status": exc.status, "request_id": exc.request_id}
