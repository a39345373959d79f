"""Decisions about what people are shown of a job: in which phase it is, and whether answers are being handed over."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from statistics import median
from typing import Literal, NamedTuple, get_args

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


#: How many past batches an estimate needs, and how far it lets a batch be whose end was not seen.
MIN_SAMPLES, MOST_BY_TIME = 3, 0.95

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


class BatchPart(NamedTuple):
    """How far one batch of a job is."""

    requests: int
    open: int
    """How many of them have no outcome yet, as far as is known."""
    running: bool
    """Whether these are in a batch at Anthropic."""
    processed: int = 0
    """How many of the open ones Anthropic counts as ended."""
    age: float | None = None
    """Seconds since the batch at Anthropic was created."""
    past: Sequence[float] = ()
    """How long past batches of its kind took, seconds."""


class Estimated(NamedTuple):
    """How far a job is."""

    fraction: float
    similar: int
    """The number of past batches by which it was estimated; 0: it is measured."""


def batch_kind(model: str | None, models: int, requests: int) -> str | None:
    """Return the kind of a batch, of which batches take about the same time; None: its model is not known.

    Args:
        model: the one that all requests of the job are for.
        models: how many they are for.
        requests: how many the batch has.
    """
    name = model or ("several" if models > 1 else None)
    return name and f"{name}:{len(str(max(requests, 1)))}"


def estimate_progress(parts: Collection[BatchPart]) -> Estimated | None:
    """Return how far a job is, by its requests; None: nothing is known.

    Of a batch at Anthropic, what Anthropic counts is taken, if it counts before the end. Else it is as far as its age
    is a share of the usual time of such batches, but not further than ``MOST_BY_TIME``.
    """
    ended, similar = 0.0, 0
    for part in parts:
        ended += part.requests - part.open
        if part.processed:
            ended += min(part.processed, part.open)
        elif part.running and part.age is not None and len(part.past) >= MIN_SAMPLES:
            similar = max(similar, len(part.past))
            ended += part.open * min(max(part.age, 0.0) / max(median(part.past), 1.0), MOST_BY_TIME)
    total = sum(part.requests for part in parts)
    return Estimated(min(ended / total, 1.0), similar) if total and (ended or similar) else None
