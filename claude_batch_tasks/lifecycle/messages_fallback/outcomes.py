"""The outcomes of a sender's calls: an answer is paid for, so it is stored however long the store is away."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from itertools import chain, repeat

from claude_batch_tasks import errors, metrics
from claude_batch_tasks.lifecycle import unsaved_answers
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.pricing import spending
from claude_batch_tasks.results.stored.messages_outcomes import as_row, kept_outcome
from claude_batch_tasks.steps import Step
from claude_batch_tasks.wire import result_rows

log = get_logger(__name__)

#: Why a request keeps its outcome whose call was made in an earlier run.
LOST = "the answer to its call through the Messages API was lost"

#: Seconds between tries to store an answer; the last value repeats. After these tries, the answer is written to disk,
#: if there is a directory for it.
SAVE_AGAIN = (0.2, 0.5, 1.0, 2.0)
SAVE_AGAIN_MAX = 2.0


class Outcomes:
    """What became of the requests of one run of a sender.

    Args:
        step: the sender's step.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._lock = threading.Lock()
        #: The positions of requests whose answers the store has not taken yet.
        self.unsaved: set[int] = set()
        #: Set when the worker is being stopped.
        self.stopping = threading.Event()
        #: The number of requests by outcome in this run.
        self.done: Counter[str] = Counter()
        #: The positions of these requests.
        self.final: list[int] = []

    def keep_outcome(
        self, place: int, note: str, *, tried: bool, spent: int | None = None, given_up: bool = False
    ) -> None:
        """Let a request keep the outcome that it had before."""
        level, extra = logging.WARNING if tried else logging.INFO, self._step.fields("kept")
        log.log(level, "job %s: outcome of request %d unchanged: %s", self._step.where, place, note, extra=extra)
        # A call whose cost is not known may have been answered.
        unchanged = kept_outcome(note, tried=tried, billed=tried and spent is None)
        self.save_outcome(place, unchanged, "kept", spent=spent, given_up=given_up)

    def save_outcome(self, place: int, outcome: bytes, kind: str, *, spent: int | None, given_up: bool = False) -> None:
        """Store an outcome.

        An answer is paid for, so this waits for the store as long as the process lives.
        """
        unit = self._step.unit
        answer = unsaved_answers.Answer(unit.job_id, unit.batch or 0, unit.lane or 0, place, outcome, spent)
        try:
            stored = self._store_outcome(answer, paid=kind != "kept", given_up=given_up)
        finally:
            self.unsaved.discard(place)
        if stored:
            with self._lock:
                self.done[kind] += 1
                self.final.append(place)
            metrics.count("cost_dollars", spending.to_dollars(spent or 0), job=self._step.job, source="messages")

    def _store_outcome(self, answer: unsaved_answers.Answer, *, paid: bool, given_up: bool) -> bool:
        """Store an outcome as soon as the store takes it; return whether it is in the store, and is new there."""
        step, place, tries = self._step, answer.place, 0
        pauses = chain(SAVE_AGAIN, repeat(SAVE_AGAIN_MAX))
        while True:
            try:
                return step.store.message_queue.save_outcome(
                    step.unit, place, answer.outcome, spent=answer.spent, given_up=given_up
                )
            except errors.StoreUnavailable as exc:
                waited = tries >= len(SAVE_AGAIN) or self.stopping.is_set()
                if waited and not paid:
                    raise
                if waited and unsaved_answers.write_answer(step.settings, answer):
                    text = "job %s: the answer to request %d is on disk until the store accepts it"
                    log.warning(text, step.where, place, extra=step.fields("held"))
                    return False
                if self.stopping.is_set():
                    extra = step.fields("lost_answer")
                    log.error("job %s: the answer to request %d is lost: %s", step.where, place, exc, extra=extra)
                    raise
                if paid:
                    self._store_later(place, exc)
            tries += 1
            self.stopping.wait(next(pauses))

    def _store_later(self, place: int, exc: errors.StoreUnavailable) -> None:
        if place not in self.unsaved:
            self.unsaved.add(place)
            text = "job %s: the answer to request %d is in memory until the store accepts it: %s"
            log.warning(text, self._step.where, place, exc, extra=self._step.fields("held"))

    def stop_saving(self) -> None:
        """Let answers go to disk, if there is a directory for them: the worker is being stopped."""
        self.stopping.set()
        deadline = time.monotonic() + SAVE_AGAIN_MAX
        while self.unsaved and time.monotonic() < deadline:
            time.sleep(0.05)

    def give_up_missing(self) -> float | None:
        """Give up the answers to an earlier run's calls that nobody stores; return the seconds until that is allowed.

        None means that nothing is left to give up. The sender that made the calls may still live, and store the
        answers as soon as the store takes them.
        """
        step, now = self._step, self._step.now()
        unsaved_answers.bring_in(step.settings, step.store)
        places, since = (
            step.store.message_queue.list_abandoned(step.unit),
            step.store.records.read_sender(step.unit).missing_since,
        )
        if places and (since is None or since > now):
            step.update_record(missing_since=now)
            return step.settings.lease
        if places and since is not None and now < since + step.settings.lease:
            return since + step.settings.lease - now
        for place in places:
            self.keep_outcome(place, LOST, tried=True, given_up=True)
        if since is not None:
            step.update_record(missing_since=None)
        return None

    def cost_of(self, place: int, outcome: bytes, model: str) -> tuple[int | None, int | None]:
        """Return the output tokens of an answer and its cost in nano-dollars; None for what is not known."""
        output = None
        try:
            message = as_row(outcome).result.message
            if message is None or message.usage is None:
                return None, None
            message.model = message.model or model
            output = message.usage.output_tokens or 0
            meter = spending.Meter(self._step.settings.price_list, batch=False)
            result_rows.count_answers(meter, [message])
            cost = spending.total_cost(meter.sum_costs())
            return output, None if cost is None else spending.to_nano_dollars(cost)
        except Exception:  # no fault of the prices may lose an answer that is paid for
            extra = self._step.fields("price")
            log.exception("job %s: the cost of request %d could not be computed", self._step.where, place, extra=extra)
            return None, None
