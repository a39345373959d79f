"""The store on PostgreSQL: jobs, prompts and answers in tables of one schema.

The atomic steps are the functions in ``sql/functions``; what is a single statement is in ``sql/queries``.
"""

from __future__ import annotations

from claude_batch_tasks.store import interface
from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.postgres import parts
from claude_batch_tasks.store.postgres.connection import Connection, ConnectionSource, Part, answering
from claude_batch_tasks.store.postgres.database import PostgresSchema, PostgresTransactions
from claude_batch_tasks.store.postgres.inspection import PostgresInspection
from claude_batch_tasks.store.postgres.parts.asks import PostgresAsks
from claude_batch_tasks.store.postgres.parts.budget import PostgresBudget
from claude_batch_tasks.store.postgres.parts.pools import PostgresPools
from claude_batch_tasks.store.postgres.statements import SCHEMA
from claude_batch_tasks.store.postgres.transfer import PostgresTransfer
from claude_batch_tasks.store.postgres.wakeups import PostgresWakeups


class PostgresStore(Part):
    """A ``store.Store`` on a PostgreSQL database.

    Args:
        source: lends connections.
        schema: the name of the schema that holds its tables.
        cipher: encrypts chunks; default: nothing is encrypted.
    """

    def __init__(self, source: ConnectionSource, schema: str = SCHEMA, cipher: Cipher | None = None) -> None:
        connection = Connection(source, schema, cipher or Cipher())
        super().__init__(connection)
        jobs = parts.PostgresJobs(connection)
        self.jobs: interface.Jobs = jobs
        self.storage: interface.Storage = parts.PostgresStorage(connection)
        self.retries: interface.Retries = parts.PostgresRetries(connection)
        self.job_search: interface.JobSearch = parts.PostgresJobSearch(connection)
        self.records: interface.Records = parts.PostgresRecords(connection, jobs)
        self.history: interface.History = parts.PostgresHistory(connection)
        self.leases: interface.Leases = parts.PostgresLeases(connection)
        self.batch_ids: interface.BatchIds = parts.PostgresBatchIds(connection)
        self.schedule: interface.Schedule = parts.PostgresSchedule(connection)
        self.in_flight: interface.InFlight = parts.PostgresInFlight(connection)
        self.payloads: interface.Payloads = parts.PostgresPayloads(connection)
        self.results: interface.Results = parts.PostgresResults(connection)
        self.deliveries: interface.Deliveries = parts.PostgresDeliveries(connection)
        self.budget: interface.Budget = PostgresBudget(connection)
        self.message_queue: interface.MessageQueue = parts.PostgresMessageQueue(connection)
        self.pools: interface.Pools = PostgresPools(connection)
        self.asks: interface.Asks = PostgresAsks(connection)
        self.presence: interface.Presence = parts.PostgresPresence(connection)
        self.statistics: interface.Statistics = parts.PostgresStatistics(connection)
        self.inspection: interface.Inspection = PostgresInspection(connection)
        self.wakeups: interface.Wakeups = PostgresWakeups(connection)
        self.transactions: interface.Transactions = PostgresTransactions(connection)
        self.schema: interface.Schema = PostgresSchema(connection)
        self.transfer: interface.Transfer = PostgresTransfer(connection)

    @answering
    def check_schema(self) -> None:
        """See that the schema is there, and is one for this release."""

    @answering
    def read_identity(self) -> str:
        """Return a name of this store, which was made at random when it was first asked for."""
        return self._connection.read_identity()

    def now(self) -> float:
        """Return the time by the database's clock, epoch seconds."""
        return self._connection.now()
