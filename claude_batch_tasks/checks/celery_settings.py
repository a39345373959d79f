"""The checks of the app's own Celery settings and of our tasks, decided from values alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from claude_batch_tasks.checks import problems
from claude_batch_tasks.checks.problems import Finding
from claude_batch_tasks.rules import BATCH_LIFETIME
from claude_batch_tasks.steps.message_chain import NAME

#: Seconds that a step may take. Long steps are a create or a download of a large batch, and a long answer of the
#: Messages API. Any other step makes one or two calls of at most ``timeout`` seconds.
LONG_STEP = 600
_STEP = 120
LONG_STEPS = ("create_batch", "fetch_results", "send_messages")

#: Celery's own default; a project that has more has chosen it.
_PREFETCH = 4


def of_settings(conf: Mapping[str, Any]) -> list[Finding]:
    """Return the findings about the app's own Celery settings."""
    found = []
    if conf.get("worker_cancel_long_running_tasks_on_connection_loss"):
        found.append(problems.KILLED_STEPS.found())
    prefetch = number_of(conf.get("worker_prefetch_multiplier"))
    if prefetch == 0:
        found.append(problems.PREFETCH.found(share="all there is"))
    elif prefetch is not None and prefetch > _PREFETCH:
        found.append(problems.PREFETCH.found(share=f"{prefetch:g} messages"))
    seconds = number_of(conf.get("result_expires"))
    if seconds and seconds <= BATCH_LIFETIME:
        found.append(problems.RESULTS_EXPIRE.found(hours=seconds / 3600))
    found += _of_messages(conf)
    if conf.get("task_always_eager"):
        found.append(problems.EAGER.found())
    if conf.get("task_default_queue_type") == "quorum" and not conf.get("worker_detect_quorum_queues", True):
        found.append(problems.QUORUM_UNDETECTED.found())
    return found


def _of_messages(conf: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the findings about how messages and results are written."""
    accepted, own = list_of(conf.get("accept_content")), list_of(conf.get("result_accept_content"))
    tasks, results = conf.get("task_serializer"), conf.get("result_serializer")
    if accepted and not any(_accepts_serializer(accepted, name) for name in ("json", tasks) if name):
        yield problems.NO_SERIALIZER.found(accepted=accepted, used=tasks, right=["json", *accepted])
    else:
        yield from _of_serializer("task_serializer", tasks, "accept_content", accepted)
    if own:
        yield from _of_serializer("result_serializer", results, "result_accept_content", own)
    else:
        yield from _of_serializer("result_serializer", results, "accept_content", accepted)
    if str(conf.get("task_protocol")) == "1":
        yield problems.OLD_PROTOCOL.found()
    if any(str(name).endswith(("pickle", "python-serialize")) for name in (tasks, results, *accepted, *own)):
        yield problems.PICKLE.found()


def _of_serializer(setting: str, used: Any, list_setting: str, accepted: Sequence[Any]) -> Iterator[Finding]:
    if not (used and accepted) or _accepts_serializer(accepted, used):
        return
    more = f"{list_setting} = {[*accepted, used]!r}"
    fix = f"{setting} = 'json'" if used != "json" and _accepts_serializer(accepted, "json") else more
    yield problems.NOT_ACCEPTED.found(setting=setting, used=used, fix=fix)


def of_tasks(tasks: Mapping[str, Any], limits: Mapping[str, float | None]) -> list[Finding]:
    """Return the findings about our tasks as annotations (``task_annotations``) or settings have changed them.

    Args:
        tasks: the app's tasks, by name.
        limits: the worker's ``time_limit`` and ``soft_time_limit``, for tasks without their own.
    """
    found = []
    steps = {name: task for name, task in sorted(tasks.items()) if name.startswith(NAME)}
    if late := [name for name, task in steps.items() if not (task.acks_late and task.reject_on_worker_lost)]:
        found.append(problems.EARLY_ACKNOWLEDGED.found(tasks=name_some(late)))
    if short := {name: own for name, task in steps.items() if (own := _short_limits(name, task, limits))}:
        found.append(_of_short_limits(short))
    return found


def _of_short_limits(short: Mapping[str, Mapping[str, float]]) -> Finding:
    shortest = min(min(of.values()) for of in short.values())
    right = {name: dict.fromkeys(of, 3 * LONG_STEP) for name, of in short.items()}
    return problems.TIME_LIMITS.found(tasks=name_some(list(short)), seconds=shortest, right=right)


def _short_limits(name: str, task: Any, defaults: Mapping[str, float | None]) -> dict[str, float]:
    """Return the time limits of a task, in seconds, that are shorter than it may take."""
    least = LONG_STEP if name.removeprefix(NAME) in LONG_STEPS else _STEP
    limits = {
        limit: number_of(getattr(task, limit) or defaults.get(limit)) for limit in ("time_limit", "soft_time_limit")
    }
    return {limit: seconds for limit, seconds in limits.items() if seconds and seconds < least}


def number_of(value: Any) -> float | None:
    """Return a number, or a duration in seconds, as a float; None stays None."""
    return value.total_seconds() if isinstance(value, timedelta) else None if value is None else float(value)


def list_of(value: Any) -> list[Any]:
    """Return the elements of a setting that may be one text."""
    return [value] if isinstance(value, str) else list(value or ())


def _accepts_serializer(accepted: Sequence[Any], serializer: str) -> bool:
    names = {str(name).rpartition("/")[2].removeprefix("x-") for name in accepted}
    return serializer in names or {"pickle": "python-serialize"}.get(serializer) in names


def name_some(names: Sequence[str]) -> str:
    """Return the first name, how many more there are, and the verb: ``a is``, ``a and 2 more are``."""
    more = f" and {len(names) - 1} more are" if len(names) > 1 else " is"
    return f"{names[0]}{more}"
