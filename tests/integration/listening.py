"""An application that keeps what it is told of its jobs: by signals, and by the task it names as ``on_result``."""

from __future__ import annotations

import json
from typing import Any

from celery import shared_task

from claude_batch_tasks import BatchJob, signals
from claude_batch_tasks.app import app
from tests.support import is_worker

#: Where it is kept, a list of JSON texts for each.
TOLD, SAVED = "told", "saved"


@shared_task(name="listening.save")
def save(job_id: str, custom_ids: list[str], table: str) -> None:
    """Write answers into the application's own table."""
    rows = {found.custom_id: [found.type, found.source] for found in BatchJob(job_id).results(ids=custom_ids)}
    app.backend.client.rpush(SAVED, json.dumps([table, custom_ids, rows]))


def _listen(name: str) -> None:
    def told(sender: Any, **more: Any) -> None:
        more.pop("signal")
        app.backend.client.rpush(TOLD, json.dumps([name, sender.name.rpartition(".")[2], more]))

    getattr(signals, name).connect(told, weak=False)


def _break(**_: Any) -> None:
    raise RuntimeError("a receiver that is broken")


if is_worker():
    for _name in ("batch_created", "batch_ended", "not_found_seen", "results_published", "job_finished"):
        _listen(_name)
    signals.job_finished.connect(_break)
