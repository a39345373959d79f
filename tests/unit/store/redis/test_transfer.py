"""What of Redis is copied, and what is not: each key of the table is one or the other."""

from __future__ import annotations

import random
import re

import fakeredis
import pytest

from claude_batch_tasks.store.redis import RedisStore
from claude_batch_tasks.store.redis.prefixing import client_class
from claude_batch_tasks.store.redis.transfer.left_out import LEFT_OUT
from claude_batch_tasks.store.redis.transfer.task_bits import join_bits, split_bits
from claude_batch_tasks.store.transfer import items
from claude_batch_tasks.store.transfer.copying import Copy
from claude_batch_tasks.store.transfer.tally import tally
from tests.unit.store.contract.samples import BATCH, JOB, create_staged_job
from tests.unit.store.contract.transfer import export_all, fill
from tests.unit.store.redis.test_keys import in_the_table

#: What words in capitals stand for; all others are any text without a colon.
WORDS = {"JOB": ".+", "BATCH": r"\d+", "ATTEMPT": r"\d+", "START": r"\d+", "ASK": ".+", "KIND": ".+", "POOL": ".+"}


def open_store(server: fakeredis.FakeServer, where: str) -> RedisStore:
    return RedisStore(fakeredis.FakeRedis(server=server), where)


def pattern_of(key: str) -> str:
    """Return what the table calls a key."""

    def matches(pattern: str) -> bool:
        parts = re.split(r"([A-Z_]{2,})", pattern)
        regex = "".join(WORDS.get(part, "[^:]+") if n % 2 else re.escape(part) for n, part in enumerate(parts))
        return re.fullmatch(regex, key) is not None

    [found] = [pattern for pattern in in_the_table() if matches(pattern)]
    return found.removeprefix("claude_batch:")


def test_each_key_is_copied_or_it_is_said_why_not() -> None:
    old, new = fakeredis.FakeServer(), fakeredis.FakeServer()
    fill(open_store(old, "the old one"))
    Copy(open_store(old, "the old one"), open_store(new, "the new one")).run()
    copied = {pattern_of(key.decode()) for key in fakeredis.FakeRedis(server=new).keys("claude_batch:*")} - {"schema"}
    assert copied & LEFT_OUT.keys() == set()
    assert copied | LEFT_OUT.keys() == {pattern.removeprefix("claude_batch:") for pattern in in_the_table()}


def test_projects_that_share_a_server_are_copied_one_by_one() -> None:
    server = fakeredis.FakeServer()

    def open_project(prefix: str) -> RedisStore:
        kind = type("Client", (client_class(prefix),), {})
        client = kind(connection_pool=fakeredis.FakeRedis(server=server).connection_pool)
        return RedisStore(client, "the server")

    fill(open_project("one:"))
    client = fakeredis.FakeRedis(server=server)
    before = set(client.keys("*"))
    old, new = open_project("one:"), open_project("two:")
    Copy(old, new).run()
    assert {key for key in set(client.keys("*")) - before if not key.startswith(b"two:")} == {b"one:claude_batch:moved"}
    known = {job_id: tally(parts) for job_id, parts in export_all(old).items()}
    assert {job_id: tally(parts) for job_id, parts in export_all(new).items()} == known
    assert len(known) > 10


def test_what_was_lost_of_money_is_not_spent_again() -> None:
    old, new = fakeredis.FakeServer(), fakeredis.FakeServer()
    source = open_store(old, "the old one")
    create_staged_job(source)
    assert source.budget.reserve_cost(BATCH, 0, 1, 2, 100) == "yes"
    fakeredis.FakeRedis(server=old).delete("claude_batch:{job-1}:money")
    assert source.budget.reserve_cost(BATCH, 1, 1, 2, 100) == "lost"
    Copy(source, open_store(new, "the new one")).run()
    assert open_store(new, "the new one").budget.reserve_cost(BATCH, 1, 1, 2, 100) == "no"


def test_a_size_that_was_lost_follows_from_the_custom_ids() -> None:
    server = fakeredis.FakeServer()
    store = open_store(server, "the old one")
    create_staged_job(store)
    fakeredis.FakeRedis(server=server).delete("claude_batch:{job-1}:batch:0:sizes")
    chunks = [part for part in store.transfer.export_job(JOB) if isinstance(part, items.RequestChunk)]
    assert [chunk.size for chunk in chunks] == [2, 2]


@pytest.mark.parametrize("requests", [1, 3, 7, 8, 9, 100])
def test_bits_of_tasks_are_taken_apart_and_put_together(requests: int) -> None:
    chosen = random.Random(requests)
    for count in (1, 2, 3):
        size = -(-requests // 8)
        whole = [chosen.getrandbits(requests) << (-requests % 8) for _ in range(count)]
        tasks = {n: bits.to_bytes(size, "big").rstrip(b"\0") for n, bits in enumerate(whole)}
        found = dict(enumerate(split_bits(join_bits(tasks, requests), requests)))
        assert {n: bits for n, bits in found.items() if bits} == {n: bits for n, bits in tasks.items() if bits}
