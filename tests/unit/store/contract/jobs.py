"""Jobs: their records, how long they are kept, the list of all of them, and jobs that are resumed."""

from __future__ import annotations

import pytest

from claude_batch_tasks.records import Unit
from claude_batch_tasks.store import Store
from tests.unit.store.contract.records import FULL_BATCH
from tests.unit.store.contract.samples import (
    BATCH,
    LONG,
    NO_ROWS,
    OTHER_BATCH,
    SENDER,
    Contents,
    OpenStore,
    PassTime,
    batch_record,
    call_at_once,
    create_bare_job,
    job_record,
    make_event,
    park_batch,
    read_batch,
    read_job,
)


class TestAFieldThatIsSettledOnce:
    def test_keeps_its_first_value(self, store: Store, job: str) -> None:
        assert store.jobs.set_once(job, "account", 'a\n"ü') == 'a\n"ü'
        assert store.jobs.set_once(job, "account", "b") == 'a\n"ü'
        assert read_job(store).account == 'a\n"ü'

    def test_has_the_value_of_one_of_many(self, open_store: OpenStore, store: Store, job: str) -> None:
        found = call_at_once(
            open_store, lambda store, number: store.jobs.set_once(job, "account", f"{number}"), range(24)
        )
        assert set(found) == {read_job(store).account}

    def test_of_a_job_that_is_gone_stays_nothing(self, store: Store, contents: Contents) -> None:
        assert store.jobs.set_once("nobody", "account", "a") is None
        assert contents() == set()


class TestTheListOfJobs:
    def test_begins_with_the_newest(self, store: Store) -> None:
        for number in (2, 1, 3):
            create_bare_job(store, f"job {number}", submitted_at=float(number))
        assert list(store.jobs.job_ids()) == ["job 3", "job 2", "job 1"]
        assert list(store.jobs.job_ids(before=3)) == ["job 2", "job 1"]

    def test_leaves_none_out_where_many_were_submitted_at_one_moment(self, store: Store) -> None:
        made = {create_bare_job(store, f"job {number}", submitted_at=float(number // 150)) for number in range(450)}
        found = list(store.jobs.job_ids())
        assert len(found) == 450
        assert set(found) == made

    def test_has_each_once_though_many_are_submitted(self, open_store: OpenStore, store: Store) -> None:
        call_at_once(open_store, lambda store, number: create_bare_job(store, f"job {number}"), range(64))
        assert sorted(store.jobs.job_ids()) == sorted(f"job {number}" for number in range(64))

    def test_loses_what_has_expired(self, store: Store, pass_time: PassTime) -> None:
        for number in range(250):
            create_bare_job(store, f"job {number}", submitted_at=float(number))
        for number in range(0, 250, 2):
            store.jobs.expire_job(f"job {number}", 1)
        pass_time(1.5)
        for _ in range(3):
            store.storage.forget_expired()
        assert list(store.jobs.job_ids()) == [f"job {number}" for number in range(249, 0, -2)]

    def test_is_as_it_was_after_it_was_made_anew(self, store: Store) -> None:
        for number in range(3):
            create_bare_job(store, f"job {number}", submitted_at=float(number))
        store.jobs.rebuild_list()
        assert list(store.jobs.job_ids()) == ["job 2", "job 1", "job 0"]

    def test_is_looked_at_everywhere_by_samples(self, store: Store) -> None:
        made = {create_bare_job(store, f"job {number}", submitted_at=float(number)) for number in range(12)}
        samples = [store.jobs.sample_jobs(6) for _ in range(200)]
        assert all(len(set(sample)) == len(sample) <= 6 for sample in samples)
        assert {job_id for sample in samples for job_id in sample} == made
        assert set(store.jobs.sample_jobs(100)) == made

    def test_tells_the_state_of_each(self, store: Store) -> None:
        create_bare_job(store, "one", state="failed")
        create_bare_job(store, "two")
        assert store.jobs.read_states(["two", "nobody", "one"]) == ["running", None, "failed"]
        assert store.jobs.read_states([]) == []

    def test_loses_what_is_deleted(self, store: Store) -> None:
        store.storage.delete_job(create_bare_job(store, "job"))
        assert list(store.jobs.job_ids()) == []


class TestAFailedJob:
    def test_is_taken_up_by_one(self, open_store: OpenStore, store: Store) -> None:
        unit = park_batch(store, 1, store.now() + 500)
        store.jobs.update_job(unit.job_id, state="failed")
        change = {0: (True, 4_000_000, {"state": "in_progress", "turn": 1})}

        def resume(store: Store, _: int) -> bool:
            return store.jobs.resume_job(unit.job_id, {"state": "running"}, change)

        assert call_at_once(open_store, resume, range(16)).count(True) == 1
        assert read_job(store, unit.job_id).state == "running"
        assert read_batch(store, unit).turn == 1
        assert store.records.read_position(unit) == 4_000_000
        assert store.schedule.take_due(10)[0] == [unit]

    def test_counts_its_batches_anew(self, store: Store) -> None:
        unit = park_batch(store, 1, store.now() + 500)
        store.leases.acquire_lease(unit, 6, "me", 600)
        for _ in range(2):
            store.leases.write_record(unit, "me", state="failed", done=True)
        assert read_job(store, unit.job_id).through == 1
        store.jobs.update_job(unit.job_id, state="failed")
        assert store.jobs.resume_job(unit.job_id, {"state": "running"}, {0: (True, 7, {"done": False})})
        assert read_job(store, unit.job_id).through == 0

    @pytest.mark.parametrize("state", ["staged", "running", "revoked"])
    def test_is_the_only_one_that_is(self, state: str, store: Store) -> None:
        unit = park_batch(store, 1, store.now() + 500)
        store.jobs.update_job(unit.job_id, state=state)
        assert not store.jobs.resume_job(unit.job_id, {"state": "running"}, {0: (True, 1, {"turn": 1})})
        assert not store.jobs.resume_job("nobody", {"state": "running"}, {})
        assert read_batch(store, unit).turn == 0

    def test_does_not_expire_any_more(self, store: Store, job: str, pass_time: PassTime) -> None:
        store.jobs.update_job(job, state="failed")
        store.jobs.expire_job(job, 1)
        assert store.jobs.resume_job(job, {"state": "running"}, {0: (True, 1, {"turn": 1})})
        pass_time(1.5)
        assert read_job(store).state == "running"
        assert list(store.payloads.read_custom_ids(job, 0)) == [["a0", "b0"]]

    def test_goes_on_with_the_batches_whose_turn_it_is(self, store: Store, job: str) -> None:
        store.jobs.update_job(job, state="failed")
        assert store.jobs.resume_job(job, {"state": "running"}, {0: (True, 7, {}), 1: (False, 8, {"looks": 5})})
        assert store.schedule.take_due(10)[0] == [BATCH]
        assert [store.records.read_position(unit) for unit in (BATCH, OTHER_BATCH)] == [7, 8]
        assert read_batch(store, OTHER_BATCH).looks == 5
        assert store.leases.acquire_lease(BATCH, 6, "me", LONG).state == "stale"
        assert store.leases.acquire_lease(BATCH, 7, "me", LONG).state == "taken"

    def test_of_which_only_the_end_is_left_is_due_itself(self, store: Store, job: str) -> None:
        store.jobs.update_job(job, state="failed", ended_at=5.0)
        store.jobs.expire_job(job, LONG)
        assert store.jobs.resume_job(job, {"state": "running", "ended_at": None}, {})
        assert (read_job(store).state, read_job(store).ended_at) == ("running", None)
        assert store.schedule.take_due(10)[0] == [Unit(job)]


class TestAJob:
    def test_is_created_once(self, store: Store) -> None:
        create_bare_job(store, "job")
        record = job_record(nonce="another", batches=1)
        assert not store.jobs.create_job("job", record, [FULL_BATCH], LONG, staged=False)
        assert read_job(store, "job").nonce == "n"
        assert store.records.read_batches("job") == [batch_record(count=1)]

    def test_is_created_by_one_of_many(self, open_store: OpenStore, store: Store) -> None:
        def create(store: Store, number: int) -> bool:
            record = job_record(nonce=f"{number}", batches=2)
            batches = [batch_record(looks=number), batch_record(looks=number)]
            return store.jobs.create_job("job", record, batches, LONG, staged=False)

        [maker] = [number for number, made in enumerate(call_at_once(open_store, create, range(24))) if made]
        assert read_job(store, "job").nonce == f"{maker}"
        assert [batch.looks for batch in store.records.read_batches("job")] == [maker, maker]

    def test_is_changed_only_in_the_state_that_is_asked_for(self, store: Store, job: str) -> None:
        assert not store.jobs.update_job(job, only="running", queue="slow")
        assert store.jobs.update_job(job, only="staged", state="running", queue="slow")
        assert store.jobs.read_job(job) == job_record(state="running", queue="slow")
        assert not store.jobs.update_job("nobody", queue="slow")

    def test_goes_from_one_state_to_the_next_once_among_many(
        self, open_store: OpenStore, store: Store, job: str
    ) -> None:
        def begin(store: Store, number: int) -> bool:
            return store.jobs.update_job(job, only="staged", state="running", queue=f"{number}")

        answers = call_at_once(open_store, begin, range(24))
        assert answers.count(True) == 1
        assert read_job(store).queue == f"{answers.index(True)}"

    def test_expires_unless_it_is_persisted(self, store: Store, pass_time: PassTime) -> None:
        for job_id in ("short", "long"):
            record = job_record(nonce="n", batches=1)
            assert store.jobs.create_job(job_id, record, [batch_record()], 1, staged=False)
            store.history.append_event(job_id, make_event())
        store.jobs.persist_job("long")
        pass_time(1.5)
        assert [store.jobs.read_job("short"), store.records.read_batch("short", 0)] == [None, None]
        assert store.history.read_events("short") == []
        assert list(store.jobs.job_ids()) == ["long"]
        assert store.records.read_batches("long") == [batch_record()]
        assert store.history.read_events("long") == [make_event()]

    def test_expires_with_all_that_is_written_when_it_is_over(
        self, store: Store, job: str, pass_time: PassTime
    ) -> None:
        """A job is revoked while a download of it is under way."""
        store.jobs.persist_job(job)
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        store.jobs.expire_job(job, 1)
        store.results.write_rows(job, 0, 1, [b"row"])
        assert store.results.publish_rows(BATCH, "me", 1, **NO_ROWS)
        store.message_queue.save_outcome(SENDER, 0, b"x")
        pass_time(1.5)
        assert store.jobs.read_job(job) is None
        assert store.results.count_outcomes(job, 0) == 0
        assert store.results.find_chunks(job, 0, 1, [0]) == {}

    def test_is_remembered_for_a_day_if_somebody_deleted_it(self, store: Store, job: str, pass_time: PassTime) -> None:
        create_bare_job(store, "job-2")
        store.storage.delete_job("job-2")
        store.storage.delete_job(job, remember=True)
        assert (store.jobs.was_deleted("job-2"), store.jobs.was_deleted(job)) == (False, True)
        assert store.jobs.read_job(job) is None
        pass_time(86_500)
        assert not store.jobs.was_deleted(job)

    def test_of_any_name_is_its_own(self, store: Store) -> None:
        """Ids are the callers': whatever the store makes of them, two are never one."""
        ids = ["a", "a:b", "{a}", "a}", "a*", "a b", "ü😀", "a:job", "A", "a" * 200]
        for job_id in ids:
            create_bare_job(store, job_id, queue=job_id)
            store.leases.acquire_lease(Unit(job_id, 0), 3, job_id, LONG)
        assert [read_job(store, job_id).queue for job_id in ids] == ids
        assert all(store.leases.renew_lease(Unit(job_id, 0), job_id, LONG) for job_id in ids)
        store.storage.delete_job("a")
        assert sorted(store.jobs.job_ids()) == sorted(ids[1:])
