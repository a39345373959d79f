"""What the package stores for the life of a process, and a reset of it."""

from __future__ import annotations

import sys

#: What is kept for the life of a process, by module. Each is emptied by ``reset``, and filled again when it is needed.
KEPT = {
    "api.clients": ("_client", "_renewed", "_replaced", "_slots"),
    "checks.presence": ("_settled",),
    "lifecycle.pools.adding": ("_plans",),
    "metrics": ("_logged",),
    "pricing.prices": ("_listed", "_window"),
    "steps.publishing": ("_pools",),
    "results.waiting": ("_open_watch",),
    "settings.redis_urls": ("_redis_url", "address_of"),
    "settings.store_urls": ("_postgres_url",),
    "steps.result_backend": ("_paused_until",),
    "settings.model": ("_price_list",),
    "steps.job_summary": ("_next_report",),
    "store.objects.store": ("_open",),
    "store.postgres.opening": ("_open",),
    "store.redis.prefixing": ("client_class",),
    "store.redis.opening": ("_open",),
    "transport": ("_refusing",),
    "worker.confirmations": ("_waiting", "_received"),
    "worker.revoked_asks": ("_revoked", "_stamps"),
}


def reset() -> None:
    """Forget the clients, stores, prices, broker connections and pauses of this process.

    Each is made again when it is needed next, of the settings and the environment as they are then. Jobs are not
    touched. The pytest plugin calls it after each test; call it yourself where tests run without pytest, or where a
    client factory is to read something new in the middle of one.
    """
    for module, names in KEPT.items():
        loaded = sys.modules.get(f"claude_batch_tasks.{module}")
        for name in names if loaded is not None else ():
            kept = getattr(loaded, name)
            if isinstance(kept, float):
                setattr(loaded, name, 0.0)
            elif hasattr(kept, "cache_clear"):
                kept.cache_clear()
            else:
                kept.clear()
