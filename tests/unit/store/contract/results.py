"""Rows of result files, and outcomes of single requests."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import pytest

from claude_batch_tasks.errors import ResultsMissing
from claude_batch_tasks.records import Unit
from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import (
    BATCH,
    JOB,
    LONG,
    NO_ROWS,
    SENDER,
    Contents,
    OpenStore,
    batch_record,
    call_at_once,
    read_batch,
)


class TestResults:
    @pytest.fixture(autouse=True)
    def _leased(self, store: Store, job: str) -> None:
        store.leases.acquire_lease(BATCH, 0, "me", LONG)

    def published(self, store: Store) -> list[bytes] | None:
        batch = store.records.read_batch(JOB, 0)
        assert batch is not None
        return None if batch.published is None else list(store.results.read_rows(JOB, 0, batch.published))

    def test_are_seen_once_they_are_published_and_not_before(self, store: Store) -> None:
        store.results.write_rows(JOB, 0, 1, iter([b"row\nrow", b"row"]))
        assert self.published(store) is None
        assert store.results.publish_rows(BATCH, "me", 1, **NO_ROWS, state="fetched", counts={"succeeded": 2})
        assert self.published(store) == [b"row\nrow", b"row"]
        assert store.records.read_batch(JOB, 0) == batch_record(state="fetched", counts={"succeeded": 2}, published=1)

    def test_of_an_attempt_that_broke_off_do_not_mix_with_the_next(self, store: Store) -> None:
        def broken() -> Iterator[bytes]:
            yield b"half"
            raise ConnectionError

        with pytest.raises(ConnectionError):
            store.results.write_rows(JOB, 0, 1, broken())
        store.results.write_rows(JOB, 0, 2, [b"whole"])
        store.results.publish_rows(BATCH, "me", 2, **NO_ROWS)
        assert self.published(store) == [b"whole"]

    def test_are_not_published_by_somebody_whose_lease_was_taken_over(self, store: Store, contents: Contents) -> None:
        before = contents()
        store.results.write_rows(JOB, 0, 1, [b"mine"])
        assert not store.results.publish_rows(BATCH, "somebody else", 1, **NO_ROWS, state="fetched")
        assert store.records.read_batch(JOB, 0) == batch_record()
        assert contents() == before

    def test_are_found_by_the_position_of_their_request(self, store: Store) -> None:
        store.results.write_rows(JOB, 0, 1, [b"first", b"second"])
        pieces = array("I", [1, 0, 2**32 - 1]).tobytes()
        store.results.publish_rows(BATCH, "me", 1, pieces=pieces, eligible_places=b"")
        assert store.results.find_chunks(JOB, 0, 1, [2, 0, 1, 3]) == {0: 1, 1: 0}
        assert store.results.find_chunks(JOB, 0, 1, range(1000)) == {0: 1, 1: 0}, "and likewise of many"
        assert [store.results.read_chunk(JOB, 0, 1, number) for number in range(3)] == [b"first", b"second", b""]

    def test_of_one_request_are_found_with_its_outcome(self, store: Store) -> None:
        store.results.write_rows(JOB, 0, 1, [b"first", b"second", *(b"%d" % number for number in range(400))])
        pieces = array("I", [1, 2**32 - 1, 300, 0]).tobytes()
        store.results.publish_rows(BATCH, "me", 1, pieces=pieces, eligible_places=b"")
        for position in (1, 2):
            store.message_queue.save_outcome(SENDER, position, b"outcome %d" % position)
        assert [store.results.find_request(JOB, 0, 1, position) for position in range(5)] == [
            (None, b"second"), (b"outcome 1", b""), (b"outcome 2", b"298"), (None, b"first"), (None, b""),
        ]  # fmt: skip
        assert store.results.find_request(JOB, 0, 2, 1) == (b"outcome 1", b""), "of an attempt that is not there"
        assert store.results.find_request("nobody", 0, 1, 0) == (None, b"")

    def test_in_many_chunks_keep_their_order(self, store: Store) -> None:
        chunks = [b"%d," % number * 9000 for number in range(100)]
        store.results.write_rows(JOB, 0, 1, iter(chunks))
        store.results.publish_rows(BATCH, "me", 1, **NO_ROWS)
        assert self.published(store) == chunks
        assert store.results.read_chunk(JOB, 0, 1, 77) == chunks[77]

    def test_of_earlier_rounds_are_kept(self, store: Store) -> None:
        for attempt in range(1, 5):
            store.results.write_rows(JOB, 0, attempt, [b"%d" % attempt])
        assert store.results.publish_rows(BATCH, "me", 2, **NO_ROWS)
        assert store.results.publish_rows(BATCH, "me", 4, keep=[2], **NO_ROWS)
        assert [list(store.results.read_rows(JOB, 0, attempt)) for attempt in (2, 4)] == [[b"2"], [b"4"]]
        with pytest.raises(ResultsMissing):
            next(store.results.read_rows(JOB, 0, 3))

    def test_keep_what_deserves_another_chance(self, store: Store) -> None:
        store.results.publish_rows(BATCH, "me", 1, pieces=b"", eligible_places=b"\x00\x01\xff\n")
        assert store.results.read_eligible(JOB, 0, 1) == b"\x00\x01\xff\n"
        assert store.results.read_eligible(JOB, 0, 2) == store.results.read_eligible(JOB, 1, 1) == b""

    def test_keep_what_is_in_the_next_batch_where_that_is_known(self, store: Store) -> None:
        store.results.publish_rows(BATCH, "me", 1, pieces=b"", eligible_places=b"left", again_places=b"\x00\xff")
        assert store.results.read_again(JOB, 0, 1) == b"\x00\xff"
        assert store.results.read_eligible(JOB, 0, 1) == b"left"
        assert store.storage.missing_keys(JOB, 0, ["again:1", "again:2"]) == [
            store.records.name_batch(JOB, 0) + ":again:2"
        ]
        store.results.publish_rows(BATCH, "me", 2, keep=[1], pieces=b"", eligible_places=b"", again_places=b"")
        assert store.storage.missing_keys(JOB, 0, ["again:1", "again:2"]) == []
        store.results.publish_rows(BATCH, "me", 3, **NO_ROWS)
        assert store.results.read_again(JOB, 0, 3) == b""

    def test_that_broke_off_or_will_not_be_published_leave_nothing(self, store: Store, contents: Contents) -> None:
        def broken() -> Iterator[bytes]:
            yield b"half"
            yield b"more"
            raise ConnectionError

        before = contents()
        with pytest.raises(ConnectionError):
            store.results.write_rows(JOB, 0, 1, broken())
        assert contents() == before
        store.results.write_rows(JOB, 0, 2, [b"short"])
        assert contents() != before
        store.results.discard_rows(JOB, 0, 2)
        assert contents() == before

    def test_come_in_their_order_however_many_chunks_there_are(self, store: Store) -> None:
        written = [b"%d" % n * (n % 7 * 1000 + 1) for n in range(200)]
        store.results.write_rows(JOB, 0, 1, iter(written))
        assert list(store.results.read_rows(JOB, 0, 1)) == written

    def test_may_be_none_at_all(self, store: Store) -> None:
        store.results.write_rows(JOB, 0, 1, [])
        assert store.results.publish_rows(BATCH, "me", 1, **NO_ROWS)
        assert self.published(store) == []


class TestRowsThatAreDownloadedAgain:
    @pytest.fixture(autouse=True)
    def _lost(self, store: Store, job: str) -> None:
        """Rows were published, and are there twice now: what is to take their place has a name of its own."""
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        store.results.write_rows(JOB, 0, 1, [b"old"])
        pieces = array("I", [0, 2**32 - 1]).tobytes()
        assert store.results.publish_rows(
            BATCH, "me", 1, pieces=pieces, eligible_places=b"old", index=[(3, b"entries")]
        )
        store.results.write_rows(JOB, 0, 1, [b"new", b"rows"], copy=":copy")

    def restore(self, store: Store, job_id: str = JOB) -> bool:
        pieces = array("I", [1, 0]).tobytes()
        return store.results.restore_rows(
            job_id, 0, 1, ":copy", pieces=pieces, eligible_places=b"new", again_places=b"next", index=[(3, b"more")]
        )

    def test_are_seen_when_they_take_their_place(self, store: Store) -> None:
        assert list(store.results.read_rows(JOB, 0, 1)) == [b"old"]
        assert store.payloads.read_index(JOB, 3, batch=0, attempt=1) == b"entries"
        assert self.restore(store)
        assert list(store.results.read_rows(JOB, 0, 1)) == [b"new", b"rows"]
        assert store.results.find_chunks(JOB, 0, 1, [0, 1]) == {0: 1, 1: 0}
        assert store.results.read_eligible(JOB, 0, 1) == b"new"
        assert store.results.read_again(JOB, 0, 1) == b"next"
        assert store.payloads.read_index(JOB, 3, batch=0, attempt=1) == b"more"
        assert store.payloads.read_index(JOB, 3) == b""

    def test_take_their_place_once(self, open_store: OpenStore) -> None:
        assert call_at_once(open_store, lambda store, _: self.restore(store), range(8)).count(True) == 1

    def test_may_be_discarded(self, store: Store) -> None:
        store.results.discard_rows(JOB, 0, 1, copy=":copy")
        assert not self.restore(store)
        assert list(store.results.read_rows(JOB, 0, 1)) == [b"old"]

    def test_bring_no_job_back(self, store: Store) -> None:
        store.storage.delete_job(JOB)
        assert not self.restore(store)
        assert store.jobs.read_job(JOB) is None


class TestOutcomes:
    def test_are_stored_once(self, store: Store, job: str) -> None:
        assert store.message_queue.save_outcome(SENDER, 1, b"first")
        assert not store.message_queue.save_outcome(Unit(job, 0, 3), 1, b"second")
        assert store.results.find_outcomes(job, 0, [0, 1]) == {1: b"first"}
        assert list(store.results.read_outcomes(job, 0)) == [(1, b"first")]
        assert list(store.results.read_outcomes(job, 1)) == []

    def test_are_stored_once_among_many(self, open_store: OpenStore, store: Store, job: str) -> None:
        def save(store: Store, number: int) -> bool:
            return store.message_queue.save_outcome(Unit(job, 0, number % 3), number % 5, b"%d" % number)

        stored = call_at_once(open_store, save, range(40))
        assert store.results.count_outcomes(job, 0) == 5
        assert sum(stored) == len(list(store.results.read_outcomes(job, 0))) == 5

    def test_come_back_each_with_its_position(self, store: Store, job: str) -> None:
        for position in range(700):
            store.message_queue.save_outcome(SENDER, position, b"%d" % position)
        assert sorted(store.results.read_outcomes(job, 0)) == [(position, b"%d" % position) for position in range(700)]

    def test_that_count_as_lost_may_come_after_all(self, store: Store, job: str) -> None:
        assert store.message_queue.save_outcome(SENDER, 0, b"lost", given_up=True)
        assert not store.message_queue.save_outcome(SENDER, 0, b"lost again", given_up=True)
        assert store.message_queue.save_outcome(SENDER, 0, b"answer")
        assert not store.message_queue.save_outcome(SENDER, 0, b"another")
        assert store.results.find_outcomes(job, 0, [0]) == {0: b"answer"}
        assert (store.results.count_outcomes(job, 0), read_batch(store).stored) == (1, 1)

    def test_of_a_batch_that_is_final_stay_as_they_are(self, store: Store, job: str) -> None:
        store.message_queue.save_outcome(SENDER, 0, b"lost", given_up=True)
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        store.leases.write_record(BATCH, "me", final=True)
        assert not store.message_queue.save_outcome(SENDER, 0, b"answer")
        assert store.results.find_outcomes(job, 0, [0]) == {0: b"lost"}

    def test_are_counted(self, store: Store, job: str) -> None:
        for position in (0, 1, 1, 5):
            store.message_queue.save_outcome(SENDER, position, b"x")
        assert [store.results.count_outcomes(job, batch) for batch in (0, 1)] == [3, 0]
        assert store.results.count_outcomes("nobody", 0) == 0


class TestWhatWasAnnounced:
    def test_is_a_bit_for_each_request(self, store: Store, job: str) -> None:
        assert store.results.read_announced(job, 0) == b""
        store.results.mark_announced(job, 0, [0, 9])
        store.results.mark_announced(job, 0, [9, 17])
        store.results.mark_announced(job, 0, [])
        assert store.results.read_announced(job, 0) == b"\x80\x40\x40"
        assert store.results.read_announced(job, 1) == b""
