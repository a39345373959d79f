"""An ask in the calling process, under ``task_always_eager`` or with ``apply()``: a job of its own, run at once."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.result import EagerResult
from celery.utils import uuid

from claude_batch_tasks.errors import RequestFailed, RequestNotFound
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.lifecycle.pools import adding, ask_run
from claude_batch_tasks.pool_records import AskPlace
from claude_batch_tasks.results.answers_by_reference import Answer
from claude_batch_tasks.results.ask_failures import explain_result, make_error
from claude_batch_tasks.results.ask_result import EagerAskResult
from claude_batch_tasks.steps import routing
from claude_batch_tasks.tasks.asks.checking import CheckedAsk
from claude_batch_tasks.wire.batch_requests import CheckedRequest


def run_ask(app: Celery, found: CheckedAsk) -> Answer:
    """Run an ask as a job in this process, and return its answer; in the mode for tests, that of a simulator.

    Raises:
        RequestFailed: it has none.
        BatchTasksError: it cannot be begun.
    """
    if not found.simulated:
        return _run_job(app, found)
    from claude_batch_tasks import api  # loads the SDK

    with api.simulated_api():
        return _run_job(app, found)


def end_ask(app: Celery, found: CheckedAsk, canvas: str, headers: str | None) -> EagerAskResult:
    """Run an ask in this process, and have all follow it that follows it in the caller's canvas.

    Args:
        canvas, headers: as for ``submission.submit_job``.
    """
    end: Any
    try:
        end = run_ask(app, found)
    except RequestFailed as exc:
        end = exc
    place = AskPlace(job_id=end.job_id, position=0, asked_at=0.0, canvas=canvas, headers=headers)
    state = ask_run.AskRun(found.ask_id, place, end).trace(app, None)
    return EagerAskResult.of(EagerResult(found.ask_id, end, state), app)


def _run_job(app: Celery, found: CheckedAsk) -> Answer:
    """Run an ask as a job in this process, and return its answer.

    Raises:
        RequestFailed: it has none.
        BatchTasksError: it cannot be begun.
    """
    plan, job_id = found.plan, uuid()
    options: dict[str, Any] = {"label": adding.LABEL + plan.name, **plan.options, "client": plan.client}
    if found.deadline is not None:
        options["deadline"] = found.deadline
    request = CheckedRequest(found.ask_id, found.params.body)
    submission.submit_job(app, job_id, [request], options, direct=plan.mode == "messages")
    ended = app.tasks[routing.RUN_BATCH].apply(kwargs={"job_id": job_id}, task_id=job_id, throw=False)
    answer = Answer(job_id, found.ask_id, app)
    try:
        result = answer.result
    except RequestNotFound:  # its job failed
        why = ended.result
        raise make_error(job_id, found.ask_id, str(why), None, getattr(why, "error_type", None)) from None
    if result.type != "succeeded":
        raise explain_result(job_id, result)
    return answer
