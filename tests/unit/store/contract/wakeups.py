"""Wake-ups: what becomes due at once is reported to who listens."""

from __future__ import annotations

import threading
import time

import pytest

from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import JOB, LIMITS, LONG, OpenStore, add_ask, park_batch


def skip_if_silent(store: Store) -> None:
    with store.wakeups.listen() as listener:
        if listener is None:
            pytest.skip("this store wakes nobody: workers ask it every second")


class TestAListener:
    @pytest.fixture(autouse=True)
    def _silent(self, store: Store) -> None:
        skip_if_silent(store)

    def test_waits_if_nothing_becomes_due(self, store: Store) -> None:
        store.schedule.wake_units([park_batch(store, 1, store.now() + LONG)])
        with store.wakeups.listen() as listener:
            assert listener is not None
            began = time.monotonic()
            assert not listener.wait(0.3)
            assert 0.2 < time.monotonic() - began < 5

    def test_is_woken_by_a_unit_that_need_not_wait_any_more(self, open_store: OpenStore, store: Store) -> None:
        unit = park_batch(store, 1, store.now() + LONG)
        with open_store().wakeups.listen() as listener:
            assert listener is not None
            store.schedule.wake_units([unit])
            assert listener.wait(10.0)
            assert not listener.wait(0.1)
        assert store.schedule.take_due(10)[0] == [unit]

    def test_is_woken_by_the_ask_that_fills_a_pool(self, open_store: OpenStore, store: Store) -> None:
        limits = LIMITS._replace(max_requests=2)
        with open_store().wakeups.listen() as listener:
            assert listener is not None
            add_ask(store, "a", new_id=JOB, limits=limits)
            add_ask(store, "b", new_id=JOB, limits=limits)
            assert listener.wait(10.0)
        assert store.pools.take_due(10, LONG)[0] == [JOB]

    def test_is_woken_in_the_middle_of_its_wait(self, open_store: OpenStore, store: Store) -> None:
        unit = park_batch(store, 1, store.now() + LONG)
        found: list[bool] = []
        with open_store().wakeups.listen() as listener:
            assert listener is not None
            waiting = threading.Thread(target=lambda: found.append(listener.wait(60.0)))
            waiting.start()
            store.schedule.wake_units([unit])
            waiting.join(30.0)
        assert found == [True]

    def test_is_woken_at_least_once_by_many(self, open_store: OpenStore, store: Store) -> None:
        limits = LIMITS._replace(max_requests=1)
        with open_store().wakeups.listen() as listener:
            assert listener is not None
            for number in range(50):
                add_ask(store, f"{number}", key=f"{number}", new_id=f"pool-{number}", limits=limits)
            woken = 0
            while listener.wait(1.0):
                woken += 1
        assert 1 <= woken <= 50
        assert len(store.pools.take_due(100, LONG)[0]) == 50


class TestAStoreThatIsDown:
    def test_says_so_or_wakes_nobody(self, unreachable_store: Store) -> None:
        try:
            with unreachable_store.wakeups.listen() as listener:
                assert listener is None
        except StoreUnavailable:
            pass
