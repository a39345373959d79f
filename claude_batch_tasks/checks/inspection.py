"""What a worker tells ``doctor`` of itself: a remote control command of Celery's, ``claude_batch``.

No setting's value travels, only digests that tell whether two are the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from typing import Any

import redis

from claude_batch_tasks._version import __version__
from claude_batch_tasks.checks import configuration
from claude_batch_tasks.checks.versions import versions
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.settings.redis_urls import database_of, redis_address
from claude_batch_tasks.store.schema import PREFIX

COMMAND = "claude_batch"

#: Of these another finding tells more.
_TOLD_ELSEWHERE = ("store_url", "client_factories")


def mark(token: str) -> str:
    """The key in the caller's store by which a worker knows that its own is the same."""
    return f"{PREFIX}:doctor:{token}"


def store_name(settings: Settings) -> str:
    """The store's host, port and database."""
    url = settings.store_url or ""
    return f"{redis_address(url)}/{database_of(url)}" if url else "none"


def described(settings: Settings) -> dict[str, str]:
    """A digest of each setting's value."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return {
        name: hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()
        for name, value in values.items()
        if name not in _TOLD_ELSEWHERE
    }


def register() -> None:
    """Have this process, which is a worker, answer the command."""
    from celery.worker.control import inspect_command

    inspect_command(name=COMMAND, args=[("token", str)])(_answer)


def _answer(state: Any, token: str = "", **_: Any) -> dict[str, Any]:
    """The release, and whether settings and store are the caller's."""
    settings = Settings.of(state.app)
    assert settings.store_url is not None
    try:
        with configuration.connected(settings.store_url, settings.store_prefix or "") as client:
            sees = bool(client.exists(mark(token)))
    except (redis.RedisError, OSError):
        sees = None
    return {
        "version": __version__,
        "versions": versions(),
        "now": time.time(),
        "store": store_name(settings),
        "sees": sees,
        "settings": described(settings),
        "clients": sorted(settings.client_factories),
    }
