"""The store on PostgreSQL 13 and up: ``open_store_at`` opens it, ``migrate`` makes and changes its schema."""

from __future__ import annotations

from claude_batch_tasks.store.postgres.opening import open_store_at as open_store_at
from claude_batch_tasks.store.postgres.store import PostgresStore as PostgresStore
