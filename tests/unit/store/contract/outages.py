"""Every method raises StoreUnavailable when the store cannot answer, and never guesses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import (
    BATCH,
    JOB,
    LONG,
    NO_ROWS,
    NONCE,
    SENDER,
    batch_record,
    job_record,
    make_chunk,
    make_event,
    make_presence,
    take_request,
)

CALLS: dict[str, Callable[[Store], Any]] = {
    "jobs.create_job": lambda s: s.jobs.create_job(JOB, job_record(), [batch_record()], LONG),
    "jobs.read_job": lambda s: s.jobs.read_job(JOB),
    "jobs.update_job": lambda s: s.jobs.update_job(JOB, state="running"),
    "jobs.was_deleted": lambda s: s.jobs.was_deleted(JOB),
    "jobs.persist_job": lambda s: s.jobs.persist_job(JOB),
    "jobs.expire_job": lambda s: s.jobs.expire_job(JOB, LONG),
    "jobs.delete_job": lambda s: s.jobs.delete_job(JOB),
    "records.read_batches": lambda s: s.records.read_batches(JOB),
    "records.find_batches": lambda s: s.records.find_batches(JOB),
    "records.replace_batch": lambda s: s.records.replace_batch(JOB, 0, batch_record(), 1),
    "records.missing_keys": lambda s: s.records.missing_keys(JOB, 0, ["body"]),
    "results.restore_rows": lambda s: s.results.restore_rows(JOB, 0, 1, ":copy", pieces=b"", eligible_places=b""),
    "results.count_outcomes": lambda s: s.results.count_outcomes(JOB, 0),
    "message_queue.list_known": lambda s: s.message_queue.list_known(JOB, 0),
    "schedule.due_times": lambda s: s.schedule.due_times([BATCH]),
    "presence.report_worker": lambda s: s.presence.report_worker(make_presence(), LONG),
    "presence.remove_worker": lambda s: s.presence.remove_worker("celery@a"),
    "presence.list_workers": lambda s: s.presence.list_workers(),
    "schedule.are_scheduled": lambda s: s.schedule.are_scheduled([BATCH]),
    "jobs.sample_jobs": lambda s: s.jobs.sample_jobs(3),
    "jobs.rebuild_list": lambda s: s.jobs.rebuild_list(),
    "jobs.read_states": lambda s: s.jobs.read_states([JOB]),
    "statistics.is_first": lambda s: s.statistics.is_first("x", LONG),
    "records.request_restore": lambda s: s.records.request_restore(JOB),
    "records.take_restore_requests": lambda s: s.records.take_restore_requests(3),
    "records.read_batch": lambda s: s.records.read_batch(JOB, 0),
    "leases.acquire_lease": lambda s: s.leases.acquire_lease(BATCH, 0, "me", LONG),
    "leases.renew_lease": lambda s: s.leases.renew_lease(BATCH, "me", LONG),
    "leases.write_record": lambda s: s.leases.write_record(BATCH, "me", state="lost"),
    "leases.end_batch": lambda s: s.leases.end_batch(BATCH, "me"),
    "leases.advance_unit": lambda s: s.leases.advance_unit(BATCH, "me", 1),
    "payloads.discard_staged": lambda s: s.payloads.discard_staged(JOB, NONCE, 1),
    "jobs.set_once": lambda s: s.jobs.set_once(JOB, "account", "x"),
    "schedule.add_units": lambda s: s.schedule.add_units([BATCH], 1.0),
    "schedule.remove_unit": lambda s: s.schedule.remove_unit(BATCH),
    "schedule.list_overdue": lambda s: s.schedule.list_overdue(1.0, 10),
    "schedule.find_lost": lambda s: s.schedule.find_lost(BATCH, 1.0),
    "records.read_position": lambda s: s.records.read_position(BATCH),
    "leases.park_unit": lambda s: s.leases.park_unit(BATCH, "me", 1, 5.0),
    "schedule.take_due": lambda s: s.schedule.take_due(10),
    "schedule.wake_units": lambda s: s.schedule.wake_units([BATCH]),
    "schedule.wait_again": lambda s: s.schedule.wait_again([BATCH], 5.0),
    "schedule.postpone_units": lambda s: s.schedule.postpone_units({BATCH: 2.0}),
    "in_flight.count_batches": lambda s: s.in_flight.count_batches("account"),
    "in_flight.list_batches": lambda s: s.in_flight.list_batches("account"),
    "in_flight.lock_list_call": lambda s: s.in_flight.lock_list_call("account", "me", LONG),
    "in_flight.record_list_call": lambda s: s.in_flight.record_list_call("account", failed=True),
    "in_flight.unlock_list_call": lambda s: s.in_flight.unlock_list_call("account", "me"),
    "in_flight.add_page": lambda s: s.in_flight.add_page("account", {}, taken_at=1.0, since=1.0, first=True),
    "in_flight.find_listed": lambda s: s.in_flight.find_listed("account", "msgbatch_1"),
    "in_flight.pause_calls": lambda s: s.in_flight.pause_calls("account", 1.0),
    "in_flight.paused_until": lambda s: s.in_flight.paused_until("account"),
    "in_flight.add_duration": lambda s: s.in_flight.add_duration("account", 1, 1.0),
    "in_flight.past_durations": lambda s: s.in_flight.past_durations("account"),
    "jobs.resume_job": lambda s: s.jobs.resume_job(JOB, {"state": "running"}, {}),
    "budget.reserve_quota": lambda s: s.budget.reserve_quota(JOB, 0, 1, 1),
    "batch_ids.claim_id": lambda s: s.batch_ids.claim_id(BATCH, "me", "msgbatch_1"),
    "batch_ids.release_id": lambda s: s.batch_ids.release_id(BATCH, "me", "msgbatch_1"),
    "batch_ids.find_owner": lambda s: s.batch_ids.find_owner("msgbatch_1"),
    "payloads.stage_requests": lambda s: s.payloads.stage_requests(JOB, NONCE, [make_chunk(0, "a")]),
    "payloads.read_bodies": lambda s: list(s.payloads.read_bodies(JOB, 0)),
    "payloads.read_custom_ids": lambda s: list(s.payloads.read_custom_ids(JOB, 0)),
    "payloads.find_chunk": lambda s: s.payloads.find_chunk(JOB, 0, 0),
    "results.write_rows": lambda s: s.results.write_rows(JOB, 0, 1, [b"row"]),
    "results.publish_rows": lambda s: s.results.publish_rows(BATCH, "me", 1, **NO_ROWS),
    "results.discard_rows": lambda s: s.results.discard_rows(JOB, 0, 1),
    "results.find_chunks": lambda s: s.results.find_chunks(JOB, 0, 1, [0]),
    "results.read_chunk": lambda s: s.results.read_chunk(JOB, 0, 1, 0),
    "payloads.stage_index": lambda s: s.payloads.stage_index(JOB, NONCE, [(0, b"x")]),
    "payloads.read_index": lambda s: s.payloads.read_index(JOB, 0),
    "payloads.find_custom_id": lambda s: s.payloads.find_custom_id(JOB, 0, 0),
    "schedule.start_next_batch": lambda s: s.schedule.start_next_batch(JOB, 0),
    "results.read_rows": lambda s: list(s.results.read_rows(JOB, 0, 1)),
    "results.read_eligible": lambda s: s.results.read_eligible(JOB, 0, 1),
    "records.read_sender": lambda s: s.records.read_sender(SENDER),
    "budget.reserve_cost": lambda s: s.budget.reserve_cost(BATCH, 0, 1, 2, 3),
    "budget.record_cost": lambda s: s.budget.record_cost(BATCH, 0, 1),
    "message_queue.add_requests": lambda s: s.message_queue.add_requests(JOB, 0, [0]),
    "message_queue.list_due": lambda s: s.message_queue.list_due(JOB, 0, 1),
    "message_queue.count_unfinished": lambda s: s.message_queue.count_unfinished(JOB, 0),
    "message_queue.take_request": lambda s: take_request(s),
    "message_queue.confirm_request": lambda s: s.message_queue.confirm_request(SENDER, "me", 0, LONG),
    "message_queue.renew_calls": lambda s: s.message_queue.renew_calls(SENDER, {0: "pace"}, LONG),
    "message_queue.list_abandoned": lambda s: s.message_queue.list_abandoned(SENDER),
    "message_queue.record_answer": lambda s: s.message_queue.record_answer(
        SENDER, 0, "pace", "1 1 1", limits={}, refused=False, hold=None, cap=1
    ),
    "message_queue.count_refusals": lambda s: s.message_queue.count_refusals(SENDER, 0),
    "message_queue.put_back": lambda s: s.message_queue.put_back(SENDER, 0, 1.0, 1),
    "message_queue.drop_waiting": lambda s: s.message_queue.drop_waiting(JOB, 0),
    "results.read_announced": lambda s: s.results.read_announced(JOB, 0),
    "results.mark_announced": lambda s: s.results.mark_announced(JOB, 0, [0]),
    "message_queue.save_outcome": lambda s: s.message_queue.save_outcome(SENDER, 0, b"x"),
    "results.read_outcomes": lambda s: list(s.results.read_outcomes(JOB, 0)),
    "results.find_outcomes": lambda s: s.results.find_outcomes(JOB, 0, [0]),
    "jobs.job_ids": lambda s: list(s.jobs.job_ids()),
    "check_schema": lambda s: s.check_schema(),
    "jobs.forget_expired": lambda s: s.jobs.forget_expired(),
    "history.append_event": lambda s: s.history.append_event(JOB, make_event()),
    "history.read_events": lambda s: s.history.read_events(JOB),
    "statistics.scan_jobs": lambda s: list(s.statistics.scan_jobs()),
    "statistics.scan_batches": lambda s: list(s.statistics.scan_batches(JOB, 1)),
    "schedule.scan_late": lambda s: list(s.schedule.scan_late(1.0)),
    "statistics.begin_statistics": lambda s: s.statistics.begin_statistics(1.0),
    "statistics.save_statistics": lambda s: s.statistics.save_statistics(b"[]", 1.0),
    "statistics.read_statistics": lambda s: s.statistics.read_statistics(),
}


class TestAStoreThatIsDown:
    @pytest.mark.parametrize("name", CALLS)
    def test_is_unavailable_and_never_empty(self, unreachable_store: Store, name: str) -> None:
        with pytest.raises(StoreUnavailable):
            CALLS[name](unreachable_store)

    def test_tells_no_time_that_it_never_knew(self, unreachable_store: Store) -> None:
        with pytest.raises(StoreUnavailable):
            unreachable_store.now()
