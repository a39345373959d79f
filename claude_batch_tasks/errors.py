"""Every exception this package raises or stores.

All of them take plain positional arguments that JSON can carry and hand all of them to ``Exception``, so that
Celery rebuilds the same class with its attributes from the JSON result backend and from a pickled pool message.
None of them ever holds a request, a response, a prompt or a key.
"""

from __future__ import annotations

from typing import Any

from celery.exceptions import ImproperlyConfigured
from kombu import exceptions as broker_errors


class BatchTasksError(Exception):
    """The base of all the errors below. ``str()`` of one says what happened, what is stored and what to do."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__


class InvalidSettings(BatchTasksError, ImproperlyConfigured):
    """Raised if a ``claude_batch_*`` setting or a job option is unknown or is not valid."""


class InvalidRequests(BatchTasksError, ValueError):
    """Raised if the requests of a job cannot be sent as they are; nothing was stored or sent.

    ``problems``: the first 20, each ``[index, custom_id, field, what is wrong]``; ``more``: how many follow.
    """

    def __init__(self, message: str, problems: list[list[Any]] | None = None, more: int = 0) -> None:
        super().__init__(message, problems or [], more)
        self.problems = problems or []
        self.more = more


class JobNotFound(BatchTasksError, LookupError):
    """Raised if the store has no job of that id: it was never submitted, it has expired, or this is another store."""


class AmbiguousJobId(BatchTasksError, LookupError):
    """Raised if several jobs have ids that begin with the given characters; nothing was done to any of them.

    ``candidates``: some of their ids.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.candidates: list[str] = list(args[1]) if len(args) > 1 else []


class RequestNotFound(BatchTasksError, KeyError):
    """Raised if the job has no request of that ``custom_id``, or the request has no outcome yet."""


class JobRunning(BatchTasksError):
    """Raised if a job has not ended, and its steps still need what the call would take away."""


class JobNotResumable(BatchTasksError):
    """Raised if a job cannot be resumed: it runs, has all its outcomes, or what it needs has expired."""


class NotDeliverable(BatchTasksError):
    """Raised if answers cannot be handed over again: the job has no ``on_result``, or it cannot be called.

    Nothing is lost or paid: the answers are in the store.
    """


class NothingToRetry(BatchTasksError):
    """Raised if no failed request of a job can be sent again; the text says what became of those that failed."""


class RequestsUnknown(BatchTasksError, LookupError):
    """Raised if a job was made of a batch created elsewhere, whose requests are not in the store."""


class RequestFailed(BatchTasksError):
    """Raised by ``get()`` of an ask that has no answer: it errored, expired or was canceled, or its job failed.

    ``job_id``, ``custom_id``; ``outcome``: ``errored``, ``expired`` or ``canceled``, None if its job failed;
    ``error_type``: that of the API, if it named one.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.job_id, self.custom_id, self.outcome, self.error_type = (*args[1:5], None, None, None, None)[:4]


class BudgetSpent(BatchTasksError):
    """Raised if the asks of a pool may cost no more in the present window of time; nothing was stored or sent.

    ``retry_after``: seconds until the next window begins.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.retry_after: float | None = args[1] if len(args) > 1 else None


class Retryable(BatchTasksError):
    """The base of temporary errors: the step is retried after a countdown.

    ``retry_after``: the shortest wait in seconds that the server asked for, if it did.
    """

    retry_after: float | None = None


class _After(Retryable):
    """The base of temporary errors with a wait in seconds, the second argument."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.retry_after = args[1] if len(args) > 1 else None


class Waiting(Retryable):
    """The reason why a task retries, for logs and Flower: what happened, and when the next run is."""


class BatchInProgress(Retryable):
    """The reason for a retry that the batch exists and still runs."""

    # Not raised any more: a step returns a wait. Result back ends of 0.2.0 hold the name.


class FallbackInProgress(Retryable):
    """The reason for a retry that requests of the batch are still being sent through the Messages API."""

    # Not raised any more: a step returns a wait. Result back ends of 0.2.0 hold the name.


class SendingPaused(_After):
    """The reason for a retry that a sender has released its worker and continues later.

    Args:
        message: what was sent, and what the sender waits for.
        retry_after: seconds.
    """

    # Not raised any more: a step returns a wait. Result back ends of 0.2.0 hold the name.


class NotDue(Retryable):
    """The reason for a retry that the message came before its time."""

    # Not raised any more: a step returns a wait. Result back ends of 0.2.0 hold the name.


class RateLimited(_After):
    """The reason for a retry that calls are paused for a while, for all workers.

    Anthropic asked this worker or another one for fewer calls, or its list calls fail.

    Args:
        message: until when, or why.
        retry_after: seconds.
    """


class ListCallRunning(RateLimited):
    """The reason for a retry that another task lists the account's batches right now, which serves this one too."""


class CreateUnresolved(_After):
    """The reason for a retry that a create may have succeeded; the account is searched before anything is sent."""


class ResultsIncomplete(Retryable):
    """Raised if the result file is short or broken, or its rows differ from the batch's own counts."""


class StoreUnavailable(Retryable):
    """Raised if the store did not answer. It never means "there is no such job"."""


class StoreTooNew(StoreUnavailable):
    """Raised if a newer release uses the store in a way that this one would damage. Nothing was read or changed.

    Raised where a job is submitted or read; a worker does not start. A task handles it like a store that does not
    answer: it is retried until a worker of the newer release takes it, so that no job fails because workers are still
    to be replaced.
    """


class StoreNotMigrated(StoreUnavailable):
    """Raised if the schema of the store is not there, or an earlier release has made it. Nothing was read or changed.

    A worker does not start. A task handles it like a store that does not answer: once ``claude-batch migrate`` has run,
    it continues.
    """


class StoreMoved(StoreUnavailable):
    """Raised if the jobs of the store were moved to another one, or are being copied into it. Nothing was changed.

    A worker does not start. A task handles it like a store that does not answer.
    """


class KeyMissing(StoreUnavailable):
    """Raised if stored data is encrypted with a key that this process does not have. A worker that has it continues."""


class BrokerUnavailable(BatchTasksError, broker_errors.OperationalError):
    """Raised if the broker did not take the message of a job. The text says whether the job exists."""


class PayloadDamaged(BatchTasksError):
    """Raised if stored prompts or answers of a job were changed, or moved from another job's place."""


class ApiError(BatchTasksError):
    """An error that Anthropic's API has answered with, or the lack of an answer.

    Args:
        message: Anthropic's message, or what went wrong before it.
        status: the HTTP status, ``None`` where there was no answer.
        error_type: Anthropic's ``error.type``, such as ``"not_found_error"``; None where the answer is not in the API's
            own form.
        request_id: Anthropic's request id, which their support asks for.
        retry_after: seconds from ``Retry-After`` or ``retry-after-ms``.

    Until the error leaves the process: ``organization`` and ``workspace``, what the API called those of the credential,
    ``hold``, the seconds for which the answer asks all calls on the account to wait, ``code``, Anthropic's
    ``error.details.error_code``, and ``limits``, what a refusal of the Messages API says of its rate limits.
    """

    organization: str | None = None
    workspace: str | None = None
    hold: float | None = None
    code: str | None = None
    limits: dict[str, tuple[int, int]] = {}  # noqa: RUF012 - never changed, only replaced

    @property
    def endpoint(self) -> str | None:
        """What was called, with which the message begins: ``create``, ``retrieve``, ``list``, ``results``, ..."""
        before, colon, _ = str(self).partition(":")
        return before if colon and before.isalpha() else None

    def __init__(
        self,
        message: str,
        status: int | None = None,
        error_type: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status, error_type, request_id, retry_after)
        self.status = status
        self.error_type = error_type
        self.request_id = request_id
        self.retry_after = retry_after


class TransientError(ApiError, Retryable):
    """A temporary API error.

    That is 408, 409, 425, 429, 5xx, no connection, a timeout, a broken or short body, or a proxy's refusal. See
    ``rules.classify_answer`` for what an answer means.
    """


class NotFoundError(ApiError, Retryable):
    """A 404, which this API also gives for batches that exist; ``rules`` says what it means at this age."""


class AmbiguousError(ApiError, Retryable):
    """An API error after which the request may have been executed: no usable answer says that it was not."""


class PermanentError(ApiError):
    """A permanent API error: 400, 401, 402, 403, 413, 422, or no usable credentials.

    One with a status and without an ``error_type`` is a refusal by something in front of the API.
    """


class BatchesUnsupported(PermanentError):
    """Raised if the client is of a platform without Message Batches; nothing was created with it."""


class CreateNotFound(ApiError):
    """Raised if create answered 404 too often: nothing was created, and the job does not fall back."""


class BatchLost(ApiError):
    """Raised if the batch answers 404 and is in none of several complete list calls, or is older than its retention."""


class BatchArchived(BatchLost):
    """Raised if the batch is archived: it exists, and its results are gone."""


class CreateUnconfirmed(BatchTasksError):
    """Raised if a create was not answered, its batch was not found, and ``on_unresolved_create`` is ``"fail"``."""


class AccountChanged(BatchTasksError):
    """Raised if this worker's client is not on the job's account, so nothing is concluded or sent."""


class WaitExceeded(BatchTasksError):
    """Raised if a job waited longer than ``max_wait``. Its batches continue at Anthropic; nothing was canceled."""


class ResultsMissing(BatchTasksError, LookupError):
    """Raised if results are missing that the job's record counts: the result file or the store lacks them.

    Args:
        message: what is missing, what is stored, and what to do.
        missing: how many requests it concerns; ``None``: that is not known.
        keys: the store's keys that are gone.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.missing: int | None = args[1] if len(args) > 1 else None
        self.keys: list[str] = list(args[2]) if len(args) > 2 else []


class StepFailed(BatchTasksError):
    """Raised if a step was interrupted ``max_step_failures`` times in a row; the worker's log has the tracebacks."""


def rebuild_error(name: str, args: list[Any]) -> BatchTasksError:
    """Build the exception that was stored as its class name and arguments."""
    return error_class(name)(*args)


def error_class(name: str) -> type[BatchTasksError]:
    """Return the exception class of that name."""
    cls: type[BatchTasksError] = globals()[name]
    return cls


# What these were called before 0.3; the old names stay until 1.0.
HeldBack = RateLimited
ListingUnderWay = ListCallRunning
MoreToSend = SendingPaused
TryLater = Retryable
