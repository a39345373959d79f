"""A ready-made Celery app for people who have none: ``celery -A claude_batch_tasks.app worker``.

Broker and result back end come from ``CELERY_BROKER_URL`` and ``CELERY_RESULT_BACKEND``, our own settings from
``CLAUDE_BATCH_*``; a ``celeryconfig.py`` in the working directory is laid over these.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from celery import Celery

from claude_batch_tasks.settings import from_environment

_DEFAULT_URL = "redis://localhost:6379/0"


def configuration(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The settings of the ready-made app, as an environment gives them; ``celeryconfig.py`` starts from the same.

    Raises:
        InvalidSettings: a ``CLAUDE_BATCH_*`` variable is unknown or makes no sense.
    """
    broker = environ.get("CELERY_BROKER_URL") or _DEFAULT_URL
    backend = environ.get("CELERY_RESULT_BACKEND") or (broker if broker.startswith("redis") else _DEFAULT_URL)
    return {
        "broker_url": broker,
        "result_backend": backend,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {
            # Four times our longest hop; what a killed worker held is handed out again after this long.
            "visibility_timeout": 2400,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
        },
        "enable_utc": True,
        "timezone": "UTC",
        # A batch may run for 24 hours, and its result must still be there when somebody asks.
        "result_expires": 7 * 86_400,
        "result_extended": True,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_send_sent_event": True,
        "task_track_started": True,
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "worker_enable_soft_shutdown_on_idle": True,
        "worker_prefetch_multiplier": 1,
        "worker_send_task_events": True,
        "worker_soft_shutdown_timeout": 30,
        **from_environment(environ),
    }


app = Celery("claude_batch_tasks", include=["claude_batch_tasks.tasks"])
app.add_defaults(configuration)
app.config_from_object("celeryconfig", silent=True)
