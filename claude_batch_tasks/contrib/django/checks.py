"""The system checks with which Django's ``manage.py check`` reports what ``claude-batch doctor`` finds.

The checks that every command makes read settings alone. ``manage.py check --deploy`` asks the servers, the workers and
Anthropic as well.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from celery import Celery
from django.core.checks import CheckMessage, Error, Warning

from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.errors import InvalidSettings

if TYPE_CHECKING:
    from claude_batch_tasks.checks.problems import Finding

#: The tag of these checks: ``manage.py check --tag claude_batch`` makes no others.
TAG = "claude_batch"


def of_settings(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """Return messages about the settings, without asking any server."""
    from claude_batch_tasks.checks import configuration  # this import loads the SDK

    try:
        app = configured_app()
    except InvalidSettings as exc:
        return [Error(str(exc), id="claude_batch.E401")]
    # In this order: the first makes Celery read its settings.
    return [*_list_messages(configuration.check_statically(app)), *_of_project(app)]


def of_servers(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """Return what else is wrong, after asking servers, workers and Anthropic, which takes some seconds."""
    from claude_batch_tasks import doctor
    from claude_batch_tasks.checks import configuration

    try:
        app = configured_app()
    except InvalidSettings:
        return []
    said = set(configuration.check_statically(app))
    return _list_messages(found for found in doctor.list_findings(app) if found not in said)


def _of_project(app: Celery) -> Iterator[CheckMessage]:
    """Yield messages about errors that only a Django project can have."""
    if app.main == "claude_batch_tasks":
        yield Warning(
            "This project has no Celery app, so the ready-made one is used: it reads the environment, and not Django's "
            "settings.",
            hint="Make one in <project>/celery.py and import it in <project>/__init__.py: see Celery's documentation.",
            id="claude_batch.W402",
        )


def _list_messages(findings: Iterator[Finding]) -> list[CheckMessage]:
    return [
        (Error if found.level >= logging.ERROR else Warning)(found.text, hint=found.hint or None, id=found.id)
        for found in findings
        if found.level >= logging.WARNING
    ]
