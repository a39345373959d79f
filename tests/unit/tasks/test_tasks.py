"""What the last step of a batch decides, apart from the doing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from claude_batch_tasks.lifecycle.budget import record_cost, reserve_cost
from claude_batch_tasks.records import Round, Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps.decisions import Done, Wait
from claude_batch_tasks.steps.step import Step
from claude_batch_tasks.store.redis import RedisStore
from claude_batch_tasks.tasks.fall_back import _choose_next_attempt
from claude_batch_tasks.wire.batch_requests import Piece
from tests.factories import make_batch_record, make_job_record, make_params

JOB = "job-1"
BATCH, OTHER = Unit(JOB, 0), Unit(JOB, 1)
LIMIT, MOST = 10**9, 9 * 10**8  # nano-dollars


def round_(**own: Any) -> Round:
    known = {"batch_id": None, "attempt": 1, "counts": {}, "usage": {}, "costs": {}, "eligible": 2, "open": {}}
    return Round(**{**known, **own})


@pytest.fixture
def make_step(store: RedisStore) -> Callable[..., Step]:
    """``make_step({"eligible": 2}, stopped="x", retries=1)``: of a batch, of a job, under settings."""

    def make(batch: dict[str, Any], *, settings: Any = None, pieces: Any = None, **job: Any) -> Step:
        record = make_job_record(
            **{"requests": 8, "batches": 2, "submitted_at": time.time(), "state": "running", **job}
        )
        own = {"first": 0, "count": 4, "body_bytes": 9, "least": 1, "most": MOST, "state": "fetched", **batch}
        batches = [make_batch_record(**own), make_batch_record(first=4, count=4)]
        if pieces is not None:
            store.payloads.stage_requests(JOB, "n", [*pieces, Piece(1, [], b"")])
            store.payloads.stage_index(JOB, "n", [(0, b"x")])
        store.jobs.create_job(JOB, record, batches, 600, staged=pieces is not None)
        store.leases.acquire_lease(BATCH, 0, "me", 600)
        found = Settings(**{"max_cost": LIMIT / 1e9, **(settings or {})})
        step = Step(store, found, record, BATCH, "me", (JOB, 0, 0, 0), SimpleNamespace())
        step.past_batches = []
        return step

    return make


class TestWhatABatchHasCost:
    @pytest.mark.parametrize(
        ("batch", "spent"),
        [
            ({"published": 1, "costs": {"m": "0.25", "n": "0.05"}}, 300_000_000),
            ({"published": 1, "costs": {}}, 0),
            ({"published": 1, "costs": {"m": None, "n": "0.05"}}, MOST),
            ({"state": "unsent"}, 0),
            ({"published": 2, "costs": {"m": "0.25"}, "rounds": [round_(costs={"m": "0.15"})]}, 100_000_000),
            ({"published": 2, "costs": {"m": None}, "rounds": [round_(costs={"m": None})]}, MOST),
            ({"state": "unsent", "costs": {"m": "0.15"}, "rounds": [round_(costs={"m": "0.15"})]}, 0),
        ],
    )
    def test_is_settled_when_it_is_known(
        self, store: RedisStore, redis_client: redis.Redis, make_step: Any, batch: dict[str, Any], spent: int
    ) -> None:
        step = make_step(batch)
        assert reserve_cost(step) is None
        for _ in range(2):
            record_cost(step)
        assert redis_client.hmget(f"claude_batch:{{{JOB}}}:money", "spent", "reserved") == [b"%d" % spent, b"0"]

    @pytest.mark.parametrize("state", ["failed", "lost"])
    @pytest.mark.parametrize("known", [{"batch_id": "msgbatch_1"}, {"intent_at": 1.0}, {}])
    def test_is_the_most_where_it_may_exist_and_keeps_no_other_waiting(
        self, store: RedisStore, make_step: Any, state: str, known: dict[str, Any]
    ) -> None:
        """No later step of it settles what it has cost."""
        step = make_step({"state": state, **known})
        assert reserve_cost(step) is None
        assert store.budget.reserve_cost(OTHER, 0, 1, MOST, LIMIT) == "wait"
        record_cost(step)
        left = LIMIT - (MOST if known else 0)
        assert store.budget.reserve_cost(OTHER, 0, left + 1, left + 1, LIMIT) == "no"
        assert store.budget.reserve_cost(OTHER, 0, left, left, LIMIT) == "yes"

    def test_is_estimated_where_nobody_did(self, store: RedisStore, make_step: Any) -> None:
        """Of a smaller batch, or when a limit came later."""
        params = make_params("x" * 35, max_tokens=1_000)
        body = b",".join(b'{"custom_id":"%d","params":%s}' % (n, json.dumps(params).encode()) for n in range(4))
        for model, states in (("claude-haiku-4-5", ("staged", 4 * 7_000)), ("claude-xxxx-4-5", ("unsent", None))):
            store.storage.delete_job(JOB)
            pieces = [Piece(0, list("abcd"), body.replace(b"claude-haiku-4-5", model.encode()))]
            step = make_step({"state": "staged", "least": None, "most": None}, pieces=pieces)
            assert (reserve_cost(step) is None) == (states[0] == "staged")
            assert (step.batch.state, step.batch.least) == states
        assert "the price of claude-xxxx-4-5 is not known" in (step.batch.note or "")

    def test_has_to_be_covered_before_it_is_created(self, store: RedisStore, make_step: Any) -> None:
        step = make_step({"state": "staged"})
        store.budget.reserve_cost(OTHER, 0, 1, MOST, LIMIT)
        waits = reserve_cost(step)
        assert isinstance(waits, Wait)
        assert "max_cost" in waits.reason
        store.budget.record_cost(OTHER, 0, LIMIT)
        assert isinstance(reserve_cost(step), Done)
        assert (step.batch.state, step.batch.counts) == ("unsent", {"errored": 4})
        assert "max_cost ($1)" in (step.batch.note or "")
        assert step.batch.outcome is not None
        assert step.batch.outcome["error"]["error"]["type"] == "budget_exceeded"

    def test_leaves_a_later_round_the_outcomes_it_has(self, store: RedisStore, make_step: Any) -> None:
        step = make_step({"state": "staged", "rounds": [round_()], "counts": {"expired": 4}})
        store.budget.reserve_cost(OTHER, 0, 1, MOST, LIMIT)
        store.budget.record_cost(OTHER, 0, LIMIT)
        assert isinstance(reserve_cost(step), Done)
        assert (step.batch.state, step.batch.counts, step.batch.outcome) == ("unsent", {"expired": 4}, None)


class TestTheChanceOfWhatIsLeft:
    @pytest.mark.parametrize(
        ("batch", "more", "chance"),
        [
            ({}, {}, "resubmit"),
            ({"rounds": [round_()] * 2}, {}, "messages"),
            ({"rounds": [round_()]}, {"settings": {"retries": 1, "fallback": "off"}}, "none"),
            ({}, {"settings": {"deadline": 60}}, "messages"),
            ({}, {"settings": {"max_wait": 60}, "started_at": 1.0}, "messages"),
            ({}, {"settings": {"deadline": 7200, "max_wait": 7200}}, "resubmit"),
            ({"published": None, "state": "lost"}, {}, "messages"),
            ({"published": None, "state": "unsent", "rounds": [round_()]}, {}, "messages"),
            ({"eligible": 0}, {}, "none"),
            ({"state": "failed"}, {}, "none"),
            ({}, {"adopted": True}, "none"),
            ({}, {"cancel_requested": True}, "none"),
            ({}, {"stopped": "no credit"}, "none"),
        ],
    )
    def test_is_the_next_that_may_help(
        self, make_step: Any, batch: dict[str, Any], more: dict[str, Any], chance: str
    ) -> None:
        step = make_step({"eligible": 2, "published": 1, **batch}, **more)
        assert _choose_next_attempt(step) == chance
        assert step.batch.note == more.get("stopped")
