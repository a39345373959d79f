"""The checks of settings and servers that a worker makes at its start, and that ``doctor`` makes among others.

Nothing here stops a worker. ``log_findings`` asks the servers and logs what ``check_all`` yields.
"""

from __future__ import annotations

import dataclasses
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from celery import Celery

from claude_batch_tasks import api
from claude_batch_tasks.checks import (
    broker_address,
    celery_settings,
    connections,
    problems,
    servers,
    unread_settings,
)
from claude_batch_tasks.checks.problems import Finding
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.settings import NAMES, Settings, default_store_url, spelling, store_urls

log = get_logger(__name__)

#: Findings whose texts name settings already as the project writes them.
_SPELLED = {one.id for one in (problems.INVALID_SETTINGS, problems.NOT_IN_FORCE, problems.LOOKS_LIKE_OURS)}


def check_all(app: Celery, worker: Any = None) -> Iterator[Finding]:
    """Yield the findings about the app's servers and settings.

    A server that does not answer in time, or refuses ``INFO``, is skipped. A check that fails is a finding itself.

    Args:
        worker: the worker that starts; its command line may differ from the app's settings.
    """
    yield from in_its_words(app, run_isolated("servers", partial(_check_servers, app, readable_settings(app))))
    yield from check_statically(app, worker)
    yield from in_its_words(app, run_isolated("silent servers", partial(connections.of_silent_servers, app)))


def check_statically(app: Celery, worker: Any = None) -> Iterator[Finding]:
    """Yield the findings about the settings alone, without asking any server."""
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "settings": partial(_check_settings, app),
        "unread settings": lambda: unread_settings.find_unread(app, readable_settings(app)),
        "factories": partial(_check_factories, app),
        "broker URL": partial(broker_address.check_address, app),
        "transport": partial(connections.check_transport, app),
        "result back end": partial(connections.check_result_back_end, app),
        "celery settings": partial(_celery_settings, app, worker),
        "tasks": partial(_check_tasks, app, worker),
    }
    for what, check in checks.items():
        yield from in_its_words(app, run_isolated(what, check))


def in_its_words(app: Celery, found: Iterable[Finding]) -> Iterator[Finding]:
    """Yield the findings with settings spelled as the app reads them: in capitals if Django holds them."""
    for one in found:
        if one.id in _SPELLED:
            yield one
            continue
        text, hint = (spelling.in_its_words(app, words, NAMES) for words in (one.text, one.hint))
        yield one._replace(text=text, hint=hint)


def run_isolated(what: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield what a check finds, and a finding in place of any exception.

    Settings may have any value, and a check that fails must not hide the findings of others.
    """
    try:
        yield from check()
    except Exception as exc:  # noqa: BLE001
        # The exception's text may contain a part of an address, and so a password.
        yield problems.UNCHECKED.found(what=what, error=type(exc).__name__)


def log_findings(worker: Any) -> None:
    """Log the findings about a worker that starts; nothing is raised."""
    for finding in check_all(worker.app, worker):
        log.log(finding.level, finding.template, finding)


def readable_settings(app: Celery) -> Settings:
    """Return the app's settings without the invalid ones; the store's address may be missing."""
    with suppress(InvalidSettings):
        return Settings.of(app)
    kept: dict[str, Any] = {}
    with suppress(InvalidSettings):
        for name, given in spelling.read_configured(app).items():
            with suppress(InvalidSettings, TypeError):
                Settings(**{**kept, name: given.value})
                kept[name] = given.value
    settings = Settings(**kept)
    with suppress(InvalidSettings):
        settings = dataclasses.replace(settings, store_url=settings.store_url or default_store_url(app))
    if settings.store_prefix is None and settings.store_url is not None:
        settings = dataclasses.replace(settings, store_prefix=store_urls.default_prefix(app, settings.store_url))
    return settings


def _check_servers(app: Celery, settings: Settings) -> Iterator[Finding]:
    for server in servers.find_servers(app, settings):
        report = server.inspect(settings)
        found = [each for each in report.problems if each.kind not in servers.UNREACHABLE]
        yield from servers.findings_of(server, report._replace(problems=tuple(found)))
        if not report.product:
            log.info("%s was not checked: it does not answer, or does not permit it", server.name)


def _check_settings(app: Celery) -> Iterator[Finding]:
    try:
        Settings.of(app)
    except InvalidSettings as exc:
        yield problems.INVALID_SETTINGS.found(error=exc)


def _check_factories(app: Celery) -> Iterator[Finding]:
    for alias, factory in readable_settings(app).client_factories.items():
        if error := api.why_unusable(factory):
            yield problems.NO_SUCH_FACTORY.found(alias=alias, factory=factory, error=error)


def _celery_settings(app: Celery, worker: Any) -> list[Finding]:
    prefetch = getattr(worker, "prefetch_multiplier", None)
    return celery_settings.of_settings(
        app.conf if prefetch is None else ChainMap({"worker_prefetch_multiplier": prefetch}, app.conf)
    )


def _check_tasks(app: Celery, worker: Any) -> list[Finding]:
    limits = {
        name: getattr(worker, name, None) or app.conf[f"task_{name}"] for name in ("time_limit", "soft_time_limit")
    }
    return celery_settings.of_tasks(app.tasks, limits)
