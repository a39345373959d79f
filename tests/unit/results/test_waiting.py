"""Those in an event loop who wait for asks: by one subscription and one thread, whatever happens to these."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest
import redis

from claude_batch_tasks import errors
from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.pool_records import AskEnd
from claude_batch_tasks.results import waiting
from claude_batch_tasks.store.redis import RedisStore, open_store_at
from tests.unit.store.contract.pools import seal_pool
from tests.unit.store.contract.samples import JOB, LONG

#: Seconds within which something that is told must be known.
SOON = 20.0

Watch = waiting.AskWatch


@pytest.fixture
def redis_client(redis_server: RedisServer) -> redis.Redis:
    client: redis.Redis = redis_server.client()
    client.flushall()
    return client


@pytest.fixture
def watch(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    monkeypatch.setattr(waiting, "_IDLE", 0.0)
    yield waiting.watch_asks(store)
    wait_for_thread()


def listening() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "claude-batch-asks"]


def wait_for_thread() -> None:
    for thread in listening():
        thread.join(SOON)
    assert not listening()


def end(store: RedisStore, *ask_ids: str, first: int = 0) -> None:
    store.asks.end_asks(JOB, {first + n: AskEnd(name, "succeeded") for n, name in enumerate(ask_ids)}, LONG)


async def begin(watch: Watch, *ask_ids: str) -> list[asyncio.Task[None]]:
    """Wait for these, and return when the subscription is there."""
    tasks = [asyncio.create_task(watch.wait_for_end(name)) for name in ask_ids]
    while watch._unasked or not watch._waiting:
        await asyncio.sleep(0.01)
    return tasks


def subscriptions(client: redis.Redis) -> int:
    return sum(count for _, count in client.pubsub_numsub(*client.pubsub_channels()))


def test_ten_thousand_share_a_thread_and_a_subscription(
    store: RedisStore, watch: Watch, redis_client: redis.Redis
) -> None:
    ids = [f"ask-{number}" for number in range(10_000)]
    seal_pool(store, *ids)

    async def wait_for_all() -> None:
        tasks = await begin(watch, *ids)
        assert (len(listening()), subscriptions(redis_client)) == (1, 1)
        assert not any(task.done() for task in tasks)
        for first in range(0, len(ids), 1000):
            end(store, *ids[first : first + 1000], first=first)
        await asyncio.wait_for(asyncio.gather(*tasks), SOON)

    asyncio.run(wait_for_all())
    wait_for_thread()
    assert subscriptions(redis_client) == 0


def test_what_ended_before_or_is_not_known_is_not_waited_for(store: RedisStore, watch: Watch) -> None:
    seal_pool(store, "a", "b")
    end(store, "a")

    async def wait_for_both() -> None:
        await asyncio.wait_for(asyncio.gather(watch.wait_for_end("a"), watch.wait_for_end("nobody")), SOON)

    asyncio.run(wait_for_both())


def test_an_end_that_was_told_while_nobody_was_subscribed_is_found(
    store: RedisStore, watch: Watch, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_EVERY", 0.2)
    seal_pool(store, "a", "b")

    async def wait_through_a_cut() -> None:
        tasks = await begin(watch, "a", "b")
        redis_client.client_kill_filter(_type="pubsub")
        end(store, "a", "b")
        await asyncio.wait_for(asyncio.gather(*tasks), SOON)

    asyncio.run(wait_through_a_cut())


def test_a_store_that_does_not_answer_is_waited_for(
    store: RedisStore, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_PAUSE", 0.05)
    seal_pool(store, "a")
    end(store, "a")
    read, failed = store.asks.read_places, []

    def fail_twice(asked: list[str]) -> object:
        if len(failed) < 2:
            failed.append(asked)
            raise errors.StoreUnavailable("no answer")
        return read(asked)

    monkeypatch.setattr(store.asks, "read_places", fail_twice)
    asyncio.run(asyncio.wait_for(watch.wait_for_end("a"), SOON))
    assert failed == [["a"], ["a"]]


def test_a_user_who_may_use_no_channel_learns_of_ends_by_asking(
    redis_server: RedisServer, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_PAUSE", 0.05)
    monkeypatch.setattr(waiting, "_IDLE", 0.0)
    redis_client.execute_command("ACL", "SETUSER", "silent", "on", ">x", "~*", "+@all", "resetchannels")
    try:
        store = open_store_at(f"redis://silent:x@127.0.0.1:{redis_server.port}/0")
        seal_pool(store, "a")
        watch = waiting.AskWatch(store.asks)

        async def wait_for_end() -> None:
            task = asyncio.create_task(watch.wait_for_end("a"))
            await asyncio.sleep(0.2)
            assert not task.done()
            end(store, "a")
            await asyncio.wait_for(task, SOON)

        asyncio.run(wait_for_end())
        wait_for_thread()
        assert store.asks.read_ended(JOB) == b"\x80"
    finally:
        redis_client.execute_command("ACL", "DELUSER", "silent")


def test_a_fault_of_the_thread_wakes_all_with_an_error_and_the_next_begins_another(
    store: RedisStore, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    seal_pool(store, "a")

    async def wait_twice() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(store.asks, "read_places", lambda asked: 1 / 0)
            with pytest.raises(errors.StoreUnavailable, match="ZeroDivisionError"):
                await asyncio.wait_for(watch.wait_for_end("a"), SOON)
        end(store, "a")
        await asyncio.wait_for(watch.wait_for_end("a"), SOON)

    asyncio.run(wait_twice())


def test_who_gives_up_leaves_nothing(store: RedisStore, watch: Watch) -> None:
    seal_pool(store, "a")

    async def give_up() -> None:
        tasks = await begin(watch, "a", "a")
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        assert not tasks[1].done()
        tasks[1].cancel()
        await asyncio.wait(tasks)

    asyncio.run(give_up())
    assert not watch._waiting


def test_a_loop_that_was_closed_keeps_no_other_from_its_answer(store: RedisStore, watch: Watch) -> None:
    seal_pool(store, "a")
    loop = asyncio.new_event_loop()
    watch._add("a", waiting._Waiter(loop, loop.create_future()))
    loop.close()

    async def wait_and_end() -> None:
        tasks = await begin(watch, "a")
        end(store, "a")
        await asyncio.wait_for(asyncio.gather(*tasks), SOON)

    asyncio.run(wait_and_end())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_has_a_thread_of_its_own(store: RedisStore, watch: Watch) -> None:
    seal_pool(store, "a", "b")
    end(store, "b", first=1)

    async def wait_in_both() -> None:
        tasks = await begin(watch, "a")
        if (child := os.fork()) == 0:
            os._exit(_wait_in_child(store, "b"))
        _, status = await asyncio.wait_for(asyncio.to_thread(os.waitpid, child, 0), SOON)
        assert status == 0
        end(store, "a")
        await asyncio.wait_for(asyncio.gather(*tasks), SOON)

    asyncio.run(wait_in_both())


def _wait_in_child(store: RedisStore, ask_id: str) -> int:
    """Wait in a loop of another thread: this one has that of the parent. Return 0 if all went well."""
    found: list[object] = []

    def wait() -> None:
        own = waiting.watch_asks(store)
        found.append(asyncio.run(asyncio.wait_for(own.wait_for_end(ask_id), SOON)))

    waiter = threading.Thread(target=wait)
    waiter.start()
    waiter.join(SOON)
    return 0 if found == [None] else 1
