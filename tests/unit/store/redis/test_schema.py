"""The store's version: what an earlier release wrote is brought up to date, a newer one's is left alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from celery import Celery

from claude_batch_tasks import BatchJob, list_jobs, run_batch
from claude_batch_tasks.errors import StoreTooNew
from claude_batch_tasks.records import BatchRecord, JobRecord
from claude_batch_tasks.store import open_store_at
from claude_batch_tasks.store.redis import RedisStore, schema

NEWER = {"version": 7, "least": schema.VERSION + 1}


def numbers(client: redis.Redis) -> dict[str, float]:
    return {name.decode(): number for name, number in client.zrange(schema.SCHEMA, 0, -1, withscores=True)}


def written_by_the_first_release(client: redis.Redis, jobs: dict[str, float]) -> None:
    store = RedisStore(client, "the test's server")
    for job_id, at in jobs.items():
        record = JobRecord(nonce="n", requests=1, batches=1, submitted_at=at)
        batch = BatchRecord(first=0, count=1, body_bytes=1)
        assert store.jobs.create_job(job_id, record, [batch], 600, staged=False)
    client.delete("claude_batch:jobs", schema.SCHEMA)


class TestAStore:
    def test_that_is_new_has_the_present_version(self, store: RedisStore, redis_client: redis.Redis) -> None:
        assert store.jobs.read_job("nobody") is None
        assert numbers(redis_client) == {"version": schema.VERSION, "least": schema.LEAST}

    def test_is_looked_at_once(self, store: RedisStore, redis_client: redis.Redis) -> None:
        store.jobs.read_job("nobody")
        redis_client.zadd(schema.SCHEMA, NEWER)
        assert store.jobs.read_job("nobody") is None


class TestTheFirstReleasesStore:
    def test_lists_its_jobs(self, redis_client: redis.Redis) -> None:
        jobs = {**{f"job {n}": n + 0.25 for n in range(1200)}, "a:{b}:job": 2000.5, "}": 3000.0}
        written_by_the_first_release(redis_client, jobs)
        found = list(RedisStore(redis_client, "the test's server").jobs.job_ids())
        assert found == sorted(jobs, key=lambda job_id: jobs[job_id], reverse=True)
        assert numbers(redis_client)["version"] == schema.VERSION

    def test_is_brought_up_to_date_by_several_at_once(self, redis_client: redis.Redis) -> None:
        jobs = {f"job {n}": float(n) for n in range(300)}
        written_by_the_first_release(redis_client, jobs)
        with ThreadPoolExecutor(8) as pool:
            stores = [RedisStore(redis_client, "the test's server") for _ in range(8)]
            found = pool.map(lambda store: set(store.jobs.job_ids()), stores)
            assert list(found) == [set(jobs)] * 8

    def test_is_brought_up_to_date_after_one_died_in_the_middle(
        self, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written_by_the_first_release(redis_client, {"a": 1.0, "b": 2.0})

        def dies(client: Any) -> None:
            client.zadd("claude_batch:jobs", {"b": 2.0})
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(schema, "_MIGRATIONS", (dies,))
            with pytest.raises(KeyboardInterrupt):
                RedisStore(redis_client, "the test's server").check_schema()
        assert "version" not in numbers(redis_client)
        assert list(RedisStore(redis_client, "the test's server").jobs.job_ids()) == ["b", "a"]

    def test_is_not_sunk_by_one_that_comes_late(
        self, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(schema, "_MIGRATIONS", (lambda client: client.zadd(schema.SCHEMA, NEWER),))
        RedisStore(redis_client, "the test's server").check_schema()
        assert numbers(redis_client) == NEWER


class TestANewerReleasesStore:
    def test_may_be_used_where_that_allows_it(self, store: RedisStore, redis_client: redis.Redis) -> None:
        redis_client.zadd(schema.SCHEMA, {"version": 7, "least": schema.VERSION})
        assert store.jobs.read_job("nobody") is None
        assert numbers(redis_client) == {"version": 7, "least": schema.VERSION}

    def test_is_left_alone(self, store: RedisStore, redis_client: redis.Redis) -> None:
        redis_client.zadd(schema.SCHEMA, NEWER)
        for _ in range(2):
            with pytest.raises(StoreTooNew, match=r"the test's server .*schema 7; this one knows 2.*upgrade"):
                store.jobs.read_job("nobody")
        with pytest.raises(StoreTooNew):
            list(store.jobs.job_ids())
        assert redis_client.keys("*") == [schema.SCHEMA.encode()]

    def test_is_told_to_whoever_hands_a_job_over_or_asks_about_one(
        self, app: Celery, redis_url: str, make_request: Any
    ) -> None:
        client = redis.Redis.from_url(redis_url)
        client.zadd(schema.SCHEMA, NEWER)
        open_store_at(redis_url)._opened = False  # type: ignore[attr-defined]
        with pytest.raises(StoreTooNew):
            run_batch.delay([make_request("a")])
        with pytest.raises(StoreTooNew):
            BatchJob("nobody", app).status()
        with pytest.raises(StoreTooNew):
            next(list_jobs(app=app))
        assert client.keys("*") == [schema.SCHEMA.encode()]
