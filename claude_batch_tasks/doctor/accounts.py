"""The check of the way to Anthropic: one list call for each client, which costs nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from celery import Celery

from claude_batch_tasks import api, rules
from claude_batch_tasks.api import identity
from claude_batch_tasks.api.sdk import anthropic
from claude_batch_tasks.checks import configuration, problems
from claude_batch_tasks.checks.problems import Finding, Problem, ok
from claude_batch_tasks.doctor import servers
from claude_batch_tasks.errors import ApiError, BatchesUnsupported, InvalidSettings, PermanentError
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import task_classes

#: The deadline of the call, in seconds.
_PATIENCE = 10.0

#: Words in the error text of a call without an answer, and the problem that they show.
_UNANSWERED = (
    (("proxy",), problems.REFUSED_BY_PROXY),
    (("certificate", "ssl", "tls"), problems.TLS),
    (("name or service", "name resolution", "nodename", "getaddrinfo", "no address associated"), problems.NO_SUCH_HOST),
    (("",), problems.NOBODY_THERE),
)

#: The statuses with which a gateway without Message Batches may answer a list call, although it has other routes.
_NO_BATCHES = (200, 404, 405, 500)

_STATUS: dict[int, Problem] = {
    401: problems.BAD_KEY,
    403: problems.FORBIDDEN,
    404: problems.NO_SUCH_PATH,
    407: problems.REFUSED_BY_PROXY,
}


def check_accounts(app: Celery) -> Iterator[Finding]:
    """Check every client that the settings name."""
    settings = configuration.readable_settings(app)
    for alias in settings.client_factories:
        yield from configuration.run_isolated(f"client {alias!r}", partial(_check_client, app, alias, settings))


def _check_client(app: Celery, alias: str, settings: Settings) -> Iterator[Finding]:
    factory = settings.client_factories[alias]
    if api.why_unusable(factory):  # the check of the settings reports it
        return
    try:
        client = task_classes.call_as_task(app, partial(api.get_client, alias, settings.client_factories))
    except (InvalidSettings, BatchesUnsupported, PermanentError) as exc:
        yield _without_client(alias, factory, exc)
        return
    about = {"alias": alias, "host": api.host_of(client)}
    before = time.time()
    try:
        answer = api.probe_api(client, timeout=_PATIENCE)
    except ApiError as exc:
        yield _without_answer(about, exc)
        return
    if answer.error is None and answer.is_page:
        yield from _with_answer(answer, about, client)
    else:
        yield _not_the_api(answer, about, client) or _explain_refusal(answer, about)
    if answer.is_page or (answer.error is not None and answer.error.error_type is not None):
        yield from _compare_clocks(answer, before, settings)


def _without_client(alias: str, factory: str, exc: InvalidSettings | PermanentError) -> Finding:
    """Return the finding about a factory that returns no client."""
    if isinstance(exc, InvalidSettings):
        return problems.NO_SUCH_FACTORY.found(alias=alias, factory=factory, error=exc)
    if isinstance(exc, BatchesUnsupported):
        return problems.NO_BATCHES.found(alias=alias, error=exc)
    if exc.code == api.MALFORMED:
        return problems.MALFORMED_KEY.found(error=exc)
    return _no_key(alias) if api.without_credentials(exc) else problems.FACTORY_FAILS.found(alias=alias, error=exc)


def _without_answer(about: dict[str, Any], exc: ApiError) -> Finding:
    """Return the finding about a call that nobody answered."""
    if api.without_credentials(exc):
        return _no_key(about["alias"])
    why, text = str(exc).removeprefix("list: "), str(exc).lower()
    if isinstance(exc, PermanentError):
        return problems.CANNOT_SEND.found(alias=about["alias"], why=why)
    problem = next(problem for words, problem in _UNANSWERED if any(word in text for word in words))
    return problem.found(**about, why=why)


def _with_answer(answer: api.ProbeAnswer, about: dict[str, Any], client: anthropic.Anthropic) -> Iterator[Finding]:
    organization, workspace = answer.account
    account = f"organization {organization or 'not reported'}" + (f", workspace {workspace}" if workspace else "")
    yield ok(f"client {about['alias']!r}: {about['host']} answers, {account}")
    if organization is None and not identity.has_secret(client):
        yield problems.UNIDENTIFIED.found(**about, kind=identity.describe_client(client))


def _no_key(alias: str) -> Finding:
    return ok(
        f"client {alias!r}: not checked, because this process has no key; only workers need one (run doctor there)"
    )


def _not_the_api(answer: api.ProbeAnswer, about: dict[str, Any], client: anthropic.Anthropic) -> Finding | None:
    """Return the finding about an answer that is not from the API, or from one without batches; None if it is."""
    status, error = answer.status, answer.error
    if status == 501 or (status in _NO_BATCHES and _answers_elsewhere(client)):
        return problems.NO_BATCH_ROUTES.found(**about, status=status)
    if 300 <= status < 400:
        # Only the host: the path may contain something confidential.
        location = urlsplit(answer.headers.get("location", "")).hostname or "itself"
        return problems.REDIRECTED.found(**about, status=status, location=location)
    if status != 407 and (error is None or (error.error_type is None and not _is_busy(status))):
        return problems.NOT_THE_API.found(**about, kind=_kind_of(answer), status=status)
    return None


def _kind_of(answer: api.ProbeAnswer) -> str:
    kind = answer.headers.get("content-type", "nothing").split(";")[0]
    return "HTML" if "html" in kind else kind


def _explain_refusal(answer: api.ProbeAnswer, about: dict[str, Any]) -> Finding:
    """Return the finding about an error of the API, or of the proxy on the way to it."""
    if _is_busy(answer.status):
        return problems.BUSY_API.found(**about, status=answer.status)
    why = str(answer.error or answer.status).removeprefix("list: ")
    return _STATUS.get(answer.status, problems.REFUSED).found(**about, why=why)


def _is_busy(status: int) -> bool:
    return status == 429 or status >= 500


def _answers_elsewhere(client: anthropic.Anthropic) -> bool:
    """Return whether the host answers on some other route of the API."""
    found = api.ask_elsewhere(client, timeout=_PATIENCE)
    return any(one.is_json and one.status < 500 and one.status not in rules.NO_ROUTE for one in found)


def _compare_clocks(answer: api.ProbeAnswer, before: float, settings: Settings) -> Iterator[Finding]:
    try:
        theirs = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except (TypeError, ValueError):
        return
    if differs := servers.measure_drift(theirs, before):
        problem = problems.CLOCK if differs.seconds > settings.clock_skew else problems.CLOCK_DRIFTS
        yield problem.found(seconds=differs.seconds, direction=differs.ours)
