"""The remote control command ``claude_batch`` of Celery, with which a worker reports about itself to ``doctor``.

No value of a setting is sent, only digests that show whether two values are the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from typing import Any

from claude_batch_tasks import errors
from claude_batch_tasks._version import __version__
from claude_batch_tasks.checks.versions import list_versions
from claude_batch_tasks.settings import Settings, store_urls
from claude_batch_tasks.store import open_store

COMMAND = "claude_batch"

#: Seconds for which a mark stays in the store.
_MARKED = 60.0

#: Settings about which another finding says more; no digest of them is sent.
_TOLD_ELSEWHERE = ("store_url", "client_factories")


def leave_mark(settings: Settings, token: str) -> bool:
    """Leave a mark in the store, by which a worker sees that it uses the same one; return whether that succeeded."""
    if settings.store_url is None:
        return False
    try:
        open_store(settings).inspection.leave_mark(token, _MARKED)
    except (errors.StoreUnavailable, errors.InvalidSettings):
        return False
    return True


def store_name(settings: Settings) -> str:
    """Return the address of the store with its database."""
    return store_urls.store_name(settings.store_url) if settings.store_url else "none"


def describe_worker(settings: Settings) -> dict[str, str]:
    """Return a digest of each setting's value, by the setting's name."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return {
        name: hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()
        for name, value in values.items()
        if name not in _TOLD_ELSEWHERE
    }


def register_command() -> None:
    """Register the command, so that this process, which is a worker, answers it."""
    from celery.worker.control import inspect_command

    inspect_command(name=COMMAND, args=[("token", str)])(_describe_worker)


def _describe_worker(state: Any, token: str = "", **_: Any) -> dict[str, Any]:
    """Return the worker's release, and what shows whether its settings and store are the caller's.

    Its field ``sees`` says whether the worker's store has the caller's mark; None: the store did not answer.
    """
    settings = Settings.of(state.app)
    try:
        sees = open_store(settings).inspection.has_mark(token)
    except (errors.StoreUnavailable, errors.InvalidSettings):
        sees = None
    return {
        "version": __version__,
        "versions": list_versions(),
        "now": time.time(),
        "store": store_name(settings),
        "sees": sees,
        "settings": describe_worker(settings),
        "clients": sorted(settings.client_factories),
    }
