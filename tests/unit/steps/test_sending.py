"""Requests on their way through the Messages API, as the store lets them be sent; and what a job may spend."""

from __future__ import annotations

import itertools
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from hypothesis import given, strategies as st

from claude_batch_tasks import rules
from claude_batch_tasks.records import BatchRecord, JobRecord, Need, Taken, Unit
from claude_batch_tasks.store.redis import RedisStore

JOB = "job-1"
BATCH = Unit(JOB, 0)
LANE, OTHER_LANE = Unit(JOB, 0, 0), Unit(JOB, 0, 1)
PACE = "a1b2:messages:claude-x"
MANY = 600

_numbers = itertools.count()


def make(store: RedisStore, job_id: str = JOB) -> str:
    """A job of two batches, all of whose requests are to be sent."""
    record = JobRecord(nonce="n", requests=2 * MANY, batches=2, submitted_at=1.0, state="running")
    batches = [BatchRecord(first=first, count=MANY, body_bytes=9) for first in (0, MANY)]
    assert store.jobs.create_job(job_id, record, batches, 600, staged=False)
    for number in range(2):
        store.message_queue.add_requests(job_id, number, range(MANY))
    for lane in range(12):
        store.leases.acquire_lease(Unit(job_id, 0, lane), 0, "me", 600)
    return job_id


@pytest.fixture
def job(store: RedisStore) -> str:
    return make(store)


def take(
    store: RedisStore,
    place: int = 0,
    lane: Unit = LANE,
    *,
    pace: str = PACE,
    tokens: int = 10,
    least: int | None = 1,
    most: int | None = 2,
    ttl: float = 600,
    cap: int = 64,
    limit: int | None = None,
    total: int | None = None,
    owner: str = "me",
) -> Taken:
    return store.message_queue.take_request(
        lane, owner, place, pace, Need(tokens, least, most), ttl, cap=cap, limit=limit, total=total
    )


def answered(store: RedisStore, place: int, taken: Taken, **own: Any) -> None:
    """An answer to a call of LANE."""
    known: dict[str, Any] = {"limits": {}, "refused": False, "hold": None, "cap": 64}
    store.message_queue.record_answer(LANE, place, own.pop("pace", PACE), taken.mark, **{**known, **own})


def fill(store: RedisStore, places: itertools.count[int], **own: Any) -> dict[int, Taken]:
    """Take requests until no more may be in flight: what was taken."""
    found = {}
    while True:
        place = next(places)
        if (taken := take(store, place, **own)).state == "wait":
            return found
        found[place] = taken


def money(client: redis.Redis, job_id: str = JOB, pool: str = "") -> tuple[int, int]:
    """What the job has spent and has reserved."""
    spent, reserved = client.hmget(f"claude_batch:{{{job_id}}}:money", f"{pool}spent", f"{pool}reserved")
    return int(spent or 0), int(reserved or 0)


class TestARequestThatIsTaken:
    def test_is_gone_for_others(self, store: RedisStore, job: str) -> None:
        assert take(store, 0).state == "taken"
        assert take(store, 0, OTHER_LANE) == Taken("gone")
        assert take(store, 0) == Taken("gone")

    def test_was_entered_and_is_of_a_job_that_is_there(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        assert take(store, MANY) == Taken("gone")
        redis_client.delete(f"claude_batch:{{{job}}}:job")
        assert take(store, 0) == Taken("gone")

    def test_is_sent_by_whoever_has_the_lane(self, store: RedisStore, job: str) -> None:
        assert take(store, 0, owner="you") == take(store, 0, Unit(job, 0, 99)) == Taken("taken_over")
        store.leases.acquire_lease(LANE, 1, "you", 600)
        assert take(store, 0) == Taken("taken_over")
        assert take(store, 0, owner="you").state == "taken"

    def test_may_go_out_while_it_is_still_the_lanes(self, store: RedisStore, job: str) -> None:
        """The last question before its last byte: whoever slept meanwhile has lost it."""
        take(store, 0)
        assert store.message_queue.confirm_request(LANE, "me", 0, 600)
        assert not store.message_queue.confirm_request(LANE, "me", 1, 600), "it was never taken"
        assert not store.message_queue.confirm_request(OTHER_LANE, "me", 0, 600), "another lane has it"
        store.message_queue.save_outcome(LANE, 0, b"lost")
        assert not store.message_queue.confirm_request(LANE, "me", 0, 600), "somebody has dealt with it"
        take(store, 2)
        store.leases.acquire_lease(LANE, 1, "you", 600)
        assert not store.message_queue.confirm_request(LANE, "me", 2, 600), "somebody has taken the lane over"

    def test_renews_the_lease_when_it_goes_out(self, store: RedisStore, job: str) -> None:
        lane = Unit(job, 0, 20)
        store.leases.acquire_lease(lane, 0, "me", 0.2)
        take(store, 0, lane)
        assert store.message_queue.confirm_request(lane, "me", 0, 600)
        time.sleep(0.3)
        assert store.leases.acquire_lease(lane, 0, "you", 600).state == "busy"

    def test_has_no_outcome(self, store: RedisStore, job: str) -> None:
        store.message_queue.save_outcome(LANE, 0, b"x")
        assert store.message_queue.count_unfinished(job, 0) == MANY - 1
        store.message_queue.add_requests(job, 0, [0])
        assert take(store, 0) == Taken("gone")

    def test_is_no_other_lanes_too(self, store: RedisStore, job: str) -> None:
        def run(number: int) -> list[int]:
            lane, mine = Unit(job, 0, number), []
            while places := store.message_queue.list_due(job, 0, 16)[0]:
                for place in places:
                    if (taken := take(store, place, lane, cap=MANY)).state == "taken":
                        mine.append(place)
                        store.message_queue.record_answer(
                            lane, place, PACE, taken.mark, limits={}, refused=False, hold=None, cap=MANY
                        )
            return mine

        with ThreadPoolExecutor(rules.SENDERS) as pool:
            lanes = list(pool.map(run, range(rules.SENDERS)))
        assert sorted(itertools.chain(*lanes)) == list(range(MANY))
        assert [
            sorted(store.message_queue.list_abandoned(Unit(job, 0, number))) for number in range(rules.SENDERS)
        ] == [sorted(places) for places in lanes]

    @pytest.mark.parametrize(
        ("change", "state"),
        [
            ({"stopped": "no credit"}, "stopped"),
            ({"cancel_requested": True}, "canceled"),
            ({"stopped": "no credit", "cancel_requested": True}, "stopped"),
            ({"state": "revoked"}, "canceled"),
        ],
    )
    def test_is_of_a_job_that_may_go_on(self, store: RedisStore, job: str, change: dict[str, Any], state: str) -> None:
        store.jobs.update_job(job, **change)
        assert take(store, 0) == Taken(state)  # type: ignore[arg-type]
        assert store.message_queue.list_abandoned(LANE) == []
        store.jobs.update_job(job, stopped=None, cancel_requested=False, state="running")
        assert take(store, 0).state == "taken"

    @pytest.mark.parametrize("limits", [{"limit": 100}, {"total": 100}])
    def test_has_a_price_where_its_cost_is_limited(self, store: RedisStore, job: str, limits: dict[str, int]) -> None:
        assert take(store, 0, least=None, most=None, **limits) == Taken("price")
        assert take(store, 0, least=None, most=None).state == "taken"

    def test_is_under_way_until_it_has_its_outcome(self, store: RedisStore, job: str) -> None:
        take(store, 0)
        assert store.message_queue.count_unfinished(job, 0) == MANY
        store.message_queue.save_outcome(LANE, 0, b"x")
        assert store.message_queue.count_unfinished(job, 0) == MANY - 1
        assert store.message_queue.count_unfinished(job, 1) == MANY
        assert store.message_queue.count_unfinished("nobody", 0) == 0

    def test_is_left_behind_by_its_lane_alone(self, store: RedisStore, job: str) -> None:
        for place, number in ((3, 1), (4, 11), (5, 1), (6, 1), (7, 1)):
            take(store, place, Unit(job, 0, number), limit=100)
        store.message_queue.save_outcome(OTHER_LANE, 5, b"x")
        store.message_queue.put_back(OTHER_LANE, 6, 0.0, 9)
        assert sorted(store.message_queue.list_abandoned(OTHER_LANE)) == [3, 7]
        assert store.message_queue.list_abandoned(Unit(job, 0, 11)) == [4]
        assert store.message_queue.list_abandoned(LANE) == store.message_queue.list_abandoned(Unit(job, 1, 1)) == []


class TestTheCallsInFlight:
    def test_are_few_at_first_and_never_more_than_the_cap(self, store: RedisStore, job: str) -> None:
        places = itertools.count()
        assert len(fill(store, places, cap=5)) == 5
        assert len(fill(store, places)) == rules.FIRST_IN_FLIGHT - 5
        assert take(store, next(places)) == Taken("wait", 0.25)

    def test_of_other_paces_are_their_own(self, store: RedisStore, job: str) -> None:
        places = itertools.count()
        fill(store, places)
        assert take(store, next(places), pace="a1b2:messages:claude-y").state == "taken"

    def test_of_all_jobs_are_counted_together(self, store: RedisStore, job: str) -> None:
        make(store, "job-2")
        fill(store, itertools.count())
        assert take(store, 0, Unit("job-2", 0, 0)).state == "wait"

    def test_make_room_as_they_are_answered(self, store: RedisStore, job: str) -> None:
        places = itertools.count()
        [(place, taken)] = fill(store, places, cap=1).items()
        answered(store, place, taken, cap=1)
        assert len(fill(store, places, cap=1)) == 1

    def test_count_no_longer_when_nobody_says_that_they_still_are(self, store: RedisStore, job: str) -> None:
        take(store, 0, ttl=1.0, cap=2)
        take(store, 1, ttl=1.0, cap=2)
        store.message_queue.renew_calls(LANE, {0: PACE, 5: PACE}, 600)  # 5 is not in flight, and does not come to be
        assert take(store, 2, cap=2).state == "wait"
        time.sleep(1.05)
        assert len(fill(store, itertools.count(3), cap=2)) == 1
        assert store.message_queue.list_abandoned(LANE)[:2] == [0, 1], "whether they are answered or not"

    def test_double_until_a_refusal_halves_them_and_then_grow_one_by_one(self, store: RedisStore, job: str) -> None:
        places, first = itertools.count(), rules.FIRST_IN_FLIGHT
        for place, taken in fill(store, places).items():
            answered(store, place, taken)
        taken_now = fill(store, places)
        assert len(taken_now) == 2 * first
        for place, taken in taken_now.items():  # refused together, so halved once
            answered(store, place, taken, refused=True)
        for expected in (first, first, first + 1):
            taken_now = fill(store, places)
            assert len(taken_now) == expected
            for place, taken in taken_now.items():
                answered(store, place, taken)

    def test_are_one_at_least(self, store: RedisStore, job: str) -> None:
        answered(store, 0, take(store, 0), cap=2)
        answered(store, 1, take(store, 1), refused=True)
        time.sleep(1.05)
        answered(store, 2, take(store, 2), refused=True)
        held = take(store, 3)
        assert (held.state, 1 < held.seconds <= 2) == ("wait", True), "two in a row: a pause as well"
        time.sleep(2.05)
        assert len(fill(store, itertools.count(3))) == 1

    def test_pause_only_where_nothing_comes_through_in_between(self, store: RedisStore, job: str) -> None:
        for place, refused in enumerate((True, False, True)):
            answered(store, place, take(store, place), refused=refused)
            time.sleep(1.05)
        assert take(store, 3).state == "taken"

    def test_grow_up_to_the_cap(self, store: RedisStore, job: str) -> None:
        places = itertools.count()
        for _ in range(2):
            for place, taken in fill(store, places, cap=10).items():
                answered(store, place, taken, cap=10)
        assert len(fill(store, places)) == 10

    def test_are_forgotten_in_an_hour(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        for place in range(2):
            taken = take(store, place)
            ttls = [redis_client.ttl(key) for key in redis_client.keys("claude_batch:pace:*")]
            assert [3500 < ttl <= 3600 for ttl in ttls] == [True] * 2
            answered(store, place, taken, limits={"requests": (50, 9)}, output=7)


class TestAPace:
    """What calls have in common that are limited together."""

    def test_is_held_back_for_as_long_as_an_answer_asks(self, store: RedisStore, job: str) -> None:
        first, second = take(store, 0), take(store, 1)
        answered(store, 0, first, hold=1.0)
        answered(store, 1, second, hold=0.1)  # which makes it no shorter
        waits = take(store, 2)
        assert waits.state == "wait"
        assert 0.3 < waits.seconds <= 1.0
        assert take(store, 2, pace="a1b2:messages:claude-y").state == "taken"
        time.sleep(1.05)
        assert take(store, 3).state == "taken"

    @pytest.mark.parametrize(
        ("name", "left"), [("requests", 3), ("input-tokens", 35), ("output-tokens", 15), ("tokens", 45)]
    )
    def test_has_what_the_last_answer_left_less_what_was_sent_since(
        self, store: RedisStore, job: str, name: str, left: int
    ) -> None:
        answered(store, 0, take(store, 0), output=5)
        first = take(store, 1)
        take(store, 2)
        answered(store, 1, first, limits={name: (600, left)})
        assert len(fill(store, itertools.count(3))) == 2

    @pytest.mark.parametrize(
        ("name", "left", "fit"),
        [("requests", 2, 2), ("input-tokens", 35, 3), ("output-tokens", 11, 2), ("tokens", 45, 3)],
    )
    def test_is_limited_in_each_way_that_an_answer_names(
        self, store: RedisStore, job: str, name: str, left: int, fit: int
    ) -> None:
        """Ten tokens in, estimated, and five out, as is usual by the answers so far."""
        answered(store, 0, take(store, 0), limits={name: (600, left)}, output=5)
        assert len(fill(store, itertools.count(1))) == fit
        assert len(fill(store, itertools.count(50), pace="another")) == rules.FIRST_IN_FLIGHT

    def test_learns_slowly_how_long_answers_are(self, store: RedisStore, job: str) -> None:
        for place, output in enumerate((100, 200)):  # 100, then 110 tokens are usual
            answered(store, place, take(store, place), output=output)
        answered(store, 2, take(store, 2), limits={"output-tokens": (6000, 221)})
        assert len(fill(store, itertools.count(3))) == 2

    def test_is_waited_for_until_as_much_comes_in(self, store: RedisStore, job: str) -> None:
        first, _ = take(store, 0), take(store, 1)
        answered(store, 0, first, limits={"requests": (100, 1), "input-tokens": (60_000, 15)})
        assert take(store, 2).seconds == pytest.approx(0.6)
        assert take(store, 2, tokens=2_000).seconds == pytest.approx(2)
        assert take(store, 2, tokens=10**9).seconds == pytest.approx(60), "a minute fills it in any case"

    def test_may_be_asked_for_more_than_it_ever_has(self, store: RedisStore, job: str) -> None:
        """What is read from a cache counts for nothing, and nobody knows before how much that is."""
        answered(store, 0, take(store, 0), limits={"input-tokens": (1000, 1000)})
        assert take(store, 1, tokens=5_000).state == "taken"
        assert take(store, 2, tokens=5_000) == Taken("wait", 60.0)

    def test_that_seems_used_up_is_tried_by_one_call_after_that(self, store: RedisStore, job: str) -> None:
        answered(store, 0, take(store, 0), limits={"requests": (300, 0)})
        time.sleep(0.25)
        one = take(store, 1)
        assert one.state == "taken"
        assert take(store, 2) == Taken("wait", 0.2), "its answer is to say more"
        answered(store, 1, one)  # which says nothing, so another one tries
        assert take(store, 2).state == "taken"
        answered(store, 2, one._replace(mark="3 30 0"), limits={"requests": (300, 2)})
        assert len(fill(store, itertools.count(3))) == 2

    def test_is_not_known_any_more_a_minute_after_the_last_answer(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        first, _ = take(store, 0), take(store, 1)
        answered(store, 0, first, limits={"requests": (1, 0)})
        assert take(store, 2).seconds == 60
        redis_client.hset(f"claude_batch:pace:{PACE}", "at", time.time() - 61)
        assert take(store, 2).state == "taken"

    def test_heeds_no_answer_after_one_to_a_later_call(self, store: RedisStore, job: str) -> None:
        calls = [take(store, place) for place in range(4)]
        assert [taken.mark for taken in calls] == ["1 10 0", "2 20 0", "3 30 0", "4 40 0"]
        answered(store, 2, calls[2], limits={"requests": (60, 3)})
        answered(store, 0, calls[0], limits={"requests": (60, 50)})
        answered(store, 1, calls[1], limits={"input-tokens": (60, 0)})
        assert len(fill(store, itertools.count(4))) == 2, "three were left, and the fourth was on its way"

    def test_takes_an_answer_to_what_it_has_forgotten(self, store: RedisStore, job: str) -> None:
        answered(store, 0, Taken("taken", mark="7 70 0"), limits={"requests": (60, 0)})
        assert take(store, 0).state == "taken"


class TestWhatWaitsToBeSent:
    def test_comes_in_runs_of_neighbours_from_different_places(self, store: RedisStore, job: str) -> None:
        store.message_queue.drop_waiting(job, 0)
        store.message_queue.add_requests(job, 0, range(40))
        runs = [store.message_queue.list_due(job, 0, 8) for _ in range(400)]
        assert all(found == list(range(found[0], found[-1] + 1)) and wait == 0 for found, wait in runs)
        assert {len(found) for found, _ in runs} == set(range(1, 9))
        assert {place for found, _ in runs for place in found} == set(range(40))

    def test_is_nothing_or_comes_later(self, store: RedisStore, job: str) -> None:
        assert store.message_queue.list_due("nobody", 0, 16) == ([], None)
        store.message_queue.drop_waiting(job, 0)
        store.message_queue.add_requests(job, 0, [0, 1])
        for place, seconds in ((0, 1.0), (1, 60)):
            take(store, place)
            store.message_queue.put_back(LANE, place, seconds, 9)
        places, wait = store.message_queue.list_due(job, 0, 16)
        assert (places, 0.3 < (wait or 0) <= 1.0) == ([], True)
        time.sleep(1.05)
        assert store.message_queue.list_due(job, 0, 16) == ([0], 0.0)

    def test_is_dropped_at_once_but_for_what_was_sent(self, store: RedisStore, job: str) -> None:
        take(store, 7)
        assert store.message_queue.drop_waiting(job, 0) == MANY - 1
        assert store.message_queue.drop_waiting(job, 0) == 0
        assert (store.message_queue.count_unfinished(job, 0), store.message_queue.count_unfinished(job, 1)) == (1, MANY)
        assert take(store, 8) == Taken("gone")

    def test_is_not_what_was_sent_or_has_its_outcome_already(self, store: RedisStore, job: str) -> None:
        """``fall_back`` may die after it has entered them, and enters them again when lanes are through with them."""
        store.message_queue.drop_waiting(job, 0)
        store.message_queue.add_requests(job, 0, [0, 1, 2])
        for place in (0, 1):
            take(store, place)
        store.message_queue.save_outcome(LANE, 0, b"x")
        store.message_queue.add_requests(job, 0, [0, 1, 2])
        assert store.message_queue.list_due(job, 0, 16) == ([2], 0.0)
        assert store.message_queue.count_unfinished(job, 0) == 2

    def test_that_is_entered_again_waits_no_less(self, store: RedisStore, job: str) -> None:
        store.message_queue.drop_waiting(job, 0)
        store.message_queue.add_requests(job, 0, [0])
        take(store, 0)
        store.message_queue.put_back(LANE, 0, 60, 9)
        store.message_queue.add_requests(job, 0, [0])
        assert store.message_queue.list_due(job, 0, 16) == ([], pytest.approx(60, abs=10))


class TestARefusedRequest:
    def test_is_sent_again_as_often_as_allowed(self, store: RedisStore, job: str) -> None:
        for times in (1, 2):
            take(store, 0)
            assert store.message_queue.put_back(LANE, 0, 0.0, 3) == store.message_queue.count_refusals(LANE, 0) == times
        take(store, 0)
        assert store.message_queue.put_back(LANE, 0, 0.0, 3) == 3
        assert take(store, 0) == Taken("gone")
        assert store.message_queue.list_abandoned(LANE) == [0]
        assert store.message_queue.count_refusals(LANE, 1) == 0

    def test_that_somebody_else_has_dealt_with_stays_as_it_is(self, store: RedisStore, job: str) -> None:
        take(store, 0)
        store.message_queue.save_outcome(LANE, 0, b"x")
        assert store.message_queue.put_back(LANE, 0, 0.0, 3) == store.message_queue.count_refusals(LANE, 0) == 0
        assert take(store, 0) == Taken("gone")

    def test_of_a_job_that_is_over_is_not_sent_again(self, store: RedisStore, job: str) -> None:
        take(store, 0)
        store.jobs.update_job(job, state="revoked")
        assert store.message_queue.put_back(LANE, 0, 0.0, 9) == 0
        assert (store.message_queue.list_abandoned(LANE), store.message_queue.count_refusals(LANE, 0)) == ([0], 0)

    def test_costs_nothing(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        take(store, 0, limit=100)
        store.message_queue.put_back(LANE, 0, 0.0, 2)
        assert money(redis_client) == money(redis_client, pool="fallback_") == (0, 0)
        take(store, 0, limit=100)
        store.message_queue.put_back(LANE, 0, 0.0, 2)
        assert money(redis_client) == (0, 2), "until it has its outcome"
        store.message_queue.save_outcome(LANE, 0, b"x", spent=0)
        assert money(redis_client) == money(redis_client, pool="fallback_") == (0, 0)

    def test_of_a_job_that_is_gone_leaves_nothing(self, store: RedisStore, job: str, keys: Any) -> None:
        take(store, 0, limit=100)
        store.jobs.delete_job(job)
        assert store.message_queue.put_back(LANE, 0, 0.0, 3) == 0
        assert not store.message_queue.save_outcome(LANE, 0, b"x", spent=1)
        assert keys() == set()


@pytest.mark.parametrize("pool", ["limit", "total"])
class TestALimitOfWhatMessagesCost:
    def test_counts_what_may_still_be_spent(self, store: RedisStore, job: str, pool: str) -> None:
        bounds: dict[str, Any] = {"least": 10, "most": 40, pool: 100}
        assert [take(store, place, **bounds).state for place in range(3)] == ["taken", "taken", "reserved"]
        assert take(store, 2, **bounds) == Taken("reserved", 2.0)
        assert take(store, 2, **{**bounds, "most": 20}).state == "taken", "a cheaper one fits"
        store.message_queue.save_outcome(LANE, 0, b"x", spent=11)
        assert take(store, 3, **{**bounds, "most": 30}).state == "reserved"
        assert take(store, 3, **{**bounds, "most": 29}).state == "taken"

    def test_lets_one_alone_cost_more_than_is_left(self, store: RedisStore, job: str, pool: str) -> None:
        bounds: dict[str, Any] = {"least": 30, "most": 80, pool: 100}
        for place, spent in ((0, 70), (1, 1)):
            assert take(store, place, **bounds).state == "taken"
            assert take(store, 2, **bounds).state == "reserved"
            store.message_queue.save_outcome(LANE, place, b"x", spent=spent)
        assert take(store, 2, **bounds) == Taken("budget"), "29 do not cover its input"
        assert take(store, 2, **{**bounds, "least": 29}).state == "taken"

    def test_is_used_up_for_good_by_what_is_spent_and_not_by_what_is_reserved(
        self, store: RedisStore, job: str, pool: str
    ) -> None:
        assert take(store, 0, least=1, most=100, **{pool: 100}).state == "taken"
        assert take(store, 1, least=100, most=100, **{pool: 100}).state == "reserved"
        assert take(store, 1, least=101, most=101, **{pool: 100}) == Taken("budget")

    def test_counts_all_that_was_reserved_where_the_cost_is_not_known(
        self, store: RedisStore, job: str, pool: str, redis_client: redis.Redis
    ) -> None:
        for place, spent in ((0, None), (1, 0), (2, 3)):
            take(store, place, most=10, **{pool: 100})
            store.message_queue.save_outcome(LANE, place, b"x", spent=spent)
        assert money(redis_client) == money(redis_client, pool="fallback_") == (13, 0)

    def test_counts_a_call_once(self, store: RedisStore, job: str, pool: str, redis_client: redis.Redis) -> None:
        take(store, 0, most=10, **{pool: 100})
        assert store.message_queue.save_outcome(LANE, 0, b"x", spent=4)
        assert not store.message_queue.save_outcome(LANE, 0, b"x", spent=4)
        assert not store.message_queue.save_outcome(OTHER_LANE, 0, b"y")
        assert money(redis_client) == (4, 0)

    def test_takes_what_costs_nothing(self, store: RedisStore, job: str, pool: str, redis_client: redis.Redis) -> None:
        """An own price may be 0."""
        take(store, 0, least=0, most=0, **{pool: 100})
        store.message_queue.put_back(LANE, 0, 0.0, 9)
        take(store, 0, least=0, most=0, **{pool: 100})
        assert store.message_queue.save_outcome(LANE, 0, b"x", spent=0)
        assert money(redis_client) == (0, 0)


class TestAJobsMoney:
    def test_is_reserved_once_for_each_turn_of_a_batch(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        assert [store.budget.reserve_cost(BATCH, turn, 10, 40, 100) for turn in (0, 0, 1, 0)] == ["yes"] * 4
        assert money(redis_client) == (0, 80)
        assert store.budget.reserve_cost(Unit(job, 1), 0, 10, 40, 100) == "wait"
        assert store.budget.reserve_cost(Unit(job, 1), 0, 101, 200, 100) == "no"

    def test_is_settled_as_far_as_is_known(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        store.budget.reserve_cost(BATCH, 0, 10, 40, 100)
        for spent in (40, 7, 7):
            store.budget.record_cost(BATCH, 0, spent)
            assert money(redis_client) == (spent, 0)
        store.budget.record_cost(BATCH, 1, 50)  # was never reserved
        assert money(redis_client) == (7, 0)

    def test_is_reserved_again_for_what_is_created_after_all(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        store.budget.reserve_cost(BATCH, 0, 10, 40, 100)
        store.budget.record_cost(BATCH, 0, 40)
        store.budget.reserve_cost(Unit(job, 1), 0, 10, 60, 100)
        for _ in range(2):
            assert store.budget.reserve_cost(BATCH, 0, 10, 41, 100) == "wait"
            assert money(redis_client) == (0, 60)
        assert store.budget.reserve_cost(BATCH, 0, 10, 40, 100) == "yes"
        assert money(redis_client) == (0, 100)

    def test_may_be_nothing(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        assert store.budget.reserve_cost(BATCH, 0, 0, 0, 100) == "yes"
        store.budget.record_cost(BATCH, 0, 0)
        assert money(redis_client) == (0, 0)

    def test_is_one_for_batches_and_messages(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        assert store.budget.reserve_cost(BATCH, 0, 10, 90, 100) == "yes"
        assert take(store, 0, least=5, most=20, limit=1000, total=100).state == "reserved"
        assert money(redis_client, pool="fallback_") == (0, 0), "nothing of it is reserved"
        store.budget.record_cost(BATCH, 0, 60)
        assert take(store, 0, least=5, most=20, limit=1000, total=100).state == "taken"
        assert store.budget.reserve_cost(Unit(job, 1), 0, 10, 30, 100) == "wait"
        store.message_queue.save_outcome(LANE, 0, b"x", spent=6)
        assert store.budget.reserve_cost(Unit(job, 1), 0, 10, 30, 100) == "yes"
        assert money(redis_client) == (66, 30)
        assert money(redis_client, pool="fallback_") == (6, 0)

    def test_of_a_job_that_is_gone_is_not_to_be_had(self, store: RedisStore, keys: Any) -> None:
        assert store.budget.reserve_cost(BATCH, 0, 0, 0, 100) == "no"
        store.budget.record_cost(BATCH, 0, 5)
        assert keys() == set()

    @given(
        calls=st.lists(
            st.tuples(
                st.sampled_from(["take", "take", "take", "refuse", "answer", "lose", "reserve", "settle"]),
                st.integers(1, 30),  # least
                st.integers(0, 40),  # most, beyond the least
                st.integers(0, 10),  # which one of those under way, and how much it cost, in tenths
            ),
            max_size=40,
        )
    )
    def test_adds_up_whatever_is_sent_in_whatever_order(
        self, store: RedisStore, redis_client: redis.Redis, calls: list[tuple[str, int, int, int]]
    ) -> None:
        job = make(store, f"job-{next(_numbers)}")
        lane, limit, total = Unit(job, 0, 0), 150, 250
        sent: dict[int, int] = {}
        batches: dict[int, int] = {}
        spent, on_messages, places, turns = 0, 0, itertools.count(), itertools.count()
        for kind, least, more, chosen in calls:
            most, under_way = least + more, batches if kind in ("reserve", "settle") else sent
            reserved = sum(sent.values()) + sum(batches.values())
            if kind == "take":
                place = next(places)
                taken = take(store, place, lane, least=least, most=most, cap=MANY, limit=limit, total=total)
                if taken.state == "taken":
                    sent[place] = most
                    store.message_queue.record_answer(
                        lane, place, PACE, taken.mark, limits={}, refused=False, hold=None, cap=MANY
                    )
                assert (taken.state == "budget") == (on_messages + least > limit or spent + least > total)
            elif kind == "reserve":
                turn = next(turns)
                if (answer := store.budget.reserve_cost(Unit(job, 0), turn, least, most, total)) == "yes":
                    batches[turn] = most
                fits = spent + reserved + most <= total or (not reserved and spent + least <= total)
                assert (answer == "yes") == fits
            elif under_way:
                number, most = sorted(under_way.items())[chosen % len(under_way)]
                del under_way[number]
                cost = most if kind == "lose" else 0 if kind == "refuse" else most * chosen // 10
                spent, on_messages = spent + cost, on_messages + (cost if under_way is sent else 0)
                if kind == "settle":
                    store.budget.record_cost(Unit(job, 0), number, cost)
                elif kind == "refuse":
                    store.message_queue.put_back(lane, number, 0.0, 9)
                else:
                    store.message_queue.save_outcome(lane, number, b"x", spent=None if kind == "lose" else cost)
            assert money(redis_client, job) == (spent, sum(sent.values()) + sum(batches.values()))
            assert money(redis_client, job, "fallback_") == (on_messages, sum(sent.values()))
            assert spent + sum(sent.values()) + sum(batches.values()) < total + 70
            assert on_messages + sum(sent.values()) < limit + 70

    def test_is_never_overdrawn_by_more_than_one_request(
        self, store: RedisStore, job: str, redis_client: redis.Redis
    ) -> None:
        limit, total, dearest = 800, 1000, 50

        def check() -> None:
            for pool, most in (("fallback_", limit), ("", total)):
                spent, reserved = money(redis_client, pool=pool)
                assert spent + reserved < most + dearest

        def run(number: int) -> list[str]:
            lane, rand, seen = Unit(job, 0, number), random.Random(number), []
            for place in range(number, MANY, rules.SENDERS):
                most = rand.randint(2, dearest)
                for _ in range(100):
                    taken = take(store, place, lane, least=most // 2, most=most, cap=MANY, limit=limit, total=total)
                    check()
                    if taken.state != "reserved":
                        break
                    time.sleep(0.001)
                seen.append(taken.state)
                if taken.state != "taken":
                    continue
                store.message_queue.record_answer(
                    lane, place, PACE, taken.mark, limits={}, refused=False, hold=None, cap=MANY
                )
                if rand.random() < 0.3:
                    store.message_queue.put_back(lane, place, 600, 9)
                else:
                    store.message_queue.save_outcome(
                        lane, place, b"x", spent=rand.choice([None, 0, rand.randint(0, most)])
                    )
                check()
            return seen

        assert store.budget.reserve_cost(Unit(job, 1), 0, 1, 150, total) == "yes"
        with ThreadPoolExecutor(rules.SENDERS) as pool:
            states = set(itertools.chain(*pool.map(run, range(rules.SENDERS))))
        assert {"taken", "budget"} <= states
        assert money(redis_client, pool="fallback_")[1] == 0
        assert money(redis_client)[1] == 150


class TestWhatWasAnnounced:
    def test_is_a_bit_for_each_request(self, store: RedisStore, job: str) -> None:
        assert store.results.read_announced(job, 0) == b""
        store.results.mark_announced(job, 0, [0, 9])
        store.results.mark_announced(job, 0, [9, 17])
        store.results.mark_announced(job, 0, [])
        assert store.results.read_announced(job, 0) == b"\x80\x40\x40"
        assert store.results.read_announced(job, 1) == b""
