"""Every exception this package raises or stores.

All of them take plain positional arguments that JSON can carry and hand all of them to ``Exception``, so that
Celery rebuilds the very class, attributes included, from the JSON result backend and from a pickled pool message.
None of them ever holds a request, a response, a prompt or a key.
"""

from __future__ import annotations

from typing import Any

from celery.exceptions import ImproperlyConfigured


class BatchTasksError(Exception):
    """The base of all the errors below. ``str()`` of one says what happened, what was kept and what to do."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__


class InvalidSettings(BatchTasksError, ImproperlyConfigured):
    """A ``claude_batch_*`` setting or a job option is unknown or makes no sense."""


class InvalidRequests(BatchTasksError, ValueError):
    """The requests of a job cannot be sent as they are; nothing was stored or sent.

    ``problems``: the first 20, each ``[index, custom_id, field, what is wrong]``; ``more``: how many follow.
    """

    def __init__(self, message: str, problems: list[list[Any]] | None = None, more: int = 0) -> None:
        super().__init__(message, problems or [], more)
        self.problems = problems or []
        self.more = more


class JobNotFound(BatchTasksError, LookupError):
    """The store holds no job of that id: never submitted, expired, or another store."""


class RequestNotFound(BatchTasksError, KeyError):
    """The job has no request of that ``custom_id``, or the request has no outcome yet."""


class JobRunning(BatchTasksError):
    """What was asked for would take a job that has not ended away from under its steps."""


class JobNotResumable(BatchTasksError):
    """The job cannot be taken up again: it runs, has all its outcomes, or what it needs has expired."""


class RequestsUnknown(BatchTasksError, LookupError):
    """The job was made of a batch created elsewhere: its requests are not in the store."""


class TryLater(BatchTasksError):
    """The base of what passes by itself: the step is tried again after a countdown.

    ``retry_after``: seconds the other side asked us to wait at least, if it did.
    """

    retry_after: float | None = None


class _After(TryLater):
    """Try again after some seconds, which are the second argument."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.retry_after = args[1] if len(args) > 1 else None


class Waiting(TryLater):
    """Why a task retries, in words for logs and Flower: what was seen, and when the next look is."""


class BatchInProgress(TryLater):
    """The batch is known and still runs."""

    # Not raised any more: a step returns a wait. Result back ends of 0.2.0 hold the name.


class FallbackInProgress(TryLater):
    """Requests of the batch are still on their way through the Messages API."""

    # Not raised any more: a step returns a wait. Result back ends of 0.2.0 hold the name.


class MoreToSend(_After):
    """A lane has let go of its worker, and goes on after a while.

    Args:
        message: what was sent, and what is waited for.
        retry_after: seconds.
    """

    # Not raised any more: a step returns a wait. Result back ends of 0.2.0 hold the name.


class NotDue(TryLater):
    """The message came before its time."""

    # Not raised any more: a step returns a wait. Result back ends of 0.2.0 hold the name.


class HeldBack(_After):
    """Anthropic asked for fewer calls, of this worker or of another, or does not list: all who would ask wait.

    Args:
        message: until when, or why.
        retry_after: seconds.
    """


class ListingUnderWay(HeldBack):
    """Another task lists the account's batches right now; what it finds serves this one too."""


class CreateUnresolved(_After):
    """It is not known whether a create was stored; the account's batches are searched before anything is sent."""


class ResultsIncomplete(TryLater):
    """The result file is short, broken, or does not add up to the batch's own counts."""


class StoreUnavailable(TryLater):
    """The store did not answer. Never read as "there is no such job"."""


class StoreTooNew(StoreUnavailable):
    """A newer release works on the store, in a way that this one would do harm to. Nothing was read or changed.

    Raised where a job is handed over or asked about; a worker does not start. To a task it is a store that does not
    answer: its message comes back with countdowns until a worker of the newer release takes it, so that no job fails
    for workers that are still to be replaced.
    """


class KeyMissing(StoreUnavailable):
    """What the store keeps is encrypted with a key that this process does not have. A worker that has it goes on."""


class PayloadDamaged(BatchTasksError):
    """What the store keeps of a job's prompts or answers was changed, or moved from another job's place."""


class ApiError(BatchTasksError):
    """Anthropic's API answered with an error, or not at all.

    Args:
        message: Anthropic's message, or what went wrong on the way.
        status: the HTTP status, ``None`` where there was no answer.
        error_type: Anthropic's ``error.type``, such as ``"not_found_error"``; None where the answer is not in the API's
            own form.
        request_id: Anthropic's request id, what their support asks for.
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


class TransientError(ApiError, TryLater):
    """It passes: 408, 409, 425, 429, 5xx, no connection, a timeout, a broken or short body, a proxy's refusal.

    See ``rules.classify_answer`` for what an answer means.
    """


class NotFoundError(ApiError, TryLater):
    """404, which this API also gives for batches that exist; ``rules`` says what it means at this age."""


class AmbiguousError(ApiError, TryLater):
    """The request may have been acted on: no usable answer came back, or one that does not say it was not."""


class PermanentError(ApiError):
    """It does not pass by itself: 400, 401, 402, 403, 413, 422, or no usable credentials.

    One with a status and without an ``error_type`` is a refusal by something in front of the API.
    """


class BatchesUnsupported(PermanentError):
    """The client is of a platform without Message Batches, so nothing was created with it."""


class CreateNotFound(ApiError):
    """Create kept answering 404, so nothing was created, and the job does not fall back."""


class BatchLost(ApiError):
    """The batch answers 404 and is in none of several complete listings, or is beyond its retention."""


class BatchArchived(BatchLost):
    """The batch is archived: it is there, and its results are gone."""


class CreateUnconfirmed(BatchTasksError):
    """A create was not answered, its batch was not found, and ``on_unresolved_create`` is ``"fail"``."""


class AccountChanged(BatchTasksError):
    """The job was begun on another account than this worker's client is of, so nothing may be concluded or sent."""


class WaitExceeded(BatchTasksError):
    """The job waited longer than ``max_wait``. Its batches go on at Anthropic; nothing was canceled."""


class ResultsMissing(BatchTasksError, LookupError):
    """Not all is there that the job's record counts: the result file stayed incomplete, or the store lost some of it.

    Args:
        message: what is missing, what was kept, and what to do.
        missing: how many requests it concerns; ``None``: that is not known.
        keys: the store's keys that are gone.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.missing: int | None = args[1] if len(args) > 1 else None
        self.keys: list[str] = list(args[2]) if len(args) > 2 else []


class StepFailed(BatchTasksError):
    """A step was broken off ``max_step_failures`` times in a row; the worker's log has the tracebacks."""


def rebuild(name: str, args: list[Any]) -> BatchTasksError:
    """Build the exception that was stored as its class name and arguments."""
    return named(name)(*args)


def named(name: str) -> type[BatchTasksError]:
    """Return the exception class of that name."""
    cls: type[BatchTasksError] = globals()[name]
    return cls
