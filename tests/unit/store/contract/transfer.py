"""Contract of ``Transfer``: what is read of a store makes the same of another one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec
import pytest

from claude_batch_tasks.errors import JobNotFound, StoreMoved
from claude_batch_tasks.pool_records import AskEnd, PoolRecord
from claude_batch_tasks.records import Claim, Unit
from claude_batch_tasks.store import Store
from claude_batch_tasks.store.transfer import items
from claude_batch_tasks.store.transfer.items import JobItem, Mark
from claude_batch_tasks.store.transfer.tally import tally
from tests.unit.store.contract.samples import (
    ACCOUNT,
    BATCH,
    JOB,
    LIMITS,
    LONG,
    SENDER,
    OpenStore,
    PassTime,
    add_ask,
    batch_record,
    create_bare_job,
    create_job,
    create_staged_job,
    job_record,
    live,
    make_chunk,
    make_event,
    park_batch,
    read_batch,
    take_request,
)

DAY = 86_400.0
MARK = Mark(state="moved", other="elsewhere", at=1.0)


def fill(store: Store) -> None:
    """Write a job of each kind, pools, and what all of them share."""
    create_staged_job(store)
    live(store, attempts=2)
    store.message_queue.save_outcome(SENDER, 2, b"lost", given_up=True)
    store.records.request_restore(JOB)
    store.deliveries.record_delivered(JOB, [(0, 1)], 0, 2)
    store.deliveries.record_delivered(JOB, [(2, 1)])
    store.deliveries.record_failed(JOB, [(1, 1)], "no such task")
    store.leases.write_record(BATCH, "me", state="ended", counts={"succeeded": 2}, failures=3)
    for number in range(1000):
        store.history.append_event(JOB, make_event(number))
    _fill_schedule(store)
    _fill_results(store)
    _fill_retry(store)
    _fill_pools(store)
    store.in_flight.pause_calls(f"{ACCOUNT}:create", store.now() + LONG)
    store.in_flight.add_duration(ACCOUNT, 7, 12.5, kind="claude-x:1")
    store.in_flight.add_duration(ACCOUNT, 8, 13.5)
    store.storage.delete_job(create_bare_job(store, "deleted"), remember=True)
    store.read_identity()


def _fill_schedule(store: Store) -> None:
    park_batch(store, 1, store.now() + LONG)
    unit = park_batch(store, 2, store.now() + LONG, in_flight=True)
    store.leases.acquire_lease(Unit("job:1"), 3, "me", LONG)
    store.leases.advance_unit(Unit("job:1"), "me", 4, failures=1)
    store.leases.acquire_lease(Unit(JOB, 1), 7, "me", LONG)
    assert store.batch_ids.claim_id(Unit(JOB, 1), "me", "msgbatch_1", batch_id="msgbatch_1") == Unit(JOB, 1)
    lost = Unit(create_bare_job(store, "lost in a queue"), 0)
    store.schedule.add_units([lost], store.now() - LONG)
    assert store.schedule.find_lost(lost, 1.0) is not None
    interrupted = Unit(create_bare_job(store, "interrupted"), 0)
    store.leases.acquire_lease(interrupted, 1, "one", 0.0)
    store.leases.acquire_lease(interrupted, 1, "two", LONG)
    store.leases.write_record(interrupted, "two", step_failures=1, step_failure="it was killed")
    create_bare_job(store, "ended", state="completed")
    store.jobs.expire_job("ended", DAY)
    assert unit.batch == 0


def _fill_results(store: Store) -> None:
    chunks = [make_chunk(0, f"a{number}", f"b{number}") for number in range(6)]
    record = job_record(nonce="many", requests=12, batches=1)
    assert create_job(store, record, [batch_record(count=12)], *chunks, job_id="of many chunks")
    unit = Unit(create_bare_job(store, "fetched"), 0)
    store.leases.acquire_lease(unit, 0, "me", LONG)
    for attempt in (1, 2):
        store.leases.write_record(unit, "me", attempt=attempt)
        store.results.write_rows("fetched", 0, attempt, [b"row %d" % number for number in range(6)])
    store.results.publish_rows(
        unit,
        "me",
        1,
        pieces=b"\1\0\0\0",
        eligible_places=b"\0\0\0\0",
        again_places=b"\1\0\0\0",
        index=[(7, b"entries")],
    )


def _fill_retry(store: Store) -> None:
    create_bare_job(store, "failed", state="failed")
    create_bare_job(store, "unused", state="failed")
    record = job_record(nonce="retry", requests=1, batches=1, parent="failed")
    store.payloads.stage_requests("retry", "retry", [make_chunk(0, "a")])
    store.payloads.stage_index("retry", "retry", [(7, b"index")])
    claims = [Claim("failed", 0, {0: b"\x01\xff\x00"})]
    assert store.retries.create_retry("retry", record, [batch_record(count=1)], claims, [0])


def _fill_pools(store: Store) -> None:
    costly = LIMITS._replace(max_cost=1000, window=DAY)
    add_ask(
        store,
        "first",
        limits=costly,
        reserved=5,
        canvas='{"link":1}',
        headers='{"h":1}',
        params=b'{"x":"%s"}' % (b"y" * 2000),
    )
    add_ask(store, "second", limits=costly, reserved=7, expires_at=store.now() + LONG)
    add_ask(store, "withdrawn", limits=costly, reserved=1)
    assert store.asks.withdraw(["withdrawn"], DAY) == [True]
    add_ask(store, "alone", key="other", limits=LIMITS._replace(max_requests=1))
    assert store.pools.begin_sealing("pool-of-alone") is not None
    store.pools.stop_sealing("pool-of-alone")
    add_ask(store, "sealed", key="third", limits=LIMITS._replace(max_requests=1))
    create_bare_job(store, "pool-of-sealed", pool="default")
    store.pools.finish_sealing("pool-of-sealed")
    store.asks.end_asks("pool-of-sealed", {0: AskEnd("sealed", "succeeded")}, DAY)
    for ask_id in ("x", "y"):
        add_ask(store, ask_id, key="fourth", limits=LIMITS._replace(max_requests=2))
    parts = {f"part-{n}": (PoolRecord(state=state), [n]) for n, state in enumerate(("closed", "parked"))}
    assert store.pools.divide("pool-of-x", parts)


def export_all(store: Store) -> dict[str, list[JobItem]]:
    return {job_id: list(store.transfer.export_job(job_id)) for job_id in store.transfer.list_ids()}


def _encoded(parts: Iterable[items.JobItem | items.SharedItem]) -> list[bytes]:
    """Return the parts as texts to compare: neither their order counts nor that of the fields of a record."""
    passed = (msgspec.structs.replace(part, **_lasting(part)) for part in parts)
    return sorted(msgspec.json.encode(part, order="deterministic") for part in passed)


def _lasting(part: object) -> dict[str, None]:
    return {"remaining": None} if hasattr(part, "remaining") else {}


class TestMoving:
    def test_what_is_written_is_what_was_read(self, store: Store) -> None:
        fill(store)
        known, shared = export_all(store), list(store.transfer.export_shared())
        # One of the two downloads has not ended.
        assert [part.attempt for part in known["fetched"] if isinstance(part, items.Download)] == [1]
        for job_id, parts in known.items():
            store.storage.delete_job(job_id)
            store.transfer.import_job(job_id, parts)
        store.transfer.import_shared(shared)
        again = export_all(store)
        assert list(again) == list(known)
        for job_id, parts in known.items():
            assert _encoded(again[job_id]) == _encoded(parts), job_id
            assert tally(again[job_id]) == tally(parts)
        assert _encoded(store.transfer.export_shared()) == _encoded(shared)

    def test_every_kind_of_part_is_read(self, store: Store) -> None:
        fill(store)
        found = Counter(type(part) for parts in export_all(store).values() for part in parts)
        found += Counter(map(type, store.transfer.export_shared()))
        known = {each for each in vars(items).values() if isinstance(each, type) and issubclass(each, items._Item)}
        assert known - found.keys() == {items._Item}

    def test_what_was_moved_goes_on(self, store: Store) -> None:
        fill(store)
        before, batch = store.jobs.read_job(JOB), read_batch(store)
        bodies, rows = list(store.payloads.read_bodies(JOB, 0)), list(store.results.read_rows(JOB, 0, 2))
        outcomes = dict(store.results.read_outcomes(JOB, 0))
        for job_id, parts in export_all(store).items():
            store.storage.delete_job(job_id)
            store.transfer.import_job(job_id, parts)
        assert store.jobs.read_job(JOB) == before
        assert read_batch(store) == batch
        assert list(store.payloads.read_bodies(JOB, 0)) == bodies
        assert list(store.results.read_rows(JOB, 0, 2)) == rows
        assert dict(store.results.read_outcomes(JOB, 0)) == outcomes
        # Nobody has the lease, at the position that the message has.
        assert store.leases.acquire_lease(BATCH, 0, "another", LONG).state == "taken"
        assert store.leases.acquire_lease(SENDER, 0, "another", LONG).state == "taken"
        store.message_queue.add_requests(JOB, 0, [5])
        assert take_request(store, 5, owner="another").state == "taken"
        [event] = [event for event in store.history.read_events(JOB) if event.event == "left_out"]
        assert event.text == "201 entries are left out"
        assert len(store.in_flight.list_batches(ACCOUNT)) == 1
        assert add_ask(store, "third").job_id == "pool-of-first"
        assert store.retries.read_taken("failed", 0, 1) == [b"\x01\xff\x00"]

    def test_how_long_a_job_is_stored_is_kept(self, store: Store, pass_time: PassTime) -> None:
        create_bare_job(store, "short", state="completed")
        store.jobs.expire_job("short", 2.0)
        create_bare_job(store, "running")
        store.jobs.persist_job("running")
        parts = export_all(store)
        for job_id in parts:
            store.storage.delete_job(job_id)
            store.transfer.import_job(job_id, parts[job_id])
        pass_time(2.2)
        assert store.jobs.read_states(["short", "running"]) == [None, "running"]
        assert list(store.transfer.export_job("short")) == []

    def test_a_job_is_there_when_all_of_it_is(self, open_store: OpenStore) -> None:
        store, reader = open_store(), open_store()
        create_staged_job(store)
        live(store)
        parts = list(store.transfer.export_job(JOB))
        store.storage.delete_job(JOB)
        # Senders stay in the schedule until one looks for them.
        left = reader.schedule.list_overdue(math.inf, 10)

        def broken_off(after: int) -> Iterator[JobItem]:
            yield from parts[:after]
            assert reader.jobs.read_job(JOB) is None
            assert list(reader.jobs.job_ids(math.inf)) == []
            raise JobNotFound("it was interrupted")

        for after in (1, len(parts) // 2, len(parts)):
            with pytest.raises(JobNotFound):
                store.transfer.import_job(JOB, broken_off(after))
            assert reader.jobs.read_states([JOB]) == [None]
            assert reader.schedule.list_overdue(math.inf, 10) == left
        store.transfer.import_job(JOB, parts)
        assert _encoded(reader.transfer.export_job(JOB)) == _encoded(parts)

    def test_fields_of_a_later_release_are_kept(self, store: Store) -> None:
        create_bare_job(store, JOB)
        job, *others = store.transfer.export_job(JOB)
        assert isinstance(job, items.Job)
        later = msgspec.structs.replace(job, record={**job.record, "later": '{"a":[1,"\\u0000é"]}'})
        store.storage.delete_job(JOB)
        store.transfer.import_job(JOB, [later, *others])
        [found] = [part for part in store.transfer.export_job(JOB) if isinstance(part, items.Job)]
        assert found.record == later.record

    def test_what_the_store_has_lost_stays_lost(self, store: Store) -> None:
        create_job(store, job_record(batches=1), [batch_record()])
        parts = [part for part in store.transfer.export_job(JOB) if not isinstance(part, items.Batch)]
        store.storage.delete_job(JOB)
        store.transfer.import_job(JOB, parts)
        assert store.records.find_batches(JOB) == [None]
        assert [part for part in store.transfer.export_job(JOB) if isinstance(part, items.Batch)] == []

    def test_a_step_and_a_job_and_an_ask_are_activity(self, store: Store) -> None:
        seen = {store.transfer.summarize_activity()}
        create_bare_job(store, JOB)
        seen.add(store.transfer.summarize_activity())
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        seen.add(store.transfer.summarize_activity())
        store.leases.advance_unit(BATCH, "me", 1, through=True)
        seen.add(store.transfer.summarize_activity())
        add_ask(store, "first")
        seen.add(store.transfer.summarize_activity())
        add_ask(store, "second")
        seen.add(store.transfer.summarize_activity())
        assert len(seen) == 6
        assert store.transfer.summarize_activity() in seen


class TestMarks:
    def test_nobody_begins_to_use_a_store_that_was_moved(self, open_store: OpenStore) -> None:
        store = open_store()
        create_bare_job(store, JOB)
        assert store.transfer.read_mark() is None
        store.transfer.set_mark(MARK)
        store.transfer.set_mark(MARK)
        assert store.transfer.read_mark() == MARK
        with pytest.raises(StoreMoved, match="were moved to elsewhere on 1970-01-01"):
            open_store().check_schema()
        with pytest.raises(StoreMoved):
            open_store().jobs.read_job(JOB)
        store.transfer.set_mark(None)
        assert open_store().jobs.read_states([JOB]) == ["running"]

    def test_a_store_that_is_being_filled_is_not_used(self, open_store: OpenStore) -> None:
        open_store().transfer.set_mark(msgspec.structs.replace(MARK, state="filling"))
        with pytest.raises(StoreMoved, match="the jobs of the store at elsewhere are being copied"):
            open_store().check_schema()

    def test_one_that_is_opened_for_it_reads_and_writes_a_marked_store(self, open_store: OpenStore) -> None:
        create_bare_job(open_store(), JOB)
        open_store().transfer.set_mark(MARK)
        store = open_store()
        store.transfer.open()
        parts = list(store.transfer.export_job(JOB))
        store.storage.delete_job(JOB)
        store.transfer.import_job(JOB, parts)
        assert list(store.transfer.list_ids()) == [JOB]
        assert store.transfer.read_mark() == MARK
