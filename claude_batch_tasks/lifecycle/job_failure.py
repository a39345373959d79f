"""The error of a failed job: what happened, what is stored, and what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from claude_batch_tasks import errors, rules
from claude_batch_tasks.formatting import format_count, format_span, format_time, shorten_text
from claude_batch_tasks.records import BatchRecord, JobRecord, Summary, batch_number
from claude_batch_tasks.steps import job_summary, publishing
from claude_batch_tasks.steps.step import Step
from claude_batch_tasks.wire import result_rows

#: The most batches of a failed job that its error names.
_NAMED = 5

#: The most characters of the reason in the line about the end of a job.
_LONGEST_REASON = 500


def explain_failure(
    step: Step,
    batches: list[BatchRecord],
    summary: Summary,
    own: errors.BatchTasksError | None = None,
) -> errors.BatchTasksError | None:
    """Return the error of the first failed batch, with what is stored and what to do; None if nothing failed.

    Args:
        own: the job's own error, if no batch failed.
    """
    failed = _find_failed(batches)
    error, name = _choose_error(failed, len(batches), own)
    if error is None:
        return None
    parts = [f"job {step.unit.job_id}{name} failed: {_what_happened(error)}.", *_what_is_stored(step, summary)]
    parts += _what_became_of(list(failed.values()))
    parts.append(_advise_next(error, f"BatchJob({step.unit.job_id!r})", Paid.of(batches), step.job))
    return type(error)(" ".join(parts), *error.args[1:])


def name_reason(batches: list[BatchRecord], own: errors.BatchTasksError | None = None) -> str | None:
    """Return in one line why a job failed, without advice; None if nothing failed.

    Args:
        own: the job's own error, if no batch failed.
    """
    error, name = _choose_error(_find_failed(batches), len(batches), own)
    if error is None:
        return None
    where = f"{name.removeprefix(', ')}: " if name else ""
    return shorten_text(" ".join(f"{where}{_what_happened(error)}".split()), _LONGEST_REASON)


def _what_happened(error: errors.BatchTasksError) -> str:
    what = str(error)
    if isinstance(error, errors.ApiError) and error.request_id:
        what += f" (request id {error.request_id})"
    return what


def _find_failed(batches: list[BatchRecord]) -> dict[int, BatchRecord]:
    return {number: record for number, record in enumerate(batches) if _has_failed(record)}


def _choose_error(
    failed: dict[int, BatchRecord], batches: int, own: errors.BatchTasksError | None
) -> tuple[errors.BatchTasksError | None, str]:
    """Return the error that says most, and which batches have failed, in words."""
    if not failed:
        return own, ""
    # The error of a batch that was not even tried, because of another batch's error, says less than that error.
    number = next((number for number, record in failed.items() if _has_status(record)), next(iter(failed)))
    name = f", batch {batch_number(number)} of {batches}"
    if len(failed) > 1:
        name += f" and {len(failed) - 1} more"
    return _error_of(failed[number]), name


def _has_failed(record: BatchRecord) -> bool:
    return bool(record.error or job_summary.count_unaccounted(record))


def _what_is_stored(step: Step, summary: Summary) -> Iterator[str]:
    answered = sum(summary[outcome] for outcome in result_rows.OUTCOMES)
    stored = [] if step.job.adopted else [f"the requests (BatchJob({step.unit.job_id!r}).requests())"]
    stored += [f"{answered:,} outcomes (.results())"] if answered else []
    if stored:
        yield f"Stored for {format_span(step.settings.result_ttl)}: {' and '.join(stored)}."


def of_what_follows(step: Step, state: str, names: list[str], exc: Exception) -> Exception:
    """Return the error, with advice, for a job that has ended but whose following tasks cannot be sent.

    Args:
        state: the state in which the job has ended.
        names: the names of the tasks that follow it.
        exc: the cause.
    """
    handle = f"BatchJob({step.unit.job_id!r})"
    return publishing.explain_unsent(
        exc,
        f"Job {step.unit.job_id} is {state}, and its results are stored for "
        f"{format_span(step.settings.result_ttl)} ({handle}.results()). "
        f"The tasks that follow it ({', '.join(names)}) were not sent: send them yourself, with "
        f"{handle}.status().summary as its argument. Do not submit the requests again.",
    )


def _error_of(record: BatchRecord) -> errors.BatchTasksError:
    if record.error is not None:
        return errors.rebuild_error(*record.error)
    missing = job_summary.count_unaccounted(record)
    return errors.ResultsMissing(f"{missing:,} of its {record.count:,} requests have no outcome in the store")


class Paid(NamedTuple):
    """How many requests of a failed job may have been paid for: the advice depends on it."""

    answered: int
    """Requests with an outcome in the store."""
    waiting: int
    """Requests that are, or may be, in batches at Anthropic, and have no outcome in the store."""
    lost: int
    """Requests that were in batches whose results cannot be fetched."""
    unsent: int
    """Requests in batches that were never created."""

    @classmethod
    def of(cls, batches: list[BatchRecord]) -> Paid:
        """Count the requests of these batches."""
        found: Counter[str] = Counter()
        for record in batches:
            failed = _has_failed(record)
            known = sum(record.counts.get(name, 0) for name in result_rows.OUTCOMES) if failed else record.count
            if record.layers or record.answered:
                found["answered"] += known
            if failed:
                found[_where_is_rest(record)] += record.count - known
        return cls(*(found[name] for name in cls._fields))

    @property
    def some(self) -> int:
        """All requests that may have been paid for."""
        return self.answered + self.waiting + self.lost


def _where_is_rest(record: BatchRecord) -> str:
    """Return the field of ``Paid`` for the requests of a failed batch that have no outcome."""
    if _is_lost(record):
        return "lost"
    return "waiting" if record.batch_id is not None or record.intent_at is not None else "unsent"


def _has_status(record: BatchRecord) -> bool:
    return getattr(_error_of(record), "status", None) is not None


def _what_became_of(failed: list[BatchRecord]) -> Iterator[str]:
    there = [record.batch_id for record in failed if record.batch_id and not _is_lost(record)]
    unanswered = [record.intent_at for record in failed if record.intent_at and record.batch_id not in there]
    if there:
        yield _name_uncanceled(there)
    if unanswered:
        yield _name_unanswered(unanswered)
    yield from _name_uncreated(failed)


def _name_uncreated(failed: list[BatchRecord]) -> Iterator[str]:
    never = sum(record.batch_id is None and record.intent_at is None for record in failed)
    if never == len(failed) == 1:
        yield "Nothing of this batch was created or billed."
    elif never:
        yield f"{never:,} of the batches were never created or billed."


def _name_uncanceled(there: list[str]) -> str:
    if len(there) == 1:
        return f"{there[0]} was not canceled: it continues at Anthropic, and its results stay there."
    names = ", ".join(there[:_NAMED]) + (f" and {len(there) - _NAMED:,} more" if there[_NAMED:] else "")
    return (
        f"{len(there):,} batches were not canceled: they continue at Anthropic, and their results stay there: {names}."
    )


def _name_unanswered(sent: list[float]) -> str:
    if len(sent) == 1:
        return f"The create that was sent at {format_time(sent[0])} was not answered: see the Console."
    since = format_time(min(sent))
    return f"{len(sent):,} creates, from {since} on, were not answered: see the Console."


def _is_lost(record: BatchRecord) -> bool:
    return record.error is not None and issubclass(errors.error_class(record.error[0]), errors.BatchLost)


def _advise_next(error: errors.BatchTasksError, handle: str, paid: Paid, job: JobRecord) -> str:
    """Say what to do next, so that nothing is paid for twice."""
    resume = f"{handle}.resume()"
    if isinstance(error, errors.BatchesUnsupported):
        return _advice_without_batches(error, handle, paid)
    if isinstance(error, errors.PermanentError):
        return _advice_on_permanent_error(error, handle, paid, job)
    if isinstance(error, errors.AccountChanged):
        return f"Give the workers the credential that the job was started with, then {resume}: it continues."
    if isinstance(error, errors.CreateUnconfirmed):
        return (
            f"{resume} searches again. If the Console does not show the batch, "
            f"{handle}.resume(on_unresolved_create='resubmit') sends its requests again, and only these."
        )
    if isinstance(error, errors.WaitExceeded):
        return f"To wait longer: {resume}, with a larger max_wait if needed."
    if isinstance(error, errors.ResultsMissing):
        return f"To fetch them again: {resume}."
    if isinstance(error, errors.StepFailed):
        return f"The worker's log has the traceback. When its cause is corrected, {resume}: the job continues."
    if isinstance(error, errors.BatchLost):
        return _advice_on_loss(error, resume, paid, adopted=job.adopted)
    return f"To retry: {resume}; to allow the Messages API: {handle}.resume(fallback='messages')."


def _advice_without_batches(error: errors.BatchesUnsupported, handle: str, paid: Paid) -> str:
    resume = f"{handle}.resume()"
    if error.status is None:
        return f"Give this client a factory that returns one with Message Batches, then {resume}."
    way = (
        "Let the gateway forward /v1/messages/batches and all paths below it to Anthropic, or set ANTHROPIC_BASE_URL "
        f"(base_url in the client's factory) to an address that has them, then {resume}"
    )
    if paid.waiting:
        return f"{way}: it searches again for what was created."
    return f"{way}; at full price, through the Messages API: {handle}.resume(fallback='messages')."


def _advice_on_permanent_error(error: errors.PermanentError, handle: str, paid: Paid, job: JobRecord) -> str:
    if not rules.is_foreign_refusal(error.status, error.error_type):
        return _advice_on_refusal(error, handle, paid, stopped=str(error) == job.stopped)
    if error.status == 413:
        return _advice_on_size(handle, paid)
    return (
        "The answer is not in the API's own form: a proxy, a gateway or a challenge page in front of the API refused, "
        f"or ANTHROPIC_BASE_URL is wrong. Let the calls pass, then {handle}.resume()."
    )


def _advice_on_refusal(error: errors.PermanentError, handle: str, paid: Paid, *, stopped: bool) -> str:
    resume, unsent = f"{handle}.resume()", format_count(paid.unsent, "request")
    only = f", which sends only the {unsent} that were never sent" if paid.some and paid.unsent else ""
    if error.status == 402:
        return f"Pay the open bill or add credit to the account, then {resume}{only}."
    if stopped and error.status not in (401, 403):
        return f"Correct what the error says about the account (credit, a limit, a block), then {resume}{only}."
    if error.status in (401, 403, None):
        return f"Check the key of this client (ANTHROPIC_API_KEY or its factory), then {resume}{only}."
    if not paid.some:
        return "Correct the requests as the error says, then submit them again."
    if not paid.unsent:
        return f"Correct the cause that the error names, then {resume}; what was sent is not sent again."
    first = f"{resume} fetches what is at Anthropic; after that, submit" if paid.waiting else "Submit"
    return (
        f"{format_count(paid.some, 'request')} may have been paid for, so do not submit all of them again. "
        f"Correct the cause that the error names. {first} only the {unsent} that have no outcome in "
        f"{handle}.results(), or send these as they are with {resume}."
    )


def _advice_on_size(handle: str, paid: Paid) -> str:
    way = (
        "The answer is not in the API's own form: a proxy or a gateway in front of the API refuses a body as large as "
        "this create's. "
        "Raise its limit, or set max_bytes_per_batch below it"
    )
    if not paid.some:
        return f"{way}, and submit the requests again: run_batch.delay({handle}.requests(), max_bytes_per_batch=...)."
    first = f"{handle}.resume() fetches what is at Anthropic; after that, submit" if paid.waiting else "Submit"
    return (
        f"{format_count(paid.some, 'request')} may have been paid for, so do not submit all of them again. {way}. "
        f"{first} only the {format_count(paid.unsent, 'request')} that have no outcome in {handle}.results()."
    )


def _advice_on_loss(error: errors.BatchLost, resume: str, paid: Paid, *, adopted: bool) -> str:
    archived = isinstance(error, errors.BatchArchived)
    if adopted and archived:
        return "Its results are no longer available."
    if adopted:
        return f"Check its id, and that the client belongs to its account and workspace; to check again: {resume}."
    parts = ["Its results are no longer available." if archived else f"If the Console shows the batch: {resume}."]
    if others := paid.waiting + paid.unsent:
        parts.append(f"{resume} continues with {format_count(others, 'request')} of other batches; do that first.")
    parts.append(
        f"{format_count(paid.lost, 'request')} of it have no outcome in the results. "
        "Those that Anthropic had processed are paid for; submitting them again pays for them a second time."
    )
    return " ".join(parts)
