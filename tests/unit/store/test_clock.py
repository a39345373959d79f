"""One clock decides: the store's. What a process knows of it outlives whatever happens to its own."""

from __future__ import annotations

import time

import pytest

from claude_batch_tasks import rules, steady
from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.store.clock import StoreClock


class Times:
    """The clocks of a machine and of a store, as a test sets them."""

    def __init__(self) -> None:
        self.steady, self.own, self.store = 100.0, 5000.0, 9000.0
        self.asked, self.slow, self.down = 0, 0.0, False

    def ask(self) -> float:
        self.asked += 1
        if self.down:
            raise StoreUnavailable("down")
        told = self.store
        self.passes(self.slow)
        return told

    def passes(self, seconds: float) -> None:
        self.steady, self.own, self.store = self.steady + seconds, self.own + seconds, self.store + seconds


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    times = Times()
    monkeypatch.setattr(steady, "monotonic_now", lambda: times.steady)
    monkeypatch.setattr(time, "time", lambda: times.own)
    return times


@pytest.fixture
def clock(times: Times) -> StoreClock:
    return StoreClock(times.ask)


class TestTheStoresClock:
    def test_is_asked_now_and_then(self, times: Times, clock: StoreClock) -> None:
        for _ in range(100):
            assert clock.now() == times.store
            times.passes(1)
        assert times.asked == 2

    @pytest.mark.parametrize("jump", [3600, -3600, 30 * 86_400])
    def test_goes_on_when_this_machines_is_set(self, times: Times, clock: StoreClock, jump: float) -> None:
        clock.now()
        times.own += jump
        assert clock.now() == times.store
        times.passes(20)
        times.down = True
        times.own -= jump
        assert clock.now() == times.store

    def test_is_asked_anew_when_this_machine_was_paused(self, times: Times, clock: StoreClock) -> None:
        """The steady clock stood still; somebody sets the other one right."""
        clock.now()
        times.store += 500
        times.own += 500
        assert clock.now() == times.store
        # Nobody did, and a step is told when it takes its lease.
        times.store += 500
        clock.learn(times.store, times.steady)
        assert clock.now() == times.store
        assert times.asked == 2

    def test_is_known_as_exactly_as_its_answers_come_fast(self, times: Times, clock: StoreClock) -> None:
        times.slow = 300  # the process slept while it asked
        assert clock.now() == pytest.approx(times.store, abs=150)
        times.slow = 0
        clock.learn(times.store, times.steady)
        assert clock.now() == times.store
        asked, told = times.steady, times.store
        times.passes(300)
        clock.learn(told, asked)
        assert clock.now() == times.store, "what came late says nothing against it"

    def test_must_be_told_once(self, times: Times, clock: StoreClock) -> None:
        times.down = True
        with pytest.raises(StoreUnavailable):
            clock.now()
        times.down = False
        clock.now()
        times.down = True
        times.passes(61)
        for _ in range(10):
            assert clock.now() == times.store
        assert times.asked == 3, "a store that is down is not asked each time"


class TestTheApisClock:
    @pytest.mark.parametrize(
        ("headers", "date"),
        [
            ({"date": "Sun, 22 Nov 2026 12:00:00 GMT"}, 1795348800.0),
            ({"date": "Sun, 22 Nov 2026 12:00:00 GMT", "age": "60"}, 1795348860.0),
            ({"date": "Sun, 22 Nov 2026 12:00:00 GMT", "age": "-5"}, 1795348800.0),
            ({"date": "Sun, 22 Nov 2026 12:00:00 GMT", "age": "old"}, None),
            ({"date": "today"}, None),
            ({"date": ""}, None),
            ({}, None),
        ],
    )
    def test_is_in_the_head_of_an_answer(self, headers: dict[str, str], date: float | None) -> None:
        assert rules.date_of_answer(headers) == date

    @pytest.mark.parametrize(("date", "ahead"), [(None, 0), (1001.9, 0), (998.5, 0), (1060.0, 60), (940.0, -60)])
    def test_differs_by_more_than_a_header_leaves_out(self, date: float | None, ahead: float) -> None:
        assert rules.clock_offset(date, 1000.0) == ahead
