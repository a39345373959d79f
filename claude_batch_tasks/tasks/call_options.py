"""What callers give to ``run_batch`` and ``ask``: the one argument, and the options of Celery that say when."""

from __future__ import annotations

import time
from collections.abc import Mapping
from numbers import Real
from typing import Any

from celery import Celery
from celery.utils.time import maybe_iso8601, maybe_make_aware

from claude_batch_tasks import errors


def read_argument(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], refusal: str
) -> tuple[Any, dict[str, Any]]:
    """Return the one argument of a call, and its options.

    Args:
        name: that of the argument.
        refusal: the text of the error.

    Raises:
        TypeError: it is missing, or is not the only one.
    """
    options = dict(kwargs)
    if len(args) > 1 or (args and name in options) or not (args or name in options):
        raise TypeError(f"{refusal}. Nothing was stored or sent")
    return (args[0] if args else options.pop(name)), options


def refuse_limits(task: str, options: Mapping[str, Any], advice: str) -> None:
    """Refuse a limit for one run of a task, which would not limit the wait for its answers.

    Raises:
        InvalidSettings: such a limit was given.
    """
    if given := [name for name in ("time_limit", "soft_time_limit") if options.get(name) is not None]:
        raise errors.InvalidSettings(
            f"{task} option {given[0]} limits one run of a task, {advice}. Nothing was stored or sent"
        )


def read_delay(app: Celery, options: Mapping[str, Any]) -> float:
    """Return the seconds from now at which a task with these options is to start, as Celery's workers read them.

    Raises:
        InvalidSettings: eta is not a moment.
    """
    if (countdown := options.get("countdown")) or (eta := options.get("eta")) is None:
        return float(countdown or 0)
    return max(_read_moment(app, "eta", eta) - time.time(), 0)  # noqa: TID251 - as Celery has it


def read_expiry(app: Celery, options: Mapping[str, Any]) -> float | None:
    """Return when it is too late for a task with these options to start, epoch seconds, as Celery's workers read it.

    Raises:
        InvalidSettings: expires is neither a moment nor a number of seconds.
    """
    expires = options.get("expires")
    if expires is None or (isinstance(expires, Real) and not isinstance(expires, bool)):
        return None if expires is None else time.time() + float(expires)  # noqa: TID251 - as Celery has it
    return _read_moment(app, "expires", expires)


def _read_moment(app: Celery, name: str, value: Any) -> float:
    try:
        read: Any = maybe_iso8601(value if isinstance(value, str) else value.isoformat())
        moment = maybe_make_aware(read, app.timezone)
    except (AttributeError, TypeError, ValueError):
        kind = "a datetime or one as ISO 8601 text" + (", or a number of seconds" if name == "expires" else "")
        text = f"run_batch option {name} must be {kind}, not {value!r}. Nothing was stored or sent"
        raise errors.InvalidSettings(text) from None
    return float(moment.timestamp())
