"""What a job has spent and what is reserved, as it is written."""

from __future__ import annotations

import itertools
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from hypothesis import given, strategies as st

from claude_batch_tasks import rules
from claude_batch_tasks.records import Unit
from claude_batch_tasks.store.redis import RedisStore
from tests.unit.store.contract.message_queue import MANY, create_sending_job
from tests.unit.store.contract.samples import (
    BATCH,
    JOB,
    LONG,
    OTHER_SENDER,
    SENDER,
    answer_call,
    create_bare_job,
    take_request,
)

_numbers = itertools.count()


@pytest.fixture
def job(store: RedisStore) -> str:
    return create_sending_job(store)


def money(client: redis.Redis, job_id: str = JOB, pool: str = "") -> tuple[int, int]:
    """What the job has spent and has reserved."""
    spent, reserved = client.hmget(f"claude_batch:{{{job_id}}}:money", f"{pool}spent", f"{pool}reserved")
    return int(spent or 0), int(reserved or 0)


class TestARefusedRequest:
    def test_costs_nothing(self, store: RedisStore, job: str, redis_client: redis.Redis) -> None:
        take_request(store, 0, limit=100)
        store.message_queue.put_back(SENDER, 0, 0.0, 2)
        assert money(redis_client) == money(redis_client, pool="fallback_") == (0, 0)
        take_request(store, 0, limit=100)
        store.message_queue.put_back(SENDER, 0, 0.0, 2)
        assert money(redis_client) == (0, 2), "until it has its outcome"
        store.message_queue.save_outcome(SENDER, 0, b"x", spent=0)
        assert money(redis_client) == money(redis_client, pool="fallback_") == (0, 0)


@pytest.mark.parametrize("pool", ["limit", "total"])
class TestALimitOfWhatMessagesCost:
    def test_counts_all_that_was_reserved_where_the_cost_is_not_known(
        self, store: RedisStore, job: str, pool: str, redis_client: redis.Redis
    ) -> None:
        for position, spent in ((0, None), (1, 0), (2, 3)):
            take_request(store, position, most=10, **{pool: 100})
            store.message_queue.save_outcome(SENDER, position, b"x", spent=spent)
        assert money(redis_client) == money(redis_client, pool="fallback_") == (13, 0)

    def test_counts_a_call_once(self, store: RedisStore, job: str, pool: str, redis_client: redis.Redis) -> None:
        take_request(store, 0, most=10, **{pool: 100})
        assert store.message_queue.save_outcome(SENDER, 0, b"x", spent=4)
        assert not store.message_queue.save_outcome(SENDER, 0, b"x", spent=4)
        assert not store.message_queue.save_outcome(OTHER_SENDER, 0, b"y")
        assert money(redis_client) == (4, 0)

    def test_takes_what_costs_nothing(self, store: RedisStore, job: str, pool: str, redis_client: redis.Redis) -> None:
        """An own price may be 0."""
        take_request(store, 0, least=0, most=0, **{pool: 100})
        store.message_queue.put_back(SENDER, 0, 0.0, 9)
        take_request(store, 0, least=0, most=0, **{pool: 100})
        assert store.message_queue.save_outcome(SENDER, 0, b"x", spent=0)
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
        assert take_request(store, 0, least=5, most=20, limit=1000, total=100).state == "reserved"
        assert money(redis_client, pool="fallback_") == (0, 0), "nothing of it is reserved"
        store.budget.record_cost(BATCH, 0, 60)
        assert take_request(store, 0, least=5, most=20, limit=1000, total=100).state == "taken"
        assert store.budget.reserve_cost(Unit(job, 1), 0, 10, 30, 100) == "wait"
        store.message_queue.save_outcome(SENDER, 0, b"x", spent=6)
        assert store.budget.reserve_cost(Unit(job, 1), 0, 10, 30, 100) == "yes"
        assert money(redis_client) == (66, 30)
        assert money(redis_client, pool="fallback_") == (6, 0)

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
        job = create_bare_job(store, f"job-{next(_numbers)}", batches=2)
        sender, limit, total = Unit(job, 0, 0), 150, 250
        store.message_queue.add_requests(job, 0, range(40))
        store.leases.acquire_lease(sender, 0, "me", LONG)
        sent: dict[int, int] = {}
        batches: dict[int, int] = {}
        spent, on_messages, positions, turns = 0, 0, itertools.count(), itertools.count()
        for kind, least, more, chosen in calls:
            most, under_way = least + more, batches if kind in ("reserve", "settle") else sent
            reserved = sum(sent.values()) + sum(batches.values())
            if kind == "take":
                position = next(positions)
                taken = take_request(
                    store, position, sender, least=least, most=most, cap=MANY, limit=limit, total=total
                )
                if taken.state == "taken":
                    sent[position] = most
                    answer_call(store, position, taken, sender, cap=MANY)
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
                    store.message_queue.put_back(sender, number, 0.0, 9)
                else:
                    store.message_queue.save_outcome(sender, number, b"x", spent=None if kind == "lose" else cost)
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
            sender, rand, seen = Unit(job, 0, number), random.Random(number), []
            for position in range(number, MANY, rules.SENDERS):
                most = rand.randint(2, dearest)
                for _ in range(100):
                    taken = take_request(
                        store, position, sender, least=most // 2, most=most, cap=MANY, limit=limit, total=total
                    )
                    check()
                    if taken.state != "reserved":
                        break
                    time.sleep(0.001)
                seen.append(taken.state)
                if taken.state != "taken":
                    continue
                answer_call(store, position, taken, sender, cap=MANY)
                if rand.random() < 0.3:
                    store.message_queue.put_back(sender, position, 600, 9)
                else:
                    store.message_queue.save_outcome(
                        sender, position, b"x", spent=rand.choice([None, 0, rand.randint(0, most)])
                    )
                check()
            return seen

        assert store.budget.reserve_cost(Unit(job, 1), 0, 1, 150, total) == "yes"
        with ThreadPoolExecutor(rules.SENDERS) as pool:
            states = set(itertools.chain(*pool.map(run, range(rules.SENDERS))))
        assert {"taken", "budget"} <= states
        assert money(redis_client, pool="fallback_")[1] == 0
        assert money(redis_client)[1] == 150
