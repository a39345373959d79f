"""Figures about all jobs."""

from __future__ import annotations

from claude_batch_tasks.records import BatchGlance, JobGlance, Unit
from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import ACCOUNT, BATCH, LONG, OpenStore, PassTime, call_at_once, create_bare_job


class TestPastBatches:
    def test_are_known_by_their_kind(self, store: Store) -> None:
        for seconds in (60.0, 70.5):
            store.in_flight.add_duration(ACCOUNT, 500, seconds, kind="claude-x:3")
        store.in_flight.add_duration(ACCOUNT, 5, 1.0)
        store.in_flight.add_duration(ACCOUNT, 5, 2.0, kind="claude-x:1")
        assert store.statistics.past_seconds(["claude-x:3", "claude-y:3", "claude-x:1"]) == [[70.5, 60.0], [], [2.0]]
        assert store.statistics.past_seconds([]) == []
        assert len(store.in_flight.past_durations(ACCOUNT)) == 4

    def test_are_few(self, store: Store) -> None:
        for number in range(300):
            store.in_flight.add_duration(ACCOUNT, 5, float(number), kind="claude-x:1")
        [found] = store.statistics.past_seconds(["claude-x:1"])
        assert len(found) <= 100
        assert found[0] == 299.0


class TestFiguresOfJobs:
    def test_are_those_of_their_records(self, store: Store) -> None:
        create_bare_job(store, "old", submitted_at=1.0, state="failed", through=1)
        create_bare_job(store, "new", submitted_at=2.0, batches=3, admitted=2)
        pages = list(store.statistics.scan_jobs())
        assert [found for page in pages for found in page] == [
            ("old", JobGlance("failed", 1, 0, 1, None, None, 1)),
            ("new", JobGlance("running", 3, 2, 0, None, None, 1)),
        ]

    def test_say_since_when_a_message_is_missed(self, store: Store, job: str) -> None:
        for unit in (Unit(job), BATCH):
            store.schedule.add_units([unit], 5.0)
            assert store.schedule.find_lost(unit, 1.0)
        [[(_, found)]] = store.statistics.scan_jobs()
        [[(_, first), (_, second)]] = store.statistics.scan_batches(job, 2)
        assert [found.missed, first.missed, second.missed] == [5.0, 5.0, None]
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        [[(_, first), _]] = store.statistics.scan_batches(job, 2)
        assert first.missed is None

    def test_are_complete_where_there_are_many(self, store: Store) -> None:
        made = [create_bare_job(store, f"job {number}", submitted_at=float(number)) for number in range(1100)]
        assert [job_id for page in store.statistics.scan_jobs() for job_id, _ in page] == made


class TestFiguresOfBatches:
    def test_are_those_of_their_records(self, store: Store, job: str) -> None:
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        store.leases.write_record(BATCH, "me", state="in_progress", created_at=3.5, sighting=4.5)
        assert [found for page in store.statistics.scan_batches(job, 2) for found in page] == [
            (0, BatchGlance("in_progress", 3.5, 4.5, None)),
            (1, BatchGlance("staged", None, None, None)),
        ]
        assert [number for page in store.statistics.scan_batches(job, 1) for number, _ in page] == [0]
        assert [found for page in store.statistics.scan_batches("nobody", 2) for found in page] == []


class TestFiguresForAllWorkers:
    def test_are_made_by_one_of_many(self, open_store: OpenStore, store: Store, pass_time: PassTime) -> None:
        assert call_at_once(open_store, lambda store, _: store.statistics.begin_statistics(0.05), [0])[0]
        pass_time(0.1)
        answers = call_at_once(open_store, lambda store, _: store.statistics.begin_statistics(LONG), range(24))
        assert answers.count(True) == 1

    def test_are_kept_for_a_while(self, store: Store, pass_time: PassTime) -> None:
        assert store.statistics.read_statistics() is None
        store.statistics.save_statistics(b"old", LONG)
        store.statistics.save_statistics(b"new", LONG)
        assert store.statistics.read_statistics() == b"new"
        store.statistics.save_statistics(b"short", 0.05)
        pass_time(0.1)
        assert store.statistics.read_statistics() is None


class TestTheFirstWhoAsks:
    def test_is_one_of_many(self, open_store: OpenStore, store: Store, pass_time: PassTime) -> None:
        answers = call_at_once(open_store, lambda store, _: store.statistics.is_first("who", LONG), range(24))
        assert answers.count(True) == 1
        assert store.statistics.is_first("another", 0.05)
        pass_time(0.1)
        assert store.statistics.is_first("another", LONG)
        assert not store.statistics.is_first("another", LONG)


class TestTheIdentity:
    def test_is_one_for_all(self, open_store: OpenStore, store: Store) -> None:
        found = call_at_once(open_store, lambda store, _: store.read_identity(), range(24))
        assert {store.read_identity()} == set(found)
        assert store.read_identity().isalnum()
