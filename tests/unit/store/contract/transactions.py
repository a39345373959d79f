"""Transactions of the caller's: of most stores, nothing is a part of one."""

from __future__ import annotations

import pytest

from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.store import Store


class TestTransactionsOfTheCaller:
    def test_are_none_where_there_is_none(self, store: Store) -> None:
        assert store.transactions.current() is None

    def test_are_those_of_a_connection_to_the_store_alone(self, store: Store) -> None:
        with pytest.raises(InvalidSettings, match="Nothing was stored or sent"), store.transactions.join(object()):
            raise AssertionError("it is no connection")
        assert store.transactions.current() is None
