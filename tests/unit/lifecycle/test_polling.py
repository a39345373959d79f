"""When a batch is looked at again, where the API has asked for a pause."""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from claude_batch_tasks import api, errors
from claude_batch_tasks.lifecycle import polling
from claude_batch_tasks.records import Flight, Unit
from tests.factories import make_batch_record

NOW = 1_800_000_000.0
BORN = datetime.fromtimestamp(NOW - 60, timezone.utc)


@pytest.mark.parametrize(
    ("asked", "planned", "deadline", "due"),
    [
        (None, 5.0, None, 5.0),
        (10.0, 5.0, None, 10.0),
        (3.0, 5.0, None, 5.0),
        (10.0, 5.0, 7.0, 7.0),
        (10.0, 5.0, 50.0, 10.0),
        (10.0, 5.0, 2.0, 5.0),
    ],
)
def test_it_is_no_sooner_than_that_but_the_job_gives_up_when_it_said(
    asked: float | None, planned: float, deadline: float | None, due: float
) -> None:
    assert polling._apply_not_before(asked, planned, deadline) == due


def step(
    *, not_before: float | None, canceled: bool = False, deadline: float | None = None, cut_at: float | None = None
) -> Any:
    batch = make_batch_record(body_bytes=1, not_before=not_before)
    job = SimpleNamespace(cancel_requested=canceled)
    return SimpleNamespace(batch=batch, job=job, deadline=deadline, cut_at=cut_at)


@pytest.mark.parametrize("more", [{}, {"deadline": NOW + 5}, {"cut_at": NOW + 5}])
def test_a_message_that_comes_early_looks_at_nothing(more: dict[str, Any]) -> None:
    with pytest.raises(errors.RateLimited) as caught:
        polling._check_asked(step(not_before=NOW + 9, **more), NOW)
    assert caught.value.retry_after == (5 if more else 9)


@pytest.mark.parametrize("more", [{"not_before": None}, {"not_before": NOW}, {"not_before": NOW - 5}])
def test_a_pause_that_is_over_holds_nothing_up(more: dict[str, Any]) -> None:
    polling._check_asked(step(**more), NOW)


@pytest.mark.parametrize("more", [{"canceled": True}, {"deadline": NOW - 1}, {"cut_at": NOW}])
def test_a_cancel_and_a_last_look_do_not_wait(more: dict[str, Any]) -> None:
    polling._check_asked(step(not_before=NOW + 9, **more), NOW)


@pytest.mark.parametrize(("asked", "wait"), [(None, 1.0), (0.5, 1.0), (10.0, 10.0), (100.0, 50.0)])
def test_a_listing_that_asks_for_a_pause_asks_it_for_all_that_it_shows(asked: float | None, wait: float) -> None:
    due: dict[Unit, float] = {}
    store = SimpleNamespace(
        in_flight=SimpleNamespace(add_page=lambda *args, **more: None),
        schedule=SimpleNamespace(postpone_units=lambda new, **more: due.update(new)),
    )
    flight = Flight(
        batch_id="b1", created_at=NOW, expires_at=None, requests=1, poll_min=1, poll_max=1, deadline=NOW + 50
    )
    listing = object.__new__(polling._Listing)
    vars(listing).update(
        own=None,
        taken_at=NOW,
        _step=SimpleNamespace(batch=SimpleNamespace(batch_id="b2"), store=store, account="a"),
        _schedule=lambda flight, seen_at, rand: seen_at + 1,
        _flights={"b1": (Unit("job", 0), flight)},
        _due={},
        _seen=set(),
        _wanted={"b1", "b2"},
        _lock=threading.Lock(),
    )
    shown = [api.Batch(id=name, processing_status="in_progress", created_at=BORN) for name in ("b1", "b2")]
    listing._take_page(api.Page(data=shown, retry_after=asked), first=True)
    assert due == {Unit("job", 0): NOW + wait}
    assert listing.own is not None
    assert listing.own.retry_after == asked


@pytest.mark.parametrize(
    ("status", "counts", "processed"),
    [
        ("in_progress", {"processing": 9}, 0),
        ("in_progress", {"processing": 5, "succeeded": 3, "errored": 1}, 4),
        ("in_progress", None, 0),
        ("ended", {"succeeded": 9}, 0),
    ],
)
def test_what_anthropic_counts_before_the_end_is_recorded(
    status: str, counts: dict[str, int] | None, processed: int
) -> None:
    """After the end it would be taken for that of the next, smaller batch, which an older worker may begin."""
    written: dict[str, Any] = {}
    batch = make_batch_record(body_bytes=1, looks=4)
    polled: Any = SimpleNamespace(batch=batch, update_record=written.update)
    seen = api.Batch(id="msgbatch_1", processing_status=status, created_at=BORN, counts=counts)
    polling.record_seen(polled, seen, NOW)
    assert written["processed"] == processed
