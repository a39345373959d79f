"""The bits for requests, in segments, and what single changes of them cost."""

from __future__ import annotations

import random

import pytest

from claude_batch_tasks.store.postgres import PostgresStore
from claude_batch_tasks.wire.positions import find_runs
from tests.unit.store.contract.samples import batch_record, job_record
from tests.unit.store.postgres.conftest import Database

#: Three segments and a part of a fourth.
REQUESTS = 13_000


@pytest.fixture
def store(database: Database) -> PostgresStore:
    return database.open_store()


def bits_of(positions: set[int]) -> bytes:
    """Return the bits of positions as readers get them: the first is the highest of its byte."""
    found = bytearray(max(positions, default=-1) // 8 + 1)
    for position in positions:
        found[position // 8] |= 128 >> position % 8
    return bytes(found)


class TestBits:
    def test_are_those_of_a_set_of_positions(self, store: PostgresStore, database: Database) -> None:
        rnd, known = random.Random(21), set[int]()
        for _ in range(60):
            value = rnd.random() < 0.6
            runs = [(rnd.randrange(REQUESTS), rnd.choice([1, 2, 100, 4096, 9000])) for _ in range(rnd.randrange(1, 4))]
            positions = {position for first, count in runs for position in range(first, first + count)}
            changed = len(positions - known if value else positions & known)
            firsts, counts = [first for first, _ in runs], [count for _, count in runs]
            assert store._connection.call("set_bits", 7, -1, "some", firsts, counts, value) == changed
            known = known | positions if value else known - positions
            assert bytes(store._connection.call("get_bits", 7, -1, "some")).rstrip(b"\0") == bits_of(known)
            assert store._connection.call("count_ones", 7, -1, "some") == len(known)
        assert {job for (job,) in database.run("SELECT job FROM claude_batch.bits")} == {7}

    def test_that_were_set_already_write_nothing(self, store: PostgresStore, database: Database) -> None:
        store.jobs.create_job("job", job_record(requests=REQUESTS), [batch_record()], 60.0, staged=False)
        store.results.mark_announced("job", 0, range(0, REQUESTS, 3))
        before = database.run("SELECT xmin::text, * FROM claude_batch.bits ORDER BY segment")
        store.results.mark_announced("job", 0, range(0, REQUESTS, 6))
        assert database.run("SELECT xmin::text, * FROM claude_batch.bits ORDER BY segment") == before
        store.results.mark_announced("job", 0, [5000])
        after = database.run("SELECT xmin::text, * FROM claude_batch.bits ORDER BY segment")
        assert [number for number in range(4) if after[number] != before[number]] == [1]
        assert store.results.read_announced("job", 0) == bits_of({*range(0, REQUESTS, 3), 5000})

    def test_of_a_job_that_is_gone_are_none(self, store: PostgresStore, database: Database) -> None:
        store.results.mark_announced("nobody", 0, [1, 2])
        assert store.results.read_announced("nobody", 0) == b""
        assert database.run("SELECT * FROM claude_batch.bits") == []


class TestDeliveries:
    def test_of_several_tasks_are_complete_across_segments(self, store: PostgresStore) -> None:
        store.jobs.create_job("job", job_record(requests=REQUESTS), [batch_record()], 60.0, staged=False)
        odd = find_runs(range(1, REQUESTS, 2))
        assert store.deliveries.record_delivered("job", [(0, REQUESTS)], 1, 2) == (0, False, False)
        assert store.deliveries.record_delivered("job", odd, 0, 2) == (REQUESTS // 2, False, False)
        assert store.deliveries.record_failed("job", [(0, 10)], "why") == (5, False, True)
        assert store.deliveries.record_delivered("job", [(0, REQUESTS)], 0, 2) == (REQUESTS // 2, True, False)
        assert store.deliveries.count_deliveries("job", 1) == (REQUESTS, REQUESTS, 0)
        assert store.deliveries.read_delivered("job") == bits_of(set(range(REQUESTS)))

    def test_change_the_jobs_record_once_a_second_at_most(self, store: PostgresStore, database: Database) -> None:
        def written() -> list[tuple[object, ...]]:
            return database.run(
                "SELECT xmin::text, record ->> 'delivery_at' FROM claude_batch.records WHERE batch = -1"
            )

        store.jobs.create_job("job", job_record(requests=REQUESTS), [batch_record()], 60.0, staged=False)
        store.deliveries.record_delivered("job", [(0, 1)])
        first = written()
        database.run("UPDATE claude_batch.passed SET seconds = seconds - 10")  # no second passes in this test
        store.deliveries.record_delivered("job", [(1, 1)])
        assert written() == first
        database.pass_time(12)
        store.deliveries.record_delivered("job", [(2, 1)])
        assert written() != first
