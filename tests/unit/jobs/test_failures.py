"""Which requests of a job failed, and why: ``BatchJob.failures()`` and the counts in its status."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, FailureCount, errors, list_jobs
from claude_batch_tasks.lifecycle import resubmission
from claude_batch_tasks.records import Unit
from claude_batch_tasks.store import Store
from claude_batch_tasks.wire.completeness import AdoptedCompleteness
from tests.factories import make_batch_record, make_job_record
from tests.unit.jobs.job_maker import ANSWERS, CUT, EXPIRED, JOB, MIXED, SUCCEEDED, Maker, errored


@pytest.fixture
def make(maker: Maker) -> Callable[..., BatchJob]:
    return maker.make


Make = Callable[..., BatchJob]


class TestTheCountsInAStatus:
    def test_are_by_type_with_an_example_each_the_largest_first(self, make: Make) -> None:
        failed = make(*MIXED).status().failures
        assert [(each.type, each.count) for each in failed[:2]] == [("invalid_request_error", 3), ("expired", 2)]
        assert {each.type: (each.example, each.message) for each in failed} == {
            "invalid_request_error": ("0-2", "max_tokens"),
            "expired": ("0-1", None),
            "overloaded_error": ("1-0", "it failed"),
            "canceled": ("1-2", None),
            "unknown": ("2-1", "it failed"),
        }
        assert {each.type: (each.outcome, each.error_type) for each in failed}["unknown"] == ("errored", None)

    def test_add_up_to_all_that_did_not_succeed(self, make: Make) -> None:
        status = make(*MIXED).status()
        assert sum(each.count for each in status.failures) == status.requests - status.succeeded == 8

    def test_read_no_results_in_a_list(self, make: Make, app: Celery, store: Store) -> None:
        job = make(*MIXED)
        store.results.discard_rows(JOB, 0, 1)
        [listed] = list_jobs(app=app)
        assert {each.type: each.count for each in listed.failures}["expired"] == 2
        assert {each.example for each in listed.failures} == {None}
        # What cannot be read has no example; the others have one.
        assert {each.type: each.example for each in job.status().failures}["overloaded_error"] == "1-0"
        assert {each.type: each.example for each in job.status().failures}["expired"] is None

    def test_are_none_where_all_succeeded(self, make: Make) -> None:
        assert make([SUCCEEDED]).status().failures == ()

    def test_of_an_earlier_release_have_no_type_and_no_wrong_number(self, make: Make, store: Store) -> None:
        job = make(*MIXED)
        for number in range(3):
            store.leases.write_record(Unit(JOB, number), "test", failed_types=[], failed_types_of=[])
        status = job.status()
        assert {each.type: each.count for each in status.failures} == {"unknown": 5, "expired": 2, "canceled": 1}
        assert Counter(each.error_type for each in job.failures())["invalid_request_error"] == 3

    def test_of_a_job_whose_records_are_gone_are_those_of_its_summary(
        self, make: Make, store: Store, redis_url: str
    ) -> None:
        import redis

        job = make(*MIXED)
        redis.Redis.from_url(redis_url).delete(store.records.name_batch(JOB, 1))
        summary = {
            "succeeded": 2,
            "errored": 5,
            "expired": 2,
            "canceled": 1,
            "cost": 0.0,
            "cost_by_model": {},
            "cost_unknown": {},
        }
        store.jobs.update_job(JOB, summary={**summary, "failures": {"overloaded_error": 5, "expired": 2}})
        assert {each.type: each.count for each in job.status().failures} == {"overloaded_error": 5, "expired": 2}
        store.jobs.update_job(JOB, summary=summary)
        status = job.status()
        assert {each.type: each.count for each in status.failures} == {"unknown": 5, "expired": 2, "canceled": 1}
        assert status.summary is not None
        assert status.summary["failures"] == {"unknown": 5, "expired": 2, "canceled": 1}

    def test_are_json(self) -> None:
        count = FailureCount(outcome="expired", error_type=None, count=2)
        assert json.loads(json.dumps(count.asdict()))["outcome"] == "expired"


class TestTheFailures:
    def test_are_all_that_did_not_succeed(self, make: Make) -> None:
        found = {each.custom_id: (each.type, each.error_type) for each in make(*MIXED).failures()}
        assert found == {
            "0-1": ("expired", None),
            "0-2": ("errored", "invalid_request_error"),
            "1-0": ("errored", "overloaded_error"),
            "1-1": ("errored", "invalid_request_error"),
            "1-2": ("canceled", None),
            "1-3": ("expired", None),
            "2-0": ("errored", "invalid_request_error"),
            "2-1": ("errored", None),
        }

    @pytest.mark.parametrize(
        ("types", "expected"),
        [
            (["expired"], {"0-1", "1-3"}),
            (["errored"], {"0-2", "1-0", "1-1", "2-0", "2-1"}),
            ({"overloaded_error", "canceled"}, {"1-0", "1-2"}),
            (["unknown"], {"2-1"}),
            (["no_such_error"], set()),
            ([], set()),
        ],
    )
    def test_of_some_types(self, make: Make, types: Any, expected: set[str]) -> None:
        assert {each.custom_id for each in make(*MIXED).failures(types)} == expected

    @pytest.mark.parametrize("types", ["expired", 5, [None], [""], ["succeeded"], [b"expired"]])
    def test_of_what_is_no_type_are_refused(self, make: Make, types: Any) -> None:
        with pytest.raises(ValueError, match=r"types must (be|have)"):
            make([SUCCEEDED]).failures(types)

    def test_read_only_batches_that_have_some(self, make: Make, store: Store) -> None:
        job = make([SUCCEEDED, SUCCEEDED], [EXPIRED])
        store.results.discard_rows(JOB, 0, 1)
        assert [each.custom_id for each in job.failures()] == ["1-0"]

    def test_whose_rows_are_lost_are_missed(self, make: Make, store: Store) -> None:
        job = make([SUCCEEDED, SUCCEEDED], [EXPIRED])
        store.results.discard_rows(JOB, 1, 1)
        with pytest.raises(errors.ResultsMissing):
            list(job.failures())

    def test_say_why(self, make: Make) -> None:
        [result] = make([errored("invalid_request_error", "max_tokens: too many")]).failures()
        assert (result.error_type, result.error_message) == ("invalid_request_error", "max_tokens: too many")
        [result] = make([EXPIRED], job_id="job-2").failures()
        assert (result.error_type, result.error_message) == (None, None)


class TestAnswersThatAreNotComplete:
    def test_are_counted_by_reason(self, make: Make, app: Celery) -> None:
        job = make(*ANSWERS)
        [listed] = list_jobs(app=app)
        for status in (job.status(), listed):
            assert status.incomplete == {"max_tokens": 2, "refusal": 1, "out_of_patience": 1}
            assert status.repairs == {}
            assert (status.succeeded, status.expired) == (6, 1)

    def test_follow_the_failures_with_an_example(self, make: Make) -> None:
        failed = make(*ANSWERS).status().failures
        assert [(each.type, each.outcome, each.count, each.example, each.message) for each in failed] == [
            ("expired", "expired", 1, "0-3", None),
            ("max_tokens", "succeeded", 2, "0-2", "the answer was cut at max_tokens"),
            ("refusal", "succeeded", 1, "0-1", "the model refused to answer"),
        ]

    def test_that_are_complete_by_now_are_no_example(self, make: Make, store: Store) -> None:
        job = make(*ANSWERS)
        store.leases.write_record(Unit(JOB, 0), "test", incomplete_examples={"max_tokens": 0, "refusal": 99})
        examples = {each.type: each.example for each in job.status().failures}
        assert (examples["max_tokens"], examples["refusal"]) == (None, None)

    @pytest.mark.parametrize(
        ("types", "expected"),
        [
            (None, {"0-1": "refusal", "0-2": "max_tokens", "0-3": None, "1-1": "max_tokens"}),
            (["incomplete"], {"0-1": "refusal", "0-2": "max_tokens", "1-1": "max_tokens"}),
            (["refusal", "expired"], {"0-1": "refusal", "0-3": None}),
            (["errored", "out_of_patience"], {}),
        ],
    )
    def test_are_among_the_failures(self, make: Make, types: Any, expected: dict[str, str | None]) -> None:
        found = list(make(*ANSWERS).failures(types))
        assert {each.custom_id: each.incomplete for each in found} == expected
        assert not any(each.complete for each in found)

    def test_are_read_from_batches_that_have_some(self, make: Make, store: Store) -> None:
        job = make([SUCCEEDED, EXPIRED], [CUT])
        store.results.discard_rows(JOB, 0, 1)
        assert [each.custom_id for each in job.failures(["incomplete"])] == ["1-0"]

    @pytest.mark.parametrize("types", [["refusal"], ["expired", "incomplete"], ["empty"]])
    def test_are_never_retried(self, make: Make, types: list[str]) -> None:
        job = make(*ANSWERS)
        with pytest.raises(ValueError, match="paid for"):
            job.retry_failed(types)
        assert job.retry_failed() is not None
        [retry] = job.status().retries
        assert [each["custom_id"] for each in BatchJob(retry, job._app).requests()] == ["0-3"]

    def test_say_with_which_option_they_are_repaired(self, make: Make) -> None:
        with pytest.raises(ValueError, match="refusal_model to have them repaired"):
            make(*ANSWERS).retry_failed(["refusal"])

    def test_of_a_job_whose_records_are_gone_are_those_of_its_summary(
        self, make: Make, store: Store, redis_url: str
    ) -> None:
        import redis

        job = make(*ANSWERS)
        redis.Redis.from_url(redis_url).delete(store.records.name_batch(JOB, 1))
        summary: dict[str, Any] = {"succeeded": 6, "errored": 0, "expired": 1, "canceled": 0, "cost": 0.0}
        summary |= {"cost_by_model": {}, "cost_unknown": {}, "failures": {"expired": 1}}
        store.jobs.update_job(JOB, summary={**summary, "incomplete": {"refusal": 5, "odd": 1}, "repairs": {"reask": 2}})
        status = job.status()
        assert (status.incomplete, status.repairs) == ({"refusal": 5, "odd": 1}, {"reask": 2})
        assert [(each.type, each.count) for each in status.failures] == [("expired", 1), ("refusal", 5)]
        store.jobs.update_job(JOB, summary=summary)  # of an earlier release
        assert (job.status().incomplete, job.status().repairs) == ({}, {})

    def test_have_their_reason_in_exports(self, make: Make, tmp_path: Path) -> None:
        path = tmp_path / "results.csv"
        make(*ANSWERS).export(path, order="request")
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0])[-3:] == ["incomplete", "attempts", "parse_error"]
        assert [(row["stop_reason"], row["incomplete"]) for row in rows] == [
            ("", ""),
            ("refusal", "refusal"),
            ("max_tokens", "max_tokens"),
            ("", ""),
            ("out_of_patience", ""),
            ("max_tokens", "max_tokens"),
            ("", ""),
        ]

    def test_are_exported_with_the_failures(self, make: Make, tmp_path: Path) -> None:
        job, path = make(*ANSWERS), tmp_path / "failures.jsonl"
        assert job.export(path, failures=True) == 4
        assert job.export(path, failures=["refusal"]) == 1
        line = json.loads(path.read_text())
        assert list(line) == ["custom_id", "source", "result", "incomplete"]
        assert (line["result"]["message"]["stop_reason"], line["incomplete"]) == ("refusal", "refusal")

    def test_are_shown_in_a_notebook(self, make: Make) -> None:
        shown = make(*ANSWERS).status()._repr_html_()
        assert "3 answers are incomplete (2 max_tokens, 1 refusal), 1 answer has an unknown stop reason" in shown
        assert '<td style="text-align:left">1 expired</td>' in shown


class TestAnAdoptedJob:
    @pytest.fixture
    def adopted(self, app: Celery, store: Store) -> BatchJob:
        """Its custom_ids are in its rows alone, which are in several chunks."""
        record = make_batch_record(count=6, attempt=1)
        job = make_job_record(requests=6, adopted=True, state="completed", started_at=1.0, ended_at=2.0)
        store.jobs.create_job(JOB, job, [record], 600, staged=False)
        results = [SUCCEEDED, EXPIRED, SUCCEEDED, errored("api_error", "first"), errored("api_error"), EXPIRED]
        seen = AdoptedCompleteness("n", 0, 6)
        lines = (
            json.dumps({"custom_id": f"theirs-{number}", "result": result}).encode() + b"\n"
            for number, result in enumerate(results)
        )
        store.leases.acquire_lease(Unit(JOB, 0), 0, "test", 60)
        store.results.write_rows(JOB, 0, 1, seen.keep_rows(lines))
        rows = {
            "pieces": seen.pieces.tobytes(),
            "eligible_places": seen.judged.eligible.tobytes(),
            "index": resubmission.stored_index(seen),
        }
        changes = {"state": "fetched", "final": True, "done": True, **resubmission.merge_rows(record, seen)}
        assert store.results.publish_rows(Unit(JOB, 0), "test", 1, **rows, **changes)
        return BatchJob(JOB, app)

    def test_has_counts_with_examples(self, adopted: BatchJob) -> None:
        assert {each.type: (each.count, each.example, each.message) for each in adopted.status().failures} == {
            "expired": (2, "theirs-1", None),
            "api_error": (2, "theirs-3", "first"),
        }
        assert {each.custom_id for each in adopted.failures(["api_error"])} == {"theirs-3", "theirs-4"}

    def test_cannot_be_retried(self, adopted: BatchJob) -> None:
        with pytest.raises(errors.RequestsUnknown, match="submit those requests"):
            adopted.retry_failed()
