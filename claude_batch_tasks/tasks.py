"""The Celery tasks, in the order in which a batch lives.

``run_batch`` → ``create_batch`` → ``poll_batch`` → ``fetch_results`` → ``fall_back`` → ``finish_job``. Each batch of
a job goes through a chain of its own; the last link of every chain is ``finish_job`` under the id that
``run_batch.delay()`` returned, and the one that finds all batches through ends the job.
"""

from __future__ import annotations

import logging
import math
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, NoReturn

from celery import chain, shared_task
from celery.exceptions import Ignore
from celery.result import AsyncResult, allow_join_result
from celery.states import FAILURE, SUCCESS
from celery.utils import uuid

from claude_batch_tasks import (
    account,
    api,
    errors,
    failure,
    line,
    looks,
    policy,
    reading,
    recovery,
    results,
    sightings,
    submit,
    totals,
    worker,
)
from claude_batch_tasks.line import DONE, NAME
from claude_batch_tasks.pace import Pace
from claude_batch_tasks.settings import configured_app
from claude_batch_tasks.step import BatchTask, LeaseLost, Step, StepTask, publish_progress
from claude_batch_tasks.store import Flight, Unit
from claude_batch_tasks.texts import clock, words

log = logging.getLogger(__name__)

worker.connect()


class RunBatch(BatchTask):
    """``run_batch``: puts the requests into the store before anything is sent, so that messages carry only ids."""

    abstract = True
    ignore_result = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self.quietly():
            return self.run(*args, **kwargs)

    def apply_async(  # type: ignore[override]
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None, **options: Any
    ) -> AsyncResult[Any]:
        """As Celery's, after the requests were checked and staged.

        Raises:
            InvalidRequests, InvalidSettings: what is wrong; nothing was stored or sent.
            StoreUnavailable: the store does not answer; nothing was stored or sent.
        """
        args, kwargs = tuple(args or ()), dict(kwargs or {})
        if "job_id" in kwargs:
            return super().apply_async(args, kwargs, task_id=task_id, **options)
        if len(args) > 1 or (args and "requests" in kwargs) or not (args or "requests" in kwargs):
            raise TypeError("run_batch takes the requests, and options by keyword")
        requests = args[0] if args else kwargs.pop("requests")
        if self.app.main == "default":
            # Celery's implicit app, in a program that configured none: the ready-made one knows broker and settings.
            task = configured_app().tasks[self.name]
            return task.apply_async((requests,), kwargs, task_id=task_id, **options)
        task_id, delay = task_id or uuid(), _delay(options)
        record = submit.submit(
            self.app,
            task_id,
            requests,
            kwargs,
            canvas=line.canvas(options),
            queue=_queue_name(options.get("queue")),
            delay=delay,
        )
        log.info("job %s: %d requests in %d batches staged", task_id, record.requests, record.batches)
        shown = f"({record.requests} requests in {record.batches} batches,)"
        try:
            sent = super().apply_async((), {"job_id": task_id}, task_id=task_id, **{"argsrepr": shown, **options})
        except errors.BatchTasksError:
            raise  # eager: the job ran, and this is how it ended
        except Exception:
            if self.app.conf.task_always_eager or not self._arrived(task_id):
                raise
            log.warning("job %s: the broker took it, although it did not say so", task_id)
            return self.AsyncResult(task_id)
        if not self.app.conf.task_always_eager:
            # From here on its messages are missed when they do not come.
            with suppress(errors.StoreUnavailable):
                self.store.schedule([Unit(task_id)], time.time() + delay)
        return sent

    def _arrived(self, job_id: str) -> bool:
        """Whether a worker has begun the job whose message seemed to be refused; if none has, none will."""
        try:
            if not self.store.update_job(job_id, only="staged", state="revoked", ended_at=time.time()):
                return self.store.job(job_id) is not None
            self.store.delete(job_id)
        except errors.StoreUnavailable:
            log.warning("job %s: its requests could not be removed from the store, and will expire", job_id)
        return False


@shared_task(bind=True, base=RunBatch, name=NAME + "run_batch")  # type: ignore[arg-type]
def run_batch(self: RunBatch, requests: Any = None, *, job_id: str | None = None, **options: Any) -> Any:
    """Run requests through Message Batches; the result is the job's summary.

    Args:
        requests: any iterable of ``{"custom_id": ..., "params": {...}}``, or a mapping of custom_id to params.
        options: ``client``, the alias of an account, and any per-job setting of ``settings.Settings`` by its name,
            such as ``fallback="off"``.

    Returns:
        A dict: ``job_id, state, requests, succeeded, errored, expired, canceled, resubmitted, fallback,
        fallback_skipped, batch_ids, usage, cost, started_at, ended_at``; ``state`` is ``completed`` or ``canceled``.

    Raises:
        PermanentError, CreateNotFound, CreateUnconfirmed, AccountChanged, BatchLost, WaitExceeded, ResultsMissing,
        StepFailed: how a job fails; the text says what was kept and what to do.
        JobNotFound: the store has lost the job.
    """
    job_id = job_id or str(self.request.id)
    store, settings, record = self.open(job_id)
    if record is None:
        if requests is None:
            raise errors.JobNotFound(f"job {job_id} is not in the store; its staged requests have expired")
        # A later link of a chain gets the requests as its argument, from an app that does not know this task's class.
        record = submit.submit(self.app, job_id, requests, options)
        settings = settings.override(record.options)
    if record.ended_at is not None:
        raise Ignore("duplicate")
    store.keep(job_id)
    if (now := store.job(job_id)) is not None and now.ended_at is not None:  # just before it was kept
        store.expire(job_id, settings.result_ttl)
        raise Ignore("duplicate")
    if record.state == "staged":
        record.started_at, record.canvas = time.time(), line.canvas(self.request)
        # The others follow, each when one is through: see fall_back.
        limit = record.batches if self.request.is_eager else settings.max_batches_in_flight
        record.admitted = min(record.batches, limit)
        store.schedule([Unit(job_id), *(Unit(job_id, number) for number in range(record.admitted))], record.started_at)
        begun = {
            "state": "running",
            "started_at": record.started_at,
            "canvas": record.canvas,
            "admitted": record.admitted,
        }
        if store.update_job(job_id, only="staged", **begun):
            publish_progress(self, job_id, totals.progress(record, store.batches(job_id)), "started")
    log.info("job %s: started, %d requests in %d batches", job_id, record.requests, record.batches)
    # What follows the job, and is linked to it, follows its last task now.
    self.request.callbacks = self.request.chain = None
    lines = [line.steps(self.app, job_id, record, number) for number in range(record.admitted)]
    if self.request.is_eager:
        return line.run_eagerly(record, lines)
    for steps in lines:
        line.publish(record, job_id, steps)
    raise Ignore("its steps end it")


# -- create


class InFlightTask(StepTask):
    """A step after which the batch may be in flight: a listing may spare it its next look."""

    abstract = True

    def flight(self) -> tuple[str, Flight] | None:
        """The batch, if listings tell it apart and may speak for it."""
        record = self.step.batch
        if record.state not in ("in_progress", "canceling") or record.provisional or record.created_at is None:
            return None
        return self.step.account, looks.flight(self.step)


class CreateBatch(InFlightTask):
    """``create_batch``: the first look comes a while after it."""

    abstract = True
    rank = 0

    def pause(self) -> float:
        """Until the schedule's first look, if there is a batch to look at."""
        return max(looks.next_look(self.step) - time.time(), 0) if self.step.batch.state == "in_progress" else 0.0


@shared_task(bind=True, base=CreateBatch, name=NAME + "create_batch")
def create_batch(self: CreateBatch, job_id: str, batch: int, turn: int = 0, seq: int = 0) -> str:
    """Create the batch at Anthropic, once: the intent is written first, and an unclear answer is searched for."""
    step, record = self.step, self.step.batch
    if record.state not in ("staged", "creating"):
        return f"nothing to create: {record.state}"
    self.not_yet_due()
    # However long its first message was in a queue, a job is begun; what had to wait longer need not be.
    waited = record.due_at or record.intent_at or batch >= step.settings.max_batches_in_flight
    if record.intent_at is not None and sightings.reconcile(step):
        return f"adopted {record.batch_id}"
    if step.job.cancel_requested:
        step.record(state="unsent", outcome={"type": "canceled"}, counts={"canceled": record.count})
        return "canceled before it was created"
    if waited:
        step.check_patience()
    account.check_to_spend(step)
    step.pace.check("create")
    client = step.client
    step.record(state="creating", intent_at=time.time(), unanswered_at=None, ambiguous_at=None, create_looks=0)
    try:
        body = step.while_held(submit.body(step.store, job_id, batch))
        with step.pace.heeded("create"):
            created = api.create(client, body, record.body_bytes)
    except errors.AmbiguousError as exc:
        step.record(unanswered_at=time.time(), ambiguous_at=time.time())
        raise errors.CreateUnresolved(f"{exc}; searching for what it may have created", exc.retry_after) from None
    except errors.NotFoundError as exc:
        step.record(
            state="staged",
            intent_at=None,
            create_not_found=record.create_not_found + 1,
            not_found=record.not_found + 1,
        )
        log.warning("%s: 404 on create, %d in a row", step.where, record.create_not_found)
        if record.create_not_found >= step.settings.create_not_found_limit:
            return sightings.without_batch(step, "unsent", errors.CreateNotFound(*exc.args))
        raise
    except (errors.TransientError, errors.PermanentError):
        step.record(state="staged", intent_at=None)
        raise
    sightings.created(step, created)
    step.pace.heed(created.hold)
    account.proven(step, created.organization)
    log.info("%s: created, %d requests", step.where, record.count)
    return f"created {created.id}, {record.count} requests"


# -- poll


class PollBatch(InFlightTask):
    """``poll_batch``: a look at a batch, and the wait for the next."""

    abstract = True
    rank = 1
    last_look = policy.LAST_LOOK

    def look_interval(self, now: float) -> float:
        """As the schedule has it."""
        return max(looks.next_look(self.step) - now, 0)


@shared_task(bind=True, base=PollBatch, name=NAME + "poll_batch")
def poll_batch(self: PollBatch, job_id: str, batch: int, turn: int = 0, seq: int = 0) -> str:
    """Look at the batch; come back after a countdown until it has ended."""
    step, record = self.step, self.step.batch
    if record.state not in ("in_progress", "canceling"):
        return f"nothing to look at: {record.state}"
    assert record.batch_id is not None
    try:
        # Not before the results have confirmed it: it may be another application's.
        if step.job.cancel_requested and not record.cancel_sent and not record.provisional:
            # Refused where the batch has ended by itself; whatever else is wrong, the look says it as well.
            step.pace.check()
            with suppress(errors.PermanentError), step.pace.heeded():
                api.cancel(step.client, record.batch_id, timeout=step.settings.timeout)
            step.record(cancel_sent=True)
        seen, seen_at = looks.look(step)
    except errors.NotFoundError as exc:
        return sightings.not_found(step, exc)
    if step.job.adopted:
        _meet(step, seen)
    step.record(
        looks=record.looks + 1,
        sighting=seen_at,
        absences=0,
        state="canceling" if seen.processing_status == "canceling" else "in_progress",
    )
    if not record.provisional:
        account.proven(step, seen.organization)
    elif step.store.holder(seen.id) != step.unit:
        return sightings.give_back(step, "another job knows that it is its own")
    elif seen.processing_status != "ended":
        with suppress(errors.ApiError):
            sightings.look_elsewhere(step)
    if seen.processing_status != "ended":
        waited = sum(seen.request_counts.get(name, 0) for name in results.OUTCOMES)
        status = seen.processing_status.replace("_", " ")
        raise errors.BatchInProgress(f"{status}: {waited:,} of {record.count:,}")
    if seen.archived_at is not None and record.provisional:
        return sightings.give_back(step, "it is archived")
    if seen.archived_at is not None:
        return sightings.without_batch(
            step, "lost", errors.BatchArchived(f"batch {seen.id} is archived; its results are gone")
        )
    if record.provisional and sightings.is_ours(step, seen) is False:
        return sightings.give_back(step, "its rows are another's")
    step.record(state="ended", counts={name: seen.request_counts.get(name, 0) for name in results.OUTCOMES})
    if seen.ended_at is not None and not step.job.cancel_requested and time.time() < (record.expires_at or math.inf):
        took = (seen.ended_at - seen.created_at).total_seconds()
        step.store.note_end(step.account, record.count, max(took, 0.0))
    log.info("%s: ended, %s", step.where, words(record.counts))
    return f"ended: {words(record.counts)}"


def _meet(step: Step, seen: api.Batch) -> None:
    """A look at a batch created elsewhere says how many requests it has, and since when."""
    record, count = step.batch, sum(seen.request_counts.values())
    if record.created_at is None:
        step.store.keep(step.unit.job_id)
        if not step.claim(seen.id, created_at=seen.created_at.timestamp()):
            holder = step.store.holder(seen.id)
            raise errors.BatchTasksError(f"batch {seen.id} is that of job {holder.job_id if holder else 'another'}")
        step.record(expires_at=seen.expires_at.timestamp() if seen.expires_at else None)
    if count not in (0, record.count):
        step.store.update_job(step.unit.job_id, requests=count)
        step.job.requests = count
        step.record(count=count)
    if not record.count and not seen.running:
        error = f"retrieve: {seen.id} has ended, and is shown without its requests"
        if record.failures + 1 >= step.settings.results_limit:
            raise errors.ResultsMissing(error)
        raise errors.TransientError(error)


# -- fetch


@shared_task(bind=True, base=StepTask, rank=2, last_look=policy.LAST_LOOK, name=NAME + "fetch_results")
def fetch_results(self: StepTask, job_id: str, batch: int, turn: int = 0, seq: int = 0) -> str:
    """Download, check and publish the batch's results; again if they do not add up."""
    step, record = self.step, self.step.batch
    if record.turn > turn:
        return _another_turn(self, step)
    if record.state != "ended":
        return f"nothing to fetch: {record.state}"
    self.not_yet_due()
    assert record.batch_id is not None
    step.pace.check()
    step.record(attempt=record.attempt + 1)
    checked = results.AdoptedCompleteness if step.job.adopted else results.Completeness
    seen = checked(step.job.nonce, record.first, record.count)
    try:
        with step.pace.heeded(), api.results(step.client, record.batch_id, timeout=step.settings.timeout) as chunks:
            pieces = seen.keep(step.while_held(chunks))
            step.store.write_results(job_id, batch, record.attempt, pieces)
    except errors.NotFoundError as exc:
        ended = sightings.not_found(step, exc)
        return _another_turn(self, step) if record.turn > turn else ended
    if record.provisional and seen.all_foreign:
        step.store.discard_results(job_id, batch, record.attempt)
        sightings.give_back(step, "every row is foreign")
        return _another_turn(self, step)
    step.record(sighting=time.time())
    try:
        seen.check(record.counts)
    except errors.ResultsIncomplete as exc:
        log.warning("%s: download %d: %s", step.where, record.attempt, exc)
        limit, downloads = step.settings.results_limit, record.attempt - record.attempts_before
        if downloads < (min(limit, policy.TALLY_DOWNLOADS) if seen.complete else limit):
            step.store.discard_results(job_id, batch, record.attempt)
            raise
        if not seen.complete:
            _publish(step, seen)
            return step.fail(errors.ResultsMissing(f"{exc}, in each of {downloads} downloads"))
    _publish(step, seen)
    log.info("%s: fetched, %s", step.where, words(seen.tallies))
    return f"fetched: {words(seen.tallies)}"


def _publish(step: Step, seen: results.Completeness) -> None:
    record = step.batch
    changes: dict[str, Any] = {
        "state": "fetched",
        "provisional": False,
        "intent_at": None,
        "counts": {name: seen.tallies[name] for name in results.OUTCOMES},
        "usage": dict(seen.usage),
        "eligible": len(seen.eligible),
    }
    rows: dict[str, Any] = {"pieces": seen.pieces.tobytes(), "eligible_places": seen.eligible.tobytes()}
    if isinstance(seen, results.AdoptedCompleteness):
        rows["index"] = seen.index.parts()
    if not step.store.publish(step.unit, step.owner, record.attempt, **rows, **changes):
        raise LeaseLost
    for name, value in {"published": record.attempt, **changes}.items():
        setattr(record, name, value)


def _another_turn(task: StepTask, step: Step) -> NoReturn:
    """Go through create, poll, fetch and what follows again."""
    number = step.unit.batch or 0
    at = line.position(step.batch.turn, 0)
    steps = line.steps(task.app, step.unit.job_id, step.job, number, since=at)
    if task.request.is_eager:
        with allow_join_result():
            chain(*steps[:-1]).apply()
        raise Ignore("eager: the new turn has run")
    line.publish(step.job, step.unit.job_id, steps)
    step.store.advance(step.unit, step.owner, at, failures=0, due_at=None)
    raise Ignore("begun anew")


# -- fall back


class FallBack(StepTask):
    """``fall_back``: the last step of a batch."""

    abstract = True
    rank = 3
    last = True
    waits = False

    def after(self, turn: int) -> int:
        """The end of the batch's life."""
        return DONE


@shared_task(bind=True, base=FallBack, name=NAME + "fall_back")
def fall_back(self: FallBack, job_id: str, batch: int, turn: int = 0, seq: int = 0) -> str:
    """Send what deserves another chance through the Messages API, within the job's limit; wait until it is through."""
    step, record = self.step, self.step.batch
    # Once: if this one's message is lost, the ledger knows that it is due.
    if not record.made_room and (following := step.store.admit(job_id, batch)) is not None:
        since = step.store.position(Unit(job_id, following))
        line.publish(step.job, job_id, line.steps(self.app, job_id, step.job, following, since=since))
    if record.done:
        return "done"
    self.not_yet_due()
    settings = step.settings
    # What was granted once may be on its way, and paid: also a canceled job waits for it.
    canceled = step.job.cancel_requested and record.granted is None
    if record.state == "failed" or settings.fallback == "off" or canceled or not record.eligible:
        wanted = granted = 0
    else:
        wanted = record.eligible
        granted = record.granted = step.store.grant(job_id, batch, wanted, settings.max_fallback_requests)
    if granted:
        if not record.messages_out:
            log.info("%s: %d of %d requests go through the Messages API", step.where, granted, wanted)
            chosen = _eligible(step)[:granted]
            step.store.schedule((Unit(job_id, batch, place) for place in chosen), time.time())
            for place in chosen:
                line.message(self.app, step.job, Unit(job_id, batch, place)).apply_async()
            step.record(messages_out=True)
        through = step.store.outcome_count(job_id, batch)
        if through < granted and step.job.cancel_requested:
            step.store.wake(Unit(job_id, batch, place) for place in _eligible(step)[:granted])
        if through < granted:
            raise errors.FallbackInProgress(f"fallback: {through:,} of {granted:,} answered")
    _close(step, skipped=wanted - granted)
    return f"done: {words(record.counts)}; {record.answered:,} through the Messages API"


def _eligible(step: Step) -> Sequence[int]:
    """The positions of the batch's requests that deserve another chance."""
    record = step.batch
    if record.published is None:
        return range(record.count)
    places = array("I")
    places.frombytes(step.store.eligible(step.unit.job_id, step.unit.batch or 0, record.published))
    return places


def _close(step: Step, skipped: int) -> None:
    """The batch has its final outcomes: count them as a reader will see them."""
    record, changes = step.batch, {}
    if record.granted:
        counts: Counter[str] = Counter()
        usage: Counter[str] = Counter()
        answered = 0
        reader = reading.Reader(step.store, step.unit.job_id, step.job, step.unit.batch or 0, record)
        for outcome in reader.outcomes():
            counts[outcome.row.type] += 1
            usage.update(outcome.row.usage)
            answered += outcome.source == "messages"
        changes = {"counts": dict(counts), "usage": dict(usage), "answered": answered}
    step.record(done=True, skipped=skipped, **changes)


class CreateMessage(StepTask):
    """``create_message``: its unit is one request, its arguments job id, batch number, position, sequence number.

    The position stands where other steps have the turn.
    """

    abstract = True
    last = True

    def unit(self, job_id: str, batch: int, turn: int) -> Unit:
        """The request."""
        return Unit(job_id, batch, turn)

    def position(self, turn: int, seq: int) -> int:
        """Only its own sequence number counts."""
        return seq

    def after(self, turn: int) -> int:
        """The end of the request's life."""
        return DONE

    def due(self) -> float | None:
        """When the request may be sent again."""
        return self.step.store.message(self.step.unit).due_at

    def failures(self) -> int:
        """Refusals so far."""
        return self.step.store.message(self.step.unit).failures

    def report(self, line: str, due_at: float | None = None) -> None:
        """``fall_back`` reports for all of them."""

    def gone(self, job_id: str) -> NoReturn:
        """``fall_back`` tells whoever waits for the job."""
        raise Ignore("the job is gone from the store")

    def failed(self, error: errors.BatchTasksError) -> str:
        """It keeps the outcome it had: an error of one request must not end its batch."""
        return _keep(self.step, f"{error}")


@shared_task(bind=True, base=CreateMessage, name=NAME + "create_message")
def create_message(self: CreateMessage, job_id: str, batch: int, place: int, seq: int = 0) -> str:
    """Send one request through the Messages API and store its outcome the moment it arrives.

    A call whose answer was lost may have been answered and billed, so it is not made a second time: the request keeps
    the outcome it had.
    """
    step = self.step
    if step.store.outcome(job_id, batch, place) is not None:
        return "has its outcome"
    record = step.store.message(step.unit)
    if record.sent_at is not None:
        return _keep(step, f"the answer to the call at {clock(record.sent_at)} was lost")
    self.not_yet_due()
    if step.job.cancel_requested:
        return _keep(step, "the job was canceled")
    params = step.store.params(job_id, batch, place)
    account.check_to_spend(step)
    client = step.client
    step.record(sent_at=time.time())
    try:
        message = api.create_message(client, params)
    except errors.AmbiguousError as exc:
        return _keep(step, f"{exc}; it may have been billed, so it is not sent again")
    except (errors.TransientError, errors.NotFoundError) as exc:
        step.record(sent_at=None)
        if record.failures + 1 >= step.settings.messages_limit:
            return _keep(step, f"refused {record.failures + 1} times, the last time: {exc}")
        raise
    except errors.PermanentError as exc:
        if exc.status not in (400, 413, 422):
            return _keep(step, str(exc))
        kind = exc.error_type or "invalid_request_error"
        _save(step, reading.error_outcome(kind, str(exc), exc.request_id))
        return f"errored: {exc}"
    _save(step, reading.message_outcome(message))
    return "succeeded"


def _save(step: Step, outcome: bytes) -> None:
    """Store an outcome that cannot be asked for again: it is paid, so here the store is waited for a little."""
    for pause in (0.2, 0.5, 1, 2, 4, 8, None):
        try:
            step.store.save_outcome(step.unit.job_id, step.unit.batch or 0, step.unit.place or 0, outcome)
        except errors.StoreUnavailable:
            if pause is None:
                raise
            time.sleep(pause)
        else:
            return


def _keep(step: Step, note: str) -> str:
    log.warning("%s keeps its outcome: %s", step.where, note)
    step.store.save_outcome(step.unit.job_id, step.unit.batch or 0, step.unit.place or 0, reading.kept_outcome(note))
    return f"keeps its outcome: {note}"


# -- the end


class FinishJob(StepTask):
    """``finish_job``: one copy ends every batch's chain, and the one that finds all of them through ends the job."""

    abstract = True
    last = True
    waits = False
    ignore_result = False

    def unit(self, job_id: str, batch: int, turn: int) -> Unit:
        """The job."""
        return Unit(job_id)

    def position(self, turn: int, seq: int) -> int:
        """It has no sequence: coming back is no new position."""
        return 0

    def after(self, turn: int) -> int:
        """The end of the job's life."""
        return line.ENDED

    def __call__(self, job_id: str, batch: int = 0, turn: int = 0, seq: int = 0) -> Any:
        try:
            _, _, record = self.open(job_id)
            if record is not None and record.through < record.batches:
                raise Ignore("other batches of the job are still on their way")
        except errors.StoreUnavailable as exc:
            with self.quietly():
                BatchTask.retry(self, exc=exc)
        with self.quietly():
            return super().__call__(job_id, batch, turn, seq)

    def failed(self, error: errors.BatchTasksError) -> str:
        """The job's failure is this task's own, for ``get()`` and ``link_error``."""
        raise error

    def pass_on(self, value: Any) -> None:
        """Publish what follows the job in the caller's chain. It is through only when Celery has stored its result."""
        self.publish_next(value)

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Its result is stored."""
        self.move_on()


@shared_task(bind=True, base=FinishJob, name=NAME + "finish_job")
def finish_job(self: FinishJob, job_id: str, batch: int = 0, turn: int = 0, seq: int = 0) -> dict[str, Any]:
    """Sum the job up, let its payloads expire in time, and end the caller's AsyncResult."""
    step = self.step
    # REVOKED is not how this job ended: it would not have come here.
    if step.job.ended_at is not None and self.told(job_id) in (SUCCESS, FAILURE):
        self.move_on()
        raise Ignore("duplicate")
    batches = step.store.batches(job_id)
    summary = step.job.summary or totals.summarize(job_id, step.job, batches, time.time())
    error = failure.of(step, batches, summary)
    # Before it has ended: from then on it may be taken up again, and must not expire.
    step.store.expire(job_id, step.settings.result_ttl)
    step.store.update_job(
        job_id,
        state=summary["state"],
        ended_at=time.time(),
        summary=summary,
        error=str(error) if error else None,
    )
    log.info("job %s: %s, %s", job_id, summary["state"], words(totals.tally(batches)))
    if error is not None:
        raise error
    return summary


# -- cancel


@shared_task(bind=True, base=BatchTask, name=NAME + "cancel_batch")
def cancel_batch(self: BatchTask, job_id: str, batch: int) -> str:
    """Ask Anthropic to cancel a batch now; ``poll_batch`` would at its next look."""
    store, settings, record = self.open(job_id)
    found = store.batch(job_id, batch)
    if record is None or found is None or found.batch_id is None or found.state not in ("in_progress", "canceling"):
        return "nothing to cancel yet"
    if found.provisional:
        return "not before it is certain that the batch is this job's"
    client = api.client(record.client, settings.client_factories)
    pace = Pace(store, api.account_name(client))
    pace.check()
    try:
        with pace.heeded():
            seen = api.cancel(client, found.batch_id, timeout=settings.timeout)
    except errors.PermanentError as exc:
        return f"refused: {exc}"
    log.info("job %s batch %d (%s): cancel asked for, %s", job_id, batch, found.batch_id, seen.processing_status)
    return seen.processing_status


# -- recovery


@shared_task(bind=True, base=BatchTask, name=NAME + "recover_jobs")
def recover_jobs(self: BatchTask, after: float = 0) -> str:
    """Send again the messages of running jobs that the broker lost. Safe at any time, from several places at once.

    Workers do it by themselves every ``recover_every`` seconds; this is for a schedule or a caller of your own.

    Args:
        after: seconds a message must be overdue to count as lost; 0: everything that waits gets another copy, of
            which the ledger lets one act.
    """
    return f"{recovery.recover(self.app, after)} messages sent again"


def _queue_name(queue: Any) -> Any:
    return getattr(queue, "name", queue)


def _delay(options: dict[str, Any]) -> float:
    """Seconds from now at which a task with these options is to start."""
    if isinstance(eta := options.get("eta"), datetime):
        return max(eta.timestamp() - time.time(), 0)
    return float(options.get("countdown") or 0)
