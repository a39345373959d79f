"""Payloads in an object store, beside any ledger: the ledger keeps all else, and references."""

from __future__ import annotations

from claude_batch_tasks.store.objects.bucket import try_bucket as try_bucket
from claude_batch_tasks.store.objects.store import with_objects as with_objects
