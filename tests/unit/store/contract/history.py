"""The history of each job."""

from __future__ import annotations

from claude_batch_tasks.records import Unit
from claude_batch_tasks.store import Store, history
from tests.unit.store.contract.samples import Contents, OpenStore, call_at_once, create_bare_job, make_event


class TestAHistory:
    def test_is_told_in_order_with_its_details(self, store: Store) -> None:
        create_bare_job(store, "job")
        for number in range(3):
            store.history.append_event("job", make_event(number))
        assert store.history.read_events("job") == [make_event(0), make_event(1), make_event(2)]

    def test_keeps_the_beginning_and_the_end_of_a_long_one(self, store: Store) -> None:
        create_bare_job(store, "job")
        for number in range(1234):
            store.history.append_event("job", make_event(number))
        told = store.history.read_events("job")
        assert len(told) == 1001
        assert told[:200] == [make_event(number) for number in range(200)]
        assert (told[200].event, told[200].text) == ("left_out", "234 entries are left out")
        assert told[201:] == [make_event(number) for number in range(434, 1234)]
        assert sorted(told, key=lambda event: event.at) == told

    def test_has_all_that_many_append(self, open_store: OpenStore, store: Store) -> None:
        create_bare_job(store, "job")
        call_at_once(open_store, lambda store, number: store.history.append_event("job", make_event(number)), range(64))
        assert sorted(event.text for event in store.history.read_events("job")) == sorted(
            f"entry {n}" for n in range(64)
        )

    def test_has_the_numbers_of_batches(self, store: Store) -> None:
        create_bare_job(store, "job")
        history.note(store, Unit("job", 0), "ended", "ended")
        history.note(store, Unit("job"), "finished", "finished")
        assert [event.batch for event in store.history.read_events("job")] == [1, None]

    def test_of_a_job_that_is_gone_is_empty(self, store: Store, contents: Contents) -> None:
        store.history.append_event("nobody", make_event())
        assert store.history.read_events("nobody") == []
        assert contents() == set()

    def test_is_deleted_with_its_job(self, store: Store) -> None:
        store.history.append_event(create_bare_job(store, "job"), make_event())
        store.storage.delete_job("job")
        store.history.append_event("job", make_event(1))
        assert store.history.read_events("job") == []
