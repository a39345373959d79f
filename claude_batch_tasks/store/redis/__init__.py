"""The store on Redis, or a server that speaks its protocol: the default."""

from __future__ import annotations

from claude_batch_tasks.store.redis.opening import open_store_at as open_store_at
from claude_batch_tasks.store.redis.store import RedisStore as RedisStore
