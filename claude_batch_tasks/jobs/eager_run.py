"""The run of a job's batches in the calling process, under ``task_always_eager``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery import Celery
from celery.result import AsyncResult, EagerResult
from celery.states import FAILURE, SUCCESS

from claude_batch_tasks.errors import BatchTasksError
from claude_batch_tasks.records import JobRecord, Summary, Unit
from claude_batch_tasks.steps import message_chain
from claude_batch_tasks.store import HasRecords


def run_job_eagerly(
    app: Celery, store: HasRecords, job_id: str, job: JobRecord, batches: Iterable[int]
) -> AsyncResult[Summary]:
    """Run some batches of a job in this process, and return how the job ended."""
    import claude_batch_tasks.tasks  # noqa: F401 - registers them

    since = {number: store.records.read_position(Unit(job_id, number)) for number in sorted(batches)}
    lines = [message_chain.make_steps(app, job_id, job, number, since=position) for number, position in since.items()]
    value: Any
    state: str
    try:
        value, state = message_chain.run_eagerly(job, lines), SUCCESS
    except BatchTasksError as exc:
        value, state = exc, FAILURE
    return EagerResult(job_id, value, state)
