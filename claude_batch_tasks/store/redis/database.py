"""What a Redis server does not have: transactions of the caller's, and tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.store.redis.connection import Part, answering


class RedisTransactions(Part):
    """``interface.Transactions`` on a Redis server: nothing is a part of one."""

    def current(self) -> str | None:
        return None

    def join(self, connection: Any) -> AbstractContextManager[None]:
        raise InvalidSettings(
            f"the store at {self._connection.where} cannot be a part of a transaction: that takes a store in the same "
            "PostgreSQL database (claude_batch_store_url). Nothing was stored or sent"
        )


class RedisSchema(Part):
    """``interface.Schema`` on a Redis server: there is none, and what an earlier release wrote changes by itself."""

    @answering
    def is_current(self) -> bool:
        return True

    @answering
    def migrate(self) -> bool:
        return False

    @answering
    def list_statements(self) -> Iterator[str]:
        return iter(())

    @answering
    def drop(self) -> int:
        return 0

    def describe_rights(self) -> str:
        return ""
