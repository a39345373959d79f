"""What the end of an attempt means for a step's message, in a worker's main process: the job is not over."""

from __future__ import annotations

import logging
from typing import Any

from billiard.exceptions import TimeLimitExceeded
from celery.worker import state
from celery.worker.request import Request

from claude_batch_tasks import history
from claude_batch_tasks.store import Unit

log = logging.getLogger(__name__)


class StepRequest(Request):
    """A step's message, as a worker holds it.

    Celery would store a failure for every task in the rest of its chain; the last of these has the job's own id, so
    whoever waits for the job would be told that it has failed.
    """

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> None:
        """Deal with a lack of memory as with a lost process; a time limit is dealt with in ``on_timeout``."""
        exception = getattr(exc_info.exception, "exc", exc_info.exception)  # billiard wraps it
        if isinstance(exception, MemoryError):
            # Celery would end the whole worker.
            state.task_ready(self)
            self.reject(requeue=True)
        elif not isinstance(exception, TimeLimitExceeded):
            super().on_failure(exc_info, *args, **kwargs)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Give the message back: whoever gets it takes the step over when the lease of the killed process ends."""
        if soft:
            super().on_timeout(soft, timeout)
            return
        state.task_ready(self)
        job_id = str(self.args[0] if self.args else self.id)
        text = "job %s: hard time limit (%g s) exceeded for %s[%s]; another attempt follows"
        extra = history.fields(Unit(job_id), "interrupted")
        log.error(text, job_id, timeout, self.name, self.id, extra=extra)
        self.reject(requeue=True)
