"""The base class of a job's steps: its lease, its countdowns, and how it ends.

A message stands for one position in the life of its unit (a batch, a sender, the job). It takes the unit's lease, runs,
publishes the next message, and only then advances the unit and gives the lease up. In any other order, a process that
dies in between loses the job or doubles it. A unit that waits longer than a moment is left in the store instead, in one
step, and gets its next message when it is due. A message at an older position is a duplicate and ends quietly; one that
meets a living lease comes back when that would expire; one that meets an expired lease takes over.

A unit advances only after its step ran to its end (``StepTask.publish_next_step``). Any other exception, in the step
or around it, leaves the unit where it was: ``StepTask.republish_after`` counts it and runs the step again after a
countdown, and after ``max_step_failures`` in a row the batch fails with that reason.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from celery import signature
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from celery.states import READY_STATES
from kombu.exceptions import OperationalError

from claude_batch_tasks import errors
from claude_batch_tasks.formatting import describe_missing_job
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.outputs import OutputUnusable
from claude_batch_tasks.records import Flight, JobRecord, Lease, Unit
from claude_batch_tasks.steps import job_summary, message_chain, publishing
from claude_batch_tasks.steps.batch_task import JobTask, describe_wait, stops_worker
from claude_batch_tasks.steps.decisions import Decision, Done, Fail, StartOver, Wait, wait_out
from claude_batch_tasks.steps.step import (
    JobEnded,
    LeaseLost,
    NoThread,
    NotRun,
    Step,
    call_details,
    keep_lease,
    take_lease,
)
from claude_batch_tasks.store import history

log = get_logger(__name__)


class StepTask(JobTask):
    """One step in the life of a batch.

    Its arguments: job id, batch number, generation, sequence number.
    """

    abstract = True
    #: The number of the step: create, poll, fetch, fall back (0, 1, 2, 3).
    rank = 0
    # A step of a started job never expires: that would end the job without a report.
    expires = None
    unchanged = (*JobTask.unchanged, "expires")
    #: Whether this is the last step of its unit.
    last = False
    #: Whether the job's deadline ends the step, which then does not come back once more.
    waits = True
    #: Seconds past the deadline during which it still comes back, if it could not see whether the batch has ended, or
    #: could not get its results.
    last_poll_seconds = 0.0

    @property
    def step(self) -> Step:
        """The running step; stored on the request, of which each thread has its own."""
        step = getattr(self.request, "step", None)
        assert isinstance(step, Step)
        return step

    def position(self, turn: int, seq: int) -> int:
        """Return the position of a message in the life of its unit."""
        return message_chain.position_of(turn, self.rank, seq)

    def position_after(self, turn: int) -> int:
        """Return the position of the unit when this step has finished."""
        return message_chain.position_of(turn, self.rank + 1)

    def unit(self, job_id: str, batch: int, turn: int) -> Unit:
        """Return the unit whose lease the step takes."""
        return Unit(job_id, batch)

    def due_time(self) -> float | None:
        """Return when the unit is due again, in epoch seconds."""
        return self.step.batch.due_at

    def count_failures(self) -> int:
        """Return the number of failures of the step in a row so far."""
        return self.step.batch.failures

    # -- one message, from its lease to what its step returns

    def apply_async(self, *args: Any, **options: Any) -> Any:
        """Publish the step's message; its countdown goes by the clock of the receiving worker, or by the broker's."""
        countdown = options.get("countdown")
        if countdown is not None and not message_chain.broker_counts(self.app):
            options["headers"] = {**(options.get("headers") or {}), message_chain.COUNTDOWN: countdown}
        return self.send(*args, **options)

    def go_on(self, job_id: str, batch: int = 0, turn: int = 0, seq: int = 0) -> Any:
        """Run the step; the end of the step is the end of the task."""
        while True:
            try:
                return self._run_guarded(job_id, batch, turn, seq)
            except JobEnded as end:
                raise end.error from None
            except Retry as retry:
                if not self.request.is_eager:
                    raise
                # Eager mode has no broker to wait in; it is the one place where our code sleeps.
                time.sleep(float(str(retry.when or 0)))
                seq += 1

    def _run_guarded(self, *args: Any) -> Any:
        """Run the step; whatever interrupts it leaves its unit where it was."""
        try:
            value = self.call_inside(*args)
            self.publish_next_step(value)
            return value
        except (Ignore, Reject, Retry, JobEnded):
            raise
        except BaseException as exc:
            if stops_worker(exc):
                self._release(args)
                raise
            return self.republish_after(exc, args)

    def work(self, job_id: str, batch: int, turn: int, seq: int) -> Any:
        """Run the step with its unit's lease, if the lease is free."""
        args = (job_id, batch, turn, seq)
        try:
            step = take_lease(self, args)
        except errors.StoreUnavailable as exc:
            if self.request.is_eager:
                raise JobEnded(exc) from None
            return super().retry(exc=exc)
        if isinstance(step, Lease):
            return self._without_lease(step, args)
        setattr(self.request, "step", step)  # noqa: B010 - an attribute of ours on Celery's request
        if self._failed_too_often(step):
            return self._give_up(step)
        with keep_lease(step):
            return self._run_body(step)

    def check_job(self, job: JobRecord) -> None:
        """Raise Ignore if the job has nothing for this message to do."""
        if job.state == "revoked":
            raise Ignore("the job was revoked")

    def _without_lease(self, lease: Lease, args: tuple[str, int, int, int]) -> NoReturn:
        """End a message that may not act: a duplicate, one whose unit another worker has, one whose job is gone."""
        unit = self.unit(*args[:3])
        if lease.state == "gone":
            self.end_without_job(args[0])
        if lease.state == "busy":
            raise self.republish(lease.remaining + 0.1, "another worker runs it", args)
        log.info("job %s: ignored a duplicate of %s", unit.name, self.name, extra=history.fields(unit, "duplicate"))
        raise Ignore("duplicate")

    def end_without_job(self, job_id: str) -> NoReturn:
        """End a message whose job is gone from the store, and report that to its caller.

        Celery fails the rest of a failed task's chain.
        """
        extra = history.fields(Unit(job_id), "gone")
        log.warning("job %s: is gone from the store; its message is ignored", job_id, extra=extra)
        if self.reported_state(job_id) or self.store.jobs.was_deleted(job_id):
            raise Ignore("the job is gone from the store")
        raise JobEnded(errors.JobNotFound(describe_missing_job(job_id)))

    def reported_state(self, job_id: str) -> str | None:
        """Return the final state of the job's AsyncResult; None if it is not known to have ended."""
        try:
            state = str(self.AsyncResult(job_id).state)
        except Exception:  # noqa: BLE001 - there is no result back end, or it does not answer: then it is told again
            return None
        return state if state in READY_STATES else None

    def _run_body(self, step: Step) -> Any:
        """Run the task's body; a permanent error of ours ends the batch, and the chain continues."""
        try:
            self._check_key(step)
            return self.carry_out(self.body(*step.args))
        except (LeaseLost, errors.JobNotFound):
            self._end_taken_over(step)
        except errors.BatchTasksError as exc:
            return self.end_failed(exc)

    def _end_taken_over(self, step: Step) -> NoReturn:
        """End the message of a step that has lost its lease."""
        self._check_job(step)
        extra = step.fields("taken_over")
        log.warning("job %s: another worker has taken over %s", step.where, self.name, extra=extra)
        raise Ignore("taken over") from None

    def _check_job(self, step: Step) -> None:
        """End the message if its job is gone, and replace lost batch records: nobody has the lease of what is gone."""
        with contextlib.suppress(errors.StoreUnavailable):
            if step.find_job() is None:
                self.end_without_job(step.unit.job_id)

    def _check_key(self, step: Step) -> None:
        """Ensure that this worker can read and encrypt the job's payloads, before it pays for or writes anything."""
        if step.unit.batch is None:
            return
        try:
            step.settings.check_key(step.job.sealed_by)
        except errors.KeyMissing as exc:
            # Here, and not before: Celery retries only what ``run`` raises.
            with contextlib.suppress(errors.StoreUnavailable):
                if step.batch.state == "failed":
                    return
            extra = step.fields("key_missing")
            log.warning("job %s: this worker cannot run it: %s", step.unit.name, exc, extra=extra)
            self.retry(exc=exc)

    # -- what follows a step, in Celery's terms

    def carry_out(self, decision: Decision) -> Any:
        """Do what a step decided; return the value of one that is done.

        Nothing else does: a step neither retries its task nor advances its unit.

        Raises:
            Retry: the step runs again later.
            Ignore: the message ends quietly.
            WaitExceeded: the job's deadline has passed, and the step is not waited for.
        """
        if isinstance(decision, Done):
            return decision.value
        if isinstance(decision, Fail):
            return self.end_failed(decision.error)
        if isinstance(decision, Wait):
            self._wait_as_decided(decision)
        if isinstance(decision, StartOver):
            self._start_over()
        self.release_lease()
        raise Ignore(decision.reason)

    def wait_until_due(self) -> Wait | None:
        """Return the rest of a countdown of which a broker held only a part; None if the unit is due."""
        wait = (self.due_time() or 0.0) - self.step.now()
        # Nobody waits for a canceled job.
        return Wait("waiting", wait, tried=False) if wait > 0.05 and not self.step.job.cancel_requested else None

    def _wait_as_decided(self, wait: Wait) -> NoReturn:
        if self.request.is_eager:
            self.request.update(failing_since=None)
        if self.waits and not wait.past_deadline:
            self.step.check_deadline(0.0 if wait.tried else self.last_poll_seconds, wait)
        self.retry_later(wait)

    def _start_over(self) -> NoReturn:
        """Begin another generation of the batch's chain, when that is due."""
        step, number = self.step, self.step.unit.batch or 0
        at = message_chain.position_of(step.batch.turn, 0)
        try:
            if self.request.is_eager:
                message_chain.run_in_process(
                    message_chain.make_steps(self.app, step.unit.job_id, step.job, number, since=at)
                )
                raise Ignore("the new generation has run")
            wait = max((step.batch.due_at or 0) - step.now(), 0.0)
            if not self.park_in_store(wait, at, failures=0, task_id=None):
                rest = message_chain.make_steps(self.app, step.unit.job_id, step.job, number, since=at, countdown=wait)
                message_chain.publish_chain(step.job, step.unit.job_id, rest)
                step.store.leases.advance_unit(step.unit, step.owner, at, failures=0, due_at=step.batch.due_at)
        except (errors.StoreUnavailable, OperationalError) as exc:
            self.retry(exc=exc)
        raise Ignore("started again")

    def end_failed(self, error: errors.BatchTasksError) -> str:
        """End the batch because of a permanent error; the chain continues, and its last link reports it."""
        with self.ending_batch():
            return self.step.fail_batch(error, done=self.last)

    @contextlib.contextmanager
    def ending_batch(self) -> Iterator[None]:
        """Wrap what ends a batch: a lost lease ends the message; while the store does not answer, it comes back."""
        try:
            yield
        except LeaseLost:
            self._end_taken_over(self.step)
        except errors.StoreUnavailable as exc:
            self.retry_later(exc)

    # -- the wait for the next run of a step

    def retry(self, *args: Any, exc: Exception | None = None, **options: Any) -> NoReturn:
        """Retry, unless the job's deadline has passed: a step due by then still runs, but is not waited for again.

        Raises:
            WaitExceeded: the deadline has passed.
            PermanentError: the error is permanent too.
        """
        if getattr(self.request, "step", None) is None:  # the app's task class postpones the task
            super().retry(*args, exc=exc, **options)
        if isinstance(exc, errors.RateLimited):
            self._wait_as_decided(wait_out(exc))
        self.step.check_refusals(exc)
        if self.request.is_eager:
            self.step.check_eager_failures(exc)
        if self.waits:
            self.step.check_deadline(self.last_poll_seconds, exc)
        self.retry_later(exc)

    def retry_later(self, why: Wait | Exception | None) -> NoReturn:
        """Retry after the wait that the step decided, or that policy gives this error.

        The unit waits in the store, or in a message.
        """
        step = self.step
        now = step.now()
        try:
            wait, failures = self.wait_after(why, now)
        except errors.StoreUnavailable as away:
            wait, failures = step.draw_outage_countdown(away), self.request.retries + 1
        wait = step.bound_wait(wait, why.seconds if isinstance(why, Wait) else getattr(why, "retry_after", None))
        for limit in (step.deadline, step.deadline and step.deadline + self.last_poll_seconds, step.run_by):
            if limit is not None and limit > now:
                wait = min(wait, limit - now)
        job_id, batch, turn, seq = step.args
        position, due_at = self.position(turn, seq + 1), now + wait
        waiting = self._describe_wait(why, wait)
        self.show_progress(str(waiting), due_at)
        if self.park_in_store(wait, position, failures=failures, task_id=self.request.id, **step.ran):
            retry = _make_retry(waiting, wait)
        else:
            retry = self.republish(wait, why, (job_id, batch, turn, seq + 1), waiting)
            # If the store does not answer, the next message advances the unit itself.
            with contextlib.suppress(errors.StoreUnavailable):
                step.store.leases.advance_unit(
                    step.unit, step.owner, position, failures=failures, due_at=due_at, **step.ran
                )
            step.released = True
        self._log_wait(why, str(retry.exc), wait)
        raise retry

    def _describe_wait(self, why: Wait | Exception | None, wait: float) -> errors.Waiting:
        """Return the exception that says why the step waits, and what follows."""
        return describe_wait(why, wait, self.what_follows) if isinstance(why, Wait) else describe_wait(why, wait)

    def wait_after(self, why: Wait | Exception | None, now: float) -> tuple[float, int]:
        """Return the seconds to wait, and the number of failures in a row, this one included."""
        if isinstance(why, Wait):
            return why.draw_seconds(lambda: self.draw_next_poll(now)), 0 if why.tried else self.count_failures()
        failures = self.count_failures() + (not isinstance(why, errors.CreateUnresolved))
        return self.step.draw_countdown(failures, why), failures

    def draw_next_poll(self, now: float) -> float:
        """Return the seconds until the next poll of a batch of which no typical duration is known."""
        return self.step.draw_poll_interval()

    def _log_wait(self, why: Wait | Exception | None, text: str, wait: float) -> None:
        """Log why the step waits; only the log records that nothing has changed, because the history is bounded."""
        step, countdown = self.step, round(wait, 1)
        if isinstance(why, Wait):
            log.info("job %s: %s", step.where, text, extra=step.fields("waiting", countdown=countdown))
        else:
            event: history.Event = "not_found" if isinstance(why, errors.NotFoundError) else "retry"
            # The warning about an incomplete result file says the same.
            level = logging.DEBUG if isinstance(why, errors.ResultsIncomplete) else logging.INFO
            step.record_event(event, text, level=level, countdown=countdown, **call_details(why))

    def show_progress(self, line: str, due_at: float | None = None) -> None:
        """Show progress under the id that the caller holds."""
        job_summary.report_progress(self.step, line, due_at)

    def park_in_store(self, wait: float, position: int, **changes: Any) -> bool:
        """Put the unit into the store to wait at this position; return False if it must not or cannot wait there."""
        if self.request.is_eager or not message_chain.waits_in_store(self.app, wait):
            return False
        step = self.step
        try:
            account, flight = self.awaited_flight() or ("", None)
            done = step.store.leases.park_unit(
                step.unit, step.owner, position, step.now() + wait, account=account, flight=flight, **changes
            )
        except errors.StoreUnavailable:
            return False
        step.released = True
        if not done:
            self._check_job(step)
            raise Ignore("taken over")
        return True

    def awaited_flight(self) -> tuple[str, Flight] | None:
        """Return the account and the batch whose poll the unit waits for; None if it waits for something else."""
        return None

    # -- the next step

    def publish_next_step(self, value: Any) -> None:
        """Publish the chain's next message, then advance the unit; or let it wait for that message in the store.

        Nothing else advances a unit, and this is called only after the step ran to its end.
        """
        try:
            pause = self.pause()
        except errors.StoreUnavailable:
            pause = self.step.settings.poll_min
        if pause and self.park_in_store(
            pause, self.position_after(self.step.args[2]), failures=0, task_id=None, **self.step.ran
        ):
            self.request.chain = None
            return
        self.publish_next(value, pause)
        self.release_lease()

    def pause(self) -> float:
        """Return the seconds between this step and the next."""
        return 0.0

    def publish_next(self, value: Any, pause: float = 0) -> None:
        """Publish the chain's next message.

        Celery would publish it after the task's end, where a broker that does not accept it ends the chain permanently.
        """
        request = self.request
        if request.chain and not request.is_eager:
            rest: list[Any] = list(request.chain)  # in reverse, as Celery keeps it
            following = signature(rest.pop(), app=self.app)
            try:
                if pause:
                    following.set(countdown=message_chain.limit_countdown(self.app, pause))
                following.set(**message_chain.options_of_next(self.app, self.step.job, following))
                own = dict(following.options)
                parent_id = own.get("parent_id") or request.id  # the job's end has the job's parent
                following.apply_async((value,), chain=rest, parent_id=parent_id, root_id=request.root_id)
            except Exception as exc:  # noqa: BLE001 - whatever the broker's client raises
                if publishing.is_outage(self.app, exc) is False:
                    history.note_not_sent(self.step.store, self.step.unit, str(following.task), exc, self.step.job)
                self.retry_later(OperationalError(f"the next message was not published: {type(exc).__name__}"))
            if self.step.job.not_sent is not None:
                history.forget_not_sent(self.step.store, self.step.unit.job_id)
            request.chain = None

    def release_lease(self) -> None:
        """Release the lease, and leave the unit at the position after this step."""
        if step := getattr(self.request, "step", None):
            with contextlib.suppress(errors.StoreUnavailable):
                step.store.leases.advance_unit(
                    step.unit,
                    step.owner,
                    self.position_after(step.args[2]),
                    through=self.last,
                    failures=0,
                    due_at=None,
                    **step.ran,
                )
            step.released = True

    # -- a step that was interrupted

    def republish_after(self, exc: BaseException, args: tuple[Any, ...]) -> Any:
        """Run an interrupted step again after a countdown, from where its unit was.

        Args:
            exc: what interrupted it: no memory, no thread, a time limit, an error of somebody's signal handler, a
                defect.
            args: the arguments of the message.

        Raises:
            Ignore: its unit has advanced already, or another worker has it.
            Retry: the step runs again later.
            Reject: neither store nor broker take anything: the broker delivers the message again.
            JobEnded: the step was interrupted too often.
        """
        step: Step | None = getattr(self.request, "step", None)
        reason = reason_of(exc)
        self.log_broken_off(self.unit(*args[:3]), reason)
        if step is not None and step.released:
            raise Ignore("the step had ended")
        try:
            step = self._ensure_begun(step, args)
            if self._failed_too_often(step):
                # The code around the step does not let it end by itself.
                value = self._give_up(step)
                self.publish_next_step(value)
                return value
            wait = self._wait_broken_off(step, args, reason)
        except (Ignore, Retry, JobEnded):
            raise
        except BaseException as again:
            if stops_worker(again):
                raise
            self.retry_by_broker(reason)
        raise _make_retry(describe_wait(reason, wait), wait)

    def _ensure_begun(self, step: Step | None, args: tuple[Any, ...]) -> Step:
        """Return the interrupted step with its lease; begin it for that if it had not begun."""
        if step is None:
            begun = take_lease(self, args)
            if isinstance(begun, Lease):
                self._without_lease(begun, args)
            step = begun
            setattr(self.request, "step", step)  # noqa: B010 - an attribute of ours on Celery's request
        return step

    def _wait_broken_off(self, step: Step, args: tuple[Any, ...], reason: str) -> float:
        """Let the unit wait in the store, with one more failure in its record; return for how many seconds."""
        _, _, turn, seq = args
        failures = step.failures + 1
        position = self.position(turn, seq + 1)
        if self.request.is_eager:
            step.store.leases.advance_unit(step.unit, step.owner, position, step_failures=failures, step_failure=reason)
            return 0.0
        wait = step.draw_countdown(failures)
        due_at = step.now() + wait
        kept = step.store.leases.park_unit(
            step.unit, step.owner, position, due_at, step_failures=failures, step_failure=reason
        )
        step.released = True
        if not kept:
            raise Ignore("taken over")
        return wait

    def _failed_too_often(self, step: Step) -> bool:
        """Return whether the step was interrupted as often in a row as it may be; in eager mode, nobody waits."""
        return step.failures >= (1 if self.request.is_eager else step.settings.max_step_failures)

    def _give_up(self, step: Step) -> Any:
        """Fail the batch with the reason, because the step was interrupted too often."""
        return self.end_failed(self.broken_off(step.failure, step.failures))

    def _release(self, args: tuple[Any, ...]) -> None:
        """Release the lease when the worker is stopped, so that the message's next worker need not wait for it."""
        step: Step | None = getattr(self.request, "step", None)
        if step is not None and not step.released:
            with contextlib.suppress(Exception):
                step.store.leases.advance_unit(step.unit, step.owner, self.position(*args[2:]))

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Count an exception that was raised outside the step, before Celery called it or after, as an interruption."""
        if isinstance(exc, errors.BatchTasksError):
            return
        with contextlib.suppress(Exception):  # if this fails too, the message is found lost later
            args = (*args, 0, 0, 0)[:4]
            self._wait_broken_off(self._ensure_begun(None, args), args, reason_of(exc))

    # -- hooks of the app's task class, for which a step neither begins nor ends a task

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Skip the app's hook."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Skip the app's hook."""

    def on_retry(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Skip the app's hook."""

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Skip the app's hook."""


def reason_of(exc: BaseException) -> str:
    """Say what interrupted a step, without any text that may hold a part of a prompt."""
    name = type(exc).__name__
    if isinstance(exc, (NoThread, NotRun, OutputUnusable)):
        return str(exc)
    if isinstance(exc, SoftTimeLimitExceeded):
        return "its soft time limit was exceeded"
    if isinstance(exc, OSError) and exc.strerror:
        return f"{name}: {exc.strerror}"
    if isinstance(exc, errors.BatchTasksError):
        return f"{name}: {exc}"
    return name


def _make_retry(waiting: errors.Waiting, wait: float) -> Retry:
    """Return Celery's exception for a task that runs again later, whose message something else sends."""
    return Retry(str(waiting), waiting, wait)  # type: ignore[arg-type]
