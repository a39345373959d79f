"""The examination of a set-up: settings, servers, workers and the way to Anthropic.

It says what is wrong, and how to fix it. The same checks serve ``claude-batch doctor`` and Django's system checks; a
worker makes those of ``checks`` at its start. No check costs anything, and none shows a password or a key.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from functools import partial

from celery import Celery

from claude_batch_tasks.checks import configuration
from claude_batch_tasks.checks.problems import Finding, ok
from claude_batch_tasks.doctor import accounts, servers, workers
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.settings import FIELDS, Settings

__all__ = ["CHECKS", "Finding", "examine_parts", "list_findings"]


def _examine_settings(app: Celery) -> Iterator[Finding]:
    yield from list(configuration.check_statically(app)) or [ok("the settings make sense")]
    with suppress(InvalidSettings):
        settings = Settings.of(app)
        limits = [f"{name} {_format_limit(getattr(settings, name))}" for name in LIMITS]
        yield ok(f"limits in force: {', '.join(limits)}")


def _format_limit(value: int | float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


#: The settings that limit something: costs, requests, time, attempts.
LIMITS = [
    name
    for name in FIELDS
    if name.startswith("max_") or name.endswith("_limit") or name in ("retries", "continue_paused", "reask", "deadline")
]

#: The parts of the examination.
CHECKS: dict[str, Callable[[Celery], Iterable[Finding]]] = {
    "settings": _examine_settings,
    "servers": servers.check_servers,
    "workers": workers.check_workers,
    "anthropic": accounts.check_accounts,
}


def examine_parts(app: Celery, parts: Collection[str] = ()) -> Iterator[tuple[str, list[Finding]]]:
    """Yield the name of each part of the examination with its findings, also those that say that all is well.

    A part that fails does not hide the others.

    Args:
        parts: the names of the parts to run; default: all.
    """
    app.loader.import_default_modules()
    for name, check in CHECKS.items():
        if not parts or name in parts:
            found = configuration.run_isolated(name, partial(check, app))
            yield name, list(configuration.in_its_words(app, found))


def list_findings(app: Celery) -> list[Finding]:
    """Return the warnings and errors of the whole examination, which takes some seconds."""
    return [one for _, found in examine_parts(app) for one in found if one.level >= logging.WARNING]
