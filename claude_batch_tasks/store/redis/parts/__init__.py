"""The parts of a Redis store, one module for each Protocol of ``store.interface``."""

from __future__ import annotations

from claude_batch_tasks.store.redis.parts.batch_ids import RedisBatchIds as RedisBatchIds
from claude_batch_tasks.store.redis.parts.budget import RedisBudget as RedisBudget
from claude_batch_tasks.store.redis.parts.history import RedisHistory as RedisHistory
from claude_batch_tasks.store.redis.parts.in_flight import RedisInFlight as RedisInFlight
from claude_batch_tasks.store.redis.parts.jobs import (
    RedisJobs as RedisJobs,
    RedisJobSearch as RedisJobSearch,
    RedisRetries as RedisRetries,
    RedisStorage as RedisStorage,
)
from claude_batch_tasks.store.redis.parts.leases import RedisLeases as RedisLeases
from claude_batch_tasks.store.redis.parts.message_queue import RedisMessageQueue as RedisMessageQueue
from claude_batch_tasks.store.redis.parts.payloads import RedisPayloads as RedisPayloads
from claude_batch_tasks.store.redis.parts.records import RedisRecords as RedisRecords
from claude_batch_tasks.store.redis.parts.results import (
    RedisDeliveries as RedisDeliveries,
    RedisResults as RedisResults,
)
from claude_batch_tasks.store.redis.parts.schedule import (
    RedisSchedule as RedisSchedule,
    RedisWakeups as RedisWakeups,
)
from claude_batch_tasks.store.redis.parts.statistics import (
    RedisPresence as RedisPresence,
    RedisStatistics as RedisStatistics,
)
