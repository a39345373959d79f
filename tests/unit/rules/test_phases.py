"""In which phase a job is, as a table."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from claude_batch_tasks import rules
from claude_batch_tasks.records import BatchState, JobState

CANCEL, CALLS = {"cancel_requested": True}, {"delivering": True}

#: The state of the record, the stages of the batches, what else is known, and the phase.
TABLE: list[tuple[JobState, list[str], dict[str, bool], str]] = [
    ("staged", ["waiting"], {}, "queued"),
    ("staged", ["waiting"], CANCEL, "canceling"),
    ("running", ["waiting", "waiting"], {}, "running"),
    ("running", ["running", "waiting"], {}, "running"),
    ("running", ["saving", "running"], {}, "running"),
    ("running", ["done", "running"], CALLS, "running"),
    ("running", ["saving", "done"], {}, "saving results"),
    ("running", ["saving", "done"], CALLS, "saving results"),
    ("running", ["done", "done"], {}, "saving results"),
    ("running", ["done", "done"], CALLS, "delivering"),
    ("running", [], {}, "saving results"),
    ("running", ["running"], CANCEL, "canceling"),
    ("running", ["done"], {**CANCEL, **CALLS}, "canceling"),
    ("completed", ["done"], {}, "completed"),
    ("completed", ["done"], CALLS, "delivering"),
    ("canceled", ["done"], CANCEL, "canceled"),
    ("canceled", ["done"], {**CANCEL, **CALLS}, "delivering"),
    ("failed", ["running", "done"], {}, "failed"),
    ("failed", ["done"], CALLS, "delivering"),
    ("revoked", ["waiting"], {**CANCEL, **CALLS}, "revoked"),
]


@pytest.mark.parametrize(("state", "stages", "more", "phase"), TABLE)
def test_a_job_is_in_one_phase(state: JobState, stages: Any, more: dict[str, bool], phase: str) -> None:
    assert rules.choose_phase(state, stages, **more) == phase
    assert state in rules.states_of(phase), "a filter by phase finds it"


def test_each_phase_is_in_the_table() -> None:
    assert {phase for _, _, _, phase in TABLE} == set(rules.PHASES)
    assert {state for state, _, _, _ in TABLE} == set(get_args(JobState))


@pytest.mark.parametrize(
    ("state", "more", "stage"),
    [
        ("staged", {}, "waiting"),
        ("creating", {}, "running"),
        ("in_progress", {}, "running"),
        ("canceling", {}, "running"),
        ("ended", {}, "saving"),
        ("fetched", {}, "saving"),
        ("fetched", {"eligible": 3}, "running"),
        ("fetched", {"eligible": 3, "done": True}, "done"),
        ("unsent", {}, "running"),
        ("lost", {"done": True}, "done"),
        ("failed", {"done": True}, "done"),
    ],
)
def test_a_batch_is_in_one_stage(state: BatchState, more: dict[str, Any], stage: str) -> None:
    assert rules.find_stage(state, **{"done": False, "eligible": 0, **more}) == stage


@pytest.mark.parametrize("word", [*get_args(JobState), *rules.PHASES])
def test_a_filter_takes_states_and_phases(word: str) -> None:
    assert set(rules.states_of(word)) <= set(get_args(JobState))
    assert rules.states_of("queued") == rules.states_of("staged") == ("staged",)


PAST = (90.0, 100.0, 200.0)


def part(requests: int, open: int, **more: Any) -> rules.BatchPart:
    return rules.BatchPart(requests, open, more.pop("running", True), **more)


@pytest.mark.parametrize(
    ("parts", "fraction", "similar"),
    [
        # Requests with an outcome count as they are.
        ([part(10, 0), part(30, 30)], 0.25, 0),
        ([part(10, 4, running=False)], 0.6, 0),
        # Anthropic's counts, where they move.
        ([part(100, 100, processed=25, age=50, past=PAST)], 0.25, 0),
        ([part(100, 10, processed=99)], 1.0, 0),
        # Else the age, as a share of the median.
        ([part(100, 100, age=50, past=PAST)], 0.5, 3),
        ([part(100, 100, age=0, past=PAST)], 0.0, 3),
        ([part(100, 100, age=-5, past=PAST)], 0.0, 3),
        ([part(100, 100, age=10_000, past=PAST)], 0.95, 3),
        ([part(100, 20, age=50, past=PAST)], 0.9, 3),
        ([part(100, 0), part(100, 100, age=50, past=PAST), part(200, 200, running=False)], 0.375, 3),
        ([part(100, 100, age=50, past=(0.0,) * 9)], 0.95, 9),
    ],
)
def test_a_job_is_so_far(parts: list[rules.BatchPart], fraction: float, similar: int) -> None:
    found = rules.estimate_progress(parts)
    assert found is not None
    assert (pytest.approx(fraction), similar) == (found.fraction, found.similar)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [part(0, 0)],
        [part(100, 100)],
        [part(100, 100, age=50)],
        [part(100, 100, age=50, past=PAST[:2])],
        [part(100, 100, past=PAST)],
        [part(100, 100, running=False, age=50, past=PAST)],
    ],
)
def test_of_a_job_nothing_may_be_known(parts: list[rules.BatchPart]) -> None:
    assert rules.estimate_progress(parts) is None


@pytest.mark.parametrize(
    ("model", "models", "requests", "kind"),
    [
        ("claude-x", 1, 9, "claude-x:1"),
        ("claude-x", 1, 10, "claude-x:2"),
        ("claude-x", 1, 100_000, "claude-x:6"),
        (None, 3, 500, "several:3"),
        (None, 1, 500, None),
        ("claude-x", 1, 0, "claude-x:1"),
    ],
)
def test_a_batch_is_of_a_kind(model: str | None, models: int, requests: int, kind: str | None) -> None:
    assert rules.batch_kind(model, models, requests) == kind
