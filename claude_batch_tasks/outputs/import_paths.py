"""Import paths: the names by which other processes find the types and functions of an application."""

from __future__ import annotations

import pkgutil
from typing import Any

from celery.utils.imports import cwd_in_path

from claude_batch_tasks.errors import InvalidSettings

_UNCHANGED = "Nothing was stored or sent"


def name_object(value: Any, option: str) -> str:
    """Return the import path of a class or function, after checking that it leads back to it.

    Raises:
        InvalidSettings: other processes could not import it.
    """
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or hasattr(value, "__origin__"):
        raise refuse_option(option, f"{_show(value)} has no import path: define a class or function in a module")
    if module == "__main__":
        raise refuse_option(
            option, f"{name} is defined in the script that runs here, which workers cannot import: move it to a module"
        )
    if "<" in name:
        raise refuse_option(
            option, f"{name} is a lambda or local to a function, so workers cannot import it: define it in a module"
        )
    path = f"{module}.{name}"
    if import_path(path, option) is not value:
        raise refuse_option(option, f"{path} leads to another object than the one that was given")
    return path


def import_path(path: str, option: str) -> Any:
    """Return the object with an import path, such as ``app.models.Review`` or ``app.models:Review``.

    Raises:
        InvalidSettings: it cannot be imported.
    """
    try:
        with cwd_in_path():  # as Celery finds apps and modules of tasks
            return pkgutil.resolve_name(path)
    except Exception as exc:  # noqa: BLE001 - whatever the application's module raises
        reason = f"{type(exc).__name__}: {exc}"[:300]
        raise refuse_option(option, f"{path or 'an empty text'} cannot be imported: {reason}") from None


def refuse_option(option: str, why: str) -> InvalidSettings:
    """Return the error for an option that cannot be used."""
    return InvalidSettings(f"run_batch option {option}: {why}. {_UNCHANGED}")


def _show(value: Any) -> str:
    shown = str(value) if hasattr(value, "__origin__") else f"a value of type {type(value).__name__}"
    return shown[:100]
