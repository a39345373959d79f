"""Jobs that move from Redis to PostgreSQL, and back to another Redis."""

from __future__ import annotations

import fakeredis

from claude_batch_tasks.store.redis import RedisStore
from claude_batch_tasks.store.transfer.copying import Copy
from claude_batch_tasks.store.transfer.tally import tally
from tests.unit.store.contract.transfer import export_all, fill
from tests.unit.store.postgres.conftest import Database


def open_redis(where: str) -> RedisStore:
    return RedisStore(fakeredis.FakeRedis(server=fakeredis.FakeServer()), where)


def test_all_of_a_redis_comes_back_from_postgres_as_it_was(database: Database) -> None:
    old, new, third = open_redis("the old one"), database.open_store(), open_redis("a third one")
    fill(old)
    for source, target in ((old, new), (new, third)):
        made = Copy(source, target)
        made.check()
        report = made.run()
        assert report.copied == len(list(old.transfer.list_ids()))
        assert (report.gone, report.changed, report.incomplete) == (0, 0, {})
    known = export_all(old)
    assert list(third.transfer.list_ids()) == list(known)
    for job_id, parts in known.items():
        assert tally(third.transfer.export_job(job_id)) == tally(parts), job_id
    assert tally(third.transfer.export_shared()) == tally(old.transfer.export_shared())
