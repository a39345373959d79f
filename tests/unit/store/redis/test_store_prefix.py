"""Projects that share a database, each with keys that begin with its own prefix."""

from __future__ import annotations

import re
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks.checks import configuration
from claude_batch_tasks.doctor import servers
from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.pool_records import AskEnd, PoolRecord
from claude_batch_tasks.records import Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store.redis import open_store_at
from claude_batch_tasks.store.redis.parts.inspection import PROBES
from claude_batch_tasks.store.redis.prefixing import _KEYLESS, _KEYS_ONLY
from tests.unit.store.contract.samples import LIMITS, add_ask


def settings(**conf: Any) -> Settings:
    app = Celery(broker="redis://h/0", backend="redis://h/0", set_as_current=False)
    app.conf.update(conf)
    return Settings.of(app)


class TestThePrefix:
    @pytest.mark.parametrize("options", ["broker_transport_options", "result_backend_transport_options"])
    @pytest.mark.parametrize("own", [{}, {"claude_batch_store_url": "redis://other/3"}])
    def test_is_celerys(self, options: str, own: dict[str, Any]) -> None:
        assert settings(**{options: {"global_keyprefix": "shop:"}}, **own).store_prefix == "shop:"

    def test_is_empty_where_there_is_none(self) -> None:
        assert settings().store_prefix == ""

    @pytest.mark.parametrize("value", ["", "mine:", "{mine}:"])
    def test_may_be_set(self, value: str) -> None:
        options = {"global_keyprefix": "shop:"}
        assert settings(claude_batch_store_prefix=value, broker_transport_options=options).store_prefix == value

    @pytest.mark.parametrize("value", ["{}a", "a{}", "a b", 3])
    def test_may_not_be_what_breaks_keys(self, value: Any) -> None:
        with pytest.raises(InvalidSettings, match="claude_batch_store_prefix must be"):
            settings(claude_batch_store_prefix=value)


def test_every_command_that_is_tried_is_one_whose_keys_are_known() -> None:
    """What is in no list has one key, which comes first."""
    with_one_key = set()
    for probe in PROBES.split("|"):
        command, *args = probe.split()
        if command in _KEYLESS | {"EVALSHA"}:
            assert not any("{key}" in arg for arg in args), probe
        elif command not in _KEYS_ONLY | {"RENAME"}:  # sent in scripts only, which have keys of their own
            with_one_key.add(command)
            assert [n for n, arg in enumerate(args) if "{key}" in arg] == [0], probe
    assert "HSET" in with_one_key


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    redis_server.client().flushall()
    return redis_server


@pytest.mark.parametrize("prefix", ["shop:", "a*[b]?\\:", "{shop}:"])
def test_two_stores_in_one_database_know_nothing_of_each_other(server: RedisServer, prefix: str) -> None:
    ours, theirs = (open_store_at(server.url, (), each) for each in (prefix, ""))
    theirs.schedule.add_units([Unit("theirs")], 1)
    ours.schedule.add_units([Unit("j", 0), Unit("j")], 5)
    ours.schedule.wait_again([Unit("j", 0)], -1)
    assert theirs.schedule.list_overdue(9, 10) == [Unit("theirs")]
    assert theirs.schedule.take_due(5) == ([], None)
    assert Unit("j") in ours.schedule.list_overdue(9, 10)
    assert ours.schedule.take_due(5)[0] == [Unit("j", 0)]
    keys = {key.decode() for key in server.client().keys("*")}
    assert all(key.startswith(("claude_batch:", f"{prefix}claude_batch:")) for key in keys)
    ours.asks.end_asks("j", {0: AskEnd("c", "succeeded")}, 9.0)
    for store, ask_id in ((ours, "a"), (theirs, "b")):
        with theirs.asks.listen() as their_listener, ours.asks.listen() as our_listener:
            add_ask(store, ask_id, reserved=1, limits=LIMITS._replace(max_cost=5, max_requests=1))
            assert store.pools.take_due(5, 9.0)[0] == [f"pool-of-{ask_id}"]
            store.asks.withdraw([ask_id], 9.0)
            ended = our_listener if store is ours else their_listener
            other = their_listener if store is ours else our_listener
            assert (ended.wait(10.0), other.wait(0.05)) == ([ask_id], [])
            store.pools.finish_sealing(f"pool-of-{ask_id}")
            assert store.pools.divide(f"pool-of-{ask_id}", {"part": (PoolRecord(state="closed"), [0])})
    keys = {key.decode() for key in server.client().keys("*")}
    assert all(key.startswith(("claude_batch:", f"{prefix}claude_batch:")) for key in keys)
    ours._redis.hset("claude_batch:{x}:job", "submitted_at", "1.5")
    server.client().delete(f"{prefix}claude_batch:jobs", f"{prefix}claude_batch:schema")
    ours.jobs.rebuild_list()
    assert list(ours.jobs.job_ids()) == ["x"]
    assert list(theirs.jobs.job_ids()) == []


def found(server: RedisServer, **conf: Any) -> list[str]:
    app = Celery(broker="memory://", backend="disabled://", set_as_current=False)
    app.conf.update(claude_batch_store_url=server.url, **conf)
    said = list(servers.check_servers(app))
    assert [str(one) for one in configuration.check_all(app) if "W115" in one.id] == [
        str(o) for o in said if "W115" in o.id
    ]
    return [one.text for one in said if one.id == "claude_batch.W115"]


class TestJobsOfAnotherPrefix:
    def test_are_noticed_by_an_app_that_has_none(self, server: RedisServer) -> None:
        open_store_at(server.url).schedule.add_units([Unit("j")], 1e10)
        [text] = found(server, broker_transport_options={"global_keyprefix": "shop:"})
        assert re.search(r"keys begin with '', and this app's begin with 'shop:'", text)
        assert found(server) == []

    def test_are_noticed_where_nobody_does_what_is_due(self, server: RedisServer) -> None:
        open_store_at(server.url)._redis.zadd("claude_batch:jobs", {"mine": 1})
        theirs = open_store_at(server.url, (), "shop:")
        theirs.schedule.add_units([Unit("j")], 1e10)
        assert found(server) == []  # another project's, which works
        theirs.schedule.add_units([Unit("k")], 1)
        [text] = found(server)
        assert "keys begin with 'shop:', and this app's begin with ''" in text
