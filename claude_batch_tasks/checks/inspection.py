"""The remote control command ``claude_batch`` of Celery, with which a worker reports about itself to ``doctor``.

No value of a setting is sent, only digests that show whether two values are the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from typing import Any

import redis

from claude_batch_tasks._version import __version__
from claude_batch_tasks.checks import redis_servers
from claude_batch_tasks.checks.versions import list_versions
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.settings.redis_urls import database_of, redis_address
from claude_batch_tasks.store.redis.keys import PREFIX

COMMAND = "claude_batch"

#: Settings about which another finding says more; no digest of them is sent.
_TOLD_ELSEWHERE = ("store_url", "client_factories")


def mark_worker(token: str) -> str:
    """Return the key in the caller's store by which a worker recognizes that it uses the same store."""
    return f"{PREFIX}:doctor:{token}"


def store_name(settings: Settings) -> str:
    """Return the store's host, port and database."""
    url = settings.store_url or ""
    return f"{redis_address(url)}/{database_of(url)}" if url else "none"


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
    assert settings.store_url is not None
    try:
        with redis_servers.connect_client(settings.store_url, settings.store_prefix or "") as client:
            sees = bool(client.exists(mark_worker(token)))
    except (redis.RedisError, OSError):
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
