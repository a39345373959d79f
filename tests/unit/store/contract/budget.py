"""What a job may spend, and how many requests it may send again."""

from __future__ import annotations

import random
from typing import Any

import pytest

from claude_batch_tasks.records import Unit
from claude_batch_tasks.rules import SENDERS
from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import (
    BATCH,
    JOB,
    LONG,
    OTHER_BATCH,
    OTHER_SENDER,
    SENDER,
    Contents,
    OpenStore,
    answer_call,
    batch_record,
    call_at_once,
    create_bare_job,
    create_job,
    job_record,
    take_request,
)


class TestTheFallbackBudget:
    def test_is_granted_as_long_as_it_lasts(self, store: Store, job: str) -> None:
        assert store.budget.reserve_quota(job, 0, 7, 10) == 7
        assert store.budget.reserve_quota(job, 1, 7, 10) == 3

    def test_is_granted_once(self, store: Store, job: str) -> None:
        assert [
            store.budget.reserve_quota(job, 0, wanted, limit) for wanted, limit in ((3, 10), (3, 10), (9, 100), (0, 0))
        ] == [3] * 4
        record = store.jobs.read_job(job)
        assert record is not None
        assert record.fallback_granted == 3

    def test_may_be_nothing_and_stays_so(self, store: Store, job: str) -> None:
        assert store.budget.reserve_quota(job, 0, 5, 0) == 0
        assert store.budget.reserve_quota(job, 0, 5, 100) == 0
        assert store.budget.reserve_quota(job, 1, 0, 100) == 0

    def test_is_written_into_the_batchs_record(self, store: Store, job: str) -> None:
        store.budget.reserve_quota(job, 0, 5, 100)
        batch = store.records.read_batch(job, 0)
        assert batch is not None
        assert batch.granted == 5

    def test_is_never_overdrawn(self, open_store: OpenStore, store: Store) -> None:
        create_job(store, job_record(batches=20), [batch_record() for _ in range(20)])

        def reserve(store: Store, number: int) -> int:
            return store.budget.reserve_quota(JOB, number % 20, 7, 50)

        granted = call_at_once(open_store, reserve, range(60))
        per_batch = [{granted[number + 20 * ask] for ask in range(3)} for number in range(20)]
        assert all(len(answers) == 1 for answers in per_batch)
        assert sum(answers.pop() for answers in per_batch) == 50


class TestAJobsMoney:
    def test_of_a_job_that_is_gone_is_not_to_be_had(self, store: Store, contents: Contents) -> None:
        assert store.budget.reserve_cost(BATCH, 0, 0, 0, 100) == "no"
        store.budget.record_cost(BATCH, 0, 5)
        assert contents() == set()

    def test_is_reserved_once_for_each_generation_of_a_batch(self, store: Store, job: str) -> None:
        assert [store.budget.reserve_cost(BATCH, turn, 10, 40, 100) for turn in (0, 0, 1, 0)] == ["yes"] * 4
        assert store.budget.reserve_cost(OTHER_BATCH, 0, 10, 21, 100) == "wait", "80 of 100 are reserved"
        assert store.budget.reserve_cost(OTHER_BATCH, 0, 101, 200, 100) == "no"
        assert store.budget.reserve_cost(OTHER_BATCH, 0, 10, 20, 100) == "yes"

    def test_is_spent_as_far_as_is_known(self, store: Store, job: str) -> None:
        assert store.budget.reserve_cost(BATCH, 0, 10, 40, 100) == "yes"
        for spent in (40, 7, 7):  # the last word counts
            store.budget.record_cost(BATCH, 0, spent)
        store.budget.record_cost(BATCH, 1, 50)  # was never reserved
        assert store.budget.reserve_cost(OTHER_BATCH, 0, 94, 94, 100) == "no"
        assert store.budget.reserve_cost(OTHER_BATCH, 0, 93, 93, 100) == "yes"

    def test_is_reserved_again_for_what_is_created_after_all(self, store: Store, job: str) -> None:
        store.budget.reserve_cost(BATCH, 0, 10, 40, 100)
        store.budget.record_cost(BATCH, 0, 40)
        assert store.budget.reserve_cost(OTHER_BATCH, 0, 10, 60, 100) == "yes"
        assert [store.budget.reserve_cost(BATCH, 0, 10, 41, 100) for _ in range(2)] == ["wait"] * 2
        assert store.budget.reserve_cost(BATCH, 0, 10, 40, 100) == "yes"

    def test_may_be_exceeded_by_one_alone_whose_least_is_left(self, store: Store, job: str) -> None:
        assert store.budget.reserve_cost(BATCH, 0, 100, 500, 100) == "yes"
        assert store.budget.reserve_cost(OTHER_BATCH, 0, 1, 1, 100) == "wait"
        store.budget.record_cost(BATCH, 0, 99)
        assert store.budget.reserve_cost(OTHER_BATCH, 0, 2, 2, 100) == "no"
        assert store.budget.reserve_cost(OTHER_BATCH, 0, 1, 1, 100) == "yes"

    def test_is_never_overdrawn_by_many_batches_at_once(self, open_store: OpenStore, store: Store) -> None:
        create_bare_job(store, JOB, batches=40)
        units = [Unit(JOB, number) for number in range(40)]

        def reserve(store: Store, unit: Unit) -> str:
            return store.budget.reserve_cost(unit, 0, 7, 7, 100)

        answers = call_at_once(open_store, reserve, [*units, *units])
        reserved = {unit for unit, answer in zip([*units, *units], answers, strict=True) if answer == "yes"}
        assert len(reserved) == 14
        assert {answer for answer in answers if answer != "yes"} == {"wait"}
        call_at_once(open_store, lambda store, unit: store.budget.record_cost(unit, 0, 7), sorted(reserved))
        left = sorted(set(units) - reserved)
        assert set(call_at_once(open_store, reserve, left)) == {"no"}, "2 are left"

    def test_is_one_for_batches_and_messages(self, store: Store, job: str) -> None:
        store.jobs.update_job(job, state="running")
        store.leases.acquire_lease(SENDER, 0, "me", LONG)
        store.message_queue.add_requests(job, 0, [0])
        assert store.budget.reserve_cost(BATCH, 0, 10, 90, 100) == "yes"
        assert take_request(store, 0, least=5, most=20, limit=1000, total=100).state == "reserved"
        store.budget.record_cost(BATCH, 0, 60)
        assert take_request(store, 0, least=5, most=20, limit=1000, total=100).state == "taken"
        assert store.budget.reserve_cost(OTHER_BATCH, 0, 10, 30, 100) == "wait"
        store.message_queue.save_outcome(SENDER, 0, b"x", spent=6)
        assert store.budget.reserve_cost(OTHER_BATCH, 0, 10, 30, 100) == "yes"

    def test_is_never_overdrawn_by_more_than_one_request(self, open_store: OpenStore, store: Store) -> None:
        """Senders take requests at the same time; some are refused, some cost less than was reserved, some are lost."""
        requests, limit, total, dearest = 400, 800, 1000, 50
        create_bare_job(store, JOB, batches=2)
        store.message_queue.add_requests(JOB, 0, range(requests))
        for number in range(SENDERS):
            store.leases.acquire_lease(Unit(JOB, 0, number), 0, "me", LONG)
        assert store.budget.reserve_cost(OTHER_BATCH, 0, 1, 150, total) == "yes"

        def send(store: Store, number: int) -> tuple[int, set[str]]:
            sender, rand, spent, seen = Unit(JOB, 0, number), random.Random(number), 0, set[str]()
            for position in range(number, requests, SENDERS):
                most = rand.randint(2, dearest)
                known: dict[str, Any] = {"least": most // 2, "most": most, "limit": limit, "total": total}
                for _ in range(100):
                    taken = take_request(store, position, sender, cap=requests, **known)
                    if taken.state != "reserved":
                        break
                seen.add(taken.state)
                if taken.state != "taken":
                    continue
                answer_call(store, position, taken, sender, cap=requests)
                if rand.random() < 0.3:
                    store.message_queue.put_back(sender, position, LONG, 9)
                    continue
                cost = rand.choice([None, 0, rand.randint(0, most)])
                store.message_queue.save_outcome(sender, position, b"x", spent=cost)
                spent += most if cost is None else cost
            return spent, seen

        found = call_at_once(open_store, send, range(SENDERS))
        spent = sum(cost for cost, _ in found)
        assert {"taken", "budget"} <= set().union(*(seen for _, seen in found))
        assert limit - dearest <= spent < limit + dearest
        store.budget.record_cost(OTHER_BATCH, 0, 150)
        left = total - 150 - spent
        assert store.budget.reserve_cost(BATCH, 0, left + 1, left + 1, total) == "no"
        assert store.budget.reserve_cost(BATCH, 0, left, left, total) == "yes", (
            "what they say adds up to what it counted"
        )


class TestWhatWasCountedOnce:
    @pytest.fixture(autouse=True)
    def _sending(self, store: Store, job: str) -> None:
        store.jobs.update_job(job, state="running")
        store.leases.acquire_lease(SENDER, 0, "me", LONG)
        store.message_queue.add_requests(job, 0, range(4))

    def check_spent(self, store: Store, spent: int) -> None:
        """What the job has spent shows in what it may still spend; nothing is reserved any more."""
        limit = spent + 5
        assert store.budget.reserve_cost(BATCH, 9, 6, 6, limit) == "no"
        assert store.budget.reserve_cost(BATCH, 9, 1, 100, limit) == "yes", "which is so if nothing else is reserved"

    def test_is_all_that_was_reserved_where_the_cost_is_not_known(self, store: Store) -> None:
        for position, spent in ((0, None), (1, 0), (2, 3)):
            assert take_request(store, position, most=10, total=100).state == "taken"
            store.message_queue.save_outcome(SENDER, position, b"x", spent=spent)
        self.check_spent(store, 13)

    def test_is_one_outcome_of_a_request(self, store: Store) -> None:
        take_request(store, 0, most=10, limit=100)
        assert store.message_queue.save_outcome(SENDER, 0, b"x", spent=4)
        assert not store.message_queue.save_outcome(SENDER, 0, b"x", spent=4)
        assert not store.message_queue.save_outcome(OTHER_SENDER, 0, b"y")
        self.check_spent(store, 4)

    def test_is_nothing_for_what_was_refused(self, store: Store) -> None:
        take_request(store, 0, most=10, total=100)
        store.message_queue.put_back(SENDER, 0, 0.0, 9)
        self.check_spent(store, 0)
