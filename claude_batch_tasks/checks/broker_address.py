"""The address of the app's broker: how it is shown, and whether it was set at all, or without a scheme."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from celery import Celery

from claude_batch_tasks.checks import problems
from claude_batch_tasks.checks.connections import mask_passwords
from claude_batch_tasks.checks.problems import Finding
from claude_batch_tasks.settings import spelling
from claude_batch_tasks.settings.model import DEFAULT_URL

#: What a broker at a well-known port speaks.
_OF_PORTS = {"5672": "amqp", "6379": "redis", "6380": "rediss", "26379": "sentinel", "5671": "amqps"}


def describe_broker(app: Celery) -> str:
    """Return the address to which the app sends messages, without user and password."""
    if find_unschemed(app) is not None:  # kombu would show the password as a part of the host
        return mask_passwords(first_url(app).rpartition("@")[2])
    try:
        return mask_passwords(app.connection_for_write().as_uri()).replace("***@", "")
    except Exception:  # noqa: BLE001 - any transport
        return "unusable"


def is_in_memory(app: Celery) -> bool:
    """Return whether the broker is in the memory of this process, which only tests use."""
    try:
        return getattr(app.connection_for_write().get_transport_cls(), "driver_type", None) == "memory"
    except Exception:  # noqa: BLE001 - any transport
        return False


def explain_default(app: Celery) -> str:
    """Return what to do if nobody has set the address of the broker, or set it without a scheme; empty if all is well.

    >>> explain_default(Celery())
    'No broker URL is configured, so amqp://localhost:5672// is used. Set broker_url ...'
    """
    if (wrong := find_unschemed(app)) is not None:
        return f"The broker URL has no scheme, so Celery reads it as the host of a RabbitMQ: write {wrong}"
    if _is_configured(app):
        return ""
    broker = describe_broker(app)
    if app.main == "claude_batch_tasks":
        return (
            f"The broker is {broker}, the default. If yours is another, set CELERY_BROKER_URL; if the project has a "
            "Celery app of its own, import it before you submit"
        )
    setting = spelling.in_its_words(app, "broker_url", ("broker_url",))
    return f"No broker URL is configured, so Celery uses {broker}. Set {setting} = 'redis://host:6379/0'"


def check_address(app: Celery) -> Iterator[Finding]:
    """Yield a finding if the address of the broker was not set, or has no scheme."""
    if app.conf.task_always_eager:
        return
    if (right := find_unschemed(app)) is not None:
        yield problems.NO_SCHEME.found(right=right)
    elif not _is_configured(app) and app.main != "claude_batch_tasks":
        yield problems.NO_BROKER_URL.found(broker=describe_broker(app))


def find_unschemed(app: Celery) -> str | None:
    """Return how the broker's URL is to be written if it has no scheme; None: it has one, or is not set."""
    url = first_url(app)
    if not url or "://" in url or app.conf.broker_transport:
        return None
    return suggest_scheme(url)


def suggest_scheme(url: str) -> str:
    """Return a URL that has no scheme with the scheme that its port or path suggests, and without a password."""
    port = re.search(r":(\d+)(?:/|$)", url.rpartition("@")[2])
    # Only the databases of a Redis are numbers.
    otherwise = "redis" if re.search(r"[^/]/\d+$", url) else "amqp"
    scheme = _OF_PORTS.get(port[1], otherwise) if port else otherwise
    _, at, rest = url.rpartition("@")
    return f"{scheme}://{'user:password@' if at else ''}{mask_passwords(rest)}"


def first_url(app: Celery) -> str:
    """Return the URL to which the app sends messages, the first of several, with its password; empty: none is set."""
    conf: Any = app.conf
    urls = conf.broker_write_url or conf.broker_url or ""
    return str(urls[0] if isinstance(urls, (list, tuple)) and urls else urls).split(";")[0]


def _is_configured(app: Celery) -> bool:
    conf: Any = app.conf
    if os.environ.get("CELERY_BROKER_URL"):
        return True
    if app.main == "claude_batch_tasks":
        return bool(conf.broker_url != DEFAULT_URL)
    return bool(conf.broker_url or conf.broker_write_url or conf.broker_read_url or conf.broker_host)
