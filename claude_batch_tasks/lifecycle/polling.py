"""Polls of batches: one list call for all batches in flight on an account, or a retrieve of each if there are few.

A poll that finds the last list call too old for its batch makes the next one, one at a time. The call goes back as far
as the oldest batch that is due for a poll. It postpones the next poll of the running batches it shows, and wakes the
polls of those that have ended. A batch that it does not show is retrieved by itself: not listed does not mean gone.
"""

from __future__ import annotations

import functools
import logging
import math
import random
import threading
from collections.abc import Callable
from contextlib import suppress

import msgspec

from claude_batch_tasks import api, errors, metrics, rules, signals
from claude_batch_tasks.formatting import format_counts
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import Flight
from claude_batch_tasks.steps import Step
from claude_batch_tasks.wire import result_rows

log = get_logger(__name__)

#: Seconds after which a poll comes back that met the list call of another.
_ANOTHERS = 2.0

_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(api.Batch).decode


def poll_or_list(step: Step) -> tuple[api.Batch, float]:
    """Poll the step's batch; return it, and when the API showed it so (epoch seconds).

    Raises:
        ApiError: the API does not show it.
        RateLimited: the API must not be asked now.
    """
    record, now = step.batch, step.now()
    assert record.batch_id is not None
    # A batch with special circumstances is retrieved by itself.
    if record.created_at is not None and not record.provisional:
        seen, taken_at = _find_listed(step, record.batch_id, record.created_at, now)
        if seen is not None:
            return seen, taken_at
    _check_asked(step, now)
    step.rate_limits.check_pause()
    with step.rate_limits.observe_call():
        seen = api.retrieve_batch(step.client, record.batch_id, timeout=step.settings.timeout)
    step.rate_limits.observe_answer(seen.hold)
    metrics.count("looks", how="retrieve")
    return seen, step.now()


def _find_listed(step: Step, batch_id: str, created_at: float, now: float) -> tuple[api.Batch | None, float]:
    """Return the batch as a list call shows it, the last one or a new one, and when that was begun.

    None: it must be retrieved.
    """
    entry, taken_at, since = step.store.in_flight.find_listed(step.account, batch_id)
    listed = _decode(entry) if entry is not None else None
    fresh = _is_fresh(step, created_at, taken_at, now)
    if listed is not None and (fresh or not listed.running):
        return listed, taken_at
    if (not fresh or since > created_at) and _is_list_worthwhile(step):
        return _make_list_call(step)
    return None, taken_at


def _is_fresh(step: Step, created_at: float, taken_at: float, now: float) -> bool:
    """Return whether a list call was made so late that its batch need not be polled again yet."""
    if taken_at > created_at - step.batch.api_ahead and _make_poll_schedule(step)(flight_of(step), taken_at, 0.0) > now:
        return True
    # The last poll of a job that gives up is one that was made after its deadline.
    return step.deadline is not None and taken_at >= step.deadline


def record_seen(step: Step, seen: api.Batch, seen_at: float) -> None:
    """Record that a poll has shown the batch."""
    record = step.batch
    step.update_record(
        looks=record.looks + 1,
        processed=sum(_count_outcomes(seen).values()) if seen.running else 0,
        sighting=seen_at,
        absences=0,
        refused_since=None,
        not_before=record.not_before if seen.retry_after is None else seen_at + seen.retry_after,
        unidentified=0,
        state="canceling" if seen.processing_status == "canceling" else "in_progress",
    )
    if record.looks == 1:
        # At DEBUG: the line of this poll says it too.
        step.record_event("seen", f"seen, {_status_of(seen)}", level=logging.DEBUG, **seen.call)


def describe_progress(step: Step, seen: api.Batch) -> str:
    """Say how far a batch is that has not ended."""
    return f"{_status_of(seen)}: {sum(_count_outcomes(seen).values()):,} of {step.batch.sending:,}"


def record_end(step: Step, seen: api.Batch) -> dict[str, int]:
    """Record that the batch has ended, with how long it took; return the API's counts.

    The account's past batches and the metric ``batch_seconds`` get the duration, unless it was canceled or expired.
    """
    record, counts = step.batch, _count_outcomes(seen)
    step.update_record(state="ended", told=counts, **({} if record.rounds else {"counts": counts}))
    in_time = step.now() + record.api_ahead < (record.expires_at or math.inf)
    if seen.ended_at is not None and not (step.job.cancel_requested or record.cut_short) and in_time:
        took = (seen.ended_at - seen.created_at).total_seconds()
        kind = rules.batch_kind(step.job.model, step.job.models, record.sending)
        step.store.in_flight.add_duration(step.account, record.sending, max(took, 0.0), kind=kind)
        metrics.observe("batch_seconds", max(took, 0.0))
    step.send_signal(signals.batch_ended, batch_id=seen.id, counts=counts, round=len(record.rounds))
    step.record_event("ended", f"ended, {format_counts(counts)}", counts=counts, round=len(record.rounds), **seen.call)
    return counts


def cancel_if_requested(step: Step) -> errors.ApiError | None:
    """Cancel the batch if that is requested; return the error after which it must be tried again.

    A permanent refusal means that the batch has ended, or the poll meets it too.
    """
    # Not before the results have confirmed the batch: it may be another application's.
    requested = step.job.cancel_requested or step.batch.cut_short
    if not requested or step.batch.cancel_sent or step.batch.provisional:
        return None
    return _send_cancel(step)


def cancel_if_late(step: Step) -> errors.ApiError | None:
    """Cancel a running batch that cannot end by the job's ``answer_by``; return an error that lets it be tried again.

    Until then it may process more, at half the price.
    """
    if step.cut_at is None or step.now() < step.cut_at:
        return None
    # Before the cancel: readers of the results have to know what was canceled for this.
    step.update_record(cut_short=True)
    text = "it could not end by the deadline: what it does not process goes through the Messages API"
    step.record_event("cancel", f"canceled at Anthropic: {text}")
    return _send_cancel(step)


def _send_cancel(step: Step) -> errors.ApiError | None:
    record = step.batch
    assert record.batch_id is not None
    step.rate_limits.check_pause()
    try:
        with suppress(errors.PermanentError), step.rate_limits.observe_call():
            api.cancel_batch(step.client, record.batch_id, timeout=step.settings.timeout)
    except (errors.TransientError, errors.NotFoundError) as exc:
        return exc
    step.update_record(cancel_sent=True)
    return None


def _status_of(seen: api.Batch) -> str:
    return seen.processing_status.replace("_", " ")


def _count_outcomes(seen: api.Batch) -> dict[str, int]:
    return {name: seen.request_counts.get(name, 0) for name in result_rows.OUTCOMES}


def next_poll_at(step: Step) -> float:
    """Return when a batch that was running when it was last seen is to be polled again (epoch seconds)."""
    record = step.batch
    seen_at = record.sighting or step.now()
    at = _make_poll_schedule(step)(flight_of(step), seen_at, random.random())
    return _apply_not_before(record.not_before, at, _poll_by(step))


def _poll_by(step: Step) -> float | None:
    """Return when the batch must have a poll, whatever the API asked for when it last showed it.

    That is at the job's deadline, when it may have to be canceled, and soon after it was.
    """
    canceled = (step.batch.sighting or 0.0) + step.hurried_interval if step.batch.cut_short else None
    return min((moment for moment in (step.deadline, step.cut_at, canceled) if moment is not None), default=None)


def _check_asked(step: Step, now: float) -> None:
    """Keep the batch from being polled before the moment that the API named when it last showed it.

    Raises:
        RateLimited: that moment has not come, no cancel is requested, and no deadline has passed.
    """
    wait, by = (step.batch.not_before or 0.0) - now, _poll_by(step)
    if wait > 0 and not step.job.cancel_requested and (by is None or now < by):
        wait = wait if by is None else min(wait, by - now)
        raise errors.RateLimited("Anthropic asked for a pause before the next poll of this batch", wait)


def _apply_not_before(moment: float | None, at: float, deadline: float | None) -> float:
    """Return when a poll that is planned for ``at`` may be made: not before the moment that the API named.

    The job's deadline limits that: a poll is always allowed at the deadline.
    """
    return max(at, min(moment or 0.0, math.inf if deadline is None else deadline))


def flight_of(step: Step) -> Flight:
    """Return the data of the step's batch that the schedule needs."""
    record, settings = step.batch, step.settings
    assert record.batch_id is not None
    return Flight(
        batch_id=record.batch_id,
        created_at=record.created_at or step.now(),
        expires_at=record.expires_at,
        requests=record.sending,
        poll_min=settings.poll_min,
        poll_max=step.hurried_interval if record.cut_short else settings.poll_max,
        deadline=_poll_by(step),
        api_ahead=record.api_ahead,
    )


def _make_poll_schedule(step: Step) -> Callable[[Flight, float, float], float]:
    """Return the function that computes when a running batch is polled next (epoch seconds).

    It takes the batch, when it was last seen, and a random number from 0 to 1.
    """

    @functools.cache
    def usual_seconds(requests: int) -> float | None:
        return rules.usual_batch_seconds(step.past_batches, requests)

    def due_at(flight: Flight, seen_at: float, rand: float) -> float:
        wait = rules.poll_interval(
            max(seen_at - (flight.created_at - flight.api_ahead), 0),
            poll_min=flight.poll_min,
            poll_max=flight.poll_max,
            rand=rand,
            overdue=seen_at - (flight.expires_at - flight.api_ahead) if flight.expires_at is not None else None,
            usual=usual_seconds(flight.requests),
        )
        at = seen_at + wait
        return at if flight.deadline is None else min(at, max(flight.deadline, seen_at))

    return due_at


def _is_list_worthwhile(step: Step) -> bool:
    """Return whether enough batches are in flight for a list call, and list calls work."""
    if step.store.in_flight.count_batches(step.account, rules.LIST_CALL_FROM) + 1 < rules.LIST_CALL_FROM:
        return False
    return step.store.in_flight.paused_until(f"{step.account}:list") <= step.now()


def _make_list_call(step: Step) -> tuple[api.Batch | None, float]:
    """List the account's batches for all due polls; return the step's own, if shown, and when the call was begun.

    Raises:
        ListCallRunning: another task makes a list call; like the pauses of the account, it stands in the way of a call.
        RateLimited: the API must not be asked now.
    """
    step.rate_limits.check_pause()
    if not step.store.in_flight.lock_list_call(step.account, step.owner, step.settings.lease):
        raise errors.ListCallRunning("another task is listing the batches of the account", _ANOTHERS)
    listing = None
    try:
        listing = _Listing(step)
        step.also_held.append(listing.postpone_polls)
        with step.rate_limits.observe_call():
            listing.read_pages()
    except errors.ApiError as exc:
        assert listing is not None
        failures = step.store.in_flight.record_list_call(step.account, failed=True)
        hopeless = failures >= rules.LIST_CALL_TRIES or isinstance(exc, errors.PermanentError)
        pause = exc.hold if exc.hold is not None or hopeless else step.draw_countdown(failures, exc)
        listing.give_up(pause)
        if hopeless:
            log.warning("the list call failed, so each batch is polled with a call of its own: %s", exc)
            step.store.in_flight.pause_calls(f"{step.account}:list", step.now() + rules.LIST_CALL_PAUSE)
        if pause is not None and listing.own is None:
            raise errors.RateLimited(str(exc), pause) from None
    else:
        step.store.in_flight.record_list_call(step.account, failed=False)
    finally:
        if listing is not None:
            listing.release_polls()
        step.store.in_flight.unlock_list_call(step.account, step.owner)
    return listing.own, listing.taken_at


class _Listing:
    """One list call, and the polls that it postpones."""

    def __init__(self, step: Step) -> None:
        self.own: api.Batch | None = None
        self.taken_at = step.now()
        self._step = step
        self._schedule = _make_poll_schedule(step)
        found = step.store.in_flight.list_batches(step.account)
        self._flights = {flight.batch_id: (unit, flight) for unit, (flight, _) in found.items()}
        #: When each batch was due before, and when it is due now.
        self._was = {flight.batch_id: due for flight, due in found.values()}
        self._due = dict(self._was)
        self._seen: set[str] = set()
        self._ended = False
        #: Guards what was seen and postponed: the thread that renews the lease postpones the rest.
        self._lock = threading.Lock()
        #: The batches that the list call is made for, and how far back it must go.
        self._wanted = {step.batch.batch_id}
        self._since = step.batch.created_at or self.taken_at
        for flight, due in found.values():
            interval = self._schedule(flight, self.taken_at, 0.5) - self.taken_at
            if due <= self.taken_at + interval * rules.LIST_CALL_SLACK:
                self._wanted.add(flight.batch_id)
                self._since = min(self._since, flight.created_at)

    def read_pages(self) -> None:
        """Read pages back in time until every wanted batch is found, or is older than the pages."""
        self.postpone_polls()
        pages = 0
        for page in api.list_pages(self._step.client, timeout=self._step.settings.timeout):
            self._step.rate_limits.observe_answer(page.hold)
            self._take_page(page, first=not pages)
            pages += 1
            # No more pages than the retrieves that the missing batches would cost.
            if page.oldest < self._since or len(self._wanted) < pages:
                break
            if page.hold is not None:
                exc = errors.TransientError("list: Anthropic asked for fewer calls before its last page")
                exc.hold = page.hold
                raise exc
        self.release_polls()
        # A wanted batch that was not found is retrieved by itself.
        self._keep_page({}, self._since)
        held = self._list_postponed()
        self._put_off({name: self._was[name] for name in held if name in self._wanted}, alone=True)
        self._put_off({name: self._was[name] for name in held if name not in self._wanted})
        log.debug("%d list calls for %d batches in flight", pages, len(self._flights) + 1)

    def give_up(self, hold: float | None) -> None:
        """Restore the earlier due times of what was postponed, but not to before the end of a pause."""
        self.release_polls()
        earliest = 0.0 if hold is None else self._step.now() + hold
        spread = (hold or 0.0) / 4
        self._put_off(
            {
                batch_id: max(self._was[batch_id], earliest + random.random() * spread)
                for batch_id in self._list_postponed()
            }
        )

    def postpone_polls(self) -> None:
        """Keep others from polling what this list call may show, for the time of a lease, and again at each renewal."""
        lease = self._step.settings.lease
        until = self._step.now() + lease
        with self._lock:
            if not self._ended:
                self._step.store.in_flight.lock_list_call(self._step.account, self._step.owner, lease)
                self._put_off(
                    {name: until for name, due in self._due.items() if due < until and name not in self._seen}
                )

    def release_polls(self) -> None:
        """Stop postponing polls."""
        with self._lock:
            self._ended = True

    def _list_postponed(self) -> list[str]:
        return [name for name, due in self._due.items() if due != self._was[name] and name not in self._seen]

    def _take_page(self, page: api.Page, first: bool) -> None:
        entries, due, ended = {}, {}, {}
        polled = 0
        floor = None if page.retry_after is None else self.taken_at + page.retry_after
        for seen in page.data:
            self._wanted.discard(seen.id)
            if seen.id == self._step.batch.batch_id:
                self.own = seen
                seen.retry_after = page.retry_after
            running, known = seen.running, self._flights.get(seen.id)
            polled += known is not None or seen is self.own
            if running or known:
                entries[seen.id] = _encode(seen)
            if known and running:
                at = self._schedule(known[1], self.taken_at, random.random())
                due[seen.id] = _apply_not_before(floor, at, known[1].deadline)
            elif known:
                ended[seen.id] = self._step.now()
        metrics.count("looks", polled, how="list")
        self._keep_page(entries, page.oldest, first)
        with self._lock:
            self._put_off(due, shown=self.taken_at)
            self._put_off(ended, alone=True, shown=self.taken_at)
            self._seen.update(due, ended)

    def _keep_page(self, entries: dict[str, bytes], since: float, first: bool = False) -> None:
        self._step.store.in_flight.add_page(
            self._step.account, entries, taken_at=self.taken_at, since=since, first=first
        )

    def _put_off(self, due: dict[str, float], *, alone: bool = False, shown: float | None = None) -> None:
        self._step.store.schedule.postpone_units(
            {self._flights[name][0]: at for name, at in due.items()}, alone=alone, shown=shown
        )
        self._due.update(due)
