"""How answers come by a deadline: the tables of ``rules.urgency``, and what holds for all values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from claude_batch_tasks import rules
from claude_batch_tasks.rules import urgency

FAST, SLOW = [(1000, 60.0 + n) for n in range(5)], [(1000, 20_000.0)] * 5
SECONDS = st.floats(0, 1e6)


class TestTheBucketOfADeadline:
    @pytest.mark.parametrize(
        ("left", "bucket"),
        [(None, None), (-5, 0), (0, 0), (0.9, 0), (1, 1), (2, 2), (3.9, 2), (4, 3), (63, 6), (64, 7), (3600, 12)],
    )
    def test_is_a_power_of_two(self, left: float | None, bucket: int | None) -> None:
        assert urgency.deadline_bucket(left) == bucket

    @given(SECONDS, SECONDS)
    def test_is_shared_only_by_deadlines_that_are_near(self, one: float, other: float) -> None:
        if urgency.deadline_bucket(one) == urgency.deadline_bucket(other) and min(one, other) >= 1:
            assert max(one, other) < 2 * min(one, other) + 2


class TestAPoolThatTakesAsks:
    @pytest.mark.parametrize(
        ("max_wait", "left", "mode", "seconds"),
        [
            (60, None, "batch", 60),
            (60, 3600, "batch", 60),
            (60, 300, "batch", 30),
            (60, -1, "batch", 0),
            (60, None, "messages", 0),
            (60, 3600, "messages", 0),
        ],
    )
    def test_waits_for_more(self, max_wait: float, left: float | None, mode: str, seconds: float) -> None:
        assert urgency.pooling_wait(max_wait, left, mode) == pytest.approx(seconds)


class TestAPoolThatBecomesAJob:
    @pytest.mark.parametrize(
        ("left", "past", "fallback", "covered", "found"),
        [
            (None, FAST, "messages", True, "batch"),
            (None, SLOW, "off", False, "batch"),
            (100, FAST, "messages", True, "hurried"),
            (64, FAST, "messages", True, "hurried"),
            (63.9, FAST, "messages", True, "messages"),
            (3600, SLOW, "messages", True, "messages"),
            (3600, [], "messages", True, "hurried"),
            (3599, [], "messages", True, "messages"),
            (-10, FAST, "messages", True, "messages"),
            (100, FAST, "off", True, "batch"),
            (10, FAST, "off", True, "batch"),
            (100, FAST, "messages", False, "batch"),
            (10, FAST, "messages", False, "batch"),
        ],
    )
    def test_is_answered_in_time_within_the_budget(
        self, left: float | None, past: Any, fallback: str, covered: bool, found: str
    ) -> None:
        assert urgency.choose_urgency(left, past, 1000, fallback=fallback, covered=covered) == found

    @pytest.mark.parametrize(
        ("requests", "most", "max_requests", "max_cost", "covered"),
        [
            (1000, 5, 1000, 5, True),
            (1001, 5, 1000, 5, False),
            (1000, 6, 1000, 5, False),
            (1000, None, 1000, 5, False),
            (1000, None, 1000, None, True),
            (1, None, 0, None, False),
        ],
    )
    def test_is_covered_by_the_budget_of_the_fallback(
        self, requests: int, most: int | None, max_requests: int, max_cost: int | None, covered: bool
    ) -> None:
        assert urgency.is_covered(requests, most, max_requests=max_requests, max_cost=max_cost) is covered


class TestABatchThatRunsTowardsADeadline:
    @pytest.mark.parametrize(
        ("answer_by", "begun", "requests", "calls", "moment"),
        [
            (4600, 1000, 1, 64, 4600 - 80),
            (4600, 1000, 64, 64, 4600 - 80),
            (4600, 1000, 65, 64, 4600 - 100),
            (4600, 1000, 1000, 64, 4600 - 60 - 16 * 20),
            (1010, 1000, 1000, 64, 1005),
            (1000, 1000, 10, 64, 1000),
            (900, 1000, 10, 64, 900),
        ],
    )
    def test_is_canceled_as_late_as_possible(
        self, answer_by: float, begun: float, requests: int, calls: int, moment: float
    ) -> None:
        assert rules.cancel_moment(answer_by, begun=begun, requests=requests, calls=calls) == moment

    @given(begun=SECONDS, left=SECONDS, requests=st.integers(1, 100_000), calls=st.integers(1, 64))
    def test_has_at_least_half_of_the_time(self, begun: float, left: float, requests: int, calls: int) -> None:
        found = rules.cancel_moment(begun + left, begun=begun, requests=requests, calls=calls)
        assert begun + left / 2 - 0.001 <= found <= begun + left
