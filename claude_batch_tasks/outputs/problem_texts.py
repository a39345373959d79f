"""How what is wrong with an answer is said: ``path: reason``, short, and without long parts of the answer."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from claude_batch_tasks.formatting import shorten_text

_LONGEST_STEP, _LONGEST_PATH, _LONGEST_REASON = 40, 200, 300

_NAME = re.compile(r"[^\W\d]\w*")
_MSGSPEC_PATH = re.compile(r"(.*) - at `(\$?.*)`", re.DOTALL)


def join_problem(path: Iterable[Any], reason: str) -> str:
    """Return a problem as it is stored and shown.

    Args:
        path: names and positions that lead to the wrong place; empty: the whole answer.
    """
    steps = "".join(f"[{step}]" if isinstance(step, int) else _write_name(str(step)) for step in path)
    return _finish_problem(f"${steps}", reason)


def _write_name(name: str) -> str:
    shown = name if len(name) <= _LONGEST_STEP else f"{name[:_LONGEST_STEP]}..."
    return f".{shown}" if _NAME.fullmatch(name) else f"[{shown!r}]"


def _finish_problem(path: str, reason: str) -> str:
    shown = path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}..."
    return f"{shorten_text(shown, _LONGEST_PATH + 3)}: {shorten_reason(reason)}"


def shorten_reason(reason: str) -> str:
    """Return a reason in one line of limited length."""
    line = " ".join(reason[: 4 * _LONGEST_REASON].split())
    return shorten_text(line if len(line) <= _LONGEST_REASON else f"{line[: _LONGEST_REASON - 3]}...", _LONGEST_REASON)


def describe_exception(exc: Exception) -> str:
    """Return what an exception of a type's reader says, as ``path: reason``."""
    if isinstance(exc, msgspec.ValidationError):
        found = _MSGSPEC_PATH.fullmatch(text := str(exc))
        return _finish_problem(found[2] or "$", found[1]) if found else join_problem((), text)
    if isinstance(exc, importlib.import_module("pydantic").ValidationError):
        return _describe_pydantic(exc)
    return join_problem((), name_exception(exc))


def name_exception(exc: Exception) -> str:
    """Return the type and the message of an exception."""
    try:
        text = str(exc)
    except Exception:  # noqa: BLE001 - of the application's own class
        text = ""
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _describe_pydantic(exc: Any) -> str:
    errors = exc.errors(include_url=False, include_context=False, include_input=False)
    first = errors[0]
    more = f" (and {len(errors) - 1:,} more)" if len(errors) > 1 else ""
    return join_problem(first["loc"], f"{shorten_reason(first['msg'])[: _LONGEST_REASON - 20]}{more}")
