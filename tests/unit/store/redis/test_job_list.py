"""The list of all jobs, as it is kept beside their records."""

from __future__ import annotations

import redis

from claude_batch_tasks.store.redis import RedisStore
from tests.unit.store.contract.samples import create_bare_job, make_event


class TestTheListOfJobs:
    def test_forgets_those_that_have_expired(self, store: RedisStore, redis_client: redis.Redis) -> None:
        for number in range(250):
            create_bare_job(store, f"job {number}", submitted_at=number)
        for number in range(0, 250, 2):
            redis_client.delete(f"claude_batch:{{job {number}}}:job")
        assert len(list(store.jobs.job_ids())) == 125
        assert redis_client.zcard("claude_batch:jobs") == 125

    def test_has_none_of_a_later_moment_where_many_before_it_have_expired(
        self, store: RedisStore, redis_client: redis.Redis
    ) -> None:
        redis_client.zadd("claude_batch:jobs", {f"gone {number}": 100 + number for number in range(150)})
        for job_id, at in (("old", 5), ("at that moment", 1000)):
            create_bare_job(store, job_id, submitted_at=at)
        assert list(store.jobs.job_ids(before=1000)) == ["old"]

    def test_is_cleared_of_the_expired_by_and_by_also_where_nobody_asks_for_it(
        self, store: RedisStore, redis_client: redis.Redis
    ) -> None:
        for number in range(250):
            redis_client.zadd("claude_batch:jobs", {f"gone {number}": number})
        create_bare_job(store, "here", submitted_at=1000)
        for _ in range(100):
            store.storage.forget_expired()
        assert redis_client.zrange("claude_batch:jobs", 0, -1) == [b"here"]

    def test_has_a_job_that_an_earlier_release_submitted_once_anything_happens_to_it(
        self, store: RedisStore, redis_client: redis.Redis
    ) -> None:
        redis_client.zrem("claude_batch:jobs", create_bare_job(store, "old", submitted_at=5.0))
        store.history.append_event("old", make_event(1))
        assert redis_client.zscore("claude_batch:jobs", "old") == 5.0
