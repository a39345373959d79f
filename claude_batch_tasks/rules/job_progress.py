"""Decisions about what people are shown of a job: in which phase it is, and whether answers are being handed over."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, get_args

from claude_batch_tasks.records import BatchState, JobState, Phase

PHASES: tuple[Phase, ...] = get_args(Phase)

Stage = Literal["waiting", "running", "saving", "done"]
"""Where a batch is: before its create, at Anthropic or the Messages API, downloaded, or done."""

#: The states of its record that a job in a phase may be in; any other phase is a state itself.
_STATES_IN: dict[str, tuple[JobState, ...]] = {
    "queued": ("staged",),
    "saving results": ("running",),
    "canceling": ("staged", "running"),
    "delivering": ("running", "completed", "canceled", "failed"),
}


#: Reasons for failed calls that a job's record has, the last ones.
DELIVERY_REASONS = 10

#: How long a call that nothing is heard of counts as still to end, seconds: a worker without this package reports
#: nothing, and a message that was lost never ends.
DELIVERY_SILENCE = 3600.0


def find_stage(state: BatchState, *, done: bool, eligible: int) -> Stage:
    """Return where a batch is.

    Args:
        state: that of its record.
        done: nothing is left to be done for it.
        eligible: how many of its requests may be sent again.
    """
    if done:
        return "done"
    if state == "staged":
        return "waiting"
    if state == "ended":
        return "saving"
    return "saving" if state == "fetched" and not eligible else "running"


def choose_phase(
    state: JobState, stages: Collection[Stage], *, cancel_requested: bool = False, delivering: bool = False
) -> Phase:
    """Return the phase of a job.

    ==========================================  ==================
    the job                                     is
    ==========================================  ==================
    was revoked                                 ``revoked``
    has ended, calls of ``on_result`` have not  ``delivering``
    has ended                                   its state
    is to be canceled                           ``canceling``
    was not begun                               ``queued``
    has a batch that waits or runs              ``running``
    has batches whose results are stored now    ``saving results``
    waits for calls of ``on_result``            ``delivering``
    has nothing left to do but to end           ``saving results``
    ==========================================  ==================

    Args:
        state: that of its record.
        stages: those of its batches.
        cancel_requested: somebody has canceled it.
        delivering: calls of ``on_result`` wait or run.
    """
    if state == "revoked":
        return state
    if state != "staged" and state != "running":
        return "delivering" if delivering else state
    if cancel_requested:
        return "canceling"
    if state == "staged":
        return "queued"
    if not {"waiting", "running"}.isdisjoint(stages):
        return "running"
    return "delivering" if delivering and "saving" not in stages else "saving results"


def states_of(word: str) -> tuple[str, ...]:
    """Return the states of its record that a job may be in that is in this phase, or has this state."""
    return _STATES_IN.get(word, (word,))


def is_delivering(called: int, delivered: int, failed: int, silent_for: float | None) -> bool:
    """Return whether calls of ``on_result`` are likely to be waiting, running or about to be retried.

    Args:
        called: requests with which it was called.
        delivered: requests of which a call ended well.
        failed: requests of which the last call failed permanently.
        silent_for: seconds since a call was made, retried or ended; None: nothing was ever recorded.
    """
    return called > delivered + failed and silent_for is not None and silent_for < DELIVERY_SILENCE
