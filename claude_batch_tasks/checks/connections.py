"""The checks of the app's connections to broker and result back end, by its settings alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from celery.app import backends
from celery.backends.base import DisabledBackend
from celery.backends.redis import RedisBackend
from celery.backends.rpc import RPCBackend
from celery.exceptions import ImproperlyConfigured

from claude_batch_tasks import transport
from claude_batch_tasks.checks import problems, silent_broker
from claude_batch_tasks.checks.celery_settings import LONG_STEP, list_of, number_of
from claude_batch_tasks.checks.problems import Finding
from claude_batch_tasks.settings import visibility_timeout

#: Seconds for which a connection may be silent before a caller that waits for a job would notice.
_LONG_SILENCE = 30

#: The exceptions of Celery and kombu for an address of an unknown kind, or of a kind whose package is not installed.
UNUSABLE = (ImportError, LookupError, ValueError, AttributeError, ImproperlyConfigured)


def of_silence(role: str, seconds: Any, setting: str) -> list[Finding]:
    """Return a finding if the app waits too long on a silent connection.

    Args:
        role: the role of the server.
        seconds: how long the app waits; None: without limit.
        setting: the setting that makes the time shorter.
    """
    limit = number_of(seconds)
    if limit is not None and 0 < limit <= _LONG_SILENCE:
        return []
    time = "ever" if limit is None else f"{limit:g} s"
    return [problems.SILENCE.found(role=role, time=time, setting=setting)]


def of_visibility_timeout(seconds: float) -> list[Finding]:
    """Return a finding if the broker delivers an unacknowledged message again after too few seconds."""
    return [] if seconds >= LONG_STEP else [problems.SHORT_VISIBILITY_TIMEOUT.found(seconds=seconds)]


def check_transport(app: Celery) -> Iterator[Finding]:
    """Yield the findings about the broker's address and transport."""
    try:
        used: Any = app.connection_for_read().get_transport_cls()
    except UNUSABLE as exc:
        error = _why_unusable(exc, app.conf.broker_read_url or app.conf.broker_url)
        yield problems.UNUSABLE_URL.found(role="broker", setting="broker_url", error=error)
        return
    if (kind := getattr(used, "driver_type", None)) in ("memory", "filesystem") and not app.conf.task_always_eager:
        yield problems.LOCAL_BROKER.found(transport=f"{kind}://")
    if kind != "redis":
        return
    if not issubclass(used.Channel, transport.Bounded):
        yield problems.ENDED_BY_RESTARTS.found()
    given = (app.conf.broker_transport_options or {}).get("visibility_timeout", 0)
    if isinstance(given, (int, float)):
        yield from of_visibility_timeout(visibility_timeout(app))
    else:
        yield problems.VISIBILITY_TIMEOUT_IS_NO_NUMBER.found(value=given)


def check_result_back_end(app: Celery) -> Iterator[Finding]:
    """Yield the findings about the result back end's address and kind."""
    try:
        used = result_back_end(app)
    except UNUSABLE as exc:
        yield unusable_result_back_end(app, exc)
        return
    if used is DisabledBackend:
        yield problems.NO_RESULTS.found()
    elif used is RPCBackend:
        yield problems.RPC_RESULTS.found()


def of_silent_servers(app: Celery) -> Iterator[Finding]:
    """Yield the findings about how long the app waits for servers that have fallen silent."""
    with suppress(*UNUSABLE):
        kind, seconds = app.connection_for_read().get_transport_cls().driver_type, app.conf.broker_heartbeat
        if kind == "amqp" and (seconds := silent_broker.heartbeat_of(seconds)):
            yield from of_silence("broker", 2 * seconds, "broker_heartbeat = 10")
    with suppress(*UNUSABLE):
        if issubclass(result_back_end(app), RedisBackend):
            yield from of_silence("result back end", app.conf.redis_socket_timeout, "redis_socket_timeout = 10")


def result_back_end(app: Celery) -> type:
    """Return the class of the result back end; an instance might connect."""
    by_url: Any = backends.by_url(app.conf.result_backend or "disabled", app.loader)
    used: type = by_url[0]
    return used


def unusable_result_back_end(app: Celery, exc: Exception) -> Finding:
    """Return the finding for a result back end whose kind is unknown or not installed, or whose address is invalid."""
    error = _why_unusable(exc, app.conf.result_backend)
    return problems.UNUSABLE_URL.found(role="result back end", setting="result_backend", error=error)


def mask_passwords(text: str) -> str:
    """Return a text without what stands between ``//`` and ``@`` in addresses, and without passwords after a ``?``."""
    # A password that is not quoted properly may contain both signs.
    text = re.sub(r"//\S*@", "//***@", text)
    return re.sub(r"(?i)([?&]\w*(?:pass|secret|token|key|sentinel_kwargs)\w*=)[^&\s]*", r"\1***", text)


def _why_unusable(exc: Exception, urls: Any) -> str:
    """Return what is wrong with an address.

    The text quotes nothing of an address that cannot be parsed, since that may be a part of its password.
    """
    try:
        for url in list_of(urls):
            _ = urlsplit(str(url)).port
    except ValueError:
        return "it is not an address; write signs such as / @ [ in a password as %2F %40 %5B"
    return f"{type(exc).__name__}: {mask_passwords(str(exc))}"
