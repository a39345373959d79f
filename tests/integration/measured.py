"""The ready-made app with a task of its own that comes back; notes how much a pool process sends to the main process.

The file ``MEASURED`` gets a line for each message: its length, and whether it is of a task that comes back.
"""

from __future__ import annotations

import os
from typing import Any

from billiard import connection
from celery.signals import worker_process_init

from claude_batch_tasks.app import app

__all__ = ["app"]

_send_bytes = connection.Connection._send_bytes


@app.task(bind=True)
def plain(self: Any) -> None:
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)


def send_bytes(self: Any, data: Any, *more: Any) -> Any:
    what = "retry" if b"Retry" in bytes(data) else "other"
    with open(os.environ["MEASURED"], "a") as out:
        out.write(f"{len(data)} {what}\n")
    return _send_bytes(self, data, *more)


@worker_process_init.connect
def measure(**_: Any) -> None:
    connection.Connection._send_bytes = send_bytes
