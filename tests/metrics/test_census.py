"""The gauges: what jobs and batches add up to, and that it is found out once for all who ask."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, rules, run_batch
from claude_batch_tasks.instruments import gauges
from claude_batch_tasks.instruments.gauges import Census
from claude_batch_tasks.metrics import METRICS
from claude_batch_tasks.pool_records import AskEnd, PoolRecord
from claude_batch_tasks.records import BatchGlance, JobGlance, Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import open_store
from tests.integration.rig import requests
from tests.unit.checks.test_pools import add_asks
from tests.unit.store.contract.samples import create_bare_job

NOW = 1_000_000.0


def figures(counted: Census) -> dict[str, float]:
    return {".".join([name, *labels.values()]): value for name, labels, value in counted.list_figures()}


def test_without_jobs_all_is_zero_and_nothing_is_about_to_be_deleted() -> None:
    found = figures(Census(NOW))
    assert set(found.values()) == {0}
    assert "results_left_seconds" not in found
    assert {name.partition(".")[0] for name in found} | {"results_left_seconds"} == {
        metric.name for metric in METRICS.values() if metric.kind == "gauge"
    }


def test_jobs_are_counted_by_state_and_batches_of_those_that_go_on() -> None:
    counted = Census(NOW)
    assert counted.job("new", JobGlance("staged", 3, 0, 0, None))
    assert counted.job("runs", JobGlance("running", 10, 4, 1, None))
    assert not counted.job("failed", JobGlance("failed", 2, 2, 2, None))
    counted.batch(Unit("runs", 0), BatchGlance("fetched", NOW - 500, NOW - 20, None))
    counted.batch(Unit("runs", 0), BatchGlance("creating", None, None, None))
    found = figures(counted)
    assert (found["jobs.staged"], found["jobs.running"], found["jobs.failed"], found["jobs.completed"]) == (1, 1, 1, 0)
    assert (found["batches.staged"], found["batches.fetched"], found["batches.creating"]) == (3 + 6, 1, 1)


def test_the_oldest_batch_and_the_one_not_seen_for_longest_may_be_two() -> None:
    counted = Census(NOW)
    counted.batch(Unit("runs", 0), BatchGlance("in_progress", NOW - 5000, NOW - 10, None))
    counted.batch(Unit("runs", 0), BatchGlance("canceling", NOW - 3000, NOW - 700, None))
    counted.batch(Unit("runs", 0), BatchGlance("fetched", NOW - 90_000, NOW - 80_000, None))
    found = figures(counted)
    assert (found["oldest_batch_seconds"], found["unseen_seconds"]) == (5000, 700)


def test_results_that_were_not_fetched_are_there_for_29_days_from_the_creation() -> None:
    counted = Census(NOW)
    counted.batch(Unit("runs", 0), BatchGlance("ended", NOW - 27 * 86_400, NOW - 26 * 86_400, None))
    counted.batch(Unit("runs", 0), BatchGlance("in_progress", NOW - 60, NOW, None))
    counted.batch(Unit("runs", 0), BatchGlance("fetched", NOW - 28 * 86_400, NOW, None))
    assert figures(counted)["results_left_seconds"] == 2 * 86_400
    counted.batch(Unit("runs", 0), BatchGlance("ended", NOW - rules.RETENTION - 60, NOW, None))
    assert figures(counted)["results_left_seconds"] == -60


def test_a_job_that_waits_for_its_batches_is_not_overdue() -> None:
    counted = Census(NOW)
    counted.job("new", JobGlance("staged", 1, 0, 0, None))
    counted.job("runs", JobGlance("running", 2, 2, 1, None))
    counted.job("ends", JobGlance("running", 2, 2, 2, None))
    for unit, since in ((Unit("new"), 10), (Unit("runs"), 900), (Unit("ends"), 20), (Unit("runs", 0), 30)):
        counted.late(unit, NOW - since)
    found = figures(counted)
    assert (found["overdue_units"], found["overdue_seconds"]) == (3, 30)


def test_what_was_sent_again_in_vain_is_overdue_since_it_was_due() -> None:
    """The index says when it is to be sent again, which is later and later."""
    counted = Census(NOW)
    counted.job("new", JobGlance("staged", 1, 0, 0, NOW - 900))
    counted.job("runs", JobGlance("running", 2, 2, 0, NOW - 5000))
    counted.batch(Unit("runs", 1), BatchGlance("staged", None, None, NOW - 400))
    counted.late(Unit("new"), NOW - 10)
    found = figures(counted)
    assert (found["overdue_units"], found["overdue_seconds"]) == (2, 900)


def test_asks_are_counted_in_pools_and_in_jobs() -> None:
    counted = Census(NOW)
    counted.pool(PoolRecord(opened_at=NOW - 90, due_at=NOW - 30, count=5, withdrawn=1))
    counted.pool(PoolRecord(opened_at=NOW - 20, due_at=NOW + 40, count=2, state="closed"))
    counted.pool(PoolRecord(opened_at=NOW - 500, due_at=NOW - 400, count=3, state="parked"))
    counted.pool(PoolRecord(opened_at=NOW - 9_000, due_at=NOW - 8_000, count=3, state="sealed"))
    counted.asks_of_job(20, bytes([0b1110_0000, 0, 0b0001_0000]))
    found = figures(counted)
    assert (found["asks_waiting.pool"], found["asks_waiting.job"]) == (4 + 2 + 3, 16)
    assert (found["pools.open"], found["pools.closed"], found["pools.parked"]) == (1, 1, 1)
    assert (found["oldest_ask_seconds"], found["overdue_pool_seconds"]) == (500, 30)


def test_a_pool_whose_asks_were_all_withdrawn_does_not_wait() -> None:
    counted = Census(NOW)
    counted.pool(PoolRecord(opened_at=NOW - 90, due_at=NOW - 30, count=2, withdrawn=2))
    found = figures(counted)
    assert (found["asks_waiting.pool"], found["oldest_ask_seconds"], found["overdue_pool_seconds"]) == (0, 0, 0)


class TestInTheStore:
    @pytest.fixture
    def job(self, app: Celery) -> BatchJob:
        """A job of three batches that no worker has begun."""
        return BatchJob(run_batch.delay(requests("job", 6), max_requests_per_batch=2).id, app)

    def values(self, app: Celery) -> dict[str, float]:
        return {".".join([metric.name, *labels.values()]): value for metric, labels, value in gauges.readings(app)}

    def test_what_is_read_is_what_is_there(self, app: Celery, job: BatchJob) -> None:
        store = open_store(Settings.of(app))
        now = time.time()
        store.jobs.update_job(job.job_id, state="running", admitted=2)
        store.schedule.add_units([Unit(job.job_id, 0)], now - 60)
        store.leases.acquire_lease(Unit(job.job_id, 1), 0, "me", 20)
        store.leases.write_record(
            Unit(job.job_id, 1), "me", state="in_progress", created_at=now - 3600, sighting=now - 600
        )
        found = self.values(app)
        assert (found["jobs.running"], found["batches.staged"], found["batches.in_progress"]) == (1, 2, 1)
        assert found["unseen_seconds"] == pytest.approx(600, abs=30)
        assert found["results_left_seconds"] == pytest.approx(rules.RETENTION - 3600, abs=30)
        assert (found["overdue_units"], round(found["overdue_seconds"] / 60)) == (1, 1)

    def test_what_is_sent_again_in_vain_stays_overdue_until_somebody_takes_it(self, app: Celery, job: BatchJob) -> None:
        store, unit = open_store(Settings.of(app)), Unit(job.job_id)
        store.schedule.add_units([unit], time.time() - 400)
        assert store.schedule.find_lost(unit, 30) is not None
        assert store.schedule.list_overdue(time.time(), 10) == []
        assert self.values(app)["overdue_seconds"] == pytest.approx(400, abs=30)
        store.leases.acquire_lease(unit, 0, "me", 20)
        app.backend.client.delete("claude_batch:census:fresh")
        assert self.values(app)["overdue_units"] == 0

    def test_asks_that_wait_are_found(self, app: Celery) -> None:
        store = open_store(Settings.of(app))
        add_asks(store, "reviews", 5)
        create_bare_job(store, "job", requests=4, pool="reviews")
        store.asks.end_asks("job", {1: AskEnd("b", "succeeded")}, 60)
        found = self.values(app)
        assert (found["asks_waiting.pool"], found["asks_waiting.job"]) == (5, 3)
        assert (found["pools.open"], found["pools.closed"]) == (1, 1)

    def test_it_is_read_through_once_for_all_who_ask(
        self, app: Celery, job: BatchJob, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taken = []
        take = gauges.take_census
        monkeypatch.setattr(gauges, "take_census", lambda store, now: taken.append(now) or take(store, now))
        with ThreadPoolExecutor(10) as many:
            list(many.map(lambda _: gauges.readings(app), range(50)))
        assert len(taken) == 1
        assert self.values(app)["jobs.staged"] == 1
        job.delete()
        assert self.values(app)["jobs.staged"] == 1
        app.backend.client.delete("claude_batch:census:fresh")
        assert self.values(app)["jobs.staged"] == 0

    def test_pages_add_up(self, app: Celery, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("claude_batch_tasks.store.redis.parts.statistics._PAGE", 2)
        for number in range(4):
            run_batch.delay(requests(f"job{number}", 1))
        store = open_store(Settings.of(app))
        store.schedule.add_units([Unit(job_id) for job_id in store.jobs.job_ids()], time.time() - 60)
        found = self.values(app)
        assert (found["jobs.staged"], found["batches.staged"], found["overdue_units"]) == (4, 4, 4)

    def test_a_store_that_does_not_answer_leaves_gauges_out(
        self, app: Celery, caplog: pytest.LogCaptureFixture
    ) -> None:
        app.conf.claude_batch_store_url = "redis://127.0.0.1:1/0"
        with caplog.at_level(logging.WARNING):
            assert gauges.readings(app) == []
        assert "gauges are missing: the store at 127.0.0.1:1 did not answer" in caplog.text
