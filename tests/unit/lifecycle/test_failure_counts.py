"""What failed in a batch, counted by type while results are fetched, through all rounds and the Messages API."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import msgspec
import pytest

from claude_batch_tasks.records import BatchRecord, FailureTally
from claude_batch_tasks.results.stored.batch_reader import Reader
from claude_batch_tasks.store.redis import RedisStore
from claude_batch_tasks.wire import batch_requests, failure_types
from claude_batch_tasks.wire.failure_types import FailureCounter
from tests.factories import make_batch_record
from tests.unit.lifecycle.test_resubmission import PER_BATCH, Job

TYPES = ("invalid_request_error", "overloaded_error", "api_error", None)


def draw_result(random: Random) -> dict[str, Any]:
    """Return one of the results that a row can have."""
    kind = random.choice(TYPES)
    error = {"type": "errored", "error": {"error": {"type": kind, "message": f"about {kind}"}}}
    succeeded = {"type": "succeeded", "message": {"content": []}}
    return random.choice([succeeded, {"type": "expired"}, {"type": "canceled"}, error, error])


def read_types(job: Job, number: int) -> Counter[tuple[str, str | None]]:
    """Count what the batch's outcomes are, as a reader sees them."""
    reader = Reader(job.store, job.id, job.record, number, job.batches[number])
    found = Counter((each.row.type, each.row.error_type) for each in reader.read_outcomes())
    return Counter({key: count for key, count in found.items() if key[0] != "succeeded"})


def counted_types(batch: BatchRecord) -> Counter[tuple[str, str | None]]:
    return Counter({(each.outcome, each.error_type): each.count for each in failure_types.read_tallies(batch)})


@pytest.mark.parametrize("seed", range(8))
def test_counts_are_exact_through_all_rounds(store: RedisStore, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(batch_requests, "CHUNK_BYTES", 500)
        job = Job(store)
    random, batch, places = Random(seed), job.batches[1], list(range(PER_BATCH))
    for _ in range(random.randint(1, 4)):
        job.publish(1, {place: draw_result(random) for place in places})
        assert counted_types(msgspec.structs.replace(batch, final=True)) == read_types(job, 1)
        # Those that may be sent again have no final outcome yet.
        assert sum(counted_types(batch).values()) == PER_BATCH - batch.counts.get("succeeded", 0) - batch.eligible
        places = job.eligible_places(1)
        if not places:
            break
        job.begin(1)
        assert counted_types(msgspec.structs.replace(batch, final=True)) == read_types(job, 1)
    reader = Reader(store, job.id, job.record, 1, batch)
    found = {each.place: (each.row.type, each.row.error_type) for each in reader.read_outcomes()}
    for tally in failure_types.read_tallies(msgspec.structs.replace(batch, final=True)):
        assert tally.example is None or found[tally.example] == (tally.outcome, tally.error_type)


def test_a_summary_names_the_most_frequent_types_and_counts_all() -> None:
    tallies = [FailureTally(outcome="errored", error_type=f"type {n}", count=1 + n) for n in range(80)]
    total = sum(tally.count for tally in tallies)
    batch = make_batch_record(
        count=total,
        published=1,
        counts={"errored": total},
        failed_types=tallies,
        failed_types_of=[1, 0],
        done=True,
    )
    found = failure_types.count_types([batch])
    assert (len(found), found["type 79"], sum(found.values())) == (failure_types.MOST_TYPES + 1, 80, total)
    assert "type 5" not in found


class TestARecordOfAnotherRelease:
    def test_has_all_that_failed_without_a_type(self) -> None:
        batch = make_batch_record(count=9, published=1, counts={"succeeded": 2, "errored": 4, "expired": 3}, done=True)
        assert counted_types(batch) == {("errored", None): 4, ("expired", None): 3}
        assert failure_types.count_types([batch]) == {"unknown": 4, "expired": 3}

    def test_that_has_fetched_other_results_since_does_not_show_those_of_before(self) -> None:
        tallies = [FailureTally(outcome="errored", error_type="api_error", count=2)]
        batch = make_batch_record(
            count=9, published=1, counts={"errored": 2}, failed_types=tallies, failed_types_of=[1, 0], done=True
        )
        assert counted_types(batch) == {("errored", "api_error"): 2}
        batch.published = 2
        assert counted_types(batch) == {("errored", None): 2}

    def test_whose_answers_of_the_messages_api_were_counted_by_that_release(self) -> None:
        tallies = [FailureTally(outcome="expired", count=2)]
        batch = make_batch_record(
            count=9, published=1, counts={"errored": 1}, failed_types=tallies, failed_types_of=[1, 0], answered=2
        )
        batch.final = True
        assert counted_types(batch) == {("errored", None): 1}

    @pytest.mark.parametrize(
        ("counts", "expected"),
        [
            ({"errored": 5}, {("errored", "api_error"): 2, ("errored", None): 3}),
            ({"errored": 1}, {("errored", None): 1}),
            ({"errored": 2, "canceled": 1}, {("errored", "api_error"): 2, ("canceled", None): 1}),
            ({}, {}),
        ],
    )
    def test_adds_up_to_its_outcomes_whatever_is_in_it(
        self, counts: dict[str, int], expected: dict[tuple[str, str | None], int]
    ) -> None:
        tallies = [FailureTally(outcome="errored", error_type="api_error", count=2)]
        batch = make_batch_record(
            count=9, published=1, counts=counts, failed_types=tallies, failed_types_of=[1, 0], done=True
        )
        assert counted_types(batch) == expected


def test_of_a_batch_that_was_never_created_the_outcome_says_the_type() -> None:
    error = {"type": "error", "error": {"type": "not_found_error", "message": "m"}, "request_id": None}
    batch = make_batch_record(count=4, counts={"errored": 4}, outcome={"type": "errored", "error": error}, done=True)
    [tally] = failure_types.read_tallies(batch)
    assert (tally.outcome, tally.error_type, tally.count, tally.example) == ("errored", "not_found_error", 4, 0)
    canceled = make_batch_record(count=4, counts={"canceled": 4}, outcome={"type": "canceled"}, done=True)
    assert counted_types(canceled) == {("canceled", None): 4}


def test_no_number_of_types_takes_more_memory() -> None:
    counter = FailureCounter()
    for place in range(1000):
        counter.add_failure("errored", f"type {place}" + "x" * 1000, place)
    assert len(counter.tallies) == failure_types.MAX_TYPES + 1
    assert sum(each.count for each in counter.tallies) == 1000
    assert all(len(each.error_type or "") <= 200 for each in counter.tallies)
