"""What has expired or was removed in PostgreSQL makes way, and leaves nothing; who sends messages is woken in time."""

from __future__ import annotations

from claude_batch_tasks.records import Unit
from tests.unit.store.contract.samples import LONG, create_bare_job, park_batch, read_job
from tests.unit.store.postgres.conftest import Database


def test_an_expired_job_makes_way_for_one_of_its_id(database: Database) -> None:
    store = database.open_store()
    create_bare_job(store, "job", nonce="first")
    store.leases.acquire_lease(Unit("job", 0), 7, "me", LONG)
    store.jobs.expire_job("job", 1)
    database.pass_time(1.5)
    create_bare_job(store, "job", nonce="second")
    assert read_job(store, "job").nonce == "second"
    assert store.records.read_position(Unit("job", 0)) == -1
    assert store.leases.acquire_lease(Unit("job", 0), 0, "you", LONG).state == "taken"


def test_a_pool_whose_job_was_deleted_becomes_none_again_for_a_day(database: Database) -> None:
    store = database.open_store()
    create_bare_job(store, "job", pool="emails")
    store.storage.delete_job("job", remember=True)
    record = read_job(store, create_bare_job(store, "other", pool="emails"))
    assert not store.jobs.create_job("job", record, [], LONG, staged=False)
    database.pass_time(86_500)
    assert store.jobs.create_job("job", record, [], LONG, staged=False)


def test_what_a_dead_process_has_left_of_a_removed_job_is_swept(database: Database) -> None:
    store = database.open_store()
    create_bare_job(store, "job", batches=20)
    database.run("SELECT claude_batch.delete_job('job', null)")  # and then it died
    assert database.run("SELECT count(*) FROM claude_batch.records") == [(21,)]
    store.storage.forget_expired()
    assert database.run("SELECT count(*) FROM claude_batch.records") == [(0,)]
    assert database.run("SELECT count(*) FROM claude_batch.removed_jobs") == [(0,)]


def test_a_unit_that_waits_stays_in_the_schedule_when_its_job_has_expired(database: Database) -> None:
    """So that somebody learns of it who then reports it."""
    store = database.open_store()
    unit = park_batch(store, 1, store.now() + 5)
    store.jobs.expire_job(unit.job_id, 1)
    database.pass_time(6)
    store.storage.forget_expired()
    assert store.schedule.take_due(10)[0] == [unit]
    store.schedule.remove_unit(unit)
    assert database.run("SELECT count(*) FROM claude_batch.units") == [(0,)]


def test_who_sends_messages_is_woken_for_what_is_due_before_all_else(database: Database) -> None:
    store = database.open_store()
    with store.wakeups.listen() as listener:
        assert listener is not None
        now = store.now()
        first = park_batch(store, 1, now + 60)
        assert listener.wait(10.0)
        park_batch(store, 2, now + 90)
        assert not listener.wait(0.2)
        park_batch(store, 3, now + 1)
        assert listener.wait(10.0)
        store.schedule.wake_units([first])
        assert listener.wait(10.0)


def test_a_table_of_a_job_is_found_by_its_column(database: Database) -> None:
    database.run("CREATE TABLE claude_batch.later (job bigint, expires_at double precision)")
    create_bare_job(store := database.open_store(), "job")
    database.run("INSERT INTO claude_batch.later SELECT id, null FROM claude_batch.jobs")
    database.run(
        "INSERT INTO claude_batch.later VALUES (-1, claude_batch.clock() - 1), (-1, claude_batch.clock() + 60)"
    )
    store.storage.forget_expired()
    assert database.run("SELECT count(*) FROM claude_batch.later") == [(2,)]
    store.storage.delete_job("job")
    assert database.run("SELECT job FROM claude_batch.later") == [(-1,)]
