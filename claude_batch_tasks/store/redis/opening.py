"""How a store on Redis is opened."""

from __future__ import annotations

import functools
import os

from claude_batch_tasks import transport
from claude_batch_tasks.settings import redis_reports, redis_urls
from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.redis.prefixing import client_class
from claude_batch_tasks.store.redis.store import RedisStore

#: Time-outs of a connection with a subscription, which may be silent. Nothing is sent to test it: keep-alive notices in
#: half a minute that the server is gone, and would not while an answer to a test is missing.
_OF_LISTENERS = {**transport.TIMEOUTS, "health_check_interval": 0}


@functools.lru_cache(maxsize=32)
def _open(url: str, keys: tuple[str, ...], prefix: str, pid: int) -> RedisStore:
    client = redis_urls.connect_redis(url, transport.TIMEOUTS, transport.make_distrustful, client_class(prefix))
    connect_listener = functools.partial(redis_urls.connect_redis, url, _OF_LISTENERS)
    connect_inspector = functools.partial(redis_reports.connect_client, url)
    return RedisStore(client, redis_urls.redis_address(url), Cipher(keys), connect_listener, connect_inspector)


def open_store_at(url: str, keys: tuple[str, ...] = (), prefix: str = "") -> RedisStore:
    """Return the store behind a Redis URL, one per process: no connection is used after a fork that was made before."""
    return _open(url, keys, prefix, os.getpid())
