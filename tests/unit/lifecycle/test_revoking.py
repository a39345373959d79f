"""Asks that are revoked end once, however many workers hear of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.signals import task_revoked
from celery.utils import uuid

from claude_batch_tasks import errors
from claude_batch_tasks.lifecycle.pools import revoking
from claude_batch_tasks.pool_records import Ask, PoolLimits, PoolRecord
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import Store, open_store


@pytest.fixture
def store(app: Celery) -> Store:
    store = open_store(Settings.of(app))
    for number in range(2):
        one = Ask(id=f"ask-{number}", params=b"{}")
        store.pools.add_ask("key", PoolRecord(name="tests"), uuid(), one, 100, PoolLimits(10, 1_000_000, 60.0))
    return store


@pytest.fixture
def told() -> Iterator[list[str]]:
    """The asks of which Celery's signal has told that they are revoked."""
    found: list[str] = []

    def note(request: Any = None, **_: Any) -> None:
        found.append(request.id)

    task_revoked.connect(note, weak=False)
    yield found
    task_revoked.disconnect(note)


def test_a_revoke_that_several_workers_get_ends_an_ask_once(app: Celery, store: Store, told: list[str]) -> None:
    for hostname in ("one", "two", None):
        assert revoking.revoke_asks(app, ["ask-0"], hostname=hostname) == [True]
    assert revoking.revoke_asks(app, ["ask-1", "ask-0"]) == [True, True]
    assert told == ["ask-0", "ask-1"]


def test_a_revoke_is_repeated_where_the_store_went_away(
    app: Celery, store: Store, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def go_away(*_: Any, **__: Any) -> Any:
        raise errors.StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(store.asks, "read_places", go_away)
        with pytest.raises(errors.StoreUnavailable):
            revoking.revoke_asks(app, ["ask-0"])
    assert told == []
    assert revoking.revoke_asks(app, ["ask-0"]) == [True]
    assert told == ["ask-0"]
