"""What removes the rows of jobs and stagings that were removed: in small transactions, and by anybody."""

from __future__ import annotations

from claude_batch_tasks.store.postgres.connection import Connection

#: Jobs that have expired, and rows of other tables, that are removed in one transaction; and transactions of a sweep.
_JOBS, _ROWS, _TRANSACTIONS = 100, 500, 20


def clear_job(connection: Connection, removed: int | None) -> None:
    """Remove all rows of a job that was removed; a process that dies in the middle leaves the rest to ``sweep``.

    Args:
        removed: its id in the database; None: there was none.
    """
    while removed is not None and not connection.call("clear_job", removed, _ROWS):
        pass


def sweep(connection: Connection) -> None:
    """Remove some of what has expired, and of what was left of jobs that were removed."""
    connection.call("expire_jobs", _JOBS)
    connection.call("sweep_expired", _ROWS)
    for _ in range(_TRANSACTIONS):
        if not connection.call("clear_some_job", _ROWS):
            return
