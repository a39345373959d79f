"""How a worker holds a step's message: the end of an attempt is not the job's, and countdowns are its own."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from billiard.exceptions import TimeLimitExceeded
from celery.worker import state
from celery.worker.request import Request

from claude_batch_tasks import history
from claude_batch_tasks.store import Unit

log = logging.getLogger(__name__)

#: The header with the seconds for which a step's message is to wait.
COUNTDOWN = "claude_batch_countdown"


class StepRequest(Request):
    """A step's message, as a worker holds it.

    Celery would store a failure for every task in the rest of its chain; the last of these has the job's own id, so
    whoever waits for the job would be told that it has failed.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        """Celery makes a moment of a countdown, by the sender's clock, which may be an hour ahead of this one's."""
        super().__init__(*args, **options)
        countdown = self.request_dict.get(COUNTDOWN)
        if self.eta is not None and countdown is not None:
            assert self.app is not None
            self._eta = self.app.now() + timedelta(seconds=countdown)

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
