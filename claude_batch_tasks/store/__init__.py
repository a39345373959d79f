"""The store: what the package keeps of jobs, behind small Protocols, and how a store is opened."""

from __future__ import annotations

from collections.abc import Sequence

from claude_batch_tasks.settings import Settings, store_urls
from claude_batch_tasks.store.apart import stay_apart as stay_apart
from claude_batch_tasks.store.interface import (
    Clock as Clock,
    HasAsks as HasAsks,
    HasBatchIds as HasBatchIds,
    HasDeliveries as HasDeliveries,
    HasHistory as HasHistory,
    HasInFlight as HasInFlight,
    HasInspection as HasInspection,
    HasJobs as HasJobs,
    HasJobSearch as HasJobSearch,
    HasLeases as HasLeases,
    HasMessageQueue as HasMessageQueue,
    HasPayloads as HasPayloads,
    HasPools as HasPools,
    HasPresence as HasPresence,
    HasRecords as HasRecords,
    HasResults as HasResults,
    HasRetries as HasRetries,
    HasSchedule as HasSchedule,
    HasSchema as HasSchema,
    HasStatistics as HasStatistics,
    HasStorage as HasStorage,
    HasTransactions as HasTransactions,
    HasWakeups as HasWakeups,
    JobContents as JobContents,
    Journal as Journal,
    Ledger as Ledger,
    ReadableStore as ReadableStore,
    Store as Store,
)
from claude_batch_tasks.store.objects import with_objects


def open_store(settings: Settings) -> Store:
    """Return the store of these settings, which must have a ``store_url``: settings that come from an app have one."""
    assert settings.store_url is not None
    keys = settings.encryption_key or ()
    ledger = open_store_at(settings.store_url, keys, settings.store_prefix or "")
    return with_objects(ledger, settings.payload_url, keys)


def open_store_at(url: str, keys: Sequence[str] = (), prefix: str = "") -> Store:
    """Return the store at an address, cached per process. It has all payloads itself.

    Args:
        url: the address, as in the setting ``store_url``.
        keys: the encryption keys for payloads, as in the setting ``encryption_key``; the first encrypts.
        prefix: the prefix of all keys in Redis, or of the schema's name in PostgreSQL.

    Raises:
        InvalidSettings: it is the address of no store, or the client of its server is not installed.
    """
    if store_urls.kind_of(url) == "redis":
        from claude_batch_tasks.store import redis

        return redis.open_store_at(url, tuple(keys), prefix)
    try:
        from claude_batch_tasks.store import postgres
    except ImportError as exc:
        raise store_urls.not_installed(exc) from None
    return postgres.open_store_at(store_urls.store_url(url), tuple(keys), prefix)
