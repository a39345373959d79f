"""What the unit tests share: a store on either kind of server, and requests to put into it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import fakeredis
import pytest
import redis
from hypothesis import HealthCheck, configuration, settings

from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.store.redis import RedisStore
from tests.factories import make_params

# The same examples in every run, and no folder of its own in the checkout.
configuration.set_hypothesis_home_dir(os.path.join(tempfile.gettempdir(), "claude-batch-hypothesis"))
settings.register_profile(
    "unit",
    deadline=None,
    max_examples=40,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("unit")

MakeRequest = Callable[..., dict[str, Any]]

#: A unit test sleeps shorter than this, and takes far less of its process's time, on a slow machine and with its lines
#: counted too: seconds.
SLEEP, COMPUTE = 0.2, 10.0


#: What keys that are all jobs' begin with.
_COMMON = tuple(
    f"claude_batch:{name}" for name in ("due", "held", "identity", "late", "pace:", "schema", "waiting", "worker")
)


def list_keys(client: redis.Redis) -> set[str]:
    """Return the names of all keys on a server, but for those that are all jobs'."""
    return {name for key in client.keys("*") if not (name := key.decode()).startswith(_COMMON)}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fail a test that is none of a unit: one that waits, computes for long, or starts a Python of its own.

    Those of the store may: its leases and countdowns go by the clock of a server.
    """
    if {"redis_client", "open_store"} & {*getattr(item, "fixturenames", ())}:
        return (yield)
    found: list[str] = []
    sleep, start = time.sleep, subprocess.Popen.__init__

    def note_sleep(seconds: float) -> None:
        if seconds >= SLEEP and threading.current_thread() is threading.main_thread():
            found.append(f"it sleeps {seconds:g} s")
        sleep(seconds)

    def note_program(self: Any, args: Any, *others: Any, **more: Any) -> None:
        if sys.executable in str(args):
            found.append(f"it starts {args}")
        start(self, args, *others, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", note_sleep)
        patch.setattr(subprocess.Popen, "__init__", note_program)
        began = time.process_time()
        result = yield
        took = time.process_time() - began
    if took > COMPUTE:
        found.append(f"it computes for {took:.1f} s")
    if found:
        pytest.fail(f"not a unit test: {'; '.join(found)}; shorten it, or move it to another folder", pytrace=False)
    return result


@pytest.fixture(params=["fakeredis", "server"])
def redis_client(request: pytest.FixtureRequest) -> redis.Redis:
    """An empty Redis that does not decode: one in memory, and a real one."""
    if request.param == "fakeredis":
        return fakeredis.FakeRedis(server=fakeredis.FakeServer())
    server: RedisServer = request.getfixturevalue("redis_server")
    client = server.client()
    client.flushall()
    return client


@pytest.fixture
def store(redis_client: redis.Redis) -> RedisStore:
    return RedisStore(redis_client, "the test's server")


@pytest.fixture
def keys(redis_client: redis.Redis) -> Callable[[], set[str]]:
    """``keys()``: the names of all keys on the server, but for those that are all jobs'."""
    return lambda: list_keys(redis_client)


@pytest.fixture
def make_request() -> MakeRequest:
    """``make_request("a", text="hello", max_tokens=5)``: a request that is fine but for what is given."""

    def make(custom_id: Any = "a", text: str = "hello", **params: Any) -> dict[str, Any]:
        return {"custom_id": custom_id, "params": make_params(text, **{"model": "claude-x", **params})}

    return make
