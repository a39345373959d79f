"""One run of a sender: it takes requests from the queue, makes several calls at a time, and stores each answer."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field

from claude_batch_tasks import api, errors, rules, signals
from claude_batch_tasks.api import body_limits
from claude_batch_tasks.lifecycle.messages_fallback.outcomes import SAVE_AGAIN, SAVE_AGAIN_MAX, Outcomes
from claude_batch_tasks.lifecycle.messages_fallback.prepared_requests import UNLIMITED, Preparation, Request
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import Taken
from claude_batch_tasks.results.stored.messages_outcomes import (
    add_attempts,
    error_outcome,
    message_outcome,
    open_answers,
)
from claude_batch_tasks.steps import LeaseLost, Step, credentials

log = get_logger(__name__)

#: Requests that are examined at a time, and how many times when none of them may be sent now.
_AHEAD = 16
_LOOKS = 4

#: Seconds between two tries of a call of the store that must not be missed.
_PAUSES = (0.2, 0.5, 1, 2, 4, 8)

#: Seconds between two tries to send something: at least (senders that wait for the same thing do not all come back at
#: once), and at most: an examined request may have to wait for long, and another one not.
_SHORTEST = 0.1
_LONGEST = 5.0


@dataclass
class _Call:
    """What a call's answer says of limits, and who answered it."""

    limits: dict[str, tuple[int, int]] = field(default_factory=dict)
    refused: bool = False
    hold: float | None = None
    output: int | None = None
    accounts: list[api.Account] = field(default_factory=list)
    confirmed: bool = False
    """It was certain that the request was this sender's to send: from then on it may have been sent."""


class Sender:
    """One run of a sender.

    Args:
        step: the sender's step.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._preparation, self._outcomes = Preparation(step), Outcomes(step)
        self._answers = open_answers(step.job)
        self._looked_at: list[Request] = []
        self._running: dict[Future[float], Request] = {}
        #: The seconds that the last calls took.
        self._seconds: list[float] = []
        #: The request ids of calls that were answered 404, and not reported yet.
        self._not_found: list[str | None] = []
        #: The number of requests by outcome in this run, and the positions of these.
        self.done, self.final = self._outcomes.done, self._outcomes.final

    def send_allowed(self) -> float | None:
        """Send what may be sent; return the seconds until more may be sent, or None if nothing is left.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        step = self._step
        doubt = self._outcomes.give_up_missing()
        try:
            credentials.check_to_spend(step)
            client = step.client
        except (errors.AccountChanged, errors.PermanentError, errors.InvalidSettings) as exc:
            step.stop_job(str(exc))
            step.store.message_queue.drop_waiting(step.unit.job_id, step.unit.batch or 0)
            return doubt
        step.also_held.append(self._renew_calls)
        try:
            return self._send_in_turn(client, doubt)
        except Exception:
            wait(self._running)  # these calls are paid for; but a worker that is being stopped does not wait for them
            self._send_signals()
            raise
        except BaseException:
            self._outcomes.stop_saving()
            raise

    def _send_in_turn(self, client: api.Caller, doubt: float | None) -> float | None:
        """Make calls until none is running and none may be made, or the time slice is over."""
        until = time.monotonic() + rules.SENDER_TIME_SLICE
        while True:
            pause = self._start_calls(client) if time.monotonic() < until and not self._step.lost.is_set() else 0.0
            if not self._running:
                return min((seconds for seconds in (pause, doubt) if seconds is not None), default=None)
            # Something may be sent before one of these calls has finished.
            done, _ = wait(self._running, timeout=pause or None, return_when=FIRST_COMPLETED)
            self._send_signals()
            for call in done:
                del self._running[call]
                self._seconds = [*self._seconds[-20:], call.result()]

    def _send_signals(self) -> None:
        """Send the signals about calls from the thread in which the step runs, where receivers expect to be called."""
        while self._not_found:
            request_id = self._not_found.pop()
            self._step.send_signal(signals.not_found_seen, batch_id=None, endpoint="messages", request_id=request_id)

    def _start_call(self, client: api.Caller, request: Request, mark: str) -> None:
        """Start one call in a thread."""
        call: Future[float] = Future()

        def run() -> None:
            try:
                call.set_result(self._send_request(client, request, mark))
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

    def _start_calls(self, client: api.Caller) -> float | None:
        """Begin as many calls as may be made; return the seconds until one more may be, None if nothing is left."""
        width = rules.choose_concurrency(min(self._seconds, default=None))
        # A model that must wait does not delay requests of another model.
        shut: dict[str, float] = {}
        looks = 0
        while len(self._running) < width:
            if self._outcomes.unsaved:  # nothing more is paid for while there is no place to store it
                return SAVE_AGAIN[1]
            if not self._looked_at:
                waiting, pause = self._look_ahead(examine=looks < _LOOKS)
                if not waiting:
                    return pause
                if looks == _LOOKS:
                    return min(shut.values(), default=0.0)
                looks += 1
                continue
            request = self._looked_at[0]
            if request.pace not in shut:
                taken = self._take_request(request)
                if taken.state == "taken":
                    self._start_call(client, request, taken.mark)
                    looks = 0
                elif not self._put_off(request, taken, shut):
                    return shut.get(request.pace)
            del self._looked_at[0]
        return 0.0

    def _look_ahead(self, *, examine: bool) -> tuple[bool, float | None]:
        """Return whether requests wait to be sent; if none do, also in how many seconds some will.

        Args:
            examine: prepare them; those that cannot be sent this way keep their outcomes.
        """
        places, pause = self._step.store.message_queue.list_due(
            self._step.unit.job_id, self._step.unit.batch or 0, _AHEAD
        )
        for place in places if examine else ():
            request = self._preparation.prepare_request(place)
            if isinstance(request, str):
                if request.startswith(UNLIMITED):
                    self._step.note_limit(f"{request}. {self._preparation.explain_limits()}")
                self._outcomes.keep_outcome(place, request, tried=False)
            else:
                self._looked_at.append(request)
        return bool(places), pause

    def _take_request(self, request: Request) -> Taken:
        """Take a request from the queue, if it may be sent now.

        Raises:
            LeaseLost: another owner has the lease.
        """
        step = self._step
        taken = step.store.message_queue.take_request(
            step.unit,
            step.owner,
            request.place,
            request.pace,
            request.need,
            step.settings.lease,
            cap=step.settings.max_messages_in_flight,
            limit=self._preparation.limit,
            total=self._preparation.total,
        )
        if taken.state == "taken_over":
            raise LeaseLost
        return taken

    def _put_off(self, request: Request, taken: Taken, shut: dict[str, float]) -> bool:
        """Handle a request that may not be sent now; return whether others may be.

        Args:
            shut: collects in how many seconds calls of a rate limit are retried.
        """
        if taken.state not in ("wait", "reserved"):
            return self._leave_unsent(request, taken.state)
        shut[request.pace] = _spread_wait(taken.seconds)
        return taken.state == "wait" and self._step.job.models != 1

    def _leave_unsent(self, request: Request, state: str) -> bool:
        """End a request that may not be sent at all; return whether others of the batch may be."""
        if state in ("stopped", "canceled"):
            self._step.store.message_queue.drop_waiting(self._step.unit.job_id, self._step.unit.batch or 0)
            return False
        limits = self._preparation.name_limits()
        notes = {
            "price": f"the price of {request.model} is not known (claude_batch_prices): {limits} cannot be guaranteed",
            "lost": f"what the job has spent is gone from the store, so {limits} cannot be guaranteed",
            "budget": f"{limits} no longer covers it",
        }
        if state in notes:
            self._step.note_limit(f"{notes[state]}. {self._preparation.explain_limits()}")
            self._outcomes.keep_outcome(request.place, notes[state], tried=False)
        return True

    def _renew_calls(self) -> None:
        """Renew the records of the calls that are running."""
        paces = {request.place: request.pace for request in list(self._running.values())}
        self._step.store.message_queue.renew_calls(self._step.unit, paces, self._step.settings.lease)

    def _send_request(self, client: api.Caller, request: Request, mark: str) -> float:
        """Make one call and store its outcome; return the seconds it took."""
        step, begun, call = self._step, time.monotonic(), _Call()
        try:
            self._make_call(client, request, call)
        finally:
            step.store.message_queue.record_answer(
                step.unit,
                request.place,
                request.pace,
                mark,
                limits=call.limits,
                refused=call.refused,
                hold=call.hold,
                cap=step.settings.max_messages_in_flight,
                output=call.output,
            )
        for seen in call.accounts:
            self._compare_account(seen)
        return time.monotonic() - begun

    def _make_call(self, client: api.Caller, request: Request, call: _Call) -> None:
        step, place, outcomes = self._step, request.place, self._outcomes

        def confirm() -> None:
            self._confirm_request(place)
            call.confirmed = True

        try:
            stream = rules.must_stream(request.model, request.max_tokens)
            with body_limits.confirm_before_end(confirm):
                answer = api.create_message(client, request.params, stream=stream, on_account=call.accounts.append)
            call.limits = answer.limits
            outcome = message_outcome(answer.message, self._answers)
            call.output, spent = outcomes.cost_of(place, outcome, request.model)
            outcomes.save_outcome(place, self._add_attempts(request, outcome), "succeeded", spent=spent)
            for seen in call.accounts:
                credentials.learn_account(step, seen)
        except errors.AmbiguousError as exc:
            if credentials.concerns_account(exc):
                step.stop_job(str(exc))
            outcomes.keep_outcome(place, f"{exc}; it may have been billed, so it is not sent again", tried=True)
        except LeaseLost:
            raise
        except errors.StoreUnavailable:
            if call.confirmed:
                raise
            self._put_back_unsent(place)
        except errors.ApiError as exc:
            call.limits, call.hold = exc.limits, exc.hold
            # A refused token says nothing about how many calls are allowed.
            call.refused = isinstance(exc, errors.TransientError) and exc.status != 401
            self._handle_refusal(request, exc)
        except Exception as exc:
            extra = step.fields("error")
            log.exception("job %s: request %d failed with an unexpected error", step.where, place, extra=extra)
            note = f"{type(exc).__name__}; it may have been billed, so it is not sent again"
            outcomes.keep_outcome(place, note, tried=True)

    def _add_attempts(self, request: Request, outcome: bytes) -> bytes:
        """Return an outcome with each time that its request was sent; without them, if that fails."""
        try:
            return add_attempts(outcome, request.earlier, self._step.settings.price_list)
        except Exception:  # no fault of the prices may lose an answer that is paid for
            extra = self._step.fields("attempts")
            log.exception("job %s: request %d: its cost is not known", self._step.where, request.place, extra=extra)
            return outcome

    def _confirm_request(self, place: int) -> None:
        """Ensure that a request is still this sender's to send; wait a little for the store."""
        for pause in _PAUSES:
            try:
                return self._step.confirm_lease(place)
            except errors.StoreUnavailable:
                time.sleep(pause)
        return self._step.confirm_lease(place)

    def _put_back_unsent(self, place: int) -> None:
        """Put a request back into the queue: nothing of it was sent, because the store could not say that it may be."""
        while not self._outcomes.stopping.is_set():
            with suppress(errors.StoreUnavailable):
                self._step.store.message_queue.put_back(self._step.unit, place, 0.0, self._step.settings.messages_limit)
                return
            self._outcomes.stopping.wait(SAVE_AGAIN_MAX)

    def _compare_account(self, seen: api.Account) -> None:
        """Stop the job if another account than its own answered a call."""
        try:
            credentials.compare_with_job(self._step, seen)
        except errors.AccountChanged as exc:
            self._step.stop_job(str(exc))

    def _handle_refusal(self, request: Request, exc: errors.ApiError) -> None:
        """Handle a call that was not charged for: retry it later, close its request, or stop the job."""
        step, place, outcomes = self._step, request.place, self._outcomes
        if exc.status == 404:
            self._not_found.append(exc.request_id)
        token_refused = exc.status == 401 and isinstance(exc, errors.Retryable)  # another token is requested
        if not token_refused and credentials.concerns_account(exc):
            step.stop_job(str(exc))
            outcomes.keep_outcome(place, str(exc), tried=False, spent=0)
        elif isinstance(exc, errors.Retryable):
            wait = step.bound_wait(
                step.draw_countdown(step.store.message_queue.count_refusals(step.unit, place) + 1, exc), exc.retry_after
            )
            times = step.store.message_queue.put_back(step.unit, place, wait, step.settings.messages_limit)
            extra = step.fields("refused", endpoint="messages", status=exc.status, request_id=exc.request_id)
            log.info("job %s: request %d: %s; retry in %.1f s", step.where, place, exc, wait, extra=extra)
            if times >= step.settings.messages_limit:
                outcomes.keep_outcome(place, f"refused {times} times, the last time: {exc}", tried=True, spent=0)
        elif rules.concerns_request(exc.status):
            kind = exc.error_type or "invalid_request_error"
            outcome = error_outcome(kind, str(exc), exc.request_id)
            outcomes.save_outcome(place, self._add_attempts(request, outcome), "errored", spent=0)
        else:
            outcomes.keep_outcome(place, str(exc), tried=True, spent=0)


def _spread_wait(seconds: float) -> float:
    """Return when a request that must wait is tried again: other senders wait for the same thing."""
    return min(max(seconds, _SHORTEST), _LONGEST) + min(seconds, _SHORTEST) * random.random() * rules.SENDERS
