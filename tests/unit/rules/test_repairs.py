"""As what each request is sent again: every cell of the table, and the limits of output tokens."""

from __future__ import annotations

import pytest

from claude_batch_tasks import rules
from claude_batch_tasks.records import RepairOptions
from claude_batch_tasks.wire.answers import INCOMPLETE

ALL = RepairOptions(retries=2, refusal_models=["m", "n"], max_tokens_limit=9000, continue_paused=5, reask=1)
NONE = RepairOptions()

#: Outcome, error type, why the answer is not complete, repairs so far, failed attempts, and what follows.
CELLS = [
    ("expired", None, None, {}, 1, "resubmission"),
    ("expired", None, None, {}, 2, "resubmission"),
    ("expired", None, None, {}, 3, None),
    ("errored", "overloaded_error", None, {}, 1, "resubmission"),
    ("errored", "api_error", None, {}, 2, "resubmission"),
    ("errored", "timeout_error", None, {}, 3, None),
    ("errored", "invalid_request_error", None, {}, 1, None),
    ("errored", "billing_error", None, {}, 1, None),
    ("errored", None, None, {}, 1, None),
    ("canceled", None, None, {}, 1, None),
    ("succeeded", None, "refusal", {}, 0, "refusal_model"),
    ("succeeded", None, "refusal", {"refusal_model": 1, "continue": 9}, 0, "refusal_model"),
    ("succeeded", None, "refusal", {"refusal_model": 2}, 0, None),
    ("succeeded", None, "max_tokens", {}, 0, "max_tokens"),
    ("succeeded", None, "max_tokens", {"max_tokens": 40}, 0, "max_tokens"),
    ("succeeded", None, "pause_turn", {}, 2, "continue"),
    ("succeeded", None, "pause_turn", {"continue": 4}, 0, "continue"),
    ("succeeded", None, "pause_turn", {"continue": 5}, 0, None),
    ("succeeded", None, "invalid", {}, 0, "reask"),
    ("succeeded", None, "invalid", {"reask": 1}, 0, None),
    ("succeeded", None, "empty", {}, 0, None),
    ("succeeded", None, "model_context_window_exceeded", {}, 0, None),
    ("succeeded", None, None, {}, 0, None),
    # A repair that failed: the answer is the earlier one, the outcome is that of the last attempt.
    ("expired", None, "refusal", {"refusal_model": 1}, 1, "resubmission"),
    ("errored", "overloaded_error", "pause_turn", {"continue": 1}, 3, None),
    ("errored", "invalid_request_error", "refusal", {"refusal_model": 1}, 1, None),
]


@pytest.mark.parametrize(("outcome", "error_type", "incomplete", "repairs", "failed", "sent_as"), CELLS)
def test_a_request_is_sent_again_as(outcome, error_type, incomplete, repairs, failed, sent_as) -> None:
    known = {"repairs": repairs, "failed": failed}
    assert rules.choose_repair(outcome, error_type, incomplete, **known, options=ALL) == sent_as
    assert rules.choose_repair(outcome, error_type, incomplete, **known, options=NONE) is None


def test_every_reason_has_a_cell() -> None:
    assert {incomplete for _, _, incomplete, *_ in CELLS if incomplete} == {*INCOMPLETE}


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        ("claude-3-haiku-20240307", 4_096),
        ("claude-3-5-haiku-latest", 8_192),
        ("claude-opus-4-1-20250805", 32_000),
        ("claude-opus-4-5", 64_000),
        ("claude-sonnet-4-5-20250929", 64_000),
        ("claude-sonnet-4-6", 128_000),
        ("eu.anthropic.claude-opus-4-7-v1:0", 128_000),
        ("claude-opus-5-5", 128_000),
        ("claude-unheard-of-9", None),
        ("mine", None),
    ],
)
def test_the_limit_of_a_model(model: str, limit: int | None) -> None:
    assert rules.output_limit(model) == limit
    assert rules.output_limit(model, long_output=True) == (300_000 if limit == 128_000 else limit)


def test_max_tokens_double_up_to_the_limits_and_never_shrink() -> None:
    limits = {"limit": 5000, "of_model": 8192}
    assert [rules.raise_max_tokens(1000, times, **limits) for times in range(5)] == [1000, 2000, 4000, 5000, 5000]
    assert rules.raise_max_tokens(5000, 3, limit=10**9, of_model=8192) == 8192
    assert rules.raise_max_tokens(6000, 1, **limits) == 6000
    assert rules.raise_max_tokens(1000, 3, limit=None, of_model=None) == 1000


def test_a_budget_for_thinking_stays_under_max_tokens() -> None:
    assert rules.fit_budget(5000, 4096) == 4095
    assert rules.fit_budget(1024, 1025) == 1024
    assert rules.fit_budget(5000, 1024) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("claude-haiku-4-5", "claude-haiku-4-5", True),
        ("claude-haiku-4-5", "claude-haiku-4-5-20251001", True),
        ("claude-haiku-4-5@20251001", "claude-haiku-4-5", True),
        ("claude-opus-4", "claude-opus-4-5", False),
        ("claude-opus-4-1", "claude-sonnet-4-1", False),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5-20260101", False),
    ],
)
def test_names_of_one_model_differ_by_a_date(one: str, other: str, same: bool) -> None:
    assert rules.is_same_model(one, other) is rules.is_same_model(other, one) is same
