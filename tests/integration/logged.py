"""An app whose logs are set up as the environment says, with a plain task that fails beside the jobs that do."""

from __future__ import annotations

import json
import logging
import logging.config
import os
from typing import Any

from celery import Celery, shared_task, signals

from claude_batch_tasks import transport
from claude_batch_tasks.settings import configuration

HOW = os.environ.get("LOGGED_HOW", "")

_TO_STDERR: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": True,
    "formatters": {"line": {"format": "%(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "INFO", "handlers": ["console"]},
}


def _set_up(**_: Any) -> None:
    config = dict(_TO_STDERR)
    if HOW == "structlog":
        import structlog

        pre = [structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()]
        formatter = {
            "()": structlog.stdlib.ProcessorFormatter,
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.dict_tracebacks,
                structlog.processors.JSONRenderer(),
            ],
            "foreign_pre_chain": pre,
        }
        config["formatters"] = {"line": formatter}
    elif HOW == "json":
        config["formatters"] = {"line": {"()": "pythonjsonlogger.json.JsonFormatter"}}
    logging.config.dictConfig(config)


if HOW:
    signals.setup_logging.connect(_set_up)

if os.environ.get("LOGGED_BREAKS"):
    from claude_batch_tasks import api

    def _defect(*args: Any, **kwargs: Any) -> None:
        """Meet what no rule is for, with a prompt at hand."""
        body = "-".join(["prompt", "never", "to", "be", "seen"])
        raise ValueError(f"a defect after {len(body)} bytes")

    api.retrieve_batch = _defect  # type: ignore[assignment]


if events := os.environ.get("LOGGED_EVENTS"):
    import sentry_sdk
    from sentry_sdk.transport import Transport

    class ToFile(Transport):
        """Writes events to a file instead of sending them."""

        def capture_envelope(self, envelope: Any) -> None:
            for item in envelope.items:
                if item.type == "event":
                    with open(events, "a") as out:
                        out.write(json.dumps(item.payload.json) + "\n")

    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", transport=ToFile, send_default_pii=True, traces_sample_rate=1.0)

if failures := os.environ.get("LOGGED_FAILURES"):

    @signals.task_failure.connect
    def _failed(sender: Any = None, task_id: str = "", exception: Any = None, **_: Any) -> None:
        with open(failures, "a") as out:
            out.write(json.dumps([sender.name, task_id, type(exception).__name__]) + "\n")


@signals.worker_ready.connect
def _ready(**_: Any) -> None:
    """Celery's own line may be silenced."""
    print("worker ready.", flush=True)


transport.install()
app = Celery("logged", include=["claude_batch_tasks.tasks"])
app.config_from_object(configuration())


@shared_task(name="plain")
def plain() -> None:
    """Fails."""
    raise ValueError("a plain task failed")
