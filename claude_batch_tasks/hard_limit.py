"""What a hard time limit of the user's own means for a step: this attempt is over, the job is not."""

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
        """A time limit is dealt with in ``on_timeout``, which follows."""
        exception = exc_info.exception
        if not isinstance(getattr(exception, "exc", exception), TimeLimitExceeded):  # billiard wraps it
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
