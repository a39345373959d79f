"""What waits in pools of asks, by queue, and what is found where nobody makes jobs of them."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from celery import Celery

from claude_batch_tasks.checks import pools
from claude_batch_tasks.pool_records import Ask, AskEnd, PoolLimits, PoolRecord
from claude_batch_tasks.records import PoolSummary, WorkerPresence
from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import create_bare_job

LIMITS = PoolLimits(max_requests=3, max_bytes=1_000_000, max_wait=60.0)
AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def add_asks(store: Store, name: str, number: int, *, queue: str = "celery") -> str:
    """Add asks to the pools of a name, and return the id of the last one's pool."""
    for count in range(number):
        place = store.pools.add_ask(
            f"key of {name} {queue}",
            PoolRecord(name=name, queue=queue),
            f"pool-{name}-{queue}-{count}",
            Ask(id=f"{name}-{queue}-{count}", params=b"{}"),
            2,
            LIMITS,
        )
    return place.job_id


def report_worker(store: Store, *queues: str) -> None:
    worker = WorkerPresence(hostname="celery@a", queues=queues, version="1", started_at=AT, last_seen=AT)
    store.presence.report_worker(worker, 60)


@pytest.fixture
def plain_app() -> Celery:
    return Celery("project", set_as_current=False)


class TestTheSummary:
    def test_is_empty_without_pools(self, plain_app: Celery, store: Store) -> None:
        assert pools.summarize_pools(plain_app, store) == []

    def test_counts_pools_and_asks_by_queue_and_name(self, plain_app: Celery, store: Store) -> None:
        report_worker(store, "celery")
        add_asks(store, "reviews", 5)
        add_asks(store, "reviews", 1, queue="nightly")
        here, there = pools.summarize_pools(plain_app, store)
        assert (here.queue, here.pool, here.open, here.closed, here.waiting) == ("celery", "reviews", 1, 1, 5)
        assert here.workers == ("celery@a",)
        assert (there.queue, there.open, there.waiting, there.workers) == ("nightly", 1, 1, ())
        assert here.oldest_at is not None
        assert here.due_at is not None
        assert here.due_at.timestamp() <= store.now()
        assert there.due_at is not None
        assert there.due_at.timestamp() == pytest.approx(store.now() + 60, abs=30)

    def test_counts_asks_of_jobs_that_have_not_ended(self, plain_app: Celery, store: Store) -> None:
        create_bare_job(store, "job", requests=4, pool="reviews")
        create_bare_job(store, "over", requests=4, pool="reviews", state="completed")
        create_bare_job(store, "other", requests=4)
        store.asks.end_asks("job", {1: AskEnd("b", "succeeded")}, 60)
        [found] = pools.summarize_pools(plain_app, store)
        assert (found.pool, found.queue, found.sealed, found.waiting, found.in_jobs) == ("reviews", "celery", 1, 3, 3)
        assert pools.summarize_pools(plain_app, store, jobs=False) == []


def make_summary(*, workers: tuple[str, ...], due_at: float, in_jobs: int = 0) -> PoolSummary:
    return PoolSummary(
        pool="reviews",
        queue="nightly",
        open=1,
        closed=0,
        parked=0,
        sealed=0,
        waiting=7,
        in_jobs=in_jobs,
        oldest_at=datetime.fromtimestamp(1_000, timezone.utc),
        due_at=datetime.fromtimestamp(due_at, timezone.utc),
        workers=workers,
    )


class TestTheJudgement:
    def test_finds_that_no_worker_listens(self, plain_app: Celery) -> None:
        [found] = pools._judge_pools(plain_app, make_summary(workers=(), due_at=1_060), 1_300)
        assert found.id == "claude_batch.E211"
        assert "the pool 'reviews' has 7 asks, waiting for up to 5 minutes" in found.text
        assert found.hint == "celery -A project worker -Q nightly"

    def test_finds_that_workers_listen_and_do_nothing(self, plain_app: Celery) -> None:
        [found] = pools._judge_pools(plain_app, make_summary(workers=("celery@a",), due_at=1_060), 1_300)
        assert found.id == "claude_batch.W212"
        assert "due for 4 minutes" in found.text
        assert "celery@a" in found.text

    @pytest.mark.parametrize("now", [1_000, 1_061, 1_089])
    def test_finds_nothing_where_a_worker_may_still_come(self, plain_app: Celery, now: float) -> None:
        assert list(pools._judge_pools(plain_app, make_summary(workers=("celery@a",), due_at=1_060), now)) == []

    def test_says_nothing_of_jobs(self, plain_app: Celery) -> None:
        assert list(pools._judge_pools(plain_app, make_summary(workers=(), due_at=1_060, in_jobs=7), 9_000)) == []
