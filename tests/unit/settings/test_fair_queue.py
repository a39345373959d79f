"""Free connections go to whoever has waited longest."""

from __future__ import annotations

import queue
import signal
import threading
import time
from typing import Any

import pytest
import redis

from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.settings.fair_queue import FairQueue
from claude_batch_tasks.settings.redis_urls import connect_redis


def full(size: int) -> FairQueue:
    made = FairQueue(size)
    for number in range(size):
        made.put_nowait(number)
    return made


def wait_in(made: FairQueue, into: list[Any], name: str) -> threading.Thread:
    """A thread that waits for an item; returns when it does wait."""
    before = len(made._waiting)
    thread = threading.Thread(target=lambda: into.append((name, made.get(timeout=20))), daemon=True)
    thread.start()
    while len(made._waiting) == before:
        time.sleep(0.001)
    return thread


def test_the_last_to_come_back_is_the_first_to_go():
    made = full(3)
    assert [made.get() for _ in range(3)] == [2, 1, 0]


def test_takes_no_more_than_its_size():
    with pytest.raises(queue.Full):
        full(2).put_nowait(2)


def test_who_has_waited_too_long_is_to_make_another():
    made = full(1)
    item = made.get()
    assert made.get(timeout=0.01) is None
    made.put_nowait("back")  # and whoever gave up gets nothing
    assert made.get(timeout=0.01) == "back" != item


def test_a_connection_that_never_comes_back_keeps_nobody_waiting_for_ever(redis_server: RedisServer):
    """A time limit that is raised between taking it and giving it back loses it."""
    client = connect_redis(redis_server.url, {})
    pool: Any = client.connection_pool
    pool.timeout = 0.05
    pool.get_connection("PING")
    assert client.ping()
    assert client.ping()


def test_gives_in_the_order_of_asking():
    made, got = full(1), []
    item, names = made.get(), ["first", "second", "third"]
    threads = [wait_in(made, got, name) for name in names]
    for thread in threads:
        made.put_nowait(item)
        thread.join(20)
    assert got == [(name, item) for name in names]


def test_what_a_broken_off_wait_was_given_goes_on_to_the_next():
    """A time limit is raised in the middle of whatever runs."""

    class TimeLimit(Exception):
        pass

    def over(*_: Any) -> None:
        raise TimeLimit

    made = full(1)
    item = made.get()
    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(TimeLimit):
            made.get(timeout=20)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not made._waiting
    made.put_nowait(item)
    assert made.get(timeout=0) == item


def test_one_that_asks_all_the_time_keeps_no_other_waiting(redis_server: RedisServer):
    """The client has one connection: each of four threads gets about as much of it."""
    client = connect_redis(redis_server.url, {})
    counts = [0] * 4

    def ask(number: int) -> None:
        while sum(counts) < 1000:
            client.ping()
            counts[number] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(client.connection_pool._connections) == 1
    assert min(counts) > 0.5 * max(counts)


def test_a_pool_of_redis_py_takes_it_after_a_reset(redis_server: RedisServer):
    pool: Any = connect_redis(redis_server.url, {}).connection_pool
    client = redis.Redis(connection_pool=pool)
    client.ping()
    pool.disconnect()
    pool.reset()
    assert client.ping()
