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
