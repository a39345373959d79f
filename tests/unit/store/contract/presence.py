"""The workers that run."""

from __future__ import annotations

from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import LONG, PassTime, make_presence


class TestWorkersThatRun:
    def test_are_listed_by_name_as_they_reported_last(self, store: Store) -> None:
        assert store.presence.list_workers() == []
        second, first = make_presence("celery@b", settings={"poll_max": "30"}), make_presence("celery@a", processes=4)
        for worker in (make_presence("celery@b"), second, first):
            store.presence.report_worker(worker, LONG)
        assert store.presence.list_workers() == [first, second]

    def test_are_gone_when_they_stop_or_report_no_more(self, store: Store, pass_time: PassTime) -> None:
        store.presence.report_worker(make_presence("celery@a"), 0.2)
        store.presence.report_worker(make_presence("celery@b"), LONG)
        store.presence.report_worker(make_presence("celery@c"), LONG)
        store.presence.remove_worker("celery@c")
        store.presence.remove_worker("nobody")
        pass_time(2.2)
        assert [worker.hostname for worker in store.presence.list_workers()] == ["celery@b"]

    def test_leave_nothing_behind_when_others_report(self, store: Store, pass_time: PassTime) -> None:
        for number in range(20):
            store.presence.report_worker(make_presence(f"celery@{number}"), 0.2)
        pass_time(2.2)
        store.presence.report_worker(make_presence("celery@b"), LONG)
        assert [worker.hostname for worker in store.presence.list_workers()] == ["celery@b"]
