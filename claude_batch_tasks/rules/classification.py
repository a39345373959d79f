"""What an answer means: the API's own, or one from a proxy or gateway in front of it."""

from __future__ import annotations

import re
from typing import Literal

from claude_batch_tasks import errors

_REFUSALS = range(400, 500)

#: Refusals that pass by themselves: time-out, conflict, too early, too many requests. A 429 does whoever sends it; a
#: create or a Messages call counts the others as refusals only in the API's own form. Of something in front of the API,
#: they may also mean that the call arrived.
_PASSING_REFUSALS = {408, 409, 425, 429}

#: Redirects: the server did nothing with the request, and the caller would have to send it elsewhere.
_REDIRECTS = {301, 302, 307, 308}

#: What a server answers that has no such route. 501 is definite, whoever sends it.
NO_ROUTE = (404, 405, 501)
_NOT_IMPLEMENTED = 501

#: What Cloudflare, in front of the API, answers when it could not connect to the API: the request did not arrive there.
_NOT_REACHED = 522

#: The API's own 4xx that are about one request alone: another request of the same account may be answered.
_ABOUT_THE_REQUEST = {400, 413, 422}

#: The HTTP status that Anthropic sends with each ``error.type``; an event of a stream has only the type.
STATUS_OF = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}

#: Errors that the account gets for everything it sends. They are recognized by HTTP status, by ``error.type`` in a
#: result file (where ``permission_error`` may be about one model), by ``error.details.error_code`` (the SDK's typed
#: errors), and by the words of errors of any type: low credit comes as ``invalid_request_error``, in thousands of rows.
_ACCOUNT_STATUS = {401, 402, 403}
_ACCOUNT_TYPES = {"authentication_error", "billing_error"}
_ACCOUNT_CODES = {
    "claude_code_key_creator_not_member",
    "cmek_context_unavailable",
    "cmek_key_disabled",
    "cmek_key_network_blocked",
    "cmek_key_unreachable",
    "contract_spend_limit_reached",
    "enforced_spend_limit_reached",
    "linked_organization_billing_unavailable",
    "linked_organization_spend_limit_reached",
    "organization_on_hold",
    "organization_type_not_supported",
    "parent_organization_required",
    "ramp_limit_exceeded",
    "workspace_human_review_disabled",
}

#: Parts of names by which codes of this kind that we do not know yet are recognized, and codes that concern a single
#: request instead.
_ACCOUNT_CODE = re.compile(
    r"account|api_key|billing|cmek|contract|credit|key_creator|not_member|on_hold|organization|payment|quota|spend"
    r"|subscription|suspended|workspace"
)
_REQUEST_CODE = re.compile(r"^(user_profile|compaction|thread|tool|file|image|storage|request_body|available_tools)_")
_ACCOUNT_WORDS = re.compile(
    r"credit balance|spend(ing)? limit|usage limits?\b|plans (&|and) billing"
    r"|organization (has been|is) (disabled|on hold)",
    re.IGNORECASE,
)
Endpoint = Literal["create", "retrieve", "list", "results", "cancel", "messages"]


def classify_answer(
    endpoint: Endpoint, status: int | None, *, own: bool = False, error_type: str | None = None, sent: bool = True
) -> type[errors.ApiError]:
    """Return the class of our error for an answer. This is the one table of what every status means.

    The decision uses the HTTP status and whether the body is in the API's own form. It does not use the SDK's exception
    classes, which differ between the supported versions, and it allows for a proxy, a gateway or Cloudflare that
    answers in the API's place.

    ================================ ========== ========== ==========
    answer                           create     messages   the others
    ================================ ========== ========== ==========
    not sent (nobody there), 522     transient  transient  transient
    429, in any form                 transient  transient  transient
    own 529 ``overloaded_error``     transient  transient  transient
    own 408, 409, 425                transient  transient  transient
    404, in any form                 not found  not found  not found
    501, in any form                 permanent  ambiguous  transient
    any other own 4xx                permanent  permanent  permanent
    301, 302, 307, 308               permanent  permanent  transient
    any other 3xx or 4xx             ambiguous  ambiguous  transient
    everything else, and no answer   ambiguous  ambiguous  transient
    ================================ ========== ========== ==========

    Redirects are not followed. For a call that spends money they mean that the address is wrong; for a poll they may be
    a temporary page. A call that costs money is repeated only after an answer that is known to mean "not executed". A
    500 or 504 in the API's own form does not mean that: Anthropic documents them as "an unexpected error" and "timed
    out while processing", and does not say that they are not billed. 520, 503 and 524 were recorded at the API's own
    host after the answer was made. A 404 means that nothing ran, because the server found nothing at the address. A 404
    that is not in the API's own form says nothing about a batch, see ``lifecycle.not_found``. A 403 that is not the
    API's own was recorded at its host too, and passed by itself: see ``is_foreign_refusal`` for how long reading calls
    wait.

    Args:
        endpoint: which endpoint was called; only ``create`` and ``messages`` spend money.
        status: the HTTP status; None: no answer, or an answer of status 200 that cannot be read.
        own: whether the body is in the API's own form.
        error_type: the ``error.type`` of such a body.
        sent: False if the request certainly never left (connection refused, no free connection).
    """
    if not sent or _is_refused_for_now(status, error_type, own=own):
        return errors.TransientError
    if status == 404:
        return errors.NotFoundError
    if status == _NOT_IMPLEMENTED and endpoint == "create":
        return errors.BatchesUnsupported
    if own and status in _REFUSALS:
        return errors.PermanentError
    if endpoint not in ("create", "messages"):
        return errors.TransientError
    return errors.PermanentError if status in _REDIRECTS else errors.AmbiguousError


def _is_refused_for_now(status: int | None, error_type: str | None, *, own: bool) -> bool:
    """Return whether an answer says that nothing was done, for a reason that passes."""
    overloaded = status == 529 and error_type == "overloaded_error"
    return status in (429, _NOT_REACHED) or (own and (overloaded or status in _PASSING_REFUSALS))


def is_foreign_refusal(status: int | None, error_type: str | None) -> bool:
    """Return whether an error is a refusal (3xx, 4xx, 501) by something in front of the API that may never pass.

    Examples are a challenge page, a login page and a gateway's own 401. Reading calls wait up to ``proxy_error_grace``
    seconds for such a refusal to end.

    Args:
        status: the HTTP status of the error.
        error_type: its ``error.type``; only an error in the API's own form has one.
    """
    if error_type is not None or status is None or status in _PASSING_REFUSALS:
        return False
    return 300 <= status < 500 or status == _NOT_IMPLEMENTED


def may_pass_by_itself(status: int | None) -> bool:
    """Return whether a create may be repeated after a foreign refusal: of these only a 403 passed by itself."""
    return status == 403


def concerns_request(status: int | None) -> bool:
    """Return whether a permanent error is about one request alone, which then counts as errored."""
    return status in _ABOUT_THE_REQUEST


def concerns_account(
    error_type: str | None, message: str | None, *, status: int | None = None, code: str | None = None
) -> bool:
    """Return whether everything the account sends gets this error (credentials, credit, spend limit, account on hold).

    A 403 that is not in the API's own form (it has no type) does not count: it may be a challenge page, which passes.

    Args:
        error_type, message, code: Anthropic's ``error.type``, ``error.message``, ``error.details.error_code``.
        status: the HTTP status; None: the error is in a result file.
    """
    if status in _ACCOUNT_STATUS and (status, error_type) != (403, None):
        return True
    if code is not None and _is_code_of_account(code):
        return True
    if status is None and error_type in _ACCOUNT_TYPES:
        return True
    return status not in (404, 529) and bool(_ACCOUNT_WORDS.search(message or ""))


def _is_code_of_account(code: str) -> bool:
    return code in _ACCOUNT_CODES or bool(_ACCOUNT_CODE.search(code) and not _REQUEST_CODE.search(code))
