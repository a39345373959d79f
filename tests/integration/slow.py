"""The ready-made app, in which a job's summary takes its time before it is stored, once."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from claude_batch_tasks.app import app

app.conf.worker_cancel_long_running_tasks_on_connection_loss = os.environ["CANCELS"] == "True"
_Backend = type(app.backend)
_store = _Backend.mark_as_done


def mark_as_done(self: Any, task_id: str, result: Any, *args: Any, **kwargs: Any) -> Any:
    """As Celery's, but the first time for a job's summary it takes four seconds."""
    slow = Path(os.environ["SLOW"])
    if isinstance(result, dict) and "job_id" in result and not slow.exists():
        slow.touch()
        time.sleep(4)
    return _store(self, task_id, result, *args, **kwargs)


_Backend.mark_as_done = mark_as_done
