"""What is expected of ``ask`` in the rows of the table: where it is not what is seen of a plain task, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.conformance.bench import Lane
from tests.conformance.table import USUAL, Row

#: Where ``ask`` runs: how it ends does not depend on the broker, and on the pool no more than ``run_batch`` does.
LANE = Lane("redis", "prefork")


@dataclass(frozen=True)
class Expected:
    """What is expected of ``ask``.

    Args:
        refused, differs, reason: as for a ``Row``.
    """

    refused: str = ""
    differs: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    @property
    def kind(self) -> str:
        """``same``, ``refused`` or ``differs``."""
        return "refused" if self.refused else "differs" if self.differs else "same"


SAME = Expected()

#: Rows that say nothing of ``ask``, and why.
LEFT_OUT = {
    "body of a chord, with what the header gives": "a header gives a list, and an ask takes the params of one request",
    "`serializer=` that workers do not accept": "no message is sent for an ask",
    "`group.skew()`": "an ask runs when its answer is there; `countdown=` is seen above",
}

_NO_MESSAGE = "an ask is stored, and no message is sent for it"
_FUNCTION = "its answer comes with a batch: `.delay()` returns at once"
_EACH = "each would be called as a function: use a group"

#: Of all other rows ``ask`` is the same as a plain task.
EXPECTED = {
    "the task called as a function": Expected(refused=r"\.delay\(", reason=_FUNCTION),
    "the signature called as a function": Expected(refused=r"\.delay\(", reason=_FUNCTION),
    "`task.apply()`: run here and now": Expected(
        differs={"type": "EagerAskResult"}, reason="a kind of `EagerResult` whose `get()` returns the `RequestResult`"
    ),
    "`apply()` in a task": Expected(
        differs={"result": "dict"},
        reason="`get()` returns the `RequestResult`, which the result back end has as a dict",
    ),
    "`map()`": Expected(refused=r"\.map", reason=_EACH),
    "`starmap()`": Expected(refused=r"\.starmap", reason=_EACH),
    "`chunks()`": Expected(refused=r"\.chunks", reason=_EACH),
    "`time_limit=`": Expected(
        refused="max_wait", reason="an ask runs when its answer is there; `deadline` and `max_wait` limit the wait"
    ),
    "`soft_time_limit=`": Expected(
        refused="max_wait", reason="an ask runs when its answer is there; `deadline` and `max_wait` limit the wait"
    ),
    "`headers=`": Expected(
        differs={"next": [{"x_tenant": "a", "nested": {"list": [1]}}]},
        reason="what follows an ask in its chain has them too: handlers that pass a tenant or a trace on ran hours ago",
    ),
    "`ignore_result=True`": Expected(
        differs={"state": "SUCCESS"}, reason="its state is read from the store, where the result back end has none"
    ),
    "`argsrepr=`, `kwargsrepr=`": Expected(differs={"event": []}, reason=_NO_MESSAGE),
    "`AsyncResult.state` while it runs": Expected(
        differs={"state": "PROGRESS"}, reason="an ask shows its pool and position meanwhile, in `result.info`"
    ),
    "`as_tuple()`, `collect()`, `children`": Expected(
        differs={"collected": ["RequestResult", "str"]}, reason="`get()` of an ask returns its `RequestResult`"
    ),
    "`inspect().query_task()`, `.scheduled()`: by its id": Expected(differs={"found": False}, reason=_NO_MESSAGE),
    "`task_received`: once under its id": Expected(differs={"signals": {}}, reason=_NO_MESSAGE),
    "events `task-received`, `task-started`: once under its id": Expected(
        differs={"events": {"task-received": 0, "task-started": 0}},
        reason="the one event of its end, `task-succeeded` or `task-failed`, says what these do",
    ),
    "log: `succeeded`, `raised unexpected`, once, by its name and id": Expected(
        differs={"lines": {"succeeded": 0, "unexpected": 0, "raised": 0}},
        reason="thousands end at a time: one line of their job says how many",
    ),
    "its arguments in events": Expected(differs={"in the event": False}, reason="they are prompts"),
}


def runs(row: Row, lane: Lane) -> bool:
    """Whether a row is run for ``ask``."""
    return lane == LANE and row.configuration == USUAL and row.name not in LEFT_OUT


#: What stands for a job's summary, and for the error with which a job fails, where it is an ask.
_WORDS = {"Answer": "dict", "RequestFailed": "PermanentError"}


def translate(seen: Any) -> Any:
    """Return what was seen of ``ask`` in the words of the others."""
    if isinstance(seen, Mapping):
        return {
            key.replace("RequestFailed", "PermanentError").replace("Answer", "dict"): translate(value)
            for key, value in seen.items()
        }
    if isinstance(seen, (list, tuple, set)):
        return type(seen)(map(translate, seen))
    return _WORDS.get(seen, seen) if isinstance(seen, str) else seen
