"""The store on Redis (or a server that speaks its protocol), the default.

All keys of a job carry its id as hash tag. Record fields are JSON; payloads are chunks. The atomic steps are the Lua
files in ``scripts``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import redis

from claude_batch_tasks import transport
from claude_batch_tasks.settings import redis_reports, redis_urls
from claude_batch_tasks.store import interface
from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.redis import parts
from claude_batch_tasks.store.redis.chunks import Chunks
from claude_batch_tasks.store.redis.connection import Connection, Part, answering
from claude_batch_tasks.store.redis.parts.asks import RedisAsks
from claude_batch_tasks.store.redis.parts.database import RedisSchema, RedisTransactions
from claude_batch_tasks.store.redis.parts.inspection import RedisInspection
from claude_batch_tasks.store.redis.parts.pools import RedisPools
from claude_batch_tasks.store.redis.prefixing import client_class

#: Time-outs of a connection with a subscription, which may be silent. Nothing is sent to test it: keep-alive notices in
#: half a minute that the server is gone, and would not while an answer to a test is missing.
_OF_LISTENERS = {**transport.TIMEOUTS, "health_check_interval": 0}


class RedisStore(Part):
    """A ``store.Store`` on a Redis client.

    Args:
        client: one that does not decode responses.
        where: what error messages call the server; no password.
        cipher: encrypts chunks; default: nothing is encrypted.
        connect_listener: makes a client with a connection of its own, for a subscription; default: ``client`` has more
            than one.
        connect_inspector: makes a client with connections of its own and without a prefix, which soon gives up;
            default: ``client``.
    """

    def __init__(
        self,
        client: redis.Redis,
        where: str,
        cipher: Cipher | None = None,
        connect_listener: Callable[[], redis.Redis] | None = None,
        connect_inspector: Callable[[], redis.Redis] | None = None,
    ) -> None:
        connection = Connection(client, where, cipher or Cipher())
        super().__init__(connection)
        chunks, leases = Chunks(connection), parts.RedisLeases(connection)
        records, schedule = parts.RedisRecords(connection), parts.RedisSchedule(connection)
        self.jobs: interface.Jobs = parts.RedisJobs(connection, records, schedule)
        self.retries: interface.Retries = parts.RedisRetries(connection, records)
        self.job_search: interface.JobSearch = parts.RedisJobSearch(connection)
        self.records: interface.Records = records
        self.history: interface.History = parts.RedisHistory(connection)
        self.leases: interface.Leases = leases
        self.batch_ids: interface.BatchIds = parts.RedisBatchIds(connection)
        self.schedule: interface.Schedule = schedule
        self.in_flight: interface.InFlight = parts.RedisInFlight(connection)
        self.payloads: interface.Payloads = parts.RedisPayloads(connection, chunks)
        self.results: interface.Results = parts.RedisResults(connection, chunks, leases)
        self.deliveries: interface.Deliveries = parts.RedisDeliveries(connection)
        self.budget: interface.Budget = parts.RedisBudget(connection)
        self.message_queue: interface.MessageQueue = parts.RedisMessageQueue(connection, chunks)
        self.pools: interface.Pools = RedisPools(connection)
        self.asks: interface.Asks = RedisAsks(connection, connect_listener or (lambda: client))
        self.presence: interface.Presence = parts.RedisPresence(connection)
        self.statistics: interface.Statistics = parts.RedisStatistics(connection)
        self.inspection: interface.Inspection = RedisInspection(connection, connect_inspector or (lambda: client))
        self.wakeups: interface.Wakeups = parts.RedisWakeups()
        self.transactions: interface.Transactions = RedisTransactions(connection)
        self.schema: interface.Schema = RedisSchema(connection)

    @answering
    def check_schema(self) -> None:
        """Open the store, as every call does when it is the first."""

    def now(self) -> float:
        """Return the time by Redis' clock, epoch seconds."""
        return self._connection.now()


@functools.lru_cache(maxsize=32)
def _open(url: str, keys: tuple[str, ...], prefix: str, pid: int) -> RedisStore:
    client = redis_urls.connect_redis(url, transport.TIMEOUTS, transport.make_distrustful, client_class(prefix))
    connect_listener = functools.partial(redis_urls.connect_redis, url, _OF_LISTENERS)
    connect_inspector = functools.partial(redis_reports.connect_client, url)
    return RedisStore(client, redis_urls.redis_address(url), Cipher(keys), connect_listener, connect_inspector)


def open_store_at(url: str, keys: tuple[str, ...] = (), prefix: str = "") -> RedisStore:
    """Return the store behind a Redis URL, one per process: no connection is used after a fork that was made before."""
    return _open(url, keys, prefix, os.getpid())
