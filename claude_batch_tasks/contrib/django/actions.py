"""What the buttons of the admin do with a job, and what is said to a user before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from claude_batch_tasks.formatting import format_count
from claude_batch_tasks.jobs.batch_job import BatchJob
from claude_batch_tasks.jobs.job_status import ENDED, JobStatus
from claude_batch_tasks.jobs.retries import count_retryable

#: What a user may choose from, each with a number of requests.
Choices = Sequence[tuple[str, int]]


class Action(NamedTuple):
    """A button on the page of a job, and what it does."""

    name: str
    """Its address, and its class in the style sheet."""
    label: str
    permission: str
    """The permission that it needs: ``cancel`` means ``claude_batch.cancel_job``."""
    fits: Callable[[JobStatus], bool]
    """Returns whether a job has the button."""
    do: Callable[[BatchJob, Sequence[str]], Any]
    """Does it, with what the user has chosen."""
    done: Callable[[Any], str]
    """Returns what is said afterwards, of what ``do`` returned."""
    consequences: Callable[[JobStatus, Choices], str]
    """Returns what is said before it is done, of a job and of what may be chosen."""
    button: str
    """What the button says with which a user confirms."""
    choices: Callable[[JobStatus], Choices] = lambda _: ()
    """Returns what a user may choose from; one at least must be chosen."""


def _is_open(job: JobStatus) -> bool:
    return job.state not in ENDED


def _has_failed(job: JobStatus) -> bool:
    return job.state == "failed"


def _explain_cancel(job: JobStatus, choices: Choices) -> str:
    return (
        "What Anthropic has processed by now stays available and is billed. The rest ends as canceled. "
        "This cannot be undone."
    )


def _explain_resume(job: JobStatus, choices: Choices) -> str:
    return (
        "The job continues where it stopped, under the same id. A batch that exists is polled and never created again. "
        "What was never sent is sent now, and billed."
    )


def _undelivered(job: JobStatus) -> int:
    return job.delivery_failures + (job.unconfirmed if job.state in ENDED else 0)


def _has_undelivered(job: JobStatus) -> bool:
    return _undelivered(job) > 0


def _explain_redelivery(job: JobStatus, choices: Choices) -> str:
    return (
        f"The task on_result is called again with the custom_ids of {format_count(_undelivered(job), 'request')}: "
        "those that its calls failed for, and those whose call is not known to have ended. It may get an answer twice. "
        "Nothing is sent to Anthropic, and nothing is billed."
    )


def _has_failures(job: JobStatus) -> bool:
    return job.state in ("completed", "canceled", "failed") and job.done > job.succeeded


def _explain_retry(job: JobStatus, choices: Choices) -> str:
    return (
        f"Of the requests that failed, {sum(count for _, count in choices):,} can be sent again. A new job sends those "
        "of the types that you choose, "
        "and only those. Each is billed once, if it is processed. What has succeeded, may still be running, or may "
        "have been billed is not sent and not paid again."
    )


ACTIONS = {
    action.name: action
    for action in (
        Action(
            "cancel",
            "Cancel",
            "cancel",
            _is_open,
            lambda job, _: job.cancel(),
            lambda _: "The job is being canceled.",
            _explain_cancel,
            "Cancel the job",
        ),
        Action(
            "retry",
            "Resume",
            "retry",
            _has_failed,
            lambda job, _: job.resume(),
            lambda _: "The job continues.",
            _explain_resume,
            "Resume the job",
        ),
        Action(
            "retry_failed",
            "Retry failed requests",
            "retry",
            _has_failures,
            lambda job, types: job.retry_failed(types),
            lambda result: f"Job {result.id} sends them again.",
            _explain_retry,
            "Send them again",
            lambda job: list(count_retryable(job.job_id).items()),
        ),
        Action(
            "redeliver",
            "Deliver again",
            "retry",
            _has_undelivered,
            lambda job, _: job.redeliver(),
            lambda count: f"on_result is called again for {format_count(count, 'request')}.",
            _explain_redelivery,
            "Deliver again",
        ),
    )
}
