"""The parts of the PostgreSQL store: one class for each Protocol of ``store.interface``."""

from __future__ import annotations

from claude_batch_tasks.store.postgres.parts.batch_ids import PostgresBatchIds as PostgresBatchIds
from claude_batch_tasks.store.postgres.parts.deliveries import PostgresDeliveries as PostgresDeliveries
from claude_batch_tasks.store.postgres.parts.history import PostgresHistory as PostgresHistory
from claude_batch_tasks.store.postgres.parts.in_flight import PostgresInFlight as PostgresInFlight
from claude_batch_tasks.store.postgres.parts.jobs import (
    PostgresJobs as PostgresJobs,
    PostgresJobSearch as PostgresJobSearch,
    PostgresRetries as PostgresRetries,
    PostgresStorage as PostgresStorage,
)
from claude_batch_tasks.store.postgres.parts.leases import PostgresLeases as PostgresLeases
from claude_batch_tasks.store.postgres.parts.message_queue import PostgresMessageQueue as PostgresMessageQueue
from claude_batch_tasks.store.postgres.parts.payloads import PostgresPayloads as PostgresPayloads
from claude_batch_tasks.store.postgres.parts.records import PostgresRecords as PostgresRecords
from claude_batch_tasks.store.postgres.parts.results import PostgresResults as PostgresResults
from claude_batch_tasks.store.postgres.parts.schedule import PostgresSchedule as PostgresSchedule
from claude_batch_tasks.store.postgres.parts.statistics import (
    PostgresPresence as PostgresPresence,
    PostgresStatistics as PostgresStatistics,
)
