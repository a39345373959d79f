"""The requests of a batch that go through the Messages API.

They wait in one queue. A few messages, the batch's senders, take from it the requests that may be sent now: those that
the account's limits, the calls in flight on it and the job's budget allow. One step of the store checks all of these
and records that the request is about to be sent. A sender makes several calls at the same time. When nothing may be
sent, it releases its worker and comes back later.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from contextvars import copy_context
from itertools import chain, repeat
from typing import NamedTuple

from claude_batch_tasks import api, errors, metrics, rules, signals
from claude_batch_tasks.api import body_limits
from claude_batch_tasks.lifecycle import resubmission, unsaved_answers
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.pricing import request_bounds, spending
from claude_batch_tasks.records import Need, Unit
from claude_batch_tasks.results import reader
from claude_batch_tasks.steps import credentials, message_chain
from claude_batch_tasks.steps.step import LeaseLost, Step
from claude_batch_tasks.wire import batch_requests, result_rows

log = get_logger(__name__)

#: Requests that are examined at a time, and how many times when none of them may be sent now.
_AHEAD = 16
_LOOKS = 4

#: Seconds between two tries of a call of the store that must not be missed.
_PAUSES = (0.2, 0.5, 1, 2, 4, 8)
#: The error type of a request of which the store has lost whether it was answered.
_UNKNOWN = "answer_lost"
_GONE = (
    "the store has lost what became of its call through the Messages API, if one was made; it may have been billed, so "
    "it is not sent again"
)

_LOST = "the answer to its call through the Messages API was lost"

#: Seconds between tries to store an answer; the last value repeats. After these tries, the answer is written to disk,
#: if there is a directory for it.
_SAVE_AGAIN = (0.2, 0.5, 1.0, 2.0)
_SAVE_AGAIN_MAX = 2.0

#: Seconds between two tries to send something: at least (senders that wait for the same thing do not all come back at
#: once), and at most: an examined request may have to wait for long, and another one not.
_SHORTEST = 0.1
_LONGEST = 5.0


class _Request(NamedTuple):
    place: int
    params: bytes
    model: str
    max_tokens: int
    pace: str
    need: Need


def list_senders(step: Step) -> list[Unit]:
    """Return the senders of the step's batch."""
    record = step.batch
    count = min(rules.SENDERS, record.granted or 0)
    return [Unit(step.unit.job_id, step.unit.batch, record.first_lane + lane) for lane in range(count)]


def all_ended(step: Step) -> bool:
    """Return whether no sender of the step's batch has anything left to do or to report."""
    found = list_senders(step)
    # If the record of the senders is gone, one that nobody awaits has ended too.
    return all(
        position >= message_chain.DONE or (position < 0 and not awaited)
        for position, awaited in zip(
            map(step.store.records.read_position, found), step.store.schedule.are_scheduled(found), strict=True
        )
    )


def fail_abandoned_calls(step: Step) -> bool:
    """Give up calls of ended senders whose answers no process awaits; return whether requests still wait to be sent."""
    unsaved_answers.bring_in(step.settings, step.store)
    for lane in list_senders(step):
        for place in step.store.message_queue.list_abandoned(lane):
            step.store.message_queue.save_outcome(lane, place, reader.kept_outcome(_LOST, tried=True), given_up=True)
    return bool(step.store.message_queue.count_unfinished(step.unit.job_id, step.unit.batch or 0))


def end_unaccounted_requests(step: Step) -> int:
    """End the requests of which no record says whether and how they were answered; return how many.

    They may have been answered and billed. So they are not sent again, and their earlier outcomes are not shown as
    their final ones.
    """
    store, job_id, batch = step.store, step.unit.job_id, step.unit.batch or 0
    granted, stored = step.batch.granted or 0, store.results.count_outcomes(job_id, batch)
    record, job = store.records.read_batch(job_id, batch) or step.batch, store.jobs.read_job(job_id) or step.job
    if record.stored <= stored:
        over = job.cancel_requested or job.stopped is not None
        if over or (step.deadline is not None and step.now() >= step.deadline):
            return 0  # what was still to be sent was dropped on purpose
        if stored + store.message_queue.count_unfinished(job_id, batch) >= granted:
            return 0
    known = store.message_queue.list_known(job_id, batch)
    wanted = resubmission.positions_left(store, job_id, batch, step.batch)[:granted]
    unknown = [place for place in wanted if place not in known]
    for place in unknown:
        store.message_queue.save_outcome(step.unit, place, reader.error_outcome(_UNKNOWN, _GONE, None))
    if unknown:
        step.record(
            stored=store.results.count_outcomes(job_id, batch)
        )  # outcomes that are gone are not counted any more
        step.note("unsent", f"{len(unknown):,} requests: {_GONE}", level=logging.ERROR)
    return len(unknown)


class Lane:
    """One run of a sender.

    Args:
        step: the sender's step.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._limit, self._total = (
            None if dollars is None else spending.to_nano_dollars(dollars)
            for dollars in (step.settings.max_fallback_cost, step.settings.max_cost)
        )
        self._piece: tuple[int, list[bytes]] = (0, [])
        self._looked_at: list[_Request] = []
        self._running: dict[Future[float], _Request] = {}
        #: The seconds that the last calls took.
        self._seconds: list[float] = []
        self._lock = threading.Lock()
        #: The positions of requests whose answers the store has not taken yet.
        self._unsaved: set[int] = set()
        #: Set when the worker is being stopped.
        self._ending = threading.Event()
        #: The request ids of calls that were answered 404, and not reported yet.
        self._not_found: list[str | None] = []
        #: The number of requests by outcome in this run.
        self.done: Counter[str] = Counter()
        #: The positions of these requests.
        self.final: list[int] = []

    def run(self) -> float | None:
        """Send what may be sent; return the seconds until more may be sent, or None if nothing is left.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        step = self._step
        doubt = self._miss_answers()
        try:
            credentials.check_to_spend(step)
            client = step.client
        except (errors.AccountChanged, errors.PermanentError, errors.InvalidSettings) as exc:
            step.stop(str(exc))
            step.store.message_queue.drop_waiting(step.unit.job_id, step.unit.batch or 0)
            return doubt
        until = time.monotonic() + rules.SENDER_TIME_SLICE
        step.also_held.append(self._hold)
        try:
            while True:
                pause = self._fill(client) if time.monotonic() < until and not step.lost.is_set() else 0.0
                if not self._running:
                    return min((seconds for seconds in (pause, doubt) if seconds is not None), default=None)
                # Something may be sent before one of these calls has finished.
                done, _ = wait(self._running, timeout=pause or None, return_when=FIRST_COMPLETED)
                self._tell()
                for call in done:
                    del self._running[call]
                    self._seconds = [*self._seconds[-20:], call.result()]
        except Exception:
            wait(self._running)  # these calls are paid for; but a worker that is being stopped does not wait for them
            self._tell()
            raise
        except BaseException:
            self._ending.set()  # answers go to disk, if there is a directory for them
            deadline = time.monotonic() + _SAVE_AGAIN_MAX
            while self._unsaved and time.monotonic() < deadline:
                time.sleep(0.05)
            raise

    def _tell(self) -> None:
        """Send the signals about calls from the thread in which the step runs, where receivers expect to be called."""
        while self._not_found:
            request_id = self._not_found.pop()
            self._step.tell(signals.not_found_seen, batch_id=None, endpoint="messages", request_id=request_id)

    def _miss_answers(self) -> float | None:
        """Give up the answers to an earlier run's calls that nobody stores; return the seconds until that is allowed.

        None means that nothing is left to give up. Whoever made the calls may still live, and store the answers as soon
        as the store takes them.
        """
        step, now = self._step, self._step.now()
        unsaved_answers.bring_in(step.settings, step.store)
        places, since = (
            step.store.message_queue.list_abandoned(step.unit),
            step.store.records.read_sender(step.unit).missing_since,
        )
        if places and (since is None or since > now):
            step.record(missing_since=now)
            return step.settings.lease
        if places and since is not None and now < since + step.settings.lease:
            return since + step.settings.lease - now
        for place in places:
            self._keep(place, _LOST, tried=True, given_up=True)
        if since is not None:
            step.record(missing_since=None)
        return None

    def _begin(self, client: api.Caller, request: _Request, mark: str) -> None:
        """Start one call in a thread."""
        call: Future[float] = Future()

        def run() -> None:
            try:
                call.set_result(self._send(client, request, mark))
            except Exception as exc:  # noqa: BLE001 - it is raised where it is waited for
                call.set_exception(exc)

        self._running[call] = request
        try:
            # Not a thread of a pool: Python waits for those at its exit. It runs in the context of the step: a client
            # may need that for each call.
            inside = copy_context().run
            threading.Thread(target=inside, args=(run,), name="claude-batch-call", daemon=True).start()
        except RuntimeError:  # no thread can be started: this one makes the call
            run()

    def _fill(self, client: api.Caller) -> float | None:
        """Begin as many calls as may be made; return the seconds until one more may be, None if nothing is left."""
        step, store = self._step, self._step.store
        width = rules.choose_concurrency(min(self._seconds, default=None))
        # A model that must wait does not delay requests of another model.
        shut: dict[str, float] = {}
        looks = 0
        while len(self._running) < width:
            if self._unsaved:  # nothing more is paid for while there is no place to store it
                return _SAVE_AGAIN[1]
            if not self._looked_at:
                places, pause = store.message_queue.list_due(step.unit.job_id, step.unit.batch or 0, _AHEAD)
                if not places or looks == _LOOKS:
                    return min(shut.values(), default=0.0) if places else pause
                self._looked_at = [found for place in places if (found := self._prepare(place)) is not None]
                looks += 1
                continue
            request = self._looked_at[0]
            if request.pace not in shut:
                taken = store.message_queue.take_request(
                    step.unit,
                    step.owner,
                    request.place,
                    request.pace,
                    request.need,
                    step.settings.lease,
                    cap=step.settings.max_messages_in_flight,
                    limit=self._limit,
                    total=self._total,
                )
                if taken.state in ("wait", "reserved"):
                    # Other senders wait for the same thing.
                    jitter = min(taken.seconds, _SHORTEST) * random.random() * rules.SENDERS
                    shut[request.pace] = min(max(taken.seconds, _SHORTEST), _LONGEST) + jitter
                    if taken.state == "reserved" or step.job.models == 1:
                        return shut[request.pace]
                elif taken.state == "taken":
                    self._begin(client, request, taken.mark)
                    looks = 0
                elif taken.state == "taken_over":
                    raise LeaseLost
                elif taken.state in ("stopped", "canceled"):
                    store.message_queue.drop_waiting(step.unit.job_id, step.unit.batch or 0)
                    return None
                elif taken.state == "price":
                    note = f"what {request.model} costs is not known: see claude_batch_prices"
                    self._keep(request.place, note, tried=False)
                elif taken.state == "lost":
                    self._keep(
                        request.place,
                        f"what the job has spent is gone from the store, so {self._budget()} cannot be kept",
                        tried=False,
                    )
                elif taken.state == "budget":
                    self._keep(request.place, f"{self._budget()} does not cover it any more", tried=False)
            del self._looked_at[0]
        return 0.0

    def _budget(self) -> str:
        settings = self._step.settings
        limits = {"max_fallback_cost": settings.max_fallback_cost, "max_cost": settings.max_cost}
        return " or ".join(f"{name} (${limit:,.4g})" for name, limit in limits.items() if limit is not None)

    def _prepare(self, place: int) -> _Request | None:
        """Return what is needed to send a request; None if it cannot be sent this way."""
        step = self._step
        first, piece = self._piece
        if not first <= place < first + len(piece):
            try:
                first, body = step.store.payloads.find_chunk(step.unit.job_id, step.unit.batch or 0, place)
            except errors.ResultsMissing as exc:
                self._keep(place, f"it is not sent, for {exc}", tried=False)
                return None
            piece = batch_requests.params_of(body)
            self._piece = first, piece
        params = piece[place - first]
        values = json.loads(params)
        model, max_tokens = str(values["model"]), int(values["max_tokens"])
        if max_tokens > rules.LONGEST_MESSAGE:
            self._keep(place, f"answers of {max_tokens:,} tokens (max_tokens) exist in batches only", tried=False)
            return None
        least = most = None
        if self._limit is not None or self._total is not None:
            found = request_bounds.budget_need(values, step.settings.price_list, batch=False)
            if isinstance(found, request_bounds.Need):
                least, most = spending.to_nano_dollars(found.input), spending.to_nano_dollars(found.most)
            elif step.settings.price_list.known(model):
                self._keep(place, f"its cost has no limit: {found.why}", tried=False)
                return None
        need = Need(request_bounds.tokens_of(values), least, most)
        return _Request(place, params, model, max_tokens, f"{step.account}:messages:{model}", need)

    def _hold(self) -> None:
        """Renew the records of the calls that are running."""
        paces = {request.place: request.pace for request in list(self._running.values())}
        self._step.store.message_queue.renew_calls(self._step.unit, paces, self._step.settings.lease)

    def _send(self, client: api.Caller, request: _Request, mark: str) -> float:
        """Make one call and store its outcome; return the seconds it took."""
        step, begun = self._step, time.monotonic()
        limits: dict[str, tuple[int, int]] = {}
        refused, hold, output = False, None, None
        accounts: list[api.Account] = []
        confirmed = False

        def confirm() -> None:
            nonlocal confirmed
            self._confirm(request.place)
            confirmed = True

        try:
            stream = rules.must_stream(request.model, request.max_tokens)
            with body_limits.confirmed(confirm):
                answer = api.create_message(client, request.params, stream=stream, on_account=accounts.append)
            limits = answer.limits
            outcome = reader.message_outcome(answer.message)
            try:
                output, spent = self._cost(outcome, request)
            except Exception:  # no fault of the prices may lose an answer that is paid for
                extra = step.fields("price")
                log.exception("%s: what request %d cost could not be computed", step.where, request.place, extra=extra)
                spent = None
            self._save(request.place, outcome, "succeeded", spent=spent)
            for seen in accounts:
                credentials.learn_account(step, seen)
        except errors.AmbiguousError as exc:
            if rules.concerns_account(exc.error_type, str(exc), status=exc.status or 0, code=exc.code):
                step.stop(str(exc))
            self._keep(request.place, f"{exc}; it may have been billed, so it is not sent again", tried=True)
        except LeaseLost:
            raise
        except errors.StoreUnavailable:
            if confirmed:
                raise
            self._put_back_unsent(request.place)
        except errors.ApiError as exc:
            limits, hold = exc.limits, exc.hold
            # A refused token says nothing about how many calls are allowed.
            refused = isinstance(exc, errors.TransientError) and exc.status != 401
            self._refused(request, exc)
        except Exception as exc:
            extra = step.fields("error")
            log.exception("%s: request %d met an error there is no rule for", step.where, request.place, extra=extra)
            self._keep(
                request.place, f"{type(exc).__name__}; it may have been billed, so it is not sent again", tried=True
            )
        finally:
            step.store.message_queue.record_answer(
                step.unit,
                request.place,
                request.pace,
                mark,
                limits=limits,
                refused=refused,
                hold=hold,
                cap=step.settings.max_messages_in_flight,
                output=output,
            )
        for seen in accounts:
            self._compare(seen)
        return time.monotonic() - begun

    def _confirm(self, place: int) -> None:
        """Ensure that a request is still this sender's to send; wait a little for the store."""
        for pause in _PAUSES:
            try:
                return self._step.confirm_lease(place)
            except errors.StoreUnavailable:
                time.sleep(pause)
        return self._step.confirm_lease(place)

    def _put_back_unsent(self, place: int) -> None:
        """Put a request back into the queue: nothing of it was sent, because the store could not say that it may be."""
        while not self._ending.is_set():
            with suppress(errors.StoreUnavailable):
                self._step.store.message_queue.put_back(self._step.unit, place, 0.0, self._step.settings.messages_limit)
                return
            self._ending.wait(_SAVE_AGAIN_MAX)

    def _compare(self, seen: api.Account) -> None:
        """Stop the job if another account than its own answered a call."""
        try:
            credentials.compare_with_job(self._step, seen)
        except errors.AccountChanged as exc:
            self._step.stop(str(exc))

    def _cost(self, outcome: bytes, request: _Request) -> tuple[int | None, int | None]:
        """Return the output tokens of an answer and its cost in nano-dollars; None for what is not known."""
        message = reader.as_row(outcome).result.message
        if message is None or message.usage is None:
            return None, None
        message.model = message.model or request.model
        meter = spending.Meter(self._step.settings.price_list, batch=False)
        result_rows.count_answers(meter, [message])
        cost = spending.total_cost(meter.costs())
        return message.usage.output_tokens or 0, None if cost is None else spending.to_nano_dollars(cost)

    def _refused(self, request: _Request, exc: errors.ApiError) -> None:
        """Handle a call that was not charged for: retry it later, close its request, or stop the job."""
        step, place = self._step, request.place
        if exc.status == 404:
            self._not_found.append(exc.request_id)
        token_refused = exc.status == 401 and isinstance(exc, errors.TryLater)  # another token is requested
        if not token_refused and rules.concerns_account(
            exc.error_type, str(exc), status=exc.status or 0, code=exc.code
        ):
            step.stop(str(exc))
            self._keep(place, str(exc), tried=False, spent=0)
        elif isinstance(exc, errors.TryLater):
            wait = rules.retry_countdown(
                step.store.message_queue.count_refusals(step.unit, place) + 1,
                retry_min=step.settings.retry_min,
                retry_max=step.settings.retry_max,
                at_least=exc.retry_after,
                rand=random.random(),
            )
            wait = step.bound_wait(wait, exc.retry_after)
            times = step.store.message_queue.put_back(step.unit, place, wait, step.settings.messages_limit)
            extra = step.fields("refused", endpoint="messages", status=exc.status, request_id=exc.request_id)
            log.info("%s: request %d: %s; next try in %.1f s", step.where, place, exc, wait, extra=extra)
            if times >= step.settings.messages_limit:
                self._keep(place, f"refused {times} times, the last time: {exc}", tried=True, spent=0)
        elif rules.concerns_request(exc.status):
            kind = exc.error_type or "invalid_request_error"
            self._save(place, reader.error_outcome(kind, str(exc), exc.request_id), "errored", spent=0)
        else:
            self._keep(place, str(exc), tried=True, spent=0)

    def _keep(self, place: int, note: str, *, tried: bool, spent: int | None = None, given_up: bool = False) -> None:
        log.log(
            logging.WARNING if tried else logging.INFO,
            "%s: request %d keeps its outcome: %s",
            self._step.where,
            place,
            note,
            extra=self._step.fields("kept"),
        )
        self._save(place, reader.kept_outcome(note, tried=tried), "kept", spent=spent, given_up=given_up)

    def _save(self, place: int, outcome: bytes, kind: str, *, spent: int | None, given_up: bool = False) -> None:
        """Store an outcome.

        An answer is paid for, so this waits for the store as long as the process lives.
        """
        step, unit, paid = self._step, self._step.unit, kind != "kept"
        answer = unsaved_answers.Answer(unit.job_id, unit.batch or 0, unit.lane or 0, place, outcome, spent)
        try:
            for number, pause in enumerate(chain(_SAVE_AGAIN, repeat(_SAVE_AGAIN_MAX))):
                try:
                    stored = step.store.message_queue.save_outcome(unit, place, outcome, spent=spent, given_up=given_up)
                    break
                except errors.StoreUnavailable as exc:
                    waited = number >= len(_SAVE_AGAIN) or self._ending.is_set()
                    if waited and not paid:
                        raise
                    if waited and unsaved_answers.write_answer(step.settings, answer):
                        text = "%s: the answer to request %d is on disk until the store takes it"
                        log.warning(text, step.where, place, extra=step.fields("held"))
                        return
                    if self._ending.is_set():
                        text = "%s: the answer to request %d is lost: %s"
                        log.error(text, step.where, place, exc, extra=step.fields("lost_answer"))
                        raise
                    if paid and place not in self._unsaved:
                        self._unsaved.add(place)
                        text = "%s: the answer to request %d is held until the store takes it: %s"
                        log.warning(text, step.where, place, exc, extra=step.fields("held"))
                    self._ending.wait(pause)
        finally:
            self._unsaved.discard(place)
        if stored:
            with self._lock:
                self.done[kind] += 1
                self.final.append(place)
            metrics.count("cost_dollars", spending.to_dollars(spent or 0), source="messages")
