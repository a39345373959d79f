"""Gateways without Message Batches: how one is recognised, and how it is remembered for the account.

A worker that has found such a gateway informs the other workers, so that later jobs need only one free call to know. If
it is not certain that nothing was created, nothing is sent another way.
"""

from __future__ import annotations

from typing import Any

from claude_batch_tasks import api, errors, rules
from claude_batch_tasks.steps import Step

#: Seconds for which such a gateway is remembered; meanwhile a list call precedes each create.
REMEMBERED = 3600.0

#: It is certain that a gateway has no batches when list calls failed so often in a row, for so many times
#: ``create_settle``, while other routes are answered: failures that pass by themselves have passed by then.
_SEARCHES = 10
_CERTAIN = 5


def check_gateway(step: Step) -> None:
    """Raise an error before a create if the account's gateway is remembered as one without batches, and still is one.

    Raises:
        BatchesUnsupported: the gateway has no batches; nothing was created.
        ApiError: the gateway was asked, and did not answer.
    """
    if step.store.in_flight.paused_until(_pause_name(step)) > step.now():
        answer = api.probe_api(step.client, timeout=step.settings.timeout)
        if _is_absent(answer):
            raise _unsupported_error(step, answer.status)


def check_listing(step: Step) -> None:
    """Check, after the last allowed 404 of a create, whether list calls are unsupported too.

    Raises:
        BatchesUnsupported: batches cannot be listed; nothing was created.
    """
    try:
        answer = api.probe_api(step.client, timeout=step.settings.timeout)
    except errors.ApiError:
        return
    if _is_absent(answer):
        raise _unsupported_error(step, answer.status)


def check_search(step: Step, exc: errors.ApiError) -> None:
    """Check, when a search for a created batch was not answered with a list, whether the gateway has no batches.

    Args:
        exc: the answer to the search.

    Raises:
        BatchesUnsupported: the gateway has no batches. Nothing was created if the create was answered that there is no
            such route; otherwise the batch keeps its intent, and nothing is sent in its place.
    """
    record, settings = step.batch, step.settings
    refusal = errors.rebuild_error(*record.refusal) if record.refusal is not None else None
    if exc.status in rules.NO_ROUTE and getattr(refusal, "status", None) in rules.NO_ROUTE:
        step.update_record(
            state="staged",
            intent_at=None,
            ambiguous_at=None,
            refusal=None,
            refused_since=None,
            organization=None,
            workspace=None,
        )
        raise _unsupported_error(step, exc.status)
    searched_for = step.now() - (record.ambiguous_at or step.now())
    if record.failures >= _SEARCHES and searched_for >= _CERTAIN * settings.create_settle:
        _check_other_routes(step)


def _check_other_routes(step: Step) -> None:
    """Raise an error if the gateway answers no calls of Message Batches, but answers others."""
    try:
        answer = api.probe_api(step.client, timeout=step.settings.timeout)
    except errors.ApiError:
        return
    elsewhere = api.ask_elsewhere(step.client, timeout=step.settings.timeout)
    if _is_absent(answer) and any(_is_there(one) for one in elsewhere):
        remember_gateway(step)
        raise _unsupported_error(step, answer.status)


def note_refusal(step: Step, exc: errors.AmbiguousError) -> dict[str, Any]:
    """Return the changes in the record after an unclear answer: whether a gateway seems to have refused the create."""
    if not rules.is_foreign_refusal(exc.status, exc.error_type):
        return {"refusal": None}
    refusal = [errors.PermanentError.__name__, list(exc.args)]
    return {"refusal": refusal, "refused_since": step.batch.refused_since or step.now()}


def _is_there(answer: api.Elsewhere) -> bool:
    return answer.status in rules.NO_ROUTE or (answer.is_json and answer.status < 500)


def remember_gateway(step: Step) -> None:
    """Record for later creates on the account that its gateway has no batches."""
    step.store.in_flight.pause_calls(_pause_name(step), step.now() + REMEMBERED)


def _is_absent(answer: api.ProbeAnswer) -> bool:
    """Return whether a server that has batches would not answer so."""
    if answer.status in rules.NO_ROUTE:
        return True
    if answer.error is None:
        return not answer.is_page
    return answer.status == 500 and answer.error.error_type is None


def _unsupported_error(step: Step, status: int | None) -> errors.BatchesUnsupported:
    record, client = step.batch, step.job.client
    text = f"create: the address of client {client!r} is a gateway without Message Batches: it answers {status} to them"
    if record.intent_at is not None:
        text += "; it is not known whether the create that was sent succeeded, so nothing is sent in its place"
    elif step.settings.fallback == "messages":
        text += "; nothing was created, and its requests go through the Messages API at full price (fallback)"
    else:
        text += "; nothing was created"
    return errors.BatchesUnsupported(text, status)


def _pause_name(step: Step) -> str:
    return f"{step.account}:no-batches"
