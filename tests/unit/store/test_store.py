from __future__ import annotations

import inspect
import os
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

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
    store.stage(job_id, record.nonce, pieces or [Piece(n, ["a"], body_of("a")) for n in range(len(batches))])
    store.stage_index(job_id, record.nonce, [(7, b"index")])
    return store.create_job(job_id, record, batches, LONG)


def take(store: RedisStore, lane: Unit, place: int) -> Taken:
    """As a lane does, of a job whose cost is limited."""
    return store.take(lane, "me", place, "pace", Need(10, 1, 2), LONG, cap=64, limit=100, total=100)


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
        assert store.job(JOB) == job
        assert store.batch(JOB, 1) == batch
        assert store.batches(JOB) == [batch, batch]

    def test_of_nothing_are_none(self, store: RedisStore, keys: Keys) -> None:
        assert store.job("nobody") is None
        assert store.batch("nobody", 0) is None
        assert store.batches("nobody") == []
        assert store.lane(Unit("nobody", 0, 0)) == LaneRecord()
        assert keys() == set()

    def test_ignore_fields_of_another_version(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        for key in redis_client.keys("*"):
            if redis_client.type(key) == b"hash":
                redis_client.hset(key, "a_field_of_next_year", b'{"x":1}')
        assert store.job(job) == job_record()
        assert store.batches(job) == [batch_record(), batch_record(first=2)]

    def test_fill_in_fields_an_older_version_did_not_write(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        for key in redis_client.keys("*"):
            if redis_client.type(key) == b"hash":
                redis_client.hdel(key, "queue", "options", "counts", "published")
        assert store.job(job) == job_record()
        assert store.batches(job) == [batch_record(), batch_record(first=2)]

    def test_are_changed_one_field_at_a_time(self, store: RedisStore, job: str) -> None:
        store.update_job(job, state="running", started_at=7.5)
        assert store.job(job) == job_record(state="running", started_at=7.5)

    def test_of_a_job_that_is_gone_are_not_brought_back_by_a_late_change(self, store: RedisStore, keys: Keys) -> None:
        store.update_job("gone", cancel_requested=True)
        assert keys() == set()


class TestALease:
    UNITS = (BATCH, Unit(JOB, 1), Unit(JOB, 0, 1), Unit(JOB))

    @pytest.fixture(params=UNITS, ids=["batch", "another batch", "lane", "job"])
    def unit(self, request: pytest.FixtureRequest, job: str) -> Unit:
        return request.param  # type: ignore[no-any-return]

    def test_is_taken_by_the_first_who_comes(self, store: RedisStore, unit: Unit) -> None:
        assert store.acquire(unit, 0, "me", LONG) == Lease("taken")

    def test_is_busy_for_others_and_says_for_how_long(self, store: RedisStore, unit: Unit) -> None:
        store.acquire(unit, 5, "me", LONG)
        lease = store.acquire(unit, 5, "you", LONG)
        assert lease.state == "busy"
        assert LONG - 30 < lease.remaining < LONG + 1

    def test_is_taken_again_by_its_owner(self, store: RedisStore, unit: Unit) -> None:
        store.acquire(unit, 5, "me", LONG)
        assert store.acquire(unit, 5, "me", LONG) == Lease("taken")

    def test_is_taken_over_when_its_owner_is_dead(self, store: RedisStore, unit: Unit) -> None:
        store.acquire(unit, 5, "me", 0.01)
        time.sleep(0.05)
        assert store.acquire(unit, 5, "you", LONG) == Lease("taken_over", failures=1)
        assert store.acquire(unit, 5, "me", LONG).state == "busy"

    def test_says_how_often_and_by_what_its_step_was_broken_off(self, store: RedisStore, unit: Unit) -> None:
        store.acquire(unit, 5, "me", LONG)
        assert store.wait(unit, "me", 6, time.time(), step_failures=2, step_failure="MemoryError")
        assert store.acquire(unit, 6, "you", 0.01) == Lease("taken", failures=2, failure="MemoryError")
        time.sleep(0.05)
        assert store.acquire(unit, 6, "third", LONG) == Lease("taken_over", failures=3)
        assert store.advance(unit, "third", 7, step_failures=0, step_failure=None)
        assert store.acquire(unit, 7, "you", LONG) == Lease("taken")

    def test_is_refused_to_a_message_of_the_past(self, store: RedisStore, unit: Unit) -> None:
        store.acquire(unit, 5, "me", LONG)
        assert store.acquire(unit, 4, "you", LONG) == Lease("stale")
        store.advance(unit, "me", 6)
        assert store.acquire(unit, 5, "you", LONG) == Lease("stale")
        assert store.acquire(unit, 5, "me", LONG) == Lease("stale")

    def test_goes_to_the_next_message_even_before_its_owner_moved_on(self, store: RedisStore, unit: Unit) -> None:
        store.acquire(unit, 5, "me", LONG)
        assert store.acquire(unit, 6, "next", LONG) == Lease("taken")
        assert not store.record(unit, "me", failures=9)
        assert not store.advance(unit, "me", 6)

    def test_is_free_again_once_its_owner_moved_on(self, store: RedisStore, unit: Unit) -> None:
        store.acquire(unit, 5, "me", LONG)
        assert store.advance(unit, "me", 6)
        assert store.acquire(unit, 6, "you", LONG) == Lease("taken")

    def test_keeps_positions_as_large_as_a_life(self, store: RedisStore, unit: Unit) -> None:
        store.acquire(unit, 2 * 10**15 - 1, "me", LONG)
        assert store.acquire(unit, 2 * 10**15 - 2, "you", LONG) == Lease("stale")
        assert store.acquire(unit, 2 * 10**15, "you", LONG) == Lease("taken")

    def test_is_renewed_by_its_owner_alone(self, store: RedisStore, unit: Unit) -> None:
        store.acquire(unit, 5, "me", 5.0)
        assert store.renew(unit, "me", LONG)
        assert store.acquire(unit, 5, "you", LONG).remaining > 60
        assert not store.renew(unit, "you", LONG)

    def test_is_not_renewed_after_it_was_taken_over(self, store: RedisStore, unit: Unit) -> None:
        store.acquire(unit, 5, "me", 0.01)
        time.sleep(0.05)
        store.acquire(unit, 5, "you", LONG)
        assert not store.renew(unit, "me", LONG)

    def test_is_not_renewed_after_it_was_given_up(self, store: RedisStore, unit: Unit) -> None:
        store.acquire(unit, 5, "me", LONG)
        store.advance(unit, "me", 6)
        assert not store.renew(unit, "me", LONG)
        assert store.acquire(unit, 6, "you", LONG) == Lease("taken")

    def test_goes_to_one_of_many_who_want_it(self, store: RedisStore, unit: Unit) -> None:
        with ThreadPoolExecutor(8) as pool:
            leases = list(pool.map(lambda n: store.acquire(unit, 5, f"worker-{n}", LONG).state, range(24)))
        assert sorted(leases) == ["busy"] * 23 + ["taken"]

    def test_of_one_unit_leaves_the_others_free(self, store: RedisStore, job: str) -> None:
        for number, unit in enumerate((*self.UNITS, Unit(job, 0, 0))):
            assert store.acquire(unit, 5, f"worker-{number}", LONG) == Lease("taken")

    @pytest.mark.parametrize("unit", [Unit("nobody"), Unit("nobody", 0), Unit(JOB, 7)])
    def test_of_what_is_gone_is_not_to_be_had(self, store: RedisStore, keys: Keys, job: str, unit: Unit) -> None:
        before = keys()
        assert store.acquire(unit, 0, "me", LONG) == Lease("gone")
        assert not store.record(unit, "me", failures=1)
        assert not store.renew(unit, "me", LONG)
        assert not store.advance(unit, "me", 1, failures=1)
        assert keys() == before

    def test_of_a_lane_of_a_job_that_is_gone_leaves_nothing(self, store: RedisStore, keys: Keys) -> None:
        store.acquire(Unit("gone", 0, 3), 0, "me", LONG)
        assert keys() == set()


class TestARecordUnderALease:
    def test_is_changed_by_its_owner(self, store: RedisStore, job: str) -> None:
        store.acquire(BATCH, 0, "me", LONG)
        assert store.record(BATCH, "me", state="in_progress", batch_id="msgbatch_1", counts={"succeeded": 1})
        expected = batch_record(state="in_progress", batch_id="msgbatch_1", counts={"succeeded": 1})
        assert store.batch(job, 0) == expected
        assert store.batch(job, 1) == batch_record(first=2)

    def test_may_be_set_back_to_none(self, store: RedisStore, job: str) -> None:
        store.acquire(BATCH, 0, "me", LONG)
        store.record(BATCH, "me", intent_at=7.5)
        store.record(BATCH, "me", intent_at=None)
        assert store.batch(job, 0) == batch_record()

    def test_is_not_changed_by_anybody_else(self, store: RedisStore, job: str) -> None:
        assert not store.record(BATCH, "me", state="failed")
        store.acquire(BATCH, 0, "me", LONG)
        assert not store.record(BATCH, "you", state="failed")
        assert not store.advance(BATCH, "you", 1, state="failed")
        assert store.batch(job, 0) == batch_record()

    def test_is_not_changed_after_a_takeover(self, store: RedisStore, job: str) -> None:
        store.acquire(BATCH, 0, "me", 0.01)
        time.sleep(0.05)
        store.acquire(BATCH, 0, "you", LONG)
        assert not store.record(BATCH, "me", batch_id="msgbatch_mine")
        assert store.record(BATCH, "you", batch_id="msgbatch_yours")
        batch = store.batch(job, 0)
        assert batch is not None
        assert batch.batch_id == "msgbatch_yours"

    def test_changes_in_one_with_moving_on(self, store: RedisStore, job: str) -> None:
        store.acquire(BATCH, 0, "me", LONG)
        assert store.advance(BATCH, "me", 1, failures=3, due_at=9.5)
        assert store.batch(job, 0) == batch_record(failures=3, due_at=9.5)

    def test_of_a_lane_is_its_own(self, store: RedisStore, job: str) -> None:
        first, second = Unit(job, 0, 0), Unit(job, 0, 1)
        store.acquire(first, 0, "me", LONG)
        store.record(first, "me", due_at=9.5)
        store.advance(first, "me", 1, failures=2)
        assert store.lane(first) == LaneRecord(failures=2, due_at=9.5)
        assert store.lane(second) == LaneRecord()
        assert store.batch(job, 0) == batch_record()

    def test_holds_nothing_that_its_lease_is_kept_in(self, store: RedisStore) -> None:
        make(store, TestRecords.FULL_JOB, [TestRecords.FULL_BATCH, batch_record()])
        for unit in (BATCH, Unit(JOB)):
            store.schedule([unit], 5.0)
            assert store.lost(unit, 0)
            store.acquire(unit, 0, "me", LONG)
            store.renew(unit, "me", LONG)
            store.advance(unit, "me", 1)
        assert store.job(JOB) == TestRecords.FULL_JOB
        assert store.batch(JOB, 0) == TestRecords.FULL_BATCH


class TestTheFallbackBudget:
    def test_is_granted_as_long_as_it_lasts(self, store: RedisStore, job: str) -> None:
        assert store.grant(job, 0, 7, 10) == 7
        assert store.grant(job, 1, 7, 10) == 3

    def test_is_granted_once(self, store: RedisStore, job: str) -> None:
        assert [store.grant(job, 0, wanted, limit) for wanted, limit in ((3, 10), (3, 10), (9, 100), (0, 0))] == [3] * 4
        record = store.job(job)
        assert record is not None
        assert record.fallback_granted == 3

    def test_may_be_nothing_and_stays_so(self, store: RedisStore, job: str) -> None:
        assert store.grant(job, 0, 5, 0) == 0
        assert store.grant(job, 0, 5, 100) == 0
        assert store.grant(job, 1, 0, 100) == 0

    def test_is_written_into_the_batchs_record(self, store: RedisStore, job: str) -> None:
        store.grant(job, 0, 5, 100)
        batch = store.batch(job, 0)
        assert batch is not None
        assert batch.granted == 5

    def test_is_never_overdrawn(self, store: RedisStore) -> None:
        make(store, job_record(batches=20), [batch_record() for _ in range(20)])
        with ThreadPoolExecutor(8) as pool:
            granted = list(pool.map(lambda n: store.grant(JOB, n % 20, 7, 50), range(60)))
        per_batch = [{granted[number + 20 * ask] for ask in range(3)} for number in range(20)]
        assert all(len(answers) == 1 for answers in per_batch)
        assert sum(answers.pop() for answers in per_batch) == 50


class TestWhoseABatchIs:
    OTHER = Unit(JOB, 1)

    @pytest.fixture(autouse=True)
    def leases(self, store: RedisStore, job: str) -> None:
        for unit in (BATCH, self.OTHER):
            store.acquire(unit, 0, "me", LONG)

    def test_is_settled_once(self, store: RedisStore) -> None:
        assert store.holder("msgbatch_1") is None
        assert store.claim(BATCH, "me", "msgbatch_1", batch_id="msgbatch_1", provisional=True) == BATCH
        assert store.claim(self.OTHER, "me", "msgbatch_1", batch_id="msgbatch_1") == BATCH
        assert store.holder("msgbatch_1") == BATCH
        first, second = store.batches(JOB)
        assert (first.batch_id, first.provisional, second.batch_id) == ("msgbatch_1", True, None)

    def test_is_the_one_who_knows(self, store: RedisStore) -> None:
        store.claim(BATCH, "me", "msgbatch_1", batch_id="msgbatch_1", provisional=True)
        assert store.claim(self.OTHER, "me", "msgbatch_1", force=True, batch_id="msgbatch_1") == self.OTHER
        assert store.release(BATCH, "me", "msgbatch_1", batch_id=None, turn=1)
        assert store.holder("msgbatch_1") == self.OTHER
        assert [(batch.batch_id, batch.turn) for batch in store.batches(JOB)] == [(None, 1), ("msgbatch_1", 0)]

    def test_is_taken_only_from_whom_it_was_judged_by(self, store: RedisStore) -> None:
        gone = Unit("gone", 3)
        assert store.claim(BATCH, "me", "msgbatch_1", instead_of=gone) == BATCH
        assert store.claim(self.OTHER, "me", "msgbatch_1", instead_of=gone) == BATCH
        assert store.claim(self.OTHER, "me", "msgbatch_1", instead_of=BATCH) == self.OTHER

    def test_is_open_again_after_it_was_released(self, store: RedisStore) -> None:
        store.claim(BATCH, "me", "msgbatch_1")
        assert store.release(BATCH, "me", "msgbatch_1")
        assert store.holder("msgbatch_1") is None
        assert store.claim(self.OTHER, "me", "msgbatch_1") == self.OTHER

    def test_is_not_for_somebody_without_the_lease_to_say(self, store: RedisStore, keys: Keys) -> None:
        before = keys()
        assert store.claim(BATCH, "you", "msgbatch_1", force=True, batch_id="msgbatch_1") is None
        assert keys() == before
        store.claim(BATCH, "me", "msgbatch_1", batch_id="msgbatch_1")
        assert not store.release(BATCH, "you", "msgbatch_1", batch_id=None)
        assert store.holder("msgbatch_1") == BATCH
        assert store.batches(JOB)[0].batch_id == "msgbatch_1"

    def test_is_settled_among_many(self, store: RedisStore) -> None:
        with ThreadPoolExecutor(8) as pool:
            units = [BATCH, self.OTHER] * 12
            holders = set(pool.map(lambda unit: store.claim(unit, "me", "msgbatch_1"), units))
        assert len(holders) == 1

    def test_is_forgotten_in_time(self, store: RedisStore, redis_client: redis.Redis) -> None:
        store.claim(BATCH, "me", "msgbatch_1")
        [key] = redis_client.keys("*owner*")
        assert 29 * 86_400 < redis_client.ttl(key) <= 30 * 86_400


class TestAFieldThatIsSettledOnce:
    def test_keeps_its_first_value(self, store: RedisStore, job: str) -> None:
        assert store.settle(job, "account", 'a\n"ü') == 'a\n"ü'
        assert store.settle(job, "account", "b") == 'a\n"ü'
        record = store.job(job)
        assert record is not None
        assert record.account == 'a\n"ü'

    def test_of_a_job_that_is_gone_stays_nothing(self, store: RedisStore, keys: Keys) -> None:
        assert store.settle("nobody", "account", "a") is None
        assert keys() == set()


class TestWhatWaitsForAMessage:
    """Units are in an index by when a message should act on them, which is what recovery looks at."""

    ODD = Unit("{a}:b:1", 0, 12)

    def due(self, store: RedisStore) -> list[Unit]:
        return store.overdue(float("inf"), 100)

    def test_is_listed_by_when_it_is_due(self, store: RedisStore) -> None:
        store.schedule([BATCH, Unit(JOB, 1)], 20.0)
        store.schedule([self.ODD], 10.0)
        store.schedule([Unit(JOB)], 30.0)
        store.schedule([], 30.0)
        assert store.overdue(20.5, 100) == [self.ODD, BATCH, Unit(JOB, 1)]
        assert store.overdue(20.0, 100) == [self.ODD]
        assert store.overdue(50.0, 1) == [self.ODD]
        store.unschedule(self.ODD)
        assert store.overdue(50.0, 1) == [BATCH]

    def test_is_not_lost_while_somebody_is_at_it(self, store: RedisStore, job: str) -> None:
        store.schedule([BATCH], 5.0)
        store.acquire(BATCH, 7, "me", LONG)
        assert store.overdue(time.time() + LONG - 60, 100) == []
        assert store.lost(BATCH, 0) is None
        store.renew(BATCH, "me", 2 * LONG)
        assert store.overdue(time.time() + 2 * LONG - 60, 100) == []

    def test_is_lost_after_its_owner_died(self, store: RedisStore, job: str) -> None:
        store.acquire(BATCH, 7, "me", 0.01)
        time.sleep(0.1)
        assert store.lost(BATCH, 30) is None
        assert store.lost(BATCH, 0.02).position == 7  # type: ignore[union-attr]

    def test_is_due_when_its_step_said(self, store: RedisStore, job: str) -> None:
        later = time.time() + 500
        store.acquire(BATCH, 7, "me", LONG)
        store.advance(BATCH, "me", 8, failures=1, due_at=later)
        assert store.lost(BATCH, 1) is None
        lost = store.lost(BATCH, 0)
        assert lost is not None
        assert (lost.position, round(lost.due_at - later)) == (8, 0)

    def test_is_due_at_once_when_its_step_said_nothing(self, store: RedisStore, job: str) -> None:
        store.acquire(BATCH, 7, "me", LONG)
        store.advance(BATCH, "me", 8, failures=0, due_at=None)
        assert store.overdue(time.time() + 60, 100) == [BATCH]

    def test_is_handed_to_one_caller(self, store: RedisStore, job: str) -> None:
        store.schedule([BATCH], 5.0)
        with ThreadPoolExecutor(8) as pool:
            told = [lost for lost in pool.map(lambda _: store.lost(BATCH, 30), range(24)) if lost]
        assert [lost.position for lost in told] == [-1]

    def test_is_handed_to_one_of_those_who_want_everything_at_once(self, store: RedisStore, job: str) -> None:
        store.schedule([BATCH], time.time() + 500)
        with ThreadPoolExecutor(8) as pool:
            told = [lost for lost in pool.map(lambda _: store.lost(BATCH, 0), range(24)) if lost]
        assert len(told) == 1
        store.acquire(BATCH, 0, "me", 0.01)
        store.advance(BATCH, "me", 1)
        assert store.lost(BATCH, 0), "another message of it is awaited now"

    def test_counts_as_lost_again_later_and_later(self, store: RedisStore, job: str) -> None:
        store.schedule([BATCH], 5.0)
        waits, asked = [], time.monotonic()
        for _ in range(4):
            before = asked  # the call that was told so began then, however late its answer came
            while True:
                asked = time.monotonic()
                if store.lost(BATCH, 0.05) is not None:
                    break
                time.sleep(0.005)
            waits.append(time.monotonic() - before)
        assert waits[1] > 0.09
        assert waits[2] > 0.18
        assert waits[3] > 0.36
        store.acquire(BATCH, 0, "me", 0.01)
        store.advance(BATCH, "me", 1)
        time.sleep(0.1)
        assert store.lost(BATCH, 0.05)
        time.sleep(0.15)
        assert store.lost(BATCH, 0.05), "whoever acted on it began the count anew"

    def test_is_not_looked_for_while_a_long_queue_makes_all_of_them_late(self, store: RedisStore, job: str) -> None:
        late = Unit(JOB, 1)
        store.schedule([late], time.time() - 100)
        store.acquire(late, 0, "me", LONG)
        store.schedule([BATCH], time.time() - 190)
        assert store.lost(BATCH, 30) is None
        store.schedule([BATCH], time.time() - 240)
        assert store.lost(BATCH, 30)
        for seq in range(1, 80):  # messages that come in time
            store.acquire(late, seq, "me", LONG)
            store.advance(late, "me", seq + 1)
        store.acquire(BATCH, 0, "me", 0.01)
        store.advance(BATCH, "me", 1)
        store.schedule([BATCH], time.time() - 50)
        assert store.lost(BATCH, 30)

    def test_is_its_job_after_the_last_step_of_a_batch(self, store: RedisStore, job: str) -> None:
        store.acquire(BATCH, 7, "me", LONG)
        store.advance(BATCH, "me", 8, through=True)
        assert self.due(store) == [Unit(JOB)]
        store.acquire(Unit(JOB), 0, "me", LONG)
        store.advance(Unit(JOB), "me", 1, through=True)
        assert self.due(store) == []

    def test_is_nothing_after_the_last_step_of_a_lane(self, store: RedisStore, job: str) -> None:
        unit = Unit(JOB, 0, 1)
        store.schedule([unit], 1.0)
        store.acquire(unit, 0, "me", LONG)
        store.advance(unit, "me", 1, through=True)
        assert self.due(store) == []

    def test_of_a_job_that_is_gone_is_forgotten(self, store: RedisStore, job: str) -> None:
        for unit in (Unit("gone"), Unit("gone", 1), Unit("gone", 1, 2), Unit(JOB, 9)):
            store.schedule([unit], 1.0)
            assert store.lost(unit, 0) is None
            store.schedule([unit], 1.0)
            assert store.acquire(unit, 0, "me", LONG).state == "gone" or unit.lane is not None
        store.schedule([BATCH, Unit(JOB)], 1.0)
        store.delete(job)
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
        assert list(store.custom_ids(JOB, 0)) == [ids for ids, _ in pieces]
        assert list(store.bodies(JOB, 0)) == [body for _, body in pieces]
        first, second, third = ((start, body) for start, (_, body) in zip((0, 2, 3), pieces, strict=True))
        assert [store.piece_of(JOB, 0, place) for place in range(6)] == [first, first, second, third, third, third]
        assert store.piece_of(JOB, 1, 0) == (0, body_of("g"))
        assert [store.custom_id(JOB, 0, place) for place in range(6)] == ["a", "ü\u2028", *"cdef"]

    def test_may_be_large(self, store: RedisStore) -> None:
        text = "x" * 3_000_000
        make(store, job_record(batches=1), [batch_record()], Piece(0, ["a"], body_of(text)))
        assert list(store.bodies(JOB, 0)) == [body_of(text)]

    def test_take_less_room_than_they_have(self, store: RedisStore, redis_client: redis.Redis) -> None:
        store.stage(JOB, NONCE, [Piece(0, ["a"], body_of("all work and no play " * 10_000))])
        [key] = redis_client.keys("*body")
        stored = redis_client.lindex(key, 0)
        assert stored is not None
        assert len(stored) < 10_000

    def test_of_nothing_are_nothing(self, store: RedisStore, keys: Keys) -> None:
        assert list(store.outcomes("nobody", 0)) == []
        assert store.outcomes_of("nobody", 0, [0]) == {}
        assert store.eligible("nobody", 0, 1) == b""
        assert store.pieces("nobody", 0, 1, range(1000)) == store.pieces("nobody", 0, 1, [0]) == {}
        assert store.piece_of_results("nobody", 0, 1, 0) == b""
        assert store.index_part("nobody", 0) == b""
        assert keys() == set()

    def test_of_a_job_that_is_gone_say_so(self, store: RedisStore) -> None:
        for read in (store.bodies, store.custom_ids):
            with pytest.raises(JobNotFound, match="expired or was deleted"):
                next(read("nobody", 0))
        with pytest.raises(JobNotFound, match="expired or was deleted"):
            next(store.results("nobody", 0, 1))
        for lookup in (store.piece_of, store.custom_id):
            with pytest.raises(JobNotFound, match="expired or was deleted"):
                lookup("nobody", 0, 0)


#: What a download that has seen nothing leaves beside its rows.
NOTHING: dict[str, Any] = {"pieces": b"", "eligible_places": b""}


class TestResults:
    @pytest.fixture(autouse=True)
    def _leased(self, store: RedisStore, job: str) -> None:
        store.acquire(BATCH, 0, "me", LONG)

    def published(self, store: RedisStore) -> list[bytes] | None:
        batch = store.batch(JOB, 0)
        assert batch is not None
        return None if batch.published is None else list(store.results(JOB, 0, batch.published))

    def test_are_seen_once_they_are_published_and_not_before(self, store: RedisStore) -> None:
        store.write_results(JOB, 0, 1, iter([b"row\nrow", b"row"]))
        assert self.published(store) is None
        assert store.publish(BATCH, "me", 1, **NOTHING, state="fetched", counts={"succeeded": 2})
        assert self.published(store) == [b"row\nrow", b"row"]
        assert store.batch(JOB, 0) == batch_record(state="fetched", counts={"succeeded": 2}, published=1)

    def test_of_an_attempt_that_broke_off_do_not_mix_with_the_next(self, store: RedisStore) -> None:
        def broken() -> Iterator[bytes]:
            yield b"half"
            raise ConnectionError

        with pytest.raises(ConnectionError):
            store.write_results(JOB, 0, 1, broken())
        store.write_results(JOB, 0, 2, [b"whole"])
        store.publish(BATCH, "me", 2, **NOTHING)
        assert self.published(store) == [b"whole"]

    def test_are_not_published_by_somebody_whose_lease_was_taken_over(self, store: RedisStore, keys: Keys) -> None:
        before = keys()
        store.write_results(JOB, 0, 1, [b"mine"])
        assert not store.publish(BATCH, "somebody else", 1, **NOTHING, state="fetched")
        assert store.batch(JOB, 0) == batch_record()
        assert keys() == before

    def test_are_found_by_the_place_of_their_request(self, store: RedisStore) -> None:
        store.write_results(JOB, 0, 1, [b"first", b"second"])
        pieces = array("I", [1, 0, 2**32 - 1]).tobytes()
        store.publish(BATCH, "me", 1, pieces=pieces, eligible_places=b"")
        assert store.pieces(JOB, 0, 1, [2, 0, 1, 3]) == {0: 1, 1: 0}
        assert store.pieces(JOB, 0, 1, range(1000)) == {0: 1, 1: 0}, "and likewise of many"
        assert [store.piece_of_results(JOB, 0, 1, number) for number in range(3)] == [b"first", b"second", b""]

    def test_of_earlier_rounds_are_kept(self, store: RedisStore) -> None:
        for attempt in range(1, 5):
            store.write_results(JOB, 0, attempt, [b"%d" % attempt])
        assert store.publish(BATCH, "me", 2, **NOTHING)
        assert store.publish(BATCH, "me", 4, keep=[2], **NOTHING)
        assert [list(store.results(JOB, 0, attempt)) for attempt in (2, 4)] == [[b"2"], [b"4"]]
        with pytest.raises(ResultsMissing, match="batch:0:rows:3 is gone"):
            next(store.results(JOB, 0, 3))

    def test_keep_what_deserves_another_chance(self, store: RedisStore) -> None:
        store.publish(BATCH, "me", 1, pieces=b"", eligible_places=b"\x00\x01\xff\n")
        assert store.eligible(JOB, 0, 1) == b"\x00\x01\xff\n"
        assert store.eligible(JOB, 0, 2) == store.eligible(JOB, 1, 1) == b""

    def test_that_broke_off_or_will_not_be_published_leave_nothing(self, store: RedisStore, keys: Keys) -> None:
        def broken() -> Iterator[bytes]:
            yield b"half"
            yield b"more"
            raise ConnectionError

        before = keys()
        with pytest.raises(ConnectionError):
            store.write_results(JOB, 0, 1, broken())
        assert keys() == before
        store.write_results(JOB, 0, 2, [b"short"])
        assert keys() != before
        store.discard_results(JOB, 0, 2)
        assert keys() == before

    def test_come_in_their_order_however_many_pieces_there_are(self, store: RedisStore) -> None:
        written = [b"%d" % n * (n % 7 * 1000 + 1) for n in range(200)]
        store.write_results(JOB, 0, 1, iter(written))
        assert list(store.results(JOB, 0, 1)) == written

    def test_may_be_none_at_all(self, store: RedisStore) -> None:
        store.write_results(JOB, 0, 1, [])
        assert store.publish(BATCH, "me", 1, **NOTHING)
        assert self.published(store) == []

    def test_do_not_expire_once_published(self, store: RedisStore, redis_client: redis.Redis) -> None:
        store.keep(JOB)
        store.write_results(JOB, 0, 1, [b"row"])
        store.publish(BATCH, "me", 1, **NOTHING)
        assert {redis_client.ttl(key) for key in redis_client.keys("*{*")} == {-1}

    def test_that_nobody_published_expire_by_themselves(self, store: RedisStore, redis_client: redis.Redis) -> None:
        store.keep(JOB)
        before = set(redis_client.keys("*"))
        store.write_results(JOB, 0, 1, [b"row"])
        [key] = set(redis_client.keys("*")) - before
        assert 0 < redis_client.ttl(key) <= 86_400


class TestOutcomes:
    def test_are_stored_once(self, store: RedisStore, job: str) -> None:
        assert store.save_outcome(LANE, 1, b"first")
        assert not store.save_outcome(Unit(job, 0, 3), 1, b"second")
        assert store.outcomes_of(job, 0, [0, 1]) == {1: b"first"}
        assert list(store.outcomes(job, 0)) == [(1, b"first")]
        assert list(store.outcomes(job, 1)) == []

    def test_are_stored_once_among_many(self, store: RedisStore, job: str) -> None:
        with ThreadPoolExecutor(8) as pool:
            stored = list(pool.map(lambda n: store.save_outcome(Unit(job, 0, n % 3), n % 5, b"%d" % n), range(40)))
        assert sum(stored) == len(list(store.outcomes(job, 0))) == 5

    def test_come_back_each_with_its_place(self, store: RedisStore, job: str) -> None:
        for place in range(700):
            store.save_outcome(LANE, place, b"%d" % place)
        assert sorted(store.outcomes(job, 0)) == [(place, b"%d" % place) for place in range(700)]


class TestAdmitting:
    @pytest.fixture
    def five(self, store: RedisStore) -> RedisStore:
        """A job of five batches, two of them begun."""
        record = job_record(batches=5, state="running", admitted=2)
        make(store, record, [batch_record() for _ in range(5)])
        return store

    def test_gives_a_place_once_for_each_batch_that_is_through(self, five: RedisStore) -> None:
        assert five.admit(JOB, 1) == 2
        assert five.admit(JOB, 1) is None
        assert five.admit(JOB, 0) == 3
        assert five.overdue(time.time() + 10, 10) == [Unit(JOB, 2), Unit(JOB, 3)]
        job, batch = five.job(JOB), five.batch(JOB, 1)
        assert job is not None
        assert batch is not None
        assert (job.admitted, batch.made_room) == (4, True)

    def test_ends_with_the_last_batch(self, five: RedisStore) -> None:
        assert [five.admit(JOB, number) for number in range(5)] == [2, 3, 4, None, None]
        assert len(five.overdue(time.time() + 10, 10)) == 3

    def test_gives_no_place_twice_among_many(self, five: RedisStore) -> None:
        with ThreadPoolExecutor(8) as pool:
            given = list(pool.map(lambda n: five.admit(JOB, n % 5), range(40)))
        assert sorted(number for number in given if number is not None) == [2, 3, 4]

    def test_gives_nothing_for_a_job_that_is_gone(self, store: RedisStore, keys: Keys) -> None:
        assert store.admit("nobody", 0) is None
        assert keys() == set()


class TestCountingWhatIsDone:
    def test_counts_each_batch_once(self, store: RedisStore, job: str) -> None:
        for number in (0, 1):
            store.acquire(Unit(job, number), 0, "me", LONG)
            store.acquire(Unit(job, number, 1), 0, "me", LONG)
        store.acquire(Unit(job), 0, "me", LONG)
        store.record(Unit(job, 0), "me", done=False, looks=3)
        store.record(Unit(job, 0, 1), "me", done=True)  # a lane, not a batch
        assert store.job(job).through == 0  # type: ignore[union-attr]
        for _ in range(2):
            store.record(Unit(job, 0), "me", done=True)
        assert not store.record(Unit(job, 1), "you", done=True)
        assert store.job(job).through == 1  # type: ignore[union-attr]
        store.record(Unit(job, 1), "me", skipped=0, done=True)
        assert store.job(job).through == 2  # type: ignore[union-attr]

    def test_tells_one_of_those_that_end_at_once_that_it_is_the_last(self, store: RedisStore) -> None:
        make(store, job_record(batches=5, state="running"), [batch_record() for _ in range(5)])
        units = [Unit(JOB, number) for number in range(5)]
        for unit in units:
            store.acquire(unit, 0, "me", LONG)
        with ThreadPoolExecutor(5) as pool:
            assert sorted(pool.map(lambda unit: store.end_batch(unit, "me", skipped=0) or 0, units)) == [1, 2, 3, 4, 5]
        assert store.end_batch(units[0], "me") == 5, "once more"
        assert store.end_batch(units[0], "you") is None

    def test_brings_no_job_back(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        store.acquire(BATCH, 0, "me", LONG)
        redis_client.delete(f"claude_batch:{{{job}}}:job")
        assert store.record(BATCH, "me", done=True)
        assert store.end_batch(BATCH, "me") == 0
        assert store.job(job) is None


class TestTheLifeOfAJobsKeys:
    def live(self, store: RedisStore, *, attempts: int = 1) -> None:
        """Everything a job may write, with the last attempt published."""
        store.acquire(Unit(JOB), 0, "me", LONG)
        store.update_job(JOB, state="running")
        for number in range(2):
            unit = Unit(JOB, number)
            store.acquire(unit, 0, "me", LONG)
            lane = Unit(JOB, number, 1)
            store.acquire(lane, 0, "me", LONG)
            store.grant(JOB, number, 1, 10)
            store.reserve(unit, 0, 1, 2, 100)
            store.enter(JOB, number, range(4))
            for place in range(3):
                assert take(store, lane, place).state == "taken"
            store.save_outcome(lane, 0, b"x")
            store.put_back(lane, 1, 0.0, 9)
            store.announce(JOB, number, [0])
            for attempt in range(1, attempts + 1):
                store.record(unit, "me", attempt=attempt)
                store.write_results(JOB, number, attempt, [b"row"])
            store.publish(unit, "me", attempts, **NOTHING)
        for _ in range(201):
            store.note(JOB, HistoryEvent(at=datetime.now(timezone.utc), event="x", batch=0, text="", details={}))

    def ttls(self, client: redis.Redis) -> set[int]:
        return {client.ttl(key) for key in client.keys("*") if b"{" in key}

    def test_begins_with_an_expiry(self, job: str, redis_client: redis.Redis) -> None:
        assert all(LONG - 30 < ttl <= LONG for ttl in self.ttls(redis_client))

    def test_goes_on_while_it_runs(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        store.keep(job)
        self.live(store)
        assert self.ttls(redis_client) == {-1}

    def test_ends_after_its_end(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        store.keep(job)
        self.live(store)
        store.expire(job, 100.9)
        assert all(70 < ttl <= 100 for ttl in self.ttls(redis_client))

    def test_lasts_a_second_at_least(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        store.expire(job, 0.2)
        assert all(ttl <= 1 for ttl in self.ttls(redis_client))

    def test_leaves_nothing_behind_when_it_expires(self, store: RedisStore, job: str, keys: Keys) -> None:
        self.live(store)
        store.expire(job, 1)
        deadline = time.monotonic() + 10
        while keys() and time.monotonic() < deadline:
            time.sleep(0.05)
            store.forget_expired()
        assert keys() == set()
        assert store.job(job) is None

    def test_leaves_nothing_behind_when_it_is_deleted(self, store: RedisStore, job: str, keys: Keys) -> None:
        self.live(store)
        store.delete(job)
        assert keys() == set()

    def test_leaves_nothing_behind_when_staging_failed(self, store: RedisStore, keys: Keys) -> None:
        for number in (0, 0, 1, 2):
            store.stage(JOB, NONCE, [Piece(number, ["a"], body_of("a"))])
        store.discard(JOB, NONCE, 3)
        assert keys() == set()
        store.discard(JOB, NONCE, 0)

    def test_are_those_of_whoever_made_it_first(self, store: RedisStore, keys: Keys) -> None:
        store.stage(JOB, "second", [Piece(0, ["b"], body_of("b"))])
        store.stage_index(JOB, "second", [(0, b"second")])
        assert make(store, job_record(nonce="first", batches=1), [batch_record()])
        made = keys()
        assert not store.create_job(JOB, job_record(nonce="second", batches=1), [batch_record()], LONG)
        assert store.index_part(JOB, 7) == b"index"
        assert list(store.custom_ids(JOB, 0)) == [["a"]]
        store.discard(JOB, "second", 1)
        assert keys() == {key for key in made if "second" not in key}

    def test_are_all_there_or_it_is_not_made(self, store: RedisStore, redis_client: redis.Redis, keys: Keys) -> None:
        """What was staged expires when the last request comes too late."""
        record = job_record(batches=2)
        batches = [batch_record(), batch_record()]
        for part in ("batch:0:body", "1:sizes", "index"):
            store.stage(JOB, NONCE, [Piece(n, ["a"], body_of("a")) for n in range(2)])
            store.stage_index(JOB, NONCE, [(0, b"index")])
            [gone] = redis_client.keys(f"*staging*{part.removeprefix('batch:')}")
            redis_client.delete(gone)
            with pytest.raises(JobNotFound, match="has expired: its requests took longer than 24 hours"):
                store.create_job(JOB, record, batches, LONG)
            assert store.job(JOB) is None
            store.discard(JOB, NONCE, 2)
            assert keys() == set()

    def test_that_was_never_made_is_a_day_at_most(self, store: RedisStore, redis_client: redis.Redis) -> None:
        store.stage(JOB, NONCE, [Piece(0, ["a"], body_of("a"))])
        assert all(0 < ttl <= 86_400 for ttl in self.ttls(redis_client))

    def test_of_others_is_left_alone(self, store: RedisStore, job: str, keys: Keys) -> None:
        before = keys()
        make(store, job_record(batches=1), [batch_record()], job_id="job-2")
        store.delete("job-2")
        store.delete("job-3")
        assert keys() == before

    def test_leaves_no_earlier_attempt_behind_when_it_is_deleted(self, store: RedisStore, job: str, keys: Keys) -> None:
        self.live(store, attempts=3)
        store.delete(job)
        assert keys() == set()

    def test_ends_also_for_what_a_step_writes_when_it_is_over(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        """A job is revoked while a download or a Messages call of it is under way."""
        store.keep(job)
        store.acquire(BATCH, 0, "me", LONG)
        store.record(BATCH, "me", attempt=1)
        store.expire(job, 100)
        store.write_results(job, 0, 1, [b"row"])
        assert store.publish(BATCH, "me", 1, **NOTHING)
        store.save_outcome(LANE, 0, b"x")
        assert all(0 < ttl <= 100 for ttl in self.ttls(redis_client))

    def test_ends_also_for_what_the_last_step_of_a_batch_writes_when_it_is_over(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        """Likewise, while requests go through the Messages API."""
        store.keep(job)
        store.update_job(job, state="running")
        store.acquire(LANE, 0, "me", LONG)
        store.enter(job, 0, [0, 1])
        assert take(store, LANE, 0).state == take(store, LANE, 1).state == "taken"
        store.update_job(job, state="revoked")
        store.expire(job, 100)
        store.put_back(LANE, 0, 0.0, 9)
        store.save_outcome(LANE, 1, b"x", spent=1)
        store.announce(job, 0, [1])
        store.enter(job, 0, [2])
        store.enter(job, 1, [0])
        assert take(store, LANE, 2).state == "canceled"
        store.reserve(BATCH, 0, 1, 2, 100)
        ttls = {key.decode(): redis_client.ttl(key) for key in redis_client.keys("*{*")}
        assert [key for key, ttl in ttls.items() if not 0 < ttl <= 100] == []

    def test_is_remembered_when_somebody_deleted_it(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        store.delete("job-2")
        store.delete(job, remember=True)
        assert (store.was_deleted("job-2"), store.was_deleted(job)) == (False, True)
        [key] = redis_client.keys(f"*{job}*")
        assert 0 < redis_client.ttl(key) <= 86_400

    def test_ends_for_an_attempt_whose_publish_died_half_way(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        store.acquire(BATCH, 0, "me", LONG)
        store.record(BATCH, "me", attempt=1)
        store.write_results(job, 0, 1, [b"row"])
        # What publish does first, and then the worker was killed; a second attempt follows.
        [rows] = redis_client.keys("*rows*")
        redis_client.persist(rows)
        store.record(BATCH, "me", attempt=2)
        store.write_results(job, 0, 2, [b"row"])
        store.publish(BATCH, "me", 2, **NOTHING)
        store.expire(job, 100)
        assert -1 not in self.ttls(redis_client)


CALLS: dict[str, Callable[[RedisStore], Any]] = {
    "create_job": lambda s: s.create_job(JOB, job_record(), [batch_record()], LONG),
    "job": lambda s: s.job(JOB),
    "update_job": lambda s: s.update_job(JOB, state="running"),
    "was_deleted": lambda s: s.was_deleted(JOB),
    "keep": lambda s: s.keep(JOB),
    "expire": lambda s: s.expire(JOB, LONG),
    "delete": lambda s: s.delete(JOB),
    "batches": lambda s: s.batches(JOB),
    "batch_records": lambda s: s.batch_records(JOB),
    "replace_batch": lambda s: s.replace_batch(JOB, 0, batch_record(), 1),
    "missing_keys": lambda s: s.missing_keys(JOB, 0, ["body"]),
    "restore_results": lambda s: s.restore_results(JOB, 0, 1, ":copy", pieces=b"", eligible_places=b""),
    "count_outcomes": lambda s: s.count_outcomes(JOB, 0),
    "accounted": lambda s: s.accounted(JOB, 0),
    "awaited": lambda s: s.awaited([BATCH]),
    "sample_jobs": lambda s: s.sample_jobs(3),
    "list_jobs_anew": lambda s: s.list_jobs_anew(),
    "states": lambda s: s.states([JOB]),
    "first": lambda s: s.first("x", LONG),
    "ask_to_restore": lambda s: s.ask_to_restore(JOB),
    "to_restore": lambda s: s.to_restore(3),
    "batch": lambda s: s.batch(JOB, 0),
    "acquire": lambda s: s.acquire(BATCH, 0, "me", LONG),
    "renew": lambda s: s.renew(BATCH, "me", LONG),
    "record": lambda s: s.record(BATCH, "me", state="lost"),
    "end_batch": lambda s: s.end_batch(BATCH, "me"),
    "advance": lambda s: s.advance(BATCH, "me", 1),
    "discard": lambda s: s.discard(JOB, NONCE, 1),
    "settle": lambda s: s.settle(JOB, "account", "x"),
    "schedule": lambda s: s.schedule([BATCH], 1.0),
    "unschedule": lambda s: s.unschedule(BATCH),
    "overdue": lambda s: s.overdue(1.0, 10),
    "lost": lambda s: s.lost(BATCH, 1.0),
    "position": lambda s: s.position(BATCH),
    "wait": lambda s: s.wait(BATCH, "me", 1, 5.0),
    "due": lambda s: s.due(10),
    "wake": lambda s: s.wake([BATCH]),
    "wait_again": lambda s: s.wait_again([BATCH], 5.0),
    "postpone": lambda s: s.postpone({BATCH: 2.0}),
    "in_flight": lambda s: s.in_flight("account"),
    "flights": lambda s: s.flights("account"),
    "hold_listing": lambda s: s.hold_listing("account", "me", LONG),
    "note_listing": lambda s: s.note_listing("account", failed=True),
    "end_listing": lambda s: s.end_listing("account", "me"),
    "add_page": lambda s: s.add_page("account", {}, taken_at=1.0, since=1.0, first=True),
    "listed": lambda s: s.listed("account", "msgbatch_1"),
    "hold_back": lambda s: s.hold_back("account", 1.0),
    "held_back": lambda s: s.held_back("account"),
    "note_end": lambda s: s.note_end("account", 1, 1.0),
    "past": lambda s: s.past("account"),
    "resume": lambda s: s.resume(JOB, {"state": "running"}, {}),
    "grant": lambda s: s.grant(JOB, 0, 1, 1),
    "claim": lambda s: s.claim(BATCH, "me", "msgbatch_1"),
    "release": lambda s: s.release(BATCH, "me", "msgbatch_1"),
    "holder": lambda s: s.holder("msgbatch_1"),
    "stage": lambda s: s.stage(JOB, NONCE, [Piece(0, ["a"], b"{}")]),
    "bodies": lambda s: list(s.bodies(JOB, 0)),
    "custom_ids": lambda s: list(s.custom_ids(JOB, 0)),
    "piece_of": lambda s: s.piece_of(JOB, 0, 0),
    "write_results": lambda s: s.write_results(JOB, 0, 1, [b"row"]),
    "publish": lambda s: s.publish(BATCH, "me", 1, **NOTHING),
    "discard_results": lambda s: s.discard_results(JOB, 0, 1),
    "pieces": lambda s: s.pieces(JOB, 0, 1, [0]),
    "piece_of_results": lambda s: s.piece_of_results(JOB, 0, 1, 0),
    "stage_index": lambda s: s.stage_index(JOB, NONCE, [(0, b"x")]),
    "index_part": lambda s: s.index_part(JOB, 0),
    "custom_id": lambda s: s.custom_id(JOB, 0, 0),
    "admit": lambda s: s.admit(JOB, 0),
    "results": lambda s: list(s.results(JOB, 0, 1)),
    "eligible": lambda s: s.eligible(JOB, 0, 1),
    "lane": lambda s: s.lane(LANE),
    "reserve": lambda s: s.reserve(BATCH, 0, 1, 2, 3),
    "settle_cost": lambda s: s.settle_cost(BATCH, 0, 1),
    "enter": lambda s: s.enter(JOB, 0, [0]),
    "to_send": lambda s: s.to_send(JOB, 0, 1),
    "under_way": lambda s: s.under_way(JOB, 0),
    "take": lambda s: take(s, LANE, 0),
    "confirm": lambda s: s.confirm(LANE, "me", 0, LONG),
    "sending": lambda s: s.sending(LANE, {0: "pace"}, LONG),
    "left_behind": lambda s: s.left_behind(LANE),
    "answered": lambda s: s.answered(LANE, 0, "pace", "1 1 1", limits={}, refused=False, hold=None, cap=1),
    "refusals": lambda s: s.refusals(LANE, 0),
    "put_back": lambda s: s.put_back(LANE, 0, 1.0, 1),
    "drop": lambda s: s.drop(JOB, 0),
    "announced": lambda s: s.announced(JOB, 0),
    "announce": lambda s: s.announce(JOB, 0, [0]),
    "save_outcome": lambda s: s.save_outcome(LANE, 0, b"x"),
    "outcomes": lambda s: list(s.outcomes(JOB, 0)),
    "outcomes_of": lambda s: s.outcomes_of(JOB, 0, [0]),
    "job_ids": lambda s: list(s.job_ids()),
    "check_schema": lambda s: s.check_schema(),
    "forget_expired": lambda s: s.forget_expired(),
    "note": lambda s: s.note(JOB, HistoryEvent(at=datetime.now(timezone.utc), event="x", batch=0, text="", details={})),
    "history": lambda s: s.history(JOB),
    "glance_at_jobs": lambda s: list(s.glance_at_jobs()),
    "glance_at_batches": lambda s: list(s.glance_at_batches(JOB, 1)),
    "late": lambda s: list(s.late(1.0)),
    "begin_census": lambda s: s.begin_census(1.0),
    "keep_census": lambda s: s.keep_census(b"[]", 1.0),
    "census": lambda s: s.census(),
}


def at_once(port: int) -> RedisStore:
    """A store whose client does not try a second time."""
    client = redis.Redis(port=port, password="SECRET", retry=Retry(NoBackoff(), 0))
    return RedisStore(client, f"127.0.0.1:{port}")


class TestAServerThatIsStopped:
    def test_is_met_by_every_method(self) -> None:
        public = {name for name, _ in inspect.getmembers(Store, inspect.isfunction) if not name.startswith("_")}
        assert public - {"now"} == set(CALLS)  # the clock goes on without it

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
            store.write_results(JOB, 0, 1, [b"1", b"2", b"3"])
            readers: list[Iterator[Any]] = [store.bodies(JOB, 0), store.custom_ids(JOB, 0), store.results(JOB, 0, 1)]
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
            store.acquire(BATCH, 5, "me", LONG)
            server.stop()
            server.start()
            assert store.acquire(BATCH, 5, "you", LONG).state == "busy"
            assert store.record(BATCH, "me", state="creating")
            assert list(store.bodies(JOB, 0)) == [body_of("a")]

    def test_that_refuses_to_write_is_unavailable_too(self, redis_server: RedisServer) -> None:
        client = redis_server.client()
        client.flushall()
        store = RedisStore(client, "here")
        client.config_set("maxmemory", "1mb")
        try:
            with pytest.raises(StoreUnavailable):
                store.write_results(JOB, 0, 1, (os.urandom(1_000_000) for _ in range(100)))
        finally:
            client.config_set("maxmemory", "0")

    def test_does_not_swallow_what_the_reader_of_rows_raises(self, store: RedisStore) -> None:
        def failing() -> Iterator[bytes]:
            yield b"row"
            raise redis.ConnectionError("the caller's own")

        with pytest.raises(redis.ConnectionError, match="the caller's own"):
            store.write_results(JOB, 0, 1, failing())
        with pytest.raises(redis.ConnectionError, match="the caller's own"):
            store.stage(JOB, NONCE, (Piece(0, ["a"], row) for row in failing()))


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
        assert open_store_at(url).where == where

    def test_serves_many_threads(self, redis_url: str) -> None:
        store = open_store_at(redis_url)
        make(store, job_record(batches=1), [batch_record()])
        barrier = threading.Barrier(8)

        def work(number: int) -> int:
            barrier.wait()
            return sum(store.job(JOB) is not None for _ in range(20)) + store.save_outcome(
                Unit(JOB, 0, number), number, b"x"
            )

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(8))) == [21] * 8
