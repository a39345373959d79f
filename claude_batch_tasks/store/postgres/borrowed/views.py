"""How the store uses a connection of somebody else's: with its own types and rows."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from claude_batch_tasks.errors import BatchTasksError, InvalidSettings


class View(psycopg.Connection[Any]):
    """A second face of an open connection: same session, same transaction, psycopg's own adapters and row factory.

    Django's connections read jsonb as text, and an application's may return rows as dicts or prepare statements: what
    the store sends and reads must not depend on it.
    """

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        if psycopg.Pipeline.is_supported() and raw.pgconn.pipeline_status != PipelineStatus.OFF:
            raise InvalidSettings(
                "the connection is in pipeline mode, in which the store cannot use it: end the pipeline"
            )
        handlers = raw.pgconn.notice_handler, raw.pgconn.notify_handler
        super().__init__(raw.pgconn)
        raw.pgconn.notice_handler, raw.pgconn.notify_handler = handlers
        self.lock = raw.lock
        self.prepare_threshold = None
        if self.info.transaction_status == TransactionStatus.IDLE:
            self.autocommit = True

    def __del__(self, *_: Any) -> None:
        """Leave the connection open: it is not ours."""


def view_connection(raw: psycopg.Connection[Any]) -> View:
    """Return the store's view of a connection; a transaction that the next statement would begin has begun then.

    Raises:
        BatchTasksError: the transaction has failed before.
    """
    if raw.info.transaction_status == TransactionStatus.INERROR:
        raise BatchTasksError(
            "an earlier statement of the transaction has failed, so nothing more can be done in it: roll it back, or "
            "back to a savepoint. Nothing was stored or sent"
        )
    if not raw.autocommit and raw.info.transaction_status == TransactionStatus.IDLE:
        raw.execute("SELECT 1")  # with the caller's isolation level; the store's savepoints are in the middle of it
    return View(raw)
