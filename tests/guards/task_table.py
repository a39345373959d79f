"""The tasks: their names, and the order, kinds and defaults of their arguments. Messages in queues have both."""

from __future__ import annotations

from inspect import Parameter
from typing import Any, NamedTuple

NAME = "claude_batch_tasks."

#: No default.
NONE = Parameter.empty


class Argument(NamedTuple):
    """One argument of a task, as ``inspect`` tells of it."""

    name: str
    kind: str = "POSITIONAL_OR_KEYWORD"
    default: Any = NONE


_JOB, _BATCH = Argument("job_id"), Argument("batch")
#: In a chain each step gets these by position; ``turn`` and ``seq`` say which of its messages this is.
_STEP = [_JOB, _BATCH, Argument("turn", default=0), Argument("seq", default=0)]

TASKS = {
    NAME + "run_batch": [
        Argument("requests", default=None),
        Argument("job_id", "KEYWORD_ONLY", None),
        Argument("options", "VAR_KEYWORD"),
    ],
    NAME + "ask": [Argument("params", default=None), Argument("options", "VAR_KEYWORD")],
    NAME + "create_batch": _STEP,
    NAME + "poll_batch": _STEP,
    NAME + "fetch_results": _STEP,
    NAME + "fall_back": _STEP,
    NAME + "send_messages": [_JOB, _BATCH, Argument("lane"), Argument("seq", default=0)],
    NAME + "finish_job": [
        _JOB,
        Argument("batch", default=0),
        Argument("turn", default=0),
        Argument("seq", default=0),
    ],
    NAME + "cancel_batch": [_JOB, _BATCH],
    NAME + "recover_jobs": [Argument("after", default=0), Argument("job_id", default=None)],
    NAME + "seal_pool": [_JOB],
}

#: What a task of ours must have, so that its message survives a worker's death and says nothing to strangers.
ATTRIBUTES = {"acks_late": True, "reject_on_worker_lost": True, "max_retries": None, "serializer": "json"}

#: Where a batch's first message stands after each step of its turn; the next turn begins a stride after the last one's
#: end. The number within a step counts its messages.
STEPS = ("create_batch", "poll_batch", "fetch_results", "fall_back")
STRIDE = 1_000_000
POSITIONS = {"create_batch": 0, "poll_batch": 1_000_000, "fetch_results": 2_000_000, "fall_back": 3_000_000}
SECOND_TURN = {"create_batch": 4_000_000, "poll_batch": 5_000_000, "fetch_results": 6_000_000, "fall_back": 7_000_000}

#: The position of a batch or a lane that is through, and of a job whose result is stored.
DONE, ENDED = 1_000_000_000_000_000, 1
