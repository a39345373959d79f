"""What is said of requests that failed, and of answers that are not complete."""

from __future__ import annotations

import pytest

from claude_batch_tasks import Attempt, RequestResult
from claude_batch_tasks.results.failures import explain_result

_REFUSED = "the model refused to answer"


@pytest.mark.parametrize(
    ("last", "note", "text"),
    [
        (Attempt(kind="refusal_model", type="succeeded"), None, _REFUSED),
        (
            Attempt(kind="refusal_model", type="errored", error_type="not_found_error"),
            None,
            f"{_REFUSED}; its repair failed (not_found_error)",
        ),
        (Attempt(kind="resubmission", type="expired"), None, f"{_REFUSED}; its repair failed (expired)"),
        (Attempt(kind="first", type="succeeded"), "max_cost is spent", f"{_REFUSED}; max_cost is spent"),
    ],
)
def test_an_incomplete_answer_says_why_it_was_not_repaired(last: Attempt, note: str | None, text: str) -> None:
    first = Attempt(kind="first", type="succeeded")
    result = RequestResult(
        custom_id="a", type="succeeded", source="batch", incomplete="refusal", attempts=(first, last), note=note
    )
    assert explain_result(result) == text
