"""The ready-made app, in which the process that is about to store a job's result is killed, once."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from claude_batch_tasks.app import app

_Backend = type(app.backend)
_store = _Backend.mark_as_done


def mark_as_done(self: Any, task_id: str, result: Any, *args: Any, **kwargs: Any) -> Any:
    """As Celery's, but the first time for a job's summary it kills the process."""
    died = Path(os.environ["DIED"])
    if isinstance(result, dict) and "job_id" in result and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return _store(self, task_id, result, *args, **kwargs)


_Backend.mark_as_done = mark_as_done
