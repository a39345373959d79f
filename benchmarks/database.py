"""What a case writes in a PostgreSQL, by the server's own count."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_READ = "SELECT pg_current_wal_lsn() - '0/0', pg_snapshot_xmax(pg_current_snapshot())::text::bigint"


@contextlib.contextmanager
def count_writes(url: str, values: dict[str, float]) -> Iterator[None]:
    """Add the bytes of WAL and the writing transactions of what is done inside, if the store is a PostgreSQL."""
    if not url.startswith("postgresql://"):
        yield
        return
    import psycopg  # of an extra, which the Redis store does not need

    with psycopg.connect(url, autocommit=True) as connection:
        before = connection.execute(_READ).fetchone()
        yield
        after = connection.execute(_READ).fetchone()
    assert before is not None
    assert after is not None
    values["wal"] = values.get("wal", 0) + float(after[0] - before[0])
    values["transactions"] = values.get("transactions", 0) + float(after[1] - before[1])
