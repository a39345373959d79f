"""Which batch at Anthropic belongs to which batch of a job."""

from __future__ import annotations

import pytest

from claude_batch_tasks.records import Unit
from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import BATCH, JOB, LONG, OTHER_BATCH, Contents, OpenStore, call_at_once


class TestWhoseABatchIs:
    @pytest.fixture(autouse=True)
    def leases(self, store: Store, job: str) -> None:
        for unit in (BATCH, OTHER_BATCH):
            store.leases.acquire_lease(unit, 0, "me", LONG)

    def test_is_settled_once(self, store: Store) -> None:
        assert store.batch_ids.find_owner("msgbatch_1") is None
        assert store.batch_ids.claim_id(BATCH, "me", "msgbatch_1", batch_id="msgbatch_1", provisional=True) == BATCH
        assert store.batch_ids.claim_id(OTHER_BATCH, "me", "msgbatch_1", batch_id="msgbatch_1") == BATCH
        assert store.batch_ids.find_owner("msgbatch_1") == BATCH
        first, second = store.records.read_batches(JOB)
        assert (first.batch_id, first.provisional, second.batch_id) == ("msgbatch_1", True, None)

    def test_is_the_one_who_knows(self, store: Store) -> None:
        store.batch_ids.claim_id(BATCH, "me", "msgbatch_1", batch_id="msgbatch_1", provisional=True)
        assert (
            store.batch_ids.claim_id(OTHER_BATCH, "me", "msgbatch_1", force=True, batch_id="msgbatch_1") == OTHER_BATCH
        )
        assert store.batch_ids.release_id(BATCH, "me", "msgbatch_1", batch_id=None, turn=1)
        assert store.batch_ids.find_owner("msgbatch_1") == OTHER_BATCH
        assert [(batch.batch_id, batch.turn) for batch in store.records.read_batches(JOB)] == [
            (None, 1),
            ("msgbatch_1", 0),
        ]

    def test_is_taken_only_from_whom_it_was_judged_by(self, store: Store) -> None:
        gone = Unit("gone", 3)
        assert store.batch_ids.claim_id(BATCH, "me", "msgbatch_1", instead_of=gone) == BATCH
        assert store.batch_ids.claim_id(OTHER_BATCH, "me", "msgbatch_1", instead_of=gone) == BATCH
        assert store.batch_ids.claim_id(OTHER_BATCH, "me", "msgbatch_1", instead_of=BATCH) == OTHER_BATCH

    def test_is_open_again_after_it_was_released(self, store: Store) -> None:
        store.batch_ids.claim_id(BATCH, "me", "msgbatch_1")
        assert store.batch_ids.release_id(BATCH, "me", "msgbatch_1")
        assert store.batch_ids.find_owner("msgbatch_1") is None
        assert store.batch_ids.claim_id(OTHER_BATCH, "me", "msgbatch_1") == OTHER_BATCH

    def test_is_not_for_somebody_without_the_lease_to_say(self, store: Store, contents: Contents) -> None:
        before = contents()
        assert store.batch_ids.claim_id(BATCH, "you", "msgbatch_1", force=True, batch_id="msgbatch_1") is None
        assert contents() == before
        store.batch_ids.claim_id(BATCH, "me", "msgbatch_1", batch_id="msgbatch_1")
        assert not store.batch_ids.release_id(BATCH, "you", "msgbatch_1", batch_id=None)
        assert store.batch_ids.find_owner("msgbatch_1") == BATCH
        assert store.records.read_batches(JOB)[0].batch_id == "msgbatch_1"

    def test_is_settled_among_many(self, open_store: OpenStore, store: Store) -> None:
        def claim(store: Store, unit: Unit) -> Unit | None:
            return store.batch_ids.claim_id(unit, "me", "msgbatch_1", batch_id="msgbatch_1")

        [owner] = set(call_at_once(open_store, claim, [BATCH, OTHER_BATCH] * 12))
        assert store.batch_ids.find_owner("msgbatch_1") == owner
        claimed = [Unit(JOB, n) for n, batch in enumerate(store.records.read_batches(JOB)) if batch.batch_id]
        assert claimed == [owner], "the record of no other says that it is its own"

    def test_is_settled_among_many_that_look_for_theirs(self, open_store: OpenStore, store: Store) -> None:
        """Each of many ids is wanted by both."""

        def claim(store: Store, wanted: tuple[str, Unit]) -> tuple[str, Unit | None]:
            batch_id, unit = wanted
            return batch_id, store.batch_ids.claim_id(unit, "me", batch_id)

        ids = [f"msgbatch_{number}" for number in range(20)]
        answers = call_at_once(
            open_store, claim, [(batch_id, unit) for batch_id in ids for unit in (BATCH, OTHER_BATCH)]
        )
        assert set(answers) == {(batch_id, store.batch_ids.find_owner(batch_id)) for batch_id in ids}
