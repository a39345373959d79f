"""The task ``seal_pool``, which makes a pool of asks a job."""

from __future__ import annotations

from claude_batch_tasks import errors
from claude_batch_tasks.lifecycle.pools import sealing
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import Unit
from claude_batch_tasks.steps import NAME, BatchTask, job_task
from claude_batch_tasks.store import history

log = get_logger(__name__)


@job_task(base=BatchTask, name=NAME + "seal_pool")
def seal_pool(self: BatchTask, job_id: str) -> str:
    """Make a pool of asks a job of the same id, and start it.

    The workers' main processes send this task when a pool is due. It may run any number of times.
    """
    try:
        return sealing.seal_pool(self.app, job_id)
    except errors.Retryable:
        raise
    except errors.BatchTasksError as exc:
        # Not raised: the frames have prompts, which trackers of errors would show.
        extra = history.fields(Unit(job_id), "not_sealed")
        log.error("job %s: its pool becomes no job with this worker's settings: %s", job_id, exc, extra=extra)
        return f"not sealed: {type(exc).__name__}"
