"""What every store must do, whatever it is kept in: one class of tests to subclass.

::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def open_store(self, my_database: Database) -> OpenStore:
            return lambda: MyStore(my_database.url)

The tests call nothing but the methods of ``claude_batch_tasks.store.interface``. Each of its Protocols has a module
of the same name here. ``pytest -k TestLeases`` runs those of one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType

import pytest

from claude_batch_tasks.store import Store
from tests.unit.store.contract import (
    asks,
    batch_ids,
    budget,
    deliveries,
    history,
    in_flight,
    inspection,
    job_search,
    jobs,
    leases,
    message_queue,
    outages,
    payloads,
    pools,
    presence,
    records,
    results,
    retries,
    schedule,
    schema,
    statistics,
    storage,
    transactions,
    transfer,
    wakeups,
)
from tests.unit.store.contract.samples import Contents, OpenStore, PassTime, create_staged_job

#: Seconds that a test may sleep at a time.
LONGEST_SLEEP = 2.5


def tests_of(module: ModuleType) -> type:
    """Return one class of all classes of tests that a module defines."""
    found = {name: each for name, each in vars(module).items() if name.startswith("Test")}
    return type(module.__name__, (), {name: each for name, each in found.items() if each.__module__ == module.__name__})


class StoreContract:
    """The tests of a store. A subclass has the fixture ``open_store``, and others where the store can do better."""

    TestJobs = tests_of(jobs)
    TestRecords = tests_of(records)
    TestHistory = tests_of(history)
    TestLeases = tests_of(leases)
    TestBatchIds = tests_of(batch_ids)
    TestSchedule = tests_of(schedule)
    TestInFlight = tests_of(in_flight)
    TestPayloads = tests_of(payloads)
    TestResults = tests_of(results)
    TestBudget = tests_of(budget)
    TestMessageQueue = tests_of(message_queue)
    TestPools = tests_of(pools)
    TestAsks = tests_of(asks)
    TestPresence = tests_of(presence)
    TestRetries = tests_of(retries)
    TestJobSearch = tests_of(job_search)
    TestDeliveries = tests_of(deliveries)
    TestStatistics = tests_of(statistics)
    TestStorage = tests_of(storage)
    TestInspection = tests_of(inspection)
    TestWakeups = tests_of(wakeups)
    TestTransactions = tests_of(transactions)
    TestSchema = tests_of(schema)
    TestTransfer = tests_of(transfer)
    TestOutages = tests_of(outages)

    @pytest.fixture
    def open_store(self) -> OpenStore:
        """Return what opens the store: each time with connections of its own, and what one writes all others read.

        When a test begins, the store is empty.
        """
        raise NotImplementedError("a subclass says how its store is opened")

    @pytest.fixture
    def pass_time(self) -> PassTime:
        """Return what lets seconds pass by the store's clock; override it where that takes no time."""

        def pass_time(seconds: float) -> None:
            if seconds > LONGEST_SLEEP:
                pytest.skip(f"{seconds:g} seconds are too long to sleep: have the fixture pass_time move the clock")
            time.sleep(seconds)

        return pass_time

    @pytest.fixture
    def contents(self) -> Contents:
        """Return what names all that is stored for jobs, in any way; of an empty store it is the empty set."""

        def contents() -> set[str]:
            pytest.skip("as far as is known: what is stored, the fixture contents would say")

        return contents

    @pytest.fixture
    def forget_expired(self) -> Callable[[Store], None]:
        """Return what removes all that is left of expired jobs; override it where that is done in time."""
        return lambda store: store.storage.forget_expired()

    @pytest.fixture
    def unreachable_store(self) -> Store:
        """Return a store that cannot answer, because its server is down, say."""
        pytest.skip("there is no store that is down: see the fixture unreachable_store")

    @pytest.fixture
    def store(self, open_store: OpenStore) -> Store:
        return open_store()

    @pytest.fixture
    def job(self, store: Store) -> str:
        return create_staged_job(store)
