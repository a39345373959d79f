"""The task ``seal_pool``, which makes a pool of asks a job."""

from __future__ import annotations

import traceback

from kombu.exceptions import OperationalError

from claude_batch_tasks import errors
from claude_batch_tasks.lifecycle.pools import sealing
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import Unit
from claude_batch_tasks.steps import NAME, BatchTask, job_task, reason_of
from claude_batch_tasks.store import history

log = get_logger(__name__)


@job_task(base=BatchTask, name=NAME + "seal_pool")
def seal_pool(self: BatchTask, job_id: str) -> str:
    """Make a pool of asks a job of the same id, and start it.

    The workers' main processes send this task when a pool is due. It may run any number of times.
    """
    try:
        return sealing.seal_pool(self.app, job_id)
    except Exception as exc:
        reason, passing = reason_of(exc), isinstance(exc, errors.KeyMissing)
        if isinstance(exc, (errors.Retryable, OperationalError)) and not passing:
            raise
        # The pool is due again in any case: a message that comes back as well would be one more each time.
        done = sealing.handle_failure(self.app, job_id, reason, self.request.hostname, passing=passing)
        if done is None:
            raise
        # Not raised: the frames have prompts, which trackers of errors would show, and so may the text of the error.
        extra = history.fields(Unit(job_id), "not_sealed")
        own = isinstance(exc, errors.BatchTasksError)
        frames = "" if own else "\n" + "".join(traceback.format_tb(exc.__traceback__))
        log.error("job %s: no job was made of its pool: %s%s", job_id, reason, frames, extra=extra)
        return f"{done}: {type(exc).__name__}"
