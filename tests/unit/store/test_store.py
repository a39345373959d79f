from __future__ import annotations

import os
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any, get_type_hints

import msgspec
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from claude_batch_tasks.embedded import RedisServer, free_port
from claude_batch_tasks.errors import JobNotFound, ResultsMissing, StoreUnavailable
from claude_batch_tasks.records import BatchRecord, HistoryEvent, JobRecord, LaneRecord, Lease, Need, Round, Taken, Unit
from claude_batch_tasks.store import Store
from claude_batch_tasks.store.redis import RedisStore, open_store_at
from claude_batch_tasks.wire.batch_requests import Piece

JOB = "job-1"
NONCE = "abc"
BATCH = Unit(JOB, 0)
LANE = Unit(JOB, 0, 0)
LONG = 600.0
Keys = Callable[[], set[str]]


def job_record(**own: Any) -> JobRecord:
    return JobRecord(**{"nonce": NONCE, "requests": 4, "batches": 2, "submitted_at": 1.5, **own})


def batch_record(**own: Any) -> BatchRecord:
    return BatchRecord(**{"first": 0, "count": 2, "body_bytes": 100, **own})


def body_of(*texts: str) -> bytes:
    return b",".join(b'{"custom_id":"%s","params":%s}' % (t.encode(), msgspec.json.encode({"t": t})) for t in texts)


def make(store: RedisStore, record: JobRecord, batches: list[BatchRecord], *pieces: Piece, job_id: str = JOB) -> bool:
    """Stage these pieces, or one for each batch, and make the job of them."""
    store.payloads.stage_requests(
        job_id, record.nonce, pieces or [Piece(n, ["a"], body_of("a")) for n in range(len(batches))]
    )
    store.payloads.stage_index(job_id, record.nonce, [(7, b"index")])
    return store.jobs.create_job(job_id, record, batches, LONG)


def take(store: RedisStore, lane: Unit, place: int) -> Taken:
    """As a lane does, of a job whose cost is limited."""
    return store.message_queue.take_request(
        lane, "me", place, "pace", Need(10, 1, 2), LONG, cap=64, limit=100, total=100
    )


@pytest.fixture
def job(store: RedisStore) -> str:
    """A job of two batches of two requests, staged and made."""
    pieces = [Piece(n, [f"a{n}", f"b{n}"], body_of(f"a{n}", f"b{n}")) for n in range(2)]
    make(store, job_record(), [batch_record(), batch_record(first=2)], *pieces)
    return JOB


class TestRecords:
    FULL_JOB = job_record(
        client="tenant-b", queue="slow", options={"fallback": "off", "poll_min": 0.5}, state="failed", started_at=2.0,
        ended_at=3.25, cancel_requested=True, fallback_granted=7, summary={"batch_ids": ["x"]}, error="ü😀\n",
        on_result='{"task": "save"}', stopped='"no" credit',
    )  # fmt: skip
    FULL_BATCH = batch_record(
        state="lost", turn=2, intent_at=1.25, rejected_ids=["msgbatch_1"], batch_id="msgbatch_2", provisional=True,
        counts={"succeeded": 3}, due_at=9.5, published=4, usage={"input_tokens": 10**15}, granted=0, done=True,
        outcome={"type": "errored", "error": {"type": "x", "message": "y"}}, error=["BatchLost", ["gone", None, 2.5]],
        rounds=[Round(batch_id=None, attempt=3, counts={"x": 2}, usage={}, costs={"m": None}, eligible=2, open={})],
        smaller=2, smaller_bytes=77, costs={"m": "0.10", "unknown": None}, least=0, most=2**53, note="ü",
    )  # fmt: skip

    @pytest.mark.parametrize(
        ("job", "batch"), [(job_record(), batch_record()), (FULL_JOB, FULL_BATCH)], ids=["defaults", "everything"]
    )
    def test_come_back_as_they_went_in(self, store: RedisStore, job: JobRecord, batch: BatchRecord) -> None:
        make(store, job, [batch, batch])
        assert store.jobs.read_job(JOB) == job
        assert store.records.read_batch(JOB, 1) == batch
        assert store.records.read_batches(JOB) == [batch, batch]

    def test_of_nothing_are_none(self, store: RedisStore, keys: Keys) -> None:
        assert store.jobs.read_job("nobody") is None
        assert store.records.read_batch("nobody", 0) is None
        assert store.records.read_batches("nobody") == []
        assert store.records.read_sender(Unit("nobody", 0, 0)) == LaneRecord()
        assert keys() == set()

    def test_ignore_fields_of_another_version(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        for key in redis_client.keys("*"):
            if redis_client.type(key) == b"hash":
                redis_client.hset(key, "a_field_of_next_year", b'{"x":1}')
        assert store.jobs.read_job(job) == job_record()
        assert store.records.read_batches(job) == [batch_record(), batch_record(first=2)]

    def test_fill_in_fields_an_older_version_did_not_write(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        for key in redis_client.keys("*"):
            if redis_client.type(key) == b"hash":
                redis_client.hdel(key, "queue", "options", "counts", "published")
        assert store.jobs.read_job(job) == job_record()
        assert store.records.read_batches(job) == [batch_record(), batch_record(first=2)]

    def test_are_changed_one_field_at_a_time(self, store: RedisStore, job: str) -> None:
        store.jobs.update_job(job, state="running", started_at=7.5)
        assert store.jobs.read_job(job) == job_record(state="running", started_at=7.5)

    def test_of_a_job_that_is_gone_are_not_brought_back_by_a_late_change(self, store: RedisStore, keys: Keys) -> None:
        store.jobs.update_job("gone", cancel_requested=True)
        assert keys() == set()


class TestALease:
    UNITS = (BATCH, Unit(JOB, 1), Unit(JOB, 0, 1), Unit(JOB))

    @pytest.fixture(params=UNITS, ids=["batch", "another batch", "lane", "job"])
    def unit(self, request: pytest.FixtureRequest, job: str) -> Unit:
        return request.param  # type: ignore[no-any-return]

    def test_is_taken_by_the_first_who_comes(self, store: RedisStore, unit: Unit) -> None:
        assert store.leases.acquire_lease(unit, 0, "me", LONG) == Lease("taken")

    def test_is_busy_for_others_and_says_for_how_long(self, store: RedisStore, unit: Unit) -> None:
        store.leases.acquire_lease(unit, 5, "me", LONG)
        lease = store.leases.acquire_lease(unit, 5, "you", LONG)
        assert lease.state == "busy"
        assert LONG - 30 < lease.remaining < LONG + 1

    def test_is_taken_again_by_its_owner(self, store: RedisStore, unit: Unit) -> None:
        store.leases.acquire_lease(unit, 5, "me", LONG)
        assert store.leases.acquire_lease(unit, 5, "me", LONG) == Lease("taken")

    def test_is_taken_over_when_its_owner_is_dead(self, store: RedisStore, unit: Unit) -> None:
        store.leases.acquire_lease(unit, 5, "me", 0.01)
        time.sleep(0.05)
        assert store.leases.acquire_lease(unit, 5, "you", LONG) == Lease("taken_over", failures=1)
        assert store.leases.acquire_lease(unit, 5, "me", LONG).state == "busy"

    def test_says_how_often_and_by_what_its_step_was_broken_off(self, store: RedisStore, unit: Unit) -> None:
        store.leases.acquire_lease(unit, 5, "me", LONG)
        assert store.leases.park_unit(unit, "me", 6, time.time(), step_failures=2, step_failure="MemoryError")
        assert store.leases.acquire_lease(unit, 6, "you", 0.01) == Lease("taken", failures=2, failure="MemoryError")
        time.sleep(0.05)
        assert store.leases.acquire_lease(unit, 6, "third", LONG) == Lease("taken_over", failures=3)
        assert store.leases.advance_unit(unit, "third", 7, step_failures=0, step_failure=None)
        assert store.leases.acquire_lease(unit, 7, "you", LONG) == Lease("taken")

    def test_is_refused_to_a_message_of_the_past(self, store: RedisStore, unit: Unit) -> None:
        store.leases.acquire_lease(unit, 5, "me", LONG)
        assert store.leases.acquire_lease(unit, 4, "you", LONG) == Lease("stale")
        store.leases.advance_unit(unit, "me", 6)
        assert store.leases.acquire_lease(unit, 5, "you", LONG) == Lease("stale")
        assert store.leases.acquire_lease(unit, 5, "me", LONG) == Lease("stale")

    def test_goes_to_the_next_message_even_before_its_owner_moved_on(self, store: RedisStore, unit: Unit) -> None:
        store.leases.acquire_lease(unit, 5, "me", LONG)
        assert store.leases.acquire_lease(unit, 6, "next", LONG) == Lease("taken")
        assert not store.leases.write_record(unit, "me", failures=9)
        assert not store.leases.advance_unit(unit, "me", 6)

    def test_is_free_again_once_its_owner_moved_on(self, store: RedisStore, unit: Unit) -> None:
        store.leases.acquire_lease(unit, 5, "me", LONG)
        assert store.leases.advance_unit(unit, "me", 6)
        assert store.leases.acquire_lease(unit, 6, "you", LONG) == Lease("taken")

    def test_keeps_positions_as_large_as_a_life(self, store: RedisStore, unit: Unit) -> None:
        store.leases.acquire_lease(unit, 2 * 10**15 - 1, "me", LONG)
        assert store.leases.acquire_lease(unit, 2 * 10**15 - 2, "you", LONG) == Lease("stale")
        assert store.leases.acquire_lease(unit, 2 * 10**15, "you", LONG) == Lease("taken")

    def test_is_renewed_by_its_owner_alone(self, store: RedisStore, unit: Unit) -> None:
        store.leases.acquire_lease(unit, 5, "me", 5.0)
        assert store.leases.renew_lease(unit, "me", LONG)
        assert store.leases.acquire_lease(unit, 5, "you", LONG).remaining > 60
        assert not store.leases.renew_lease(unit, "you", LONG)

    def test_is_not_renewed_after_it_was_taken_over(self, store: RedisStore, unit: Unit) -> None:
        store.leases.acquire_lease(unit, 5, "me", 0.01)
        time.sleep(0.05)
        store.leases.acquire_lease(unit, 5, "you", LONG)
        assert not store.leases.renew_lease(unit, "me", LONG)

    def test_is_not_renewed_after_it_was_given_up(self, store: RedisStore, unit: Unit) -> None:
        store.leases.acquire_lease(unit, 5, "me", LONG)
        store.leases.advance_unit(unit, "me", 6)
        assert not store.leases.renew_lease(unit, "me", LONG)
        assert store.leases.acquire_lease(unit, 6, "you", LONG) == Lease("taken")

    def test_goes_to_one_of_many_who_want_it(self, store: RedisStore, unit: Unit) -> None:
        with ThreadPoolExecutor(8) as pool:
            leases = list(pool.map(lambda n: store.leases.acquire_lease(unit, 5, f"worker-{n}", LONG).state, range(24)))
        assert sorted(leases) == ["busy"] * 23 + ["taken"]

    def test_of_one_unit_leaves_the_others_free(self, store: RedisStore, job: str) -> None:
        for number, unit in enumerate((*self.UNITS, Unit(job, 0, 0))):
            assert store.leases.acquire_lease(unit, 5, f"worker-{number}", LONG) == Lease("taken")

    @pytest.mark.parametrize("unit", [Unit("nobody"), Unit("nobody", 0), Unit(JOB, 7)])
    def test_of_what_is_gone_is_not_to_be_had(self, store: RedisStore, keys: Keys, job: str, unit: Unit) -> None:
        before = keys()
        assert store.leases.acquire_lease(unit, 0, "me", LONG) == Lease("gone")
        assert not store.leases.write_record(unit, "me", failures=1)
        assert not store.leases.renew_lease(unit, "me", LONG)
        assert not store.leases.advance_unit(unit, "me", 1, failures=1)
        assert keys() == before

    def test_of_a_lane_of_a_job_that_is_gone_leaves_nothing(self, store: RedisStore, keys: Keys) -> None:
        store.leases.acquire_lease(Unit("gone", 0, 3), 0, "me", LONG)
        assert keys() == set()


class TestARecordUnderALease:
    def test_is_changed_by_its_owner(self, store: RedisStore, job: str) -> None:
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        assert store.leases.write_record(
            BATCH, "me", state="in_progress", batch_id="msgbatch_1", counts={"succeeded": 1}
        )
        expected = batch_record(state="in_progress", batch_id="msgbatch_1", counts={"succeeded": 1})
        assert store.records.read_batch(job, 0) == expected
        assert store.records.read_batch(job, 1) == batch_record(first=2)

    def test_may_be_set_back_to_none(self, store: RedisStore, job: str) -> None:
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        store.leases.write_record(BATCH, "me", intent_at=7.5)
        store.leases.write_record(BATCH, "me", intent_at=None)
        assert store.records.read_batch(job, 0) == batch_record()

    def test_is_not_changed_by_anybody_else(self, store: RedisStore, job: str) -> None:
        assert not store.leases.write_record(BATCH, "me", state="failed")
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        assert not store.leases.write_record(BATCH, "you", state="failed")
        assert not store.leases.advance_unit(BATCH, "you", 1, state="failed")
        assert store.records.read_batch(job, 0) == batch_record()

    def test_is_not_changed_after_a_takeover(self, store: RedisStore, job: str) -> None:
        store.leases.acquire_lease(BATCH, 0, "me", 0.01)
        time.sleep(0.05)
        store.leases.acquire_lease(BATCH, 0, "you", LONG)
        assert not store.leases.write_record(BATCH, "me", batch_id="msgbatch_mine")
        assert store.leases.write_record(BATCH, "you", batch_id="msgbatch_yours")
        batch = store.records.read_batch(job, 0)
        assert batch is not None
        assert batch.batch_id == "msgbatch_yours"

    def test_changes_in_one_with_moving_on(self, store: RedisStore, job: str) -> None:
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        assert store.leases.advance_unit(BATCH, "me", 1, failures=3, due_at=9.5)
        assert store.records.read_batch(job, 0) == batch_record(failures=3, due_at=9.5)

    def test_of_a_lane_is_its_own(self, store: RedisStore, job: str) -> None:
        first, second = Unit(job, 0, 0), Unit(job, 0, 1)
        store.leases.acquire_lease(first, 0, "me", LONG)
        store.leases.write_record(first, "me", due_at=9.5)
        store.leases.advance_unit(first, "me", 1, failures=2)
        assert store.records.read_sender(first) == LaneRecord(failures=2, due_at=9.5)
        assert store.records.read_sender(second) == LaneRecord()
        assert store.records.read_batch(job, 0) == batch_record()

    def test_holds_nothing_that_its_lease_is_kept_in(self, store: RedisStore) -> None:
        make(store, TestRecords.FULL_JOB, [TestRecords.FULL_BATCH, batch_record()])
        for unit in (BATCH, Unit(JOB)):
            store.schedule.add_units([unit], 5.0)
            assert store.schedule.find_lost(unit, 0)
            store.leases.acquire_lease(unit, 0, "me", LONG)
            store.leases.renew_lease(unit, "me", LONG)
            store.leases.advance_unit(unit, "me", 1)
        assert store.jobs.read_job(JOB) == TestRecords.FULL_JOB
        assert store.records.read_batch(JOB, 0) == TestRecords.FULL_BATCH


class TestTheFallbackBudget:
    def test_is_granted_as_long_as_it_lasts(self, store: RedisStore, job: str) -> None:
        assert store.budget.reserve_quota(job, 0, 7, 10) == 7
        assert store.budget.reserve_quota(job, 1, 7, 10) == 3

    def test_is_granted_once(self, store: RedisStore, job: str) -> None:
        assert [
            store.budget.reserve_quota(job, 0, wanted, limit) for wanted, limit in ((3, 10), (3, 10), (9, 100), (0, 0))
        ] == [3] * 4
        record = store.jobs.read_job(job)
        assert record is not None
        assert record.fallback_granted == 3

    def test_may_be_nothing_and_stays_so(self, store: RedisStore, job: str) -> None:
        assert store.budget.reserve_quota(job, 0, 5, 0) == 0
        assert store.budget.reserve_quota(job, 0, 5, 100) == 0
        assert store.budget.reserve_quota(job, 1, 0, 100) == 0

    def test_is_written_into_the_batchs_record(self, store: RedisStore, job: str) -> None:
        store.budget.reserve_quota(job, 0, 5, 100)
        batch = store.records.read_batch(job, 0)
        assert batch is not None
        assert batch.granted == 5

    def test_is_never_overdrawn(self, store: RedisStore) -> None:
        make(store, job_record(batches=20), [batch_record() for _ in range(20)])
        with ThreadPoolExecutor(8) as pool:
            granted = list(pool.map(lambda n: store.budget.reserve_quota(JOB, n % 20, 7, 50), range(60)))
        per_batch = [{granted[number + 20 * ask] for ask in range(3)} for number in range(20)]
        assert all(len(answers) == 1 for answers in per_batch)
        assert sum(answers.pop() for answers in per_batch) == 50


class TestWhoseABatchIs:
    OTHER = Unit(JOB, 1)

    @pytest.fixture(autouse=True)
    def leases(self, store: RedisStore, job: str) -> None:
        for unit in (BATCH, self.OTHER):
            store.leases.acquire_lease(unit, 0, "me", LONG)

    def test_is_settled_once(self, store: RedisStore) -> None:
        assert store.batch_ids.find_owner("msgbatch_1") is None
        assert store.batch_ids.claim_id(BATCH, "me", "msgbatch_1", batch_id="msgbatch_1", provisional=True) == BATCH
        assert store.batch_ids.claim_id(self.OTHER, "me", "msgbatch_1", batch_id="msgbatch_1") == BATCH
        assert store.batch_ids.find_owner("msgbatch_1") == BATCH
        first, second = store.records.read_batches(JOB)
        assert (first.batch_id, first.provisional, second.batch_id) == ("msgbatch_1", True, None)

    def test_is_the_one_who_knows(self, store: RedisStore) -> None:
        store.batch_ids.claim_id(BATCH, "me", "msgbatch_1", batch_id="msgbatch_1", provisional=True)
        assert store.batch_ids.claim_id(self.OTHER, "me", "msgbatch_1", force=True, batch_id="msgbatch_1") == self.OTHER
        assert store.batch_ids.release_id(BATCH, "me", "msgbatch_1", batch_id=None, turn=1)
        assert store.batch_ids.find_owner("msgbatch_1") == self.OTHER
        assert [(batch.batch_id, batch.turn) for batch in store.records.read_batches(JOB)] == [
            (None, 1),
            ("msgbatch_1", 0),
        ]

    def test_is_taken_only_from_whom_it_was_judged_by(self, store: RedisStore) -> None:
        gone = Unit("gone", 3)
        assert store.batch_ids.claim_id(BATCH, "me", "msgbatch_1", instead_of=gone) == BATCH
        assert store.batch_ids.claim_id(self.OTHER, "me", "msgbatch_1", instead_of=gone) == BATCH
        assert store.batch_ids.claim_id(self.OTHER, "me", "msgbatch_1", instead_of=BATCH) == self.OTHER

    def test_is_open_again_after_it_was_released(self, store: RedisStore) -> None:
        store.batch_ids.claim_id(BATCH, "me", "msgbatch_1")
        assert store.batch_ids.release_id(BATCH, "me", "msgbatch_1")
        assert store.batch_ids.find_owner("msgbatch_1") is None
        assert store.batch_ids.claim_id(self.OTHER, "me", "msgbatch_1") == self.OTHER

    def test_is_not_for_somebody_without_the_lease_to_say(self, store: RedisStore, keys: Keys) -> None:
        before = keys()
        assert store.batch_ids.claim_id(BATCH, "you", "msgbatch_1", force=True, batch_id="msgbatch_1") is None
        assert keys() == before
        store.batch_ids.claim_id(BATCH, "me", "msgbatch_1", batch_id="msgbatch_1")
        assert not store.batch_ids.release_id(BATCH, "you", "msgbatch_1", batch_id=None)
        assert store.batch_ids.find_owner("msgbatch_1") == BATCH
        assert store.records.read_batches(JOB)[0].batch_id == "msgbatch_1"

    def test_is_settled_among_many(self, store: RedisStore) -> None:
        with ThreadPoolExecutor(8) as pool:
            units = [BATCH, self.OTHER] * 12
            holders = set(pool.map(lambda unit: store.batch_ids.claim_id(unit, "me", "msgbatch_1"), units))
        assert len(holders) == 1

    def test_is_forgotten_in_time(self, store: RedisStore, redis_client: redis.Redis) -> None:
        store.batch_ids.claim_id(BATCH, "me", "msgbatch_1")
        [key] = redis_client.keys("*owner*")
        assert 29 * 86_400 < redis_client.ttl(key) <= 30 * 86_400


class TestAFieldThatIsSettledOnce:
    def test_keeps_its_first_value(self, store: RedisStore, job: str) -> None:
        assert store.jobs.set_once(job, "account", 'a\n"ü') == 'a\n"ü'
        assert store.jobs.set_once(job, "account", "b") == 'a\n"ü'
        record = store.jobs.read_job(job)
        assert record is not None
        assert record.account == 'a\n"ü'

    def test_of_a_job_that_is_gone_stays_nothing(self, store: RedisStore, keys: Keys) -> None:
        assert store.jobs.set_once("nobody", "account", "a") is None
        assert keys() == set()


class TestWhatWaitsForAMessage:
    """Units are in an index by when a message should act on them, which is what recovery looks at."""

    ODD = Unit("{a}:b:1", 0, 12)

    def due(self, store: RedisStore) -> list[Unit]:
        return store.schedule.list_overdue(float("inf"), 100)

    def test_is_listed_by_when_it_is_due(self, store: RedisStore) -> None:
        store.schedule.add_units([BATCH, Unit(JOB, 1)], 20.0)
        store.schedule.add_units([self.ODD], 10.0)
        store.schedule.add_units([Unit(JOB)], 30.0)
        store.schedule.add_units([], 30.0)
        assert store.schedule.list_overdue(20.5, 100) == [self.ODD, BATCH, Unit(JOB, 1)]
        assert store.schedule.list_overdue(20.0, 100) == [self.ODD]
        assert store.schedule.list_overdue(50.0, 1) == [self.ODD]
        store.schedule.remove_unit(self.ODD)
        assert store.schedule.list_overdue(50.0, 1) == [BATCH]

    def test_is_not_lost_while_somebody_is_at_it(self, store: RedisStore, job: str) -> None:
        store.schedule.add_units([BATCH], 5.0)
        store.leases.acquire_lease(BATCH, 7, "me", LONG)
        assert store.schedule.list_overdue(time.time() + LONG - 60, 100) == []
        assert store.schedule.find_lost(BATCH, 0) is None
        store.leases.renew_lease(BATCH, "me", 2 * LONG)
        assert store.schedule.list_overdue(time.time() + 2 * LONG - 60, 100) == []

    def test_is_lost_after_its_owner_died(self, store: RedisStore, job: str) -> None:
        store.leases.acquire_lease(BATCH, 7, "me", 0.01)
        time.sleep(0.1)
        assert store.schedule.find_lost(BATCH, 30) is None
        assert store.schedule.find_lost(BATCH, 0.02).position == 7  # type: ignore[union-attr]

    def test_is_due_when_its_step_said(self, store: RedisStore, job: str) -> None:
        later = time.time() + 500
        store.leases.acquire_lease(BATCH, 7, "me", LONG)
        store.leases.advance_unit(BATCH, "me", 8, failures=1, due_at=later)
        assert store.schedule.find_lost(BATCH, 1) is None
        lost = store.schedule.find_lost(BATCH, 0)
        assert lost is not None
        assert (lost.position, round(lost.due_at - later)) == (8, 0)

    def test_is_due_at_once_when_its_step_said_nothing(self, store: RedisStore, job: str) -> None:
        store.leases.acquire_lease(BATCH, 7, "me", LONG)
        store.leases.advance_unit(BATCH, "me", 8, failures=0, due_at=None)
        assert store.schedule.list_overdue(time.time() + 60, 100) == [BATCH]

    def test_is_handed_to_one_caller(self, store: RedisStore, job: str) -> None:
        store.schedule.add_units([BATCH], 5.0)
        with ThreadPoolExecutor(8) as pool:
            told = [lost for lost in pool.map(lambda _: store.schedule.find_lost(BATCH, 30), range(24)) if lost]
        assert [lost.position for lost in told] == [-1]

    def test_is_handed_to_one_of_those_who_want_everything_at_once(self, store: RedisStore, job: str) -> None:
        store.schedule.add_units([BATCH], time.time() + 500)
        with ThreadPoolExecutor(8) as pool:
            told = [lost for lost in pool.map(lambda _: store.schedule.find_lost(BATCH, 0), range(24)) if lost]
        assert len(told) == 1
        store.leases.acquire_lease(BATCH, 0, "me", 0.01)
        store.leases.advance_unit(BATCH, "me", 1)
        assert store.schedule.find_lost(BATCH, 0), "another message of it is awaited now"

    def test_counts_as_lost_again_later_and_later(self, store: RedisStore, job: str) -> None:
        store.schedule.add_units([BATCH], 5.0)
        waits, asked = [], time.monotonic()
        for _ in range(4):
            before = asked  # the call that was told so began then, however late its answer came
            while True:
                asked = time.monotonic()
                if store.schedule.find_lost(BATCH, 0.05) is not None:
                    break
                time.sleep(0.005)
            waits.append(time.monotonic() - before)
        assert waits[1] > 0.09
        assert waits[2] > 0.18
        assert waits[3] > 0.36
        store.leases.acquire_lease(BATCH, 0, "me", 0.01)
        store.leases.advance_unit(BATCH, "me", 1)
        time.sleep(0.1)
        assert store.schedule.find_lost(BATCH, 0.05)
        time.sleep(0.15)
        assert store.schedule.find_lost(BATCH, 0.05), "whoever acted on it began the count anew"

    def test_is_not_looked_for_while_a_long_queue_makes_all_of_them_late(self, store: RedisStore, job: str) -> None:
        late = Unit(JOB, 1)
        store.schedule.add_units([late], time.time() - 100)
        store.leases.acquire_lease(late, 0, "me", LONG)
        store.schedule.add_units([BATCH], time.time() - 190)
        assert store.schedule.find_lost(BATCH, 30) is None
        store.schedule.add_units([BATCH], time.time() - 240)
        assert store.schedule.find_lost(BATCH, 30)
        for seq in range(1, 80):  # messages that come in time
            store.leases.acquire_lease(late, seq, "me", LONG)
            store.leases.advance_unit(late, "me", seq + 1)
        store.leases.acquire_lease(BATCH, 0, "me", 0.01)
        store.leases.advance_unit(BATCH, "me", 1)
        store.schedule.add_units([BATCH], time.time() - 50)
        assert store.schedule.find_lost(BATCH, 30)

    def test_is_its_job_after_the_last_step_of_a_batch(self, store: RedisStore, job: str) -> None:
        store.leases.acquire_lease(BATCH, 7, "me", LONG)
        store.leases.advance_unit(BATCH, "me", 8, through=True)
        assert self.due(store) == [Unit(JOB)]
        store.leases.acquire_lease(Unit(JOB), 0, "me", LONG)
        store.leases.advance_unit(Unit(JOB), "me", 1, through=True)
        assert self.due(store) == []

    def test_is_nothing_after_the_last_step_of_a_lane(self, store: RedisStore, job: str) -> None:
        unit = Unit(JOB, 0, 1)
        store.schedule.add_units([unit], 1.0)
        store.leases.acquire_lease(unit, 0, "me", LONG)
        store.leases.advance_unit(unit, "me", 1, through=True)
        assert self.due(store) == []

    def test_of_a_job_that_is_gone_is_forgotten(self, store: RedisStore, job: str) -> None:
        for unit in (Unit("gone"), Unit("gone", 1), Unit("gone", 1, 2), Unit(JOB, 9)):
            store.schedule.add_units([unit], 1.0)
            assert store.schedule.find_lost(unit, 0) is None
            store.schedule.add_units([unit], 1.0)
            assert store.leases.acquire_lease(unit, 0, "me", LONG).state == "gone" or unit.lane is not None
        store.schedule.add_units([BATCH, Unit(JOB)], 1.0)
        store.jobs.delete_job(job)
        assert self.due(store) == []


class TestPayloads:
    def test_come_back_piece_by_piece(self, store: RedisStore) -> None:
        pieces = [
            (["a", "ü\u2028"], body_of("a", "b")),
            (["c"], body_of("c")),
            (["d", "e", "f"], body_of("d", "e", "f")),
        ]
        staged = [Piece(0, ids, body) for ids, body in pieces] + [Piece(1, ["g"], body_of("g"))]
        assert make(store, job_record(), [batch_record(), batch_record()], *staged)
        assert list(store.payloads.read_custom_ids(JOB, 0)) == [ids for ids, _ in pieces]
        assert list(store.payloads.read_bodies(JOB, 0)) == [body for _, body in pieces]
        first, second, third = ((start, body) for start, (_, body) in zip((0, 2, 3), pieces, strict=True))
        assert [store.payloads.find_chunk(JOB, 0, place) for place in range(6)] == [
            first,
            first,
            second,
            third,
            third,
            third,
        ]
        assert store.payloads.find_chunk(JOB, 1, 0) == (0, body_of("g"))
        assert [store.payloads.find_custom_id(JOB, 0, place) for place in range(6)] == ["a", "ü\u2028", *"cdef"]

    def test_may_be_large(self, store: RedisStore) -> None:
        text = "x" * 3_000_000
        make(store, job_record(batches=1), [batch_record()], Piece(0, ["a"], body_of(text)))
        assert list(store.payloads.read_bodies(JOB, 0)) == [body_of(text)]

    def test_take_less_room_than_they_have(self, store: RedisStore, redis_client: redis.Redis) -> None:
        store.payloads.stage_requests(JOB, NONCE, [Piece(0, ["a"], body_of("all work and no play " * 10_000))])
        [key] = redis_client.keys("*body")
        stored = redis_client.lindex(key, 0)
        assert stored is not None
        assert len(stored) < 10_000

    def test_of_nothing_are_nothing(self, store: RedisStore, keys: Keys) -> None:
        assert list(store.results.read_outcomes("nobody", 0)) == []
        assert store.results.find_outcomes("nobody", 0, [0]) == {}
        assert store.results.read_eligible("nobody", 0, 1) == b""
        assert (
            store.results.find_chunks("nobody", 0, 1, range(1000))
            == store.results.find_chunks("nobody", 0, 1, [0])
            == {}
        )
        assert store.results.read_chunk("nobody", 0, 1, 0) == b""
        assert store.payloads.read_index("nobody", 0) == b""
        assert keys() == set()

    def test_of_a_job_that_is_gone_say_so(self, store: RedisStore) -> None:
        for read in (store.payloads.read_bodies, store.payloads.read_custom_ids):
            with pytest.raises(JobNotFound, match="expired or was deleted"):
                next(read("nobody", 0))
        with pytest.raises(JobNotFound, match="expired or was deleted"):
            next(store.results.read_rows("nobody", 0, 1))
        for lookup in (store.payloads.find_chunk, store.payloads.find_custom_id):
            with pytest.raises(JobNotFound, match="expired or was deleted"):
                lookup("nobody", 0, 0)


#: What a download that has seen nothing leaves beside its rows.
NOTHING: dict[str, Any] = {"pieces": b"", "eligible_places": b""}


class TestResults:
    @pytest.fixture(autouse=True)
    def _leased(self, store: RedisStore, job: str) -> None:
        store.leases.acquire_lease(BATCH, 0, "me", LONG)

    def published(self, store: RedisStore) -> list[bytes] | None:
        batch = store.records.read_batch(JOB, 0)
        assert batch is not None
        return None if batch.published is None else list(store.results.read_rows(JOB, 0, batch.published))

    def test_are_seen_once_they_are_published_and_not_before(self, store: RedisStore) -> None:
        store.results.write_rows(JOB, 0, 1, iter([b"row\nrow", b"row"]))
        assert self.published(store) is None
        assert store.results.publish_rows(BATCH, "me", 1, **NOTHING, state="fetched", counts={"succeeded": 2})
        assert self.published(store) == [b"row\nrow", b"row"]
        assert store.records.read_batch(JOB, 0) == batch_record(state="fetched", counts={"succeeded": 2}, published=1)

    def test_of_an_attempt_that_broke_off_do_not_mix_with_the_next(self, store: RedisStore) -> None:
        def broken() -> Iterator[bytes]:
            yield b"half"
            raise ConnectionError

        with pytest.raises(ConnectionError):
            store.results.write_rows(JOB, 0, 1, broken())
        store.results.write_rows(JOB, 0, 2, [b"whole"])
        store.results.publish_rows(BATCH, "me", 2, **NOTHING)
        assert self.published(store) == [b"whole"]

    def test_are_not_published_by_somebody_whose_lease_was_taken_over(self, store: RedisStore, keys: Keys) -> None:
        before = keys()
        store.results.write_rows(JOB, 0, 1, [b"mine"])
        assert not store.results.publish_rows(BATCH, "somebody else", 1, **NOTHING, state="fetched")
        assert store.records.read_batch(JOB, 0) == batch_record()
        assert keys() == before

    def test_are_found_by_the_place_of_their_request(self, store: RedisStore) -> None:
        store.results.write_rows(JOB, 0, 1, [b"first", b"second"])
        pieces = array("I", [1, 0, 2**32 - 1]).tobytes()
        store.results.publish_rows(BATCH, "me", 1, pieces=pieces, eligible_places=b"")
        assert store.results.find_chunks(JOB, 0, 1, [2, 0, 1, 3]) == {0: 1, 1: 0}
        assert store.results.find_chunks(JOB, 0, 1, range(1000)) == {0: 1, 1: 0}, "and likewise of many"
        assert [store.results.read_chunk(JOB, 0, 1, number) for number in range(3)] == [b"first", b"second", b""]

    def test_of_earlier_rounds_are_kept(self, store: RedisStore) -> None:
        for attempt in range(1, 5):
            store.results.write_rows(JOB, 0, attempt, [b"%d" % attempt])
        assert store.results.publish_rows(BATCH, "me", 2, **NOTHING)
        assert store.results.publish_rows(BATCH, "me", 4, keep=[2], **NOTHING)
        assert [list(store.results.read_rows(JOB, 0, attempt)) for attempt in (2, 4)] == [[b"2"], [b"4"]]
        with pytest.raises(ResultsMissing, match="batch:0:rows:3 is gone"):
            next(store.results.read_rows(JOB, 0, 3))

    def test_keep_what_deserves_another_chance(self, store: RedisStore) -> None:
        store.results.publish_rows(BATCH, "me", 1, pieces=b"", eligible_places=b"\x00\x01\xff\n")
        assert store.results.read_eligible(JOB, 0, 1) == b"\x00\x01\xff\n"
        assert store.results.read_eligible(JOB, 0, 2) == store.results.read_eligible(JOB, 1, 1) == b""

    def test_that_broke_off_or_will_not_be_published_leave_nothing(self, store: RedisStore, keys: Keys) -> None:
        def broken() -> Iterator[bytes]:
            yield b"half"
            yield b"more"
            raise ConnectionError

        before = keys()
        with pytest.raises(ConnectionError):
            store.results.write_rows(JOB, 0, 1, broken())
        assert keys() == before
        store.results.write_rows(JOB, 0, 2, [b"short"])
        assert keys() != before
        store.results.discard_rows(JOB, 0, 2)
        assert keys() == before

    def test_come_in_their_order_however_many_pieces_there_are(self, store: RedisStore) -> None:
        written = [b"%d" % n * (n % 7 * 1000 + 1) for n in range(200)]
        store.results.write_rows(JOB, 0, 1, iter(written))
        assert list(store.results.read_rows(JOB, 0, 1)) == written

    def test_may_be_none_at_all(self, store: RedisStore) -> None:
        store.results.write_rows(JOB, 0, 1, [])
        assert store.results.publish_rows(BATCH, "me", 1, **NOTHING)
        assert self.published(store) == []

    def test_do_not_expire_once_published(self, store: RedisStore, redis_client: redis.Redis) -> None:
        store.jobs.persist_job(JOB)
        store.results.write_rows(JOB, 0, 1, [b"row"])
        store.results.publish_rows(BATCH, "me", 1, **NOTHING)
        assert {redis_client.ttl(key) for key in redis_client.keys("*{*")} == {-1}

    def test_that_nobody_published_expire_by_themselves(self, store: RedisStore, redis_client: redis.Redis) -> None:
        store.jobs.persist_job(JOB)
        before = set(redis_client.keys("*"))
        store.results.write_rows(JOB, 0, 1, [b"row"])
        [key] = set(redis_client.keys("*")) - before
        assert 0 < redis_client.ttl(key) <= 86_400


class TestOutcomes:
    def test_are_stored_once(self, store: RedisStore, job: str) -> None:
        assert store.message_queue.save_outcome(LANE, 1, b"first")
        assert not store.message_queue.save_outcome(Unit(job, 0, 3), 1, b"second")
        assert store.results.find_outcomes(job, 0, [0, 1]) == {1: b"first"}
        assert list(store.results.read_outcomes(job, 0)) == [(1, b"first")]
        assert list(store.results.read_outcomes(job, 1)) == []

    def test_are_stored_once_among_many(self, store: RedisStore, job: str) -> None:
        with ThreadPoolExecutor(8) as pool:
            stored = list(
                pool.map(lambda n: store.message_queue.save_outcome(Unit(job, 0, n % 3), n % 5, b"%d" % n), range(40))
            )
        assert sum(stored) == len(list(store.results.read_outcomes(job, 0))) == 5

    def test_come_back_each_with_its_place(self, store: RedisStore, job: str) -> None:
        for place in range(700):
            store.message_queue.save_outcome(LANE, place, b"%d" % place)
        assert sorted(store.results.read_outcomes(job, 0)) == [(place, b"%d" % place) for place in range(700)]


class TestAdmitting:
    @pytest.fixture
    def five(self, store: RedisStore) -> RedisStore:
        """A job of five batches, two of them begun."""
        record = job_record(batches=5, state="running", admitted=2)
        make(store, record, [batch_record() for _ in range(5)])
        return store

    def test_gives_a_place_once_for_each_batch_that_is_through(self, five: RedisStore) -> None:
        assert five.schedule.start_next_batch(JOB, 1) == 2
        assert five.schedule.start_next_batch(JOB, 1) is None
        assert five.schedule.start_next_batch(JOB, 0) == 3
        assert five.schedule.list_overdue(time.time() + 10, 10) == [Unit(JOB, 2), Unit(JOB, 3)]
        job, batch = five.jobs.read_job(JOB), five.records.read_batch(JOB, 1)
        assert job is not None
        assert batch is not None
        assert (job.admitted, batch.made_room) == (4, True)

    def test_ends_with_the_last_batch(self, five: RedisStore) -> None:
        assert [five.schedule.start_next_batch(JOB, number) for number in range(5)] == [2, 3, 4, None, None]
        assert len(five.schedule.list_overdue(time.time() + 10, 10)) == 3

    def test_gives_no_place_twice_among_many(self, five: RedisStore) -> None:
        with ThreadPoolExecutor(8) as pool:
            given = list(pool.map(lambda n: five.schedule.start_next_batch(JOB, n % 5), range(40)))
        assert sorted(number for number in given if number is not None) == [2, 3, 4]

    def test_gives_nothing_for_a_job_that_is_gone(self, store: RedisStore, keys: Keys) -> None:
        assert store.schedule.start_next_batch("nobody", 0) is None
        assert keys() == set()


class TestCountingWhatIsDone:
    def test_counts_each_batch_once(self, store: RedisStore, job: str) -> None:
        for number in (0, 1):
            store.leases.acquire_lease(Unit(job, number), 0, "me", LONG)
            store.leases.acquire_lease(Unit(job, number, 1), 0, "me", LONG)
        store.leases.acquire_lease(Unit(job), 0, "me", LONG)
        store.leases.write_record(Unit(job, 0), "me", done=False, looks=3)
        store.leases.write_record(Unit(job, 0, 1), "me", done=True)  # a lane, not a batch
        assert store.jobs.read_job(job).through == 0  # type: ignore[union-attr]
        for _ in range(2):
            store.leases.write_record(Unit(job, 0), "me", done=True)
        assert not store.leases.write_record(Unit(job, 1), "you", done=True)
        assert store.jobs.read_job(job).through == 1  # type: ignore[union-attr]
        store.leases.write_record(Unit(job, 1), "me", skipped=0, done=True)
        assert store.jobs.read_job(job).through == 2  # type: ignore[union-attr]

    def test_tells_one_of_those_that_end_at_once_that_it_is_the_last(self, store: RedisStore) -> None:
        make(store, job_record(batches=5, state="running"), [batch_record() for _ in range(5)])
        units = [Unit(JOB, number) for number in range(5)]
        for unit in units:
            store.leases.acquire_lease(unit, 0, "me", LONG)
        with ThreadPoolExecutor(5) as pool:
            assert sorted(pool.map(lambda unit: store.leases.end_batch(unit, "me", skipped=0) or 0, units)) == [
                1,
                2,
                3,
                4,
                5,
            ]
        assert store.leases.end_batch(units[0], "me") == 5, "once more"
        assert store.leases.end_batch(units[0], "you") is None

    def test_brings_no_job_back(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        redis_client.delete(f"claude_batch:{{{job}}}:job")
        assert store.leases.write_record(BATCH, "me", done=True)
        assert store.leases.end_batch(BATCH, "me") == 0
        assert store.jobs.read_job(job) is None


class TestTheLifeOfAJobsKeys:
    def live(self, store: RedisStore, *, attempts: int = 1) -> None:
        """Everything a job may write, with the last attempt published."""
        store.leases.acquire_lease(Unit(JOB), 0, "me", LONG)
        store.jobs.update_job(JOB, state="running")
        for number in range(2):
            unit = Unit(JOB, number)
            store.leases.acquire_lease(unit, 0, "me", LONG)
            lane = Unit(JOB, number, 1)
            store.leases.acquire_lease(lane, 0, "me", LONG)
            store.budget.reserve_quota(JOB, number, 1, 10)
            store.budget.reserve_cost(unit, 0, 1, 2, 100)
            store.message_queue.add_requests(JOB, number, range(4))
            for place in range(3):
                assert take(store, lane, place).state == "taken"
            store.message_queue.save_outcome(lane, 0, b"x")
            store.message_queue.put_back(lane, 1, 0.0, 9)
            store.results.mark_announced(JOB, number, [0])
            for attempt in range(1, attempts + 1):
                store.leases.write_record(unit, "me", attempt=attempt)
                store.results.write_rows(JOB, number, attempt, [b"row"])
            store.results.publish_rows(unit, "me", attempts, **NOTHING)
        for _ in range(201):
            store.history.append_event(
                JOB, HistoryEvent(at=datetime.now(timezone.utc), event="x", batch=0, text="", details={})
            )

    def ttls(self, client: redis.Redis) -> set[int]:
        return {client.ttl(key) for key in client.keys("*") if b"{" in key}

    def test_begins_with_an_expiry(self, job: str, redis_client: redis.Redis) -> None:
        assert all(LONG - 30 < ttl <= LONG for ttl in self.ttls(redis_client))

    def test_goes_on_while_it_runs(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        store.jobs.persist_job(job)
        self.live(store)
        assert self.ttls(redis_client) == {-1}

    def test_ends_after_its_end(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        store.jobs.persist_job(job)
        self.live(store)
        store.jobs.expire_job(job, 100.9)
        assert all(70 < ttl <= 100 for ttl in self.ttls(redis_client))

    def test_lasts_a_second_at_least(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        store.jobs.expire_job(job, 0.2)
        assert all(ttl <= 1 for ttl in self.ttls(redis_client))

    def test_leaves_nothing_behind_when_it_expires(self, store: RedisStore, job: str, keys: Keys) -> None:
        self.live(store)
        store.jobs.expire_job(job, 1)
        deadline = time.monotonic() + 10
        while keys() and time.monotonic() < deadline:
            time.sleep(0.05)
            store.jobs.forget_expired()
        assert keys() == set()
        assert store.jobs.read_job(job) is None

    def test_leaves_nothing_behind_when_it_is_deleted(self, store: RedisStore, job: str, keys: Keys) -> None:
        self.live(store)
        store.jobs.delete_job(job)
        assert keys() == set()

    def test_leaves_nothing_behind_when_staging_failed(self, store: RedisStore, keys: Keys) -> None:
        for number in (0, 0, 1, 2):
            store.payloads.stage_requests(JOB, NONCE, [Piece(number, ["a"], body_of("a"))])
        store.payloads.discard_staged(JOB, NONCE, 3)
        assert keys() == set()
        store.payloads.discard_staged(JOB, NONCE, 0)

    def test_are_those_of_whoever_made_it_first(self, store: RedisStore, keys: Keys) -> None:
        store.payloads.stage_requests(JOB, "second", [Piece(0, ["b"], body_of("b"))])
        store.payloads.stage_index(JOB, "second", [(0, b"second")])
        assert make(store, job_record(nonce="first", batches=1), [batch_record()])
        made = keys()
        assert not store.jobs.create_job(JOB, job_record(nonce="second", batches=1), [batch_record()], LONG)
        assert store.payloads.read_index(JOB, 7) == b"index"
        assert list(store.payloads.read_custom_ids(JOB, 0)) == [["a"]]
        store.payloads.discard_staged(JOB, "second", 1)
        assert keys() == {key for key in made if "second" not in key}

    def test_are_all_there_or_it_is_not_made(self, store: RedisStore, redis_client: redis.Redis, keys: Keys) -> None:
        """What was staged expires when the last request comes too late."""
        record = job_record(batches=2)
        batches = [batch_record(), batch_record()]
        for part in ("batch:0:body", "1:sizes", "index"):
            store.payloads.stage_requests(JOB, NONCE, [Piece(n, ["a"], body_of("a")) for n in range(2)])
            store.payloads.stage_index(JOB, NONCE, [(0, b"index")])
            [gone] = redis_client.keys(f"*staging*{part.removeprefix('batch:')}")
            redis_client.delete(gone)
            with pytest.raises(JobNotFound, match="has expired: its requests took longer than 24 hours"):
                store.jobs.create_job(JOB, record, batches, LONG)
            assert store.jobs.read_job(JOB) is None
            store.payloads.discard_staged(JOB, NONCE, 2)
            assert keys() == set()

    def test_that_was_never_made_is_a_day_at_most(self, store: RedisStore, redis_client: redis.Redis) -> None:
        store.payloads.stage_requests(JOB, NONCE, [Piece(0, ["a"], body_of("a"))])
        assert all(0 < ttl <= 86_400 for ttl in self.ttls(redis_client))

    def test_of_others_is_left_alone(self, store: RedisStore, job: str, keys: Keys) -> None:
        before = keys()
        make(store, job_record(batches=1), [batch_record()], job_id="job-2")
        store.jobs.delete_job("job-2")
        store.jobs.delete_job("job-3")
        assert keys() == before

    def test_leaves_no_earlier_attempt_behind_when_it_is_deleted(self, store: RedisStore, job: str, keys: Keys) -> None:
        self.live(store, attempts=3)
        store.jobs.delete_job(job)
        assert keys() == set()

    def test_ends_also_for_what_a_step_writes_when_it_is_over(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        """A job is revoked while a download or a Messages call of it is under way."""
        store.jobs.persist_job(job)
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        store.leases.write_record(BATCH, "me", attempt=1)
        store.jobs.expire_job(job, 100)
        store.results.write_rows(job, 0, 1, [b"row"])
        assert store.results.publish_rows(BATCH, "me", 1, **NOTHING)
        store.message_queue.save_outcome(LANE, 0, b"x")
        assert all(0 < ttl <= 100 for ttl in self.ttls(redis_client))

    def test_ends_also_for_what_the_last_step_of_a_batch_writes_when_it_is_over(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        """Likewise, while requests go through the Messages API."""
        store.jobs.persist_job(job)
        store.jobs.update_job(job, state="running")
        store.leases.acquire_lease(LANE, 0, "me", LONG)
        store.message_queue.add_requests(job, 0, [0, 1])
        assert take(store, LANE, 0).state == take(store, LANE, 1).state == "taken"
        store.jobs.update_job(job, state="revoked")
        store.jobs.expire_job(job, 100)
        store.message_queue.put_back(LANE, 0, 0.0, 9)
        store.message_queue.save_outcome(LANE, 1, b"x", spent=1)
        store.results.mark_announced(job, 0, [1])
        store.message_queue.add_requests(job, 0, [2])
        store.message_queue.add_requests(job, 1, [0])
        assert take(store, LANE, 2).state == "canceled"
        store.budget.reserve_cost(BATCH, 0, 1, 2, 100)
        ttls = {key.decode(): redis_client.ttl(key) for key in redis_client.keys("*{*")}
        assert [key for key, ttl in ttls.items() if not 0 < ttl <= 100] == []

    def test_is_remembered_when_somebody_deleted_it(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        store.jobs.delete_job("job-2")
        store.jobs.delete_job(job, remember=True)
        assert (store.jobs.was_deleted("job-2"), store.jobs.was_deleted(job)) == (False, True)
        [key] = redis_client.keys(f"*{job}*")
        assert 0 < redis_client.ttl(key) <= 86_400

    def test_ends_for_an_attempt_whose_publish_died_half_way(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        store.leases.write_record(BATCH, "me", attempt=1)
        store.results.write_rows(job, 0, 1, [b"row"])
        # What publish does first, and then the worker was killed; a second attempt follows.
        [rows] = redis_client.keys("*rows*")
        redis_client.persist(rows)
        store.leases.write_record(BATCH, "me", attempt=2)
        store.results.write_rows(job, 0, 2, [b"row"])
        store.results.publish_rows(BATCH, "me", 2, **NOTHING)
        store.jobs.expire_job(job, 100)
        assert -1 not in self.ttls(redis_client)


CALLS: dict[str, Callable[[RedisStore], Any]] = {
    "jobs.create_job": lambda s: s.jobs.create_job(JOB, job_record(), [batch_record()], LONG),
    "jobs.read_job": lambda s: s.jobs.read_job(JOB),
    "jobs.update_job": lambda s: s.jobs.update_job(JOB, state="running"),
    "jobs.was_deleted": lambda s: s.jobs.was_deleted(JOB),
    "jobs.persist_job": lambda s: s.jobs.persist_job(JOB),
    "jobs.expire_job": lambda s: s.jobs.expire_job(JOB, LONG),
    "jobs.delete_job": lambda s: s.jobs.delete_job(JOB),
    "records.read_batches": lambda s: s.records.read_batches(JOB),
    "records.find_batches": lambda s: s.records.find_batches(JOB),
    "records.replace_batch": lambda s: s.records.replace_batch(JOB, 0, batch_record(), 1),
    "records.missing_keys": lambda s: s.records.missing_keys(JOB, 0, ["body"]),
    "results.restore_rows": lambda s: s.results.restore_rows(JOB, 0, 1, ":copy", pieces=b"", eligible_places=b""),
    "results.count_outcomes": lambda s: s.results.count_outcomes(JOB, 0),
    "message_queue.list_known": lambda s: s.message_queue.list_known(JOB, 0),
    "schedule.are_scheduled": lambda s: s.schedule.are_scheduled([BATCH]),
    "jobs.sample_jobs": lambda s: s.jobs.sample_jobs(3),
    "jobs.rebuild_list": lambda s: s.jobs.rebuild_list(),
    "jobs.read_states": lambda s: s.jobs.read_states([JOB]),
    "statistics.is_first": lambda s: s.statistics.is_first("x", LONG),
    "records.request_restore": lambda s: s.records.request_restore(JOB),
    "records.take_restore_requests": lambda s: s.records.take_restore_requests(3),
    "records.read_batch": lambda s: s.records.read_batch(JOB, 0),
    "leases.acquire_lease": lambda s: s.leases.acquire_lease(BATCH, 0, "me", LONG),
    "leases.renew_lease": lambda s: s.leases.renew_lease(BATCH, "me", LONG),
    "leases.write_record": lambda s: s.leases.write_record(BATCH, "me", state="lost"),
    "leases.end_batch": lambda s: s.leases.end_batch(BATCH, "me"),
    "leases.advance_unit": lambda s: s.leases.advance_unit(BATCH, "me", 1),
    "payloads.discard_staged": lambda s: s.payloads.discard_staged(JOB, NONCE, 1),
    "jobs.set_once": lambda s: s.jobs.set_once(JOB, "account", "x"),
    "schedule.add_units": lambda s: s.schedule.add_units([BATCH], 1.0),
    "schedule.remove_unit": lambda s: s.schedule.remove_unit(BATCH),
    "schedule.list_overdue": lambda s: s.schedule.list_overdue(1.0, 10),
    "schedule.find_lost": lambda s: s.schedule.find_lost(BATCH, 1.0),
    "records.read_position": lambda s: s.records.read_position(BATCH),
    "leases.park_unit": lambda s: s.leases.park_unit(BATCH, "me", 1, 5.0),
    "schedule.take_due": lambda s: s.schedule.take_due(10),
    "schedule.wake_units": lambda s: s.schedule.wake_units([BATCH]),
    "schedule.wait_again": lambda s: s.schedule.wait_again([BATCH], 5.0),
    "schedule.postpone_units": lambda s: s.schedule.postpone_units({BATCH: 2.0}),
    "in_flight.count_batches": lambda s: s.in_flight.count_batches("account"),
    "in_flight.list_batches": lambda s: s.in_flight.list_batches("account"),
    "in_flight.lock_list_call": lambda s: s.in_flight.lock_list_call("account", "me", LONG),
    "in_flight.record_list_call": lambda s: s.in_flight.record_list_call("account", failed=True),
    "in_flight.unlock_list_call": lambda s: s.in_flight.unlock_list_call("account", "me"),
    "in_flight.add_page": lambda s: s.in_flight.add_page("account", {}, taken_at=1.0, since=1.0, first=True),
    "in_flight.find_listed": lambda s: s.in_flight.find_listed("account", "msgbatch_1"),
    "in_flight.pause_calls": lambda s: s.in_flight.pause_calls("account", 1.0),
    "in_flight.paused_until": lambda s: s.in_flight.paused_until("account"),
    "in_flight.add_duration": lambda s: s.in_flight.add_duration("account", 1, 1.0),
    "in_flight.past_durations": lambda s: s.in_flight.past_durations("account"),
    "jobs.resume_job": lambda s: s.jobs.resume_job(JOB, {"state": "running"}, {}),
    "budget.reserve_quota": lambda s: s.budget.reserve_quota(JOB, 0, 1, 1),
    "batch_ids.claim_id": lambda s: s.batch_ids.claim_id(BATCH, "me", "msgbatch_1"),
    "batch_ids.release_id": lambda s: s.batch_ids.release_id(BATCH, "me", "msgbatch_1"),
    "batch_ids.find_owner": lambda s: s.batch_ids.find_owner("msgbatch_1"),
    "payloads.stage_requests": lambda s: s.payloads.stage_requests(JOB, NONCE, [Piece(0, ["a"], b"{}")]),
    "payloads.read_bodies": lambda s: list(s.payloads.read_bodies(JOB, 0)),
    "payloads.read_custom_ids": lambda s: list(s.payloads.read_custom_ids(JOB, 0)),
    "payloads.find_chunk": lambda s: s.payloads.find_chunk(JOB, 0, 0),
    "results.write_rows": lambda s: s.results.write_rows(JOB, 0, 1, [b"row"]),
    "results.publish_rows": lambda s: s.results.publish_rows(BATCH, "me", 1, **NOTHING),
    "results.discard_rows": lambda s: s.results.discard_rows(JOB, 0, 1),
    "results.find_chunks": lambda s: s.results.find_chunks(JOB, 0, 1, [0]),
    "results.read_chunk": lambda s: s.results.read_chunk(JOB, 0, 1, 0),
    "payloads.stage_index": lambda s: s.payloads.stage_index(JOB, NONCE, [(0, b"x")]),
    "payloads.read_index": lambda s: s.payloads.read_index(JOB, 0),
    "payloads.find_custom_id": lambda s: s.payloads.find_custom_id(JOB, 0, 0),
    "schedule.start_next_batch": lambda s: s.schedule.start_next_batch(JOB, 0),
    "results.read_rows": lambda s: list(s.results.read_rows(JOB, 0, 1)),
    "results.read_eligible": lambda s: s.results.read_eligible(JOB, 0, 1),
    "records.read_sender": lambda s: s.records.read_sender(LANE),
    "budget.reserve_cost": lambda s: s.budget.reserve_cost(BATCH, 0, 1, 2, 3),
    "budget.record_cost": lambda s: s.budget.record_cost(BATCH, 0, 1),
    "message_queue.add_requests": lambda s: s.message_queue.add_requests(JOB, 0, [0]),
    "message_queue.list_due": lambda s: s.message_queue.list_due(JOB, 0, 1),
    "message_queue.count_unfinished": lambda s: s.message_queue.count_unfinished(JOB, 0),
    "message_queue.take_request": lambda s: take(s, LANE, 0),
    "message_queue.confirm_request": lambda s: s.message_queue.confirm_request(LANE, "me", 0, LONG),
    "message_queue.renew_calls": lambda s: s.message_queue.renew_calls(LANE, {0: "pace"}, LONG),
    "message_queue.list_abandoned": lambda s: s.message_queue.list_abandoned(LANE),
    "message_queue.record_answer": lambda s: s.message_queue.record_answer(
        LANE, 0, "pace", "1 1 1", limits={}, refused=False, hold=None, cap=1
    ),
    "message_queue.count_refusals": lambda s: s.message_queue.count_refusals(LANE, 0),
    "message_queue.put_back": lambda s: s.message_queue.put_back(LANE, 0, 1.0, 1),
    "message_queue.drop_waiting": lambda s: s.message_queue.drop_waiting(JOB, 0),
    "results.read_announced": lambda s: s.results.read_announced(JOB, 0),
    "results.mark_announced": lambda s: s.results.mark_announced(JOB, 0, [0]),
    "message_queue.save_outcome": lambda s: s.message_queue.save_outcome(LANE, 0, b"x"),
    "results.read_outcomes": lambda s: list(s.results.read_outcomes(JOB, 0)),
    "results.find_outcomes": lambda s: s.results.find_outcomes(JOB, 0, [0]),
    "jobs.job_ids": lambda s: list(s.jobs.job_ids()),
    "check_schema": lambda s: s.check_schema(),
    "jobs.forget_expired": lambda s: s.jobs.forget_expired(),
    "history.append_event": lambda s: s.history.append_event(
        JOB, HistoryEvent(at=datetime.now(timezone.utc), event="x", batch=0, text="", details={})
    ),
    "history.read_events": lambda s: s.history.read_events(JOB),
    "statistics.scan_jobs": lambda s: list(s.statistics.scan_jobs()),
    "statistics.scan_batches": lambda s: list(s.statistics.scan_batches(JOB, 1)),
    "schedule.scan_late": lambda s: list(s.schedule.scan_late(1.0)),
    "statistics.begin_statistics": lambda s: s.statistics.begin_statistics(1.0),
    "statistics.save_statistics": lambda s: s.statistics.save_statistics(b"[]", 1.0),
    "statistics.read_statistics": lambda s: s.statistics.read_statistics(),
}


def at_once(port: int) -> RedisStore:
    """A store whose client does not try a second time."""
    client = redis.Redis(port=port, password="SECRET", retry=Retry(NoBackoff(), 0))
    return RedisStore(client, f"127.0.0.1:{port}")


class TestAServerThatIsStopped:
    def test_is_met_by_every_method(self) -> None:
        methods = {
            f"{part}.{name}"
            for part, protocol in get_type_hints(Store).items()
            for name in vars(protocol)
            if not name.startswith("_")
        }
        assert methods | {"check_schema"} == set(CALLS)  # the clock goes on without it

    @pytest.mark.parametrize("name", CALLS)
    def test_is_unavailable_and_never_empty(self, name: str) -> None:
        port = free_port()
        with pytest.raises(StoreUnavailable) as caught:
            CALLS[name](at_once(port))
        assert str(port) in str(caught.value)
        assert "SECRET" not in str(caught.value)

    def test_in_the_middle_of_reading_is_no_end_of_what_is_read(self) -> None:
        with RedisServer() as server:
            store = RedisStore(redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)), "here")
            pieces = [Piece(0, [f"{n}"], body_of(f"{n}")) for n in range(3)]
            make(store, job_record(batches=1), [batch_record()], *pieces)
            store.results.write_rows(JOB, 0, 1, [b"1", b"2", b"3"])
            readers: list[Iterator[Any]] = [
                store.payloads.read_bodies(JOB, 0),
                store.payloads.read_custom_ids(JOB, 0),
                store.results.read_rows(JOB, 0, 1),
            ]
            for reader in readers:
                next(reader)
            server.stop(kill=True)
            for reader in readers:
                with pytest.raises(StoreUnavailable):
                    next(reader)

    def test_that_comes_back_still_has_everything(self) -> None:
        with RedisServer() as server:
            store = RedisStore(redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)), "here")
            make(store, job_record(batches=1), [batch_record()])
            store.leases.acquire_lease(BATCH, 5, "me", LONG)
            server.stop()
            server.start()
            assert store.leases.acquire_lease(BATCH, 5, "you", LONG).state == "busy"
            assert store.leases.write_record(BATCH, "me", state="creating")
            assert list(store.payloads.read_bodies(JOB, 0)) == [body_of("a")]

    def test_that_refuses_to_write_is_unavailable_too(self, redis_server: RedisServer) -> None:
        client = redis_server.client()
        client.flushall()
        store = RedisStore(client, "here")
        client.config_set("maxmemory", "1mb")
        try:
            with pytest.raises(StoreUnavailable):
                store.results.write_rows(JOB, 0, 1, (os.urandom(1_000_000) for _ in range(100)))
        finally:
            client.config_set("maxmemory", "0")

    def test_does_not_swallow_what_the_reader_of_rows_raises(self, store: RedisStore) -> None:
        def failing() -> Iterator[bytes]:
            yield b"row"
            raise redis.ConnectionError("the caller's own")

        with pytest.raises(redis.ConnectionError, match="the caller's own"):
            store.results.write_rows(JOB, 0, 1, failing())
        with pytest.raises(redis.ConnectionError, match="the caller's own"):
            store.payloads.stage_requests(JOB, NONCE, (Piece(0, ["a"], row) for row in failing()))


class TestOpening:
    def test_gives_one_store_per_process(self) -> None:
        assert open_store_at("redis://localhost:1/0") is open_store_at("redis://localhost:1/0")
        assert open_store_at("redis://localhost:1/0") is not open_store_at("redis://localhost:1/1")

    @pytest.mark.parametrize(
        ("url", "where"),
        [
            ("redis://user:SECRET@host:7/0", "host:7"),
            ("redis://:SECRET@host/0", "host:6379"),
            ("unix://:SECRET@/run/redis.sock", "/run/redis.sock"),
        ],
    )
    def test_names_the_server_without_its_password(self, url: str, where: str) -> None:
        assert open_store_at(url)._connection.where == where

    def test_serves_many_threads(self, redis_url: str) -> None:
        store = open_store_at(redis_url)
        make(store, job_record(batches=1), [batch_record()])
        barrier = threading.Barrier(8)

        def work(number: int) -> int:
            barrier.wait()
            return sum(store.jobs.read_job(JOB) is not None for _ in range(20)) + store.message_queue.save_outcome(
                Unit(JOB, 0, number), number, b"x"
            )

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(8))) == [21] * 8
