"""What the refusal of a create says about the requests in it."""

from __future__ import annotations

import pytest

from claude_batch_tasks.rules import refused_creates

NONCE = "0123456789abcdef"


@pytest.mark.parametrize(
    ("message", "count", "named"),
    [
        ("create: requests.17.custom_id: String should have at most 64 characters", 1000, [17]),
        ("create: requests.17.params.messages.0: Input should be valid", 1000, [17]),
        ("create: requests[3].params: Invalid", 10, [3]),
        ("create: requests.9.params: Invalid; requests.2.params: Invalid; requests.9.x: too", 10, [2, 9]),
        (f"create: Duplicate custom_id 'cbt-{NONCE}-4'", 5, [4]),
        ("create: Duplicate custom_id 'cbt-ffffffffffffffff-4'", 5, []),
        ("create: requests: List should have at most 1000 items", 1001, []),
        ("create: requests.12.params: Invalid", 12, []),  # it names none of ours
        ("create: requests.0.params: Invalid; requests.1.params: Invalid", 2, []),  # all of them
        ("create: Invalid request", 5, []),
    ],
)
def test_requests_that_a_refusal_names(message: str, count: int, named: list[int]) -> None:
    assert refused_creates.find_named(message, NONCE, count) == named


def test_a_refusal_that_names_many_is_followed_in_parts() -> None:
    message = " ".join(f"requests.{number}.params: Invalid" for number in range(500))
    assert refused_creates.find_named(message, NONCE, 1000) == list(range(20))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("create: Unexpected value(s) `x-1` for the `anthropic-beta` header", True),
        ("create: user_profile_id: not found", True),
        ("create: Invalid request", False),
        ("create: messages: text content blocks must be non-empty", False),
    ],
)
def test_refusals_about_what_all_requests_have_in_common(message: str, expected: bool) -> None:
    assert refused_creates.concerns_all(message) is expected


@pytest.mark.parametrize("count", [2, 3, 7, 1000])
def test_the_first_half_is_no_smaller(count: int) -> None:
    positions = [3 * number for number in range(count)]
    tried, other = refused_creates.halve(positions, swap=False)
    assert tried + other == positions
    assert 0 <= len(tried) - len(other) <= 1
    assert refused_creates.halve(positions, swap=True) == (other, tried)
