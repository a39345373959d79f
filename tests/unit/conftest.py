"""What the unit tests share: a store on either kind of server, and requests to put into it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

import fakeredis
import pytest
import redis
from hypothesis import HealthCheck, configuration, settings

from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.store.redis import RedisStore

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

#: What keys that are all jobs' begin with.
_COMMON = tuple(f"claude_batch:{name}" for name in ("due", "held", "late", "pace:", "schema", "waiting"))


def list_keys(client: redis.Redis) -> set[str]:
    """Return the names of all keys on a server, but for those that are all jobs'."""
    return {name for key in client.keys("*") if not (name := key.decode()).startswith(_COMMON)}


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
        own = {"model": "claude-x", "max_tokens": 16, "messages": [{"role": "user", "content": text}], **params}
        return {"custom_id": custom_id, "params": {name: v for name, v in own.items() if v is not ...}}

    return make
