"""The line about the end of a job."""

from __future__ import annotations

from typing import Any

import pytest

from claude_batch_tasks.lifecycle import end_texts


def make_summary(**own: Any) -> Any:
    counts = dict.fromkeys(("succeeded", "errored", "expired", "canceled"), 0)
    return {"state": "completed", **counts, "failures": {}, "cost": 0.0, "cost_unknown": {}, **own}


class TestTheLineAboutTheEnd:
    @pytest.mark.parametrize(
        ("summary", "reason", "expected"),
        [
            ({"succeeded": 1234, "cost": 12.345}, None, "completed; 1,234 succeeded; $12.35"),
            (
                {
                    "succeeded": 3,
                    "errored": 3,
                    "expired": 1,
                    "cost": 0.0031,
                    "failures": {"overloaded_error": 2, "unknown": 1, "expired": 1},
                },
                None,
                "completed; 3 succeeded, 3 errored (2 overloaded_error, 1 unknown), 1 expired; $0.0031",
            ),
            (
                {"state": "failed"},
                "batch 1 of 1: create: no such model",
                "failed: batch 1 of 1: create: no such model; no outcomes; $0.00",
            ),
            (
                {
                    "state": "canceled",
                    "canceled": 2,
                    "cost": None,
                    "cost_unknown": {"x": 2},
                    "failures": {"canceled": 2},
                },
                None,
                "canceled; 2 canceled; 2 answers whose price is not known (x: 2)",
            ),
            (
                {
                    "succeeded": 1000,
                    "errored": 1,
                    "failures": {"api_error": 1},
                    "incomplete": {"max_tokens": 3, "refusal": 7, "out_of_patience": 1},
                    "repairs": {"max_tokens": 8, "continue": 4},
                },
                None,
                "completed, 10 answers are incomplete (7 refusal, 3 max_tokens), 1 answer has an unknown stop reason "
                "(1 out_of_patience); 1,000 succeeded, 1 errored (1 api_error); 12 repairs (8 max_tokens, 4 continue); "
                "$0.00",
            ),
            (
                {"state": "failed", "succeeded": 1, "incomplete": {"empty": 1}},
                "batch 2 of 2: lost",
                "failed, 1 answer is incomplete (1 empty): batch 2 of 2: lost; 1 succeeded; $0.00",
            ),
        ],
    )
    def test_says_how_it_ended_and_what_it_cost(self, summary: Any, reason: str | None, expected: str) -> None:
        assert end_texts.describe_end(make_summary(**summary), reason) == expected

    def test_has_a_few_types(self) -> None:
        failures = {f"type_{number}": 9 - number for number in range(9)}
        line = end_texts.describe_end(make_summary(errored=45, failures=failures), None)
        assert "(9 type_0, 8 type_1, 7 type_2, 6 type_3, 5 type_4, 4 more types)" in line

    def test_of_an_earlier_release_has_no_types(self) -> None:
        summary = make_summary(errored=2)
        del summary["failures"]
        assert end_texts.describe_end(summary, None) == "completed; 2 errored; $0.00"
