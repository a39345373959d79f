"""The store on Redis (or a server that speaks its protocol), the default.

All keys of a job carry its id as hash tag. Record fields are JSON; payloads are chunks. The atomic steps are the Lua
files in ``scripts``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

import redis

from claude_batch_tasks.store import interface
from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.redis import parts
from claude_batch_tasks.store.redis.chunks import Chunks
from claude_batch_tasks.store.redis.connection import Connection, Part, answering
from claude_batch_tasks.store.redis.database import RedisSchema, RedisTransactions
from claude_batch_tasks.store.redis.keys import IDENTITY
from claude_batch_tasks.store.redis.parts.asks import RedisAsks
from claude_batch_tasks.store.redis.parts.inspection import RedisInspection
from claude_batch_tasks.store.redis.parts.pools import RedisPools
from claude_batch_tasks.store.redis.transfer import RedisTransfer


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
        jobs = parts.RedisJobs(connection, records)
        self.jobs: interface.Jobs = jobs
        self.storage: interface.Storage = parts.RedisStorage(connection, jobs, records, schedule)
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
        self.transfer: interface.Transfer = RedisTransfer(connection)
        self.statistics: interface.Statistics = parts.RedisStatistics(connection)
        self.inspection: interface.Inspection = RedisInspection(connection, connect_inspector or (lambda: client))
        self.wakeups: interface.Wakeups = parts.RedisWakeups()
        self.transactions: interface.Transactions = RedisTransactions(connection)
        self.schema: interface.Schema = RedisSchema(connection)

    @answering
    def check_schema(self) -> None:
        """Open the store, as every call does when it is the first."""

    @answering
    def read_identity(self) -> str:
        """Return a name of this store, which was made at random when it was first asked for."""
        self._redis.set(IDENTITY, secrets.token_hex(8), nx=True)
        return str(self._redis.get(IDENTITY).decode())

    def now(self) -> float:
        """Return the time by Redis' clock, epoch seconds."""
        return self._connection.now()
