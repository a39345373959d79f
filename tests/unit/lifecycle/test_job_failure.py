"""What a failed job's error advises: it follows from what was paid, and never pays for anything twice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from claude_batch_tasks import errors
from claude_batch_tasks.lifecycle import job_failure
from claude_batch_tasks.lifecycle.job_failure import Paid
from claude_batch_tasks.records import BatchRecord, Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import job_summary
from tests.factories import make_batch_record, make_job_record

NO_CREDIT = "create: 400 invalid_request_error: Your credit balance is too low"
RESUME = "BatchJob('j').resume()"


def answered(**more: Any) -> BatchRecord:
    known: dict[str, Any] = {
        "batch_id": "msgbatch_1", "published": 1, "state": "fetched", "counts": {"succeeded": 10}, "done": True, **more,
    }  # fmt: skip
    return make_batch_record(count=10, **known)


def failed(error: errors.BatchTasksError, **more: Any) -> BatchRecord:
    stored = [type(error).__name__, list(error.args)]
    return make_batch_record(count=10, state="failed", error=stored, done=True, **more)


def refused(message: str, status: int | None) -> BatchRecord:
    return failed(errors.PermanentError(message, status, "some_error"))


def said(*batches: BatchRecord, stopped: str | None = None, adopted: bool = False) -> str:
    job = make_job_record(requests=10 * len(batches), batches=len(batches), stopped=stopped, adopted=adopted)
    step: Any = SimpleNamespace(unit=Unit("j"), job=job, settings=Settings())
    error = job_failure.explain_failure(step, list(batches), job_summary.summarize_job("j", job, batches, 2.0))
    assert error is not None
    return str(error)


class TestARefusedCreate:
    def test_of_an_account_that_may_not_spend_is_taken_up_again(self) -> None:
        text = said(answered(), answered(), refused(NO_CREDIT, 400), stopped=NO_CREDIT)
        assert text.endswith(
            "Correct what the error says about the account (credit, a limit, a block), then "
            f"{RESUME}, which sends only the 10 requests that were never sent."
        )
        assert "20 outcomes" in text

    @pytest.mark.parametrize(
        ("status", "todo"), [(401, "Check the key"), (403, "Check the key"), (402, "Pay the open bill")]
    )
    def test_is_mended_and_taken_up_again(self, status: int, todo: str) -> None:
        text = said(answered(), refused("create: no", status), stopped="create: no")
        assert todo in text
        assert f"then {RESUME}, which sends only the 10 requests that were never sent." in text

    def test_says_more_than_one_that_was_not_tried_for_it(self) -> None:
        text = said(refused(NO_CREDIT, None), refused(NO_CREDIT, 400), stopped=NO_CREDIT)
        assert "batch 2 of 2 and 1 more failed" in text
        assert text.endswith(f"then {RESUME}.")

    def test_of_requests_that_are_wrong_is_submitted_again_where_nothing_was_paid(self) -> None:
        assert said(refused("create: bad", 400)).endswith("then submit them again.")
        assert said(refused("a", 413), refused("b", 413)).endswith("then submit them again.")

    def test_of_requests_that_are_wrong_is_never_submitted_as_a_whole_where_something_was(self) -> None:
        text = said(answered(), refused("create: bad", 400))
        assert "10 requests may have been paid for, so do not submit all of them again" in text
        assert "Submit only the 10 requests that have no outcome in BatchJob('j').results()" in text
        assert "submit the requests again" not in text

    def test_fetches_first_what_is_at_anthropic(self) -> None:
        waits = failed(errors.WaitExceeded("too long"), batch_id="msgbatch_2")
        text = said(refused("create: bad", 400), waits)
        assert f"{RESUME} fetches what is at Anthropic; after that, submit only the 10 requests" in text

    def test_of_a_look_has_nothing_to_submit(self) -> None:
        text = said(failed(errors.PermanentError("retrieve: bad", 400, "invalid_request_error"), batch_id="msgbatch_1"))
        assert text.endswith(f"then {RESUME}; what was sent is not sent again.")


class TestABatchThatIsGone:
    def test_is_said_to_be_paid_for_a_second_time(self) -> None:
        text = said(answered(), failed(errors.BatchLost("gone", 404), batch_id="msgbatch_2"))
        assert f"If the Console shows the batch: {RESUME}." in text
        assert "10 requests of it have no outcome" in text
        assert "submitting them again pays for them a second time" in text
        archived = said(failed(errors.BatchArchived("gone", 404), batch_id="msgbatch_2"))
        assert "Its results are no longer available. 10 requests of it have no outcome" in archived

    def test_lets_the_others_go_on_first(self) -> None:
        others = failed(errors.WaitExceeded("too long"), batch_id="msgbatch_3"), refused("create: no", 402)
        text = said(failed(errors.BatchLost("gone", 404), batch_id="msgbatch_2"), *others)
        assert f"{RESUME} continues with 20 requests of other batches; do that first." in text

    def test_and_was_adopted_has_nothing_to_submit(self) -> None:
        lost = [kind("gone", 404) for kind in (errors.BatchLost, errors.BatchArchived)]
        texts = [said(failed(error, batch_id="msgbatch_2"), adopted=True) for error in lost]
        assert not any("submit" in text.lower() for text in texts)


@pytest.mark.parametrize(
    "error",
    [
        errors.CreateUnconfirmed("x"), errors.WaitExceeded("x"), errors.ResultsMissing("x"), errors.StepFailed("x"),
        errors.AccountChanged("x"), errors.CreateNotFound("x", 404), errors.PayloadDamaged("x"),
    ],
)  # fmt: skip
def test_no_other_error_has_anything_submitted_again(error: errors.BatchTasksError) -> None:
    text = said(answered(), failed(error))
    assert "submit " not in text.lower()
    assert "resume(" in text


class TestWhatMayHaveBeenPaid:
    def test_is_counted_by_what_became_of_each_request(self) -> None:
        lost = errors.BatchLost("gone", 404)
        some_rows = failed(errors.ResultsMissing("x"), batch_id="b", published=1, counts={"succeeded": 7})
        batches = [
            answered(), some_rows, failed(lost, batch_id="b"), failed(errors.WaitExceeded("x"), intent_at=1.0),
            refused("no", 400),
        ]  # fmt: skip
        assert Paid.of(batches) == Paid(answered=17, waiting=13, lost=10, unsent=10)

    def test_is_nothing_for_which_there_was_no_money(self) -> None:
        outcome = {"type": "errored"}
        unpaid = make_batch_record(count=10, state="unsent", outcome=outcome, counts={"errored": 10})
        assert Paid.of([unpaid, refused("no", 400)]) == Paid(0, 0, 0, 10)


class TestTheReasonInOneLine:
    def test_names_the_batch_and_what_happened_without_advice(self) -> None:
        assert job_failure.name_reason([answered(), refused(NO_CREDIT, 400)]) == f"batch 2 of 2: {NO_CREDIT}"
        known = failed(errors.PermanentError("create: no\n\n such model", 404, "not_found_error", "req_1"))
        assert job_failure.name_reason([known]) == "batch 1 of 1: create: no such model (request id req_1)"

    def test_is_the_jobs_own_if_no_batch_failed(self) -> None:
        assert job_failure.name_reason([answered()], errors.StepFailed("a step")) == "a step"
        assert job_failure.name_reason([answered()]) is None

    def test_has_a_limited_length(self) -> None:
        assert len(job_failure.name_reason([refused("x" * 9000, 400)]) or "") == 500
