"""What is wrong with a set-up, and what mends it: settings, servers, workers and the way to Anthropic.

The same checks serve ``claude-batch doctor`` and Django's system checks; a worker makes those of ``checks`` at its
start. Nothing here costs anything, and nothing shows a password or a key.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from celery import Celery

from claude_batch_tasks import checks
from claude_batch_tasks.doctor import accounts, servers, workers
from claude_batch_tasks.problems import Finding, ok

__all__ = ["CHECKS", "Check", "Finding", "examine", "findings"]


class Check(NamedTuple):
    """One part of the examination; ``asks``: it goes out to servers, workers or Anthropic."""

    name: str
    run: Callable[[Celery], Iterable[Finding]]
    asks: bool


def _settings(app: Celery) -> list[Finding]:
    return list(checks.static(app)) or [ok("the settings make sense")]


CHECKS = (
    Check("settings", _settings, asks=False),
    Check("servers", servers.check, asks=True),
    Check("workers", workers.check, asks=True),
    Check("anthropic", accounts.check, asks=True),
)


def examine(app: Celery, parts: Collection[str] = ()) -> Iterator[tuple[str, list[Finding]]]:
    """Each part of the examination by name, with what it found, all that is well included; none hides another.

    Args:
        parts: the names of those to be made; default: all.
    """
    app.loader.import_default_modules()
    for check in CHECKS:
        if not parts or check.name in parts:
            yield check.name, list(checks.isolated(check.name, partial(check.run, app)))


def findings(app: Celery, *, servers: bool) -> list[Finding]:
    """What is wrong.

    Args:
        servers: ask servers, workers and Anthropic, which takes some seconds; False: look at the settings alone.
    """
    parts = [check.name for check in CHECKS if servers or not check.asks]
    return [one for _, found in examine(app, parts) for one in found if one.level >= logging.WARNING]
