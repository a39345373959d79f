"""What stores keep for the life of a process; ``testing.reset`` forgets it."""

from __future__ import annotations

#: Caches and collections, by module.
KEPT = {
    "store.objects.store": ("_open",),
    "store.postgres.opening": ("_open",),
    "store.redis.opening": ("_open",),
    "store.redis.prefixing": ("client_class",),
}
