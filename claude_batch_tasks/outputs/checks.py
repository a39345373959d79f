"""The function that an application gives as ``check=``: it says what is wrong with an answer of the right type."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded

from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.outputs.import_paths import import_path, name_object, refuse_option
from claude_batch_tasks.outputs.problem_texts import join_problem, name_exception, shorten_reason


class OutputUnusable(RuntimeError):
    """A check cannot be run here, so nothing is known of the answers: the step runs again, on this or another worker.

    It holds nothing of an answer.
    """


def name_check(check: Any) -> str | None:
    """Return the import path of a check.

    Args:
        check: a function, or its import path.

    Raises:
        InvalidSettings: workers could not call it.
    """
    if check is None:
        return None
    found = import_path(check, "check") if isinstance(check, str) else check
    if not callable(found):
        raise refuse_option("check", f"must be a function or its import path, not a value of {type(check).__name__}")
    if inspect.iscoroutinefunction(found):
        raise refuse_option("check", "must be a plain function, not a coroutine function")
    return check if isinstance(check, str) else name_object(check, "check")


def load_check(path: str) -> Callable[[Any], str | None]:
    """Return a function that runs a check on an answer, and says what is wrong with it.

    Raises:
        OutputUnusable: it cannot be imported here.
    """
    try:
        check = import_path(path, "check")
    except InvalidSettings as exc:
        raise OutputUnusable(f"{exc}".partition(". Nothing was stored")[0]) from None
    if not callable(check):
        raise OutputUnusable(f"run_batch option check: {path} is no function here")

    def run_check(value: Any) -> str | None:
        try:
            found = check(value)
        except (SoftTimeLimitExceeded, MemoryError):  # these say nothing about the answer
            raise
        except Exception as exc:  # noqa: BLE001 - the application's own: it is about this answer
            return join_problem((), f"the check raised {name_exception(exc)}")
        if found is None or isinstance(found, str):
            return join_problem((), shorten_reason(found)) if found else None
        raise OutputUnusable(f"run_batch option check: {path} must return None or a text, not {type(found).__name__}")

    return run_check
