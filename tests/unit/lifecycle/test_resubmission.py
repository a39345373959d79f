"""Smaller batches made of what was left of the last."""

from __future__ import annotations

import itertools
import json
from array import array
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from claude_batch_tasks.lifecycle import resubmission, submission
from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.records import BatchRecord, JobRecord, Round, Unit
from claude_batch_tasks.store.redis import RedisStore
from claude_batch_tasks.wire import batch_requests
from claude_batch_tasks.wire.completeness import Completeness
from claude_batch_tasks.wire.custom_ids import Index
from tests.factories import make_batch_record, make_params

NONCE = "0123456789abcdef"
PER_BATCH = 12
HAIKU = "claude-haiku-4-5"

_numbers = itertools.count()


def params(number: int) -> dict[str, Any]:
    """Of the job's request of that index; each of another length."""
    content = "ü" * number + f"prompt {number}"
    return make_params(content, model=HAIKU)


class Job:
    """A job of two batches, whose requests are in several pieces each."""

    def __init__(self, store: RedisStore) -> None:
        self.store, self.id = store, f"job-{next(_numbers)}"
        requests = ({"custom_id": f"r{n}", "params": params(n)} for n in range(2 * PER_BATCH))
        cut = batch_requests.cut_batches(requests, nonce=NONCE, index=Index(), max_requests=PER_BATCH, max_bytes=10**6)
        store.payloads.stage_requests(self.id, NONCE, cut)
        store.payloads.stage_index(self.id, NONCE, [(0, b"x")])
        self.record = JobRecord(nonce=NONCE, requests=2 * PER_BATCH, batches=2, submitted_at=1.0)
        batches = [BatchRecord(first=first, count=PER_BATCH, body_bytes=9) for first in (0, PER_BATCH)]
        store.jobs.create_job(self.id, self.record, batches, 600)
        self.batches = batches
        for number in range(2):
            store.leases.acquire_lease(Unit(self.id, number), 0, "me", 600)

    def publish(self, number: int, results: dict[int, dict[str, Any]], **changes: Any) -> None:
        """The results of a batch's present round, by position."""
        record = self.batches[number]
        held = resubmission.positions_in_batch(self.store, self.id, number, record)
        name = resubmission.nonce_of_round(self.record, record)
        places = held if record.rounds else None
        seen = Completeness(name, record.first, record.count, places=places, prices=Prices())
        lines = (
            json.dumps({"custom_id": batch_requests.wire_id(name, record.first + place), "result": result}).encode()
            + b"\n"
            for place, result in results.items()
        )
        record.attempt += 1
        self.store.results.write_rows(self.id, number, record.attempt, seen.keep_rows(lines))
        assert seen.foreign == 0
        self.change(number, published=record.attempt, **resubmission.merge_rows(record, seen), **changes)
        rows = {"pieces": seen.pieces.tobytes(), "eligible_places": seen.judged.eligible.tobytes()}
        earlier = [round.attempt for round in record.rounds]
        assert self.store.results.publish_rows(Unit(self.id, number), "me", record.attempt, keep=earlier, **rows)

    def eligible(self, number: int, places: Iterable[int]) -> None:
        """These expired."""
        self.publish(number, {place: {"type": "expired"} for place in places})

    def eligible_places(self, number: int) -> list[int]:
        """Return the positions of the requests that may be sent again."""
        return list(resubmission.positions_left(self.store, self.id, number, self.batches[number]))

    def begin(self, number: int) -> dict[str, Any]:
        changes = resubmission.begin_round(self.store, self.id, self.record, number, self.batches[number])
        self.change(number, **changes)
        return changes

    def change(self, number: int, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(self.batches[number], name, value)

    def body(self, number: int) -> bytes:
        return b"".join(submission.read_body(self.store, self.id, self.record, number, self.batches[number]))


@pytest.fixture
def job(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setattr(batch_requests, "CHUNK_BYTES", 500)
    made = Job(store)
    assert len(list(store.payloads.read_bodies(made.id, 1))) > 2
    return made


class TestTheRequestsOfASmallerBatch:
    def test_are_those_that_are_left_under_ids_of_their_round(self, job: Job) -> None:
        job.eligible(1, [11, 0, 5, 4])
        job.begin(1)
        for round_, places in ((1, [0, 4, 5, 11]), (2, [4, 11])):
            expected = [
                {"custom_id": f"cbt-{NONCE}-{round_}-{PER_BATCH + place}", "params": params(PER_BATCH + place)}
                for place in places
            ]
            assert json.loads(job.body(1)) == {"requests": expected}
            assert list(resubmission.positions_in_batch(job.store, job.id, 1, job.batches[1])) == places
            if round_ == 1:
                job.publish(1, {5: {"type": "canceled"}, 11: {"type": "expired"}, 4: {"type": "expired"}})
                job.begin(1)

    def test_of_the_first_are_all(self, job: Job) -> None:
        record = job.batches[0]
        assert resubmission.nonce_of_round(job.record, record) == NONCE
        assert list(resubmission.positions_in_batch(job.store, job.id, 0, record)) == list(range(PER_BATCH))
        assert len(json.loads(job.body(0))["requests"]) == PER_BATCH

    @settings(max_examples=8)
    @given(data=st.data())
    def test_make_a_body_as_long_as_its_record_says(
        self, store: RedisStore, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
    ) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(batch_requests, "CHUNK_BYTES", data.draw(st.integers(1, 3000)))
            job, left = Job(store), list(range(PER_BATCH))
        number = data.draw(st.integers(0, 1))
        for _ in range(2):
            left = data.draw(st.lists(st.sampled_from(left), unique=True, min_size=1))
            job.eligible(number, left)
            assert job.begin(number)["smaller"] == job.batches[number].sending == len(left)
            body = job.body(number)
            assert len(body) == job.batches[number].smaller_bytes
            assert [r["params"] for r in json.loads(body)["requests"]] == [
                params(job.batches[number].first + place) for place in sorted(left)
            ]

    def test_that_are_left_have_their_params(self, job: Job) -> None:
        record = job.batches[1]
        assert list(resubmission.positions_left(job.store, job.id, 1, record)) == list(range(PER_BATCH))
        assert len(list(resubmission.read_params_left(job.store, job.id, 1, record))) == PER_BATCH
        job.eligible(1, [7, 2])
        for begun in (False, True):  # also while a smaller batch of them is under way, or when it was never made
            if begun:
                job.begin(1)
            assert list(resubmission.positions_left(job.store, job.id, 1, record)) == [2, 7]
            found = [json.loads(each) for each in resubmission.read_params_left(job.store, job.id, 1, record)]
            assert found == [params(PER_BATCH + place) for place in (2, 7)]

    def test_may_be_none(self, job: Job) -> None:
        job.publish(0, {})
        assert list(resubmission.positions_left(job.store, job.id, 0, job.batches[0])) == []
        assert list(resubmission.read_params_left(job.store, job.id, 0, job.batches[0])) == []


class TestBeginningARound:
    def test_forgets_what_was_about_the_last_batch(self, job: Job) -> None:
        job.eligible(0, [3])
        known: dict[str, Any] = {
            "state": "fetched", "intent_at": 1.0, "create_not_found": 2, "unanswered_at": 3.0, "ambiguous_at": 4.0,
            "create_looks": 5, "batch_id": "msgbatch_1", "provisional": True, "created_at": 6.0, "expires_at": 7.0,
            "cancel_sent": True, "sighting": 8.0, "absences": 9, "told": {"expired": 1}, "least": 1, "most": 2,
        }  # fmt: skip
        job.change(0, **known)
        changes = job.begin(0)
        fresh = make_batch_record(count=PER_BATCH)
        assert {name: changes[name] for name in known} == {name: getattr(fresh, name) for name in known}
        assert changes["published"] is None

    def test_keeps_what_the_last_batch_came_to(self, job: Job) -> None:
        job.eligible(0, [3, 4])
        job.change(0, batch_id="msgbatch_1", attempt=2, published=2, costs={HAIKU: "1"}, usage={"input_tokens": 5})
        job.store.results.publish_rows(
            Unit(job.id, 0), "me", 2, pieces=b"", eligible_places=array("I", [3, 4]).tobytes()
        )
        changes = job.begin(0)
        [past] = changes["rounds"]
        assert (past.batch_id, past.attempt, past.counts, past.open) == (
            "msgbatch_1",
            2,
            {"expired": 2},
            {"expired": 2},
        )
        assert (past.costs, past.usage, past.eligible) == ({HAIKU: "1"}, {"input_tokens": 5}, 2)
        assert (changes["turn"], changes["attempts_before"]) == (1, 2)
        assert job.batches[0].layers == [(2, 0)]

    def test_says_which_batches_a_search_must_not_find(self, job: Job) -> None:
        job.eligible(0, [3, 4])
        job.change(0, batch_id="msgbatch_1", rejected_ids=["msgbatch_0"])
        assert job.begin(0)["rejected_ids"] == ["msgbatch_0", "msgbatch_1"]
        job.eligible(0, [3])
        job.change(0, batch_id="msgbatch_2")
        assert job.begin(0)["rejected_ids"] == ["msgbatch_0", "msgbatch_1", "msgbatch_2"]
        assert [past.batch_id for past in job.batches[0].rounds] == ["msgbatch_1", "msgbatch_2"]


class TestWhatABatchHasComeTo:
    def succeeded(self, tokens: int, model: str = HAIKU) -> dict[str, Any]:
        return {"type": "succeeded", "message": {"model": model, "usage": {"input_tokens": tokens}}}

    def error(self, kind: str) -> dict[str, Any]:
        return {"type": "errored", "error": {"type": "error", "error": {"type": kind, "message": "m"}}}

    def test_is_what_replaces_what_was_left(self, job: Job) -> None:
        overloaded, invalid, expired = (
            self.error("overloaded_error"),
            self.error("invalid_request_error"),
            {"type": "expired"},
        )
        many = {place: self.succeeded(1_000_000) for place in range(6)}
        job.publish(0, {**many, 6: invalid, 7: overloaded, 8: overloaded, 9: expired, 10: expired, 11: expired})
        record = job.batches[0]
        assert record.counts == {"succeeded": 6, "errored": 3, "expired": 3}
        assert (record.eligible, record.open, record.resubmitted) == (5, {"errored": 2, "expired": 3}, 0)
        job.begin(0)
        job.publish(
            0, {7: self.succeeded(1_000_000), 8: invalid, 9: overloaded, 10: expired, 11: self.succeeded(1, "x")}
        )
        assert record.counts == {"succeeded": 8, "errored": 3, "expired": 1}
        assert (record.eligible, record.open, record.resubmitted) == (2, {"errored": 1, "expired": 1}, 5)
        assert record.usage == {"input_tokens": 7_000_001}
        assert (Decimal(record.costs[HAIKU] or 0), record.costs["x"]) == (Decimal("3.5"), None)
        job.begin(0)
        job.publish(0, {9: self.succeeded(1_000_000), 10: expired})
        assert {kind: n for kind, n in record.counts.items() if n} == {"succeeded": 9, "errored": 2, "expired": 1}
        assert (record.eligible, record.open, record.resubmitted) == (1, {"expired": 1}, 5)
        assert (Decimal(record.costs[HAIKU] or 0), record.costs["x"]) == (4, None)
        assert record.layers == [(3, 2), (2, 1), (1, 0)]

    def test_counts_every_request_though_some_of_a_round_are_missing(self, job: Job) -> None:
        """A reader gives the outcome they had; how those had ended that were replaced, nobody knows any more."""
        job.eligible(0, range(PER_BATCH))
        job.begin(0)
        job.publish(0, {place: self.succeeded(1) for place in range(5)})
        assert sum(job.batches[0].counts.values()) == PER_BATCH
        assert job.batches[0].resubmitted == 5


def test_what_a_smaller_batch_answered_is_told_apart() -> None:
    first = Round(
        batch_id="msgbatch_1",
        attempt=1,
        counts={"succeeded": 5, "errored": 3, "expired": 2},
        usage={},
        costs={},
        eligible=4,
        open={"errored": 2, "expired": 2},
    )
    record = make_batch_record(count=10, body_bytes=0, counts={"succeeded": 5, "errored": 3, "expired": 2})
    assert resubmission.count_sources(record) == {(outcome, "batch"): count for outcome, count in record.counts.items()}
    record = make_batch_record(
        count=10, body_bytes=0, rounds=[first], resubmitted=4, counts={"succeeded": 8, "errored": 2}
    )
    assert resubmission.count_sources(record) == {
        ("succeeded", "batch"): 5,
        ("errored", "batch"): 1,
        ("succeeded", "resubmitted"): 3,
        ("errored", "resubmitted"): 1,
    }
    never_created = make_batch_record(count=10, body_bytes=0, rounds=[first], counts=first.counts)
    assert resubmission.count_sources(never_created) == {
        (outcome, "batch"): count for outcome, count in first.counts.items()
    }
