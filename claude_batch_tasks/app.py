"""A ready-made Celery app for people who have none: ``celery -A claude_batch_tasks.app worker``.

Broker and result back end come from ``CELERY_BROKER_URL`` and ``CELERY_RESULT_BACKEND``, our own settings from
``CLAUDE_BATCH_*``. A ``celeryconfig.py`` in the working directory overrides these.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from celery import Celery

from claude_batch_tasks import transport
from claude_batch_tasks.settings import configuration, spelling


def _read_settings() -> dict[str, Any]:
    settings = configuration()
    if importlib.util.find_spec("celeryconfig") is not None:
        own = vars(importlib.import_module("celeryconfig"))
        settings.update({name: value for name, value in own.items() if name.islower() and not name.startswith("_")})
        ours = spelling.find_unique(own.items(), ("", spelling.CELERY))
        settings.update({spelling.PREFIX + name: each.value for name, each in ours.items()})
    return settings


transport.install()
app = Celery("claude_batch_tasks", include=["claude_batch_tasks.tasks"])
# Not add_defaults(): defaults added that way would have precedence over a configuration object.
app.config_from_object(_read_settings())
