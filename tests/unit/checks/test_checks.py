"""What a worker warns of: decided by values, and asked of real servers."""

from __future__ import annotations

import ast
import logging
import re
import time
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import kombu.transport
import pytest
from celery import Celery

from claude_batch_tasks import transport
from claude_batch_tasks.checks import celery_settings, configuration, connections
from claude_batch_tasks.embedded import RedisServer, free_port
from tests.factories import find_in_info

GOOD = {"maxmemory_policy": "noeviction", "maxmemory": 0, "aof_enabled": 1}


def server_levels(**info: Any) -> list[int]:
    return [finding.level for finding in find_in_info({**GOOD, **info})]


def test_a_server_that_keeps_everything_is_no_reason() -> None:
    assert server_levels() == []
    assert find_in_info({}) == []


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random", "allkeys-lrm"])
def test_a_server_that_may_drop_any_key_is_an_error(policy: str) -> None:
    assert server_levels(maxmemory_policy=policy, maxmemory=1000) == [logging.ERROR]


@pytest.mark.parametrize("policy", ["volatile-lru", "volatile-ttl"])
def test_a_server_that_may_drop_what_expires_is_a_warning(policy: str) -> None:
    assert server_levels(maxmemory_policy=policy) == [logging.WARNING]


def test_a_server_without_an_append_only_file_is_a_warning() -> None:
    assert server_levels(aof_enabled=0) == [logging.WARNING]
    assert len(server_levels(aof_enabled=0, maxmemory_policy="allkeys-lru")) == 2


def test_the_texts_say_where_what_and_which_line() -> None:
    info = {"maxmemory_policy": "allkeys-lru", "maxmemory": 0, "aof_enabled": 0}
    evicts, forgets = map(str, find_in_info(info, "store", "broker"))
    for words in (
        "store and broker",
        "host:6379",
        "allkeys-lru",
        "as soon as a maxmemory",
        "maxmemory-policy noeviction",
    ):
        assert words in evicts
    assert "appendonly yes" in forgets


def test_an_app_that_kills_its_steps_is_a_warning() -> None:
    name = "worker_cancel_long_running_tasks_on_connection_loss"
    [finding] = celery_settings.of_settings({name: True})
    assert finding.level == logging.WARNING
    assert f"{name} = False" in finding.hint
    assert celery_settings.of_settings({name: False}) == celery_settings.of_settings({}) == []


@pytest.mark.parametrize(("seconds", "number"), [(120, 1), (30, 0), (10.0, 0), (None, 1)])
def test_a_connection_that_is_waited_on_for_long(seconds: float | None, number: int) -> None:
    assert len(connections.of_silence("result back end", seconds, "redis_socket_timeout = 10")) == number


def make_app(store: str, broker: str) -> Celery:
    app = Celery("checked", broker=broker, backend="cache+memory://", set_as_current=False)
    app.conf.update(claude_batch_store_url=store, result_expires=7 * 86_400, broker_heartbeat=10)
    return app


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[Celery], list[tuple[int, str]]]:
    """What is logged for an app."""

    def of(app: Celery) -> list[tuple[int, str]]:
        caplog.clear()
        with caplog.at_level(logging.INFO, configuration.__name__):
            configuration.log_findings(SimpleNamespace(app=app))
        return [(record.levelno, record.getMessage()) for record in caplog.records]

    return of


def test_real_servers(said: Callable[[Celery], list[tuple[int, str]]], monkeypatch: pytest.MonkeyPatch) -> None:
    # The ready-made app, if a test has imported it, guards the whole process.
    monkeypatch.setitem(kombu.transport.TRANSPORT_ALIASES, "redis", "kombu.transport.redis:Transport")
    monkeypatch.delitem(kombu.transport._transport_cache, "redis", raising=False)
    with RedisServer() as good, RedisServer() as bad:
        with bad.client() as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
            client.config_set("appendonly", "no")
        [(level, text)] = said(make_app(good.url, good.url))
        assert (level, "claude_batch_tasks.transport.install()" in text) == (logging.WARNING, True)

        own = make_app(bad.url, "amqp://")
        assert [level for level, _ in said(own)] == [logging.ERROR, logging.WARNING]
        assert all(f"the store's Redis (127.0.0.1:{bad.port})" in text for _, text in said(own))
        both = said(make_app(bad.url, bad.url))
        assert [("store and broker" in text) for _, text in both] == [True, True, False]

        # A user who may not: as with managed servers.
        with bad.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "-info")
        [(level, _)] = said(own)
        assert level == logging.INFO


def test_a_guarded_transport_is_no_reason(
    said: Callable[[Celery], list[tuple[int, str]]], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(redis_server.url, redis_server.url)
    app.conf.broker_transport = f"{transport.__name__}:Transport"
    assert said(app) == []


def test_a_server_that_is_down_holds_nothing_up(said: Callable[[Celery], list[tuple[int, str]]]) -> None:
    started = time.monotonic()
    [(level, text)] = said(make_app(f"redis://:secret@127.0.0.1:{free_port()}/0", "amqp://"))
    assert time.monotonic() - started < 15  # on a busy machine; Celery itself would try for 20 s and more
    assert level == logging.INFO
    assert "secret" not in text


def test_nothing_is_raised(said: Callable[[Celery], list[tuple[int, str]]]) -> None:
    found = said(make_app("redis://127.0.0.1:1/0", "no-such-transport://host"))
    assert [level for level, text in found if "the broker cannot be used" in text] == [logging.ERROR]


def test_what_cannot_be_checked_hides_nothing_else(said: Callable[[Celery], list[tuple[int, str]]]) -> None:
    app = make_app("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0")
    app.conf.update(result_expires="soon", broker_transport_options={"visibility_timeout": "10"})
    app.conf.task_annotations = {"claude_batch_tasks.poll_batch": {"time_limit": "30"}}
    app.loader.import_task_module("claude_batch_tasks.tasks")
    texts = [text for _, text in said(app)]
    assert any("settings could not be checked: ValueError" in text for text in texts)
    assert any("visibility_timeout is '10', and must be a number" in text for text in texts)
    assert any("poll_batch is stopped after 30 s" in text for text in texts)


def test_a_result_back_end_that_evicts(
    said: Callable[[Celery], list[tuple[int, str]]], redis_server: RedisServer
) -> None:
    with RedisServer() as other:
        app = make_app(redis_server.url, redis_server.url)
        app.conf.update(result_backend=other.url, redis_socket_timeout=10)
        assert said(app) == [] or all("result back end" not in text for _, text in said(app))
        other.client().config_set("maxmemory-policy", "allkeys-lru")
        [text] = [text for level, text in said(app) if level == logging.ERROR]
        assert "the result back end's Redis" in text
        assert "result.get() never returns" in text


@pytest.mark.parametrize(("seconds", "number"), [(1, 1), (10, 1), (599, 1), (600, 0), (2400, 0), (86_400, 0)])
def test_a_visibility_timeout_shorter_than_a_step_may_take(seconds: float, number: int) -> None:
    found = connections.of_visibility_timeout(seconds)
    assert len(found) == number
    assert all(f"{seconds:g} s" in one.text and "{'visibility_timeout': 2400}" in one.hint for one in found)


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"worker_prefetch_multiplier": 0}, "worker_prefetch_multiplier = 1"),
        ({"worker_prefetch_multiplier": 50}, "prefetches 50 messages"),
        ({"result_expires": 3600}, "after 1 h"),
        ({"result_expires": timedelta(days=1)}, "result_expires = 604800"),
        ({"task_serializer": "yaml", "accept_content": ["json"]}, "task_serializer = 'yaml' is not accepted"),
        ({"result_serializer": "yaml", "result_accept_content": ["json"]}, "result_serializer = 'yaml'"),
        ({"task_serializer": "pickle"}, "run code in workers"),
        ({"task_serializer": "yaml", "accept_content": "json"}, "task_serializer = 'json'"),
        (
            {"result_serializer": "json", "accept_content": ["json"], "result_accept_content": ["yaml"]},
            "result_accept_content = ['yaml', 'json']",
        ),
        ({"result_expires": "3600", "worker_prefetch_multiplier": "4"}, "after 1 h"),
        ({"accept_content": ["application/x-python-serialize", "json"]}, "accept_content = ['json']"),
    ],
)
def test_settings_that_would_hurt(conf: dict[str, Any], words: str) -> None:
    [finding] = celery_settings.of_settings(conf)
    assert finding.level == logging.WARNING
    assert words in str(finding)


@pytest.mark.parametrize(
    "conf",
    [
        {"worker_prefetch_multiplier": 4},
        {"worker_prefetch_multiplier": 1, "result_expires": None},
        {"result_expires": 0},
        {"result_expires": timedelta(days=7)},
        {"task_serializer": "json", "result_serializer": "json", "accept_content": ["application/json"]},
        {"task_serializer": "yaml", "accept_content": ["application/x-yaml", "json"]},
        {"task_serializer": "yaml", "accept_content": ["yaml"]},
        {"task_protocol": 2},
    ],
)
def test_settings_that_would_not(conf: dict[str, Any]) -> None:
    assert celery_settings.of_settings(conf) == []


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"task_serializer": "json", "accept_content": ["yaml"]}, "accept_content = ['json', 'yaml']"),
        ({"task_serializer": "pickle", "accept_content": ["yaml"]}, "neither 'json' nor task_serializer = 'pickle'"),
        ({"task_protocol": 1}, "task_protocol = 2"),
        ({"task_protocol": "1"}, "task_protocol = 2"),
    ],
)
def test_settings_under_which_no_job_can_be_sent(conf: dict[str, Any], words: str) -> None:
    found = celery_settings.of_settings(conf)
    [finding] = [each for each in found if each.level == logging.ERROR]
    assert words in str(finding)


def test_what_annotations_may_make_of_our_tasks() -> None:
    def tasks(limit: float | None = None, **annotations: Any) -> list[str]:
        with Celery("annotated", set_as_current=False) as app:
            app.conf.task_annotations = annotations
            app.loader.import_task_module("claude_batch_tasks.tasks")
            app.finalize(auto=True)
            return [str(finding) for finding in celery_settings.of_tasks(app.tasks, {"time_limit": limit})]

    assert tasks() == []
    assert tasks(**{"another.task": {"acks_late": False, "time_limit": 1}}) == []
    [late] = tasks(**{"*": {"acks_late": False}})
    assert re.search(r"claude_batch_tasks.ask and \d+ more are acknowledged before", late)
    [late] = tasks(**{"claude_batch_tasks.poll_batch": {"reject_on_worker_lost": False}})
    assert "claude_batch_tasks.poll_batch is acknowledged" in late
    annotations = {
        "claude_batch_tasks.fetch_results": {"time_limit": 60},
        "claude_batch_tasks.poll_batch": {"time_limit": 200},
    }
    [limit] = tasks(**annotations)
    assert "fetch_results is stopped after 60 s" in limit
    assert "task_annotations = {'claude_batch_tasks.fetch_results': {'time_limit': 1800}}" in limit
    assert tasks(limit=600) == []
    # A long answer of the Messages API takes as long as a download.
    [limit] = tasks(**{"claude_batch_tasks.send_messages": {"time_limit": 300}})
    assert "send_messages is stopped after 300 s" in limit
    assert tasks(**{"claude_batch_tasks.poll_batch": {"time_limit": 300}}) == []
    [limit] = tasks(limit=30, **{"claude_batch_tasks.poll_batch": {"soft_time_limit": 20}})
    assert re.search(r"claude_batch_tasks.ask and \d+ more are stopped after 20 s", limit)
    # These are ours, whatever an app says of all its tasks.
    with Celery("annotated", set_as_current=False) as app:
        app.conf.task_annotations = {"*": {"max_retries": 3, "ignore_result": True, "rate_limit": "1/s"}}
        app.loader.import_task_module("claude_batch_tasks.tasks")
        app.finalize(auto=True)
        ours = [task for name, task in app.tasks.items() if name.startswith("claude_batch_tasks.")]
        assert {(task.max_retries, task.rate_limit) for task in ours} == {(None, "1/s")}
        assert {task.name.rpartition(".")[2] for task in ours if not task.ignore_result} == {
            "ask",
            "run_batch",
            "finish_job",
            "recover_jobs",
        }
    # What is advised is enough.
    assert tasks(limit=30, **ast.literal_eval(limit.partition("task_annotations = ")[2])) == []


def test_the_ready_made_app_gives_no_reason() -> None:
    from claude_batch_tasks.app import app

    assert celery_settings.of_settings(app.conf) == []
    assert celery_settings.of_tasks(app.tasks, {}) == []
    assert connections.of_visibility_timeout(2400) == []
