"""What an answer of the API, or of whoever stands in front of it, means."""

from __future__ import annotations

import re
from typing import Literal

from claude_batch_tasks import errors

#: Refusals that pass by themselves, whoever they come from: time-out, conflict, too early, too many.
_PASSING_REFUSALS = {408, 409, 425, 429}

#: Redirects that leave it to the caller to send the request elsewhere: nothing was done with it here.
_REDIRECTS = {301, 302, 307, 308}

#: What whoever has no such route answers; 501 is definite, whoever it comes from.
NO_ROUTE = (404, 405, 501)
_NOT_IMPLEMENTED = 501

#: What Cloudflare, in front of the API, answers when it could not connect to it: the request has not arrived there.
_NOT_REACHED = 522

#: Own 4xx that are about the one request alone: another one of the same account may be answered.
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

#: What an account meets with whatever it sends: by HTTP status, by ``error.type`` in a result file (where
#: ``permission_error`` may be about one model), by ``error.details.error_code`` (the SDK's typed errors), and by the
#: words of errors of any type: low credit comes as ``invalid_request_error``, in thousands of rows.
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

#: What codes that are not known yet have in their names where they are of this kind; not what is a request's own.
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


def classify(
    endpoint: Endpoint, status: int | None, *, own: bool = False, error_type: str | None = None, sent: bool = True
) -> type[errors.ApiError]:
    """Return which of our errors an answer is. This is the one table of what every status means.

    It goes by the HTTP status and by whether the body is in the API's own form, because the SDK's exception classes
    differ between the supported versions, and because a proxy, a gateway or Cloudflare may answer in the API's place.

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

    Redirects are not followed: for what spends money the address is wrong, for a look they may be a passing page.
    What costs money is repeated only after an answer that is known to mean "not executed". A 500 or 504 in the API's
    own form is none: Anthropic documents it as "an unexpected error" and "timed out while processing", and nowhere
    that it is not billed. 520, 503 and 524 were recorded at the API's own host after the answer was made. A 404 comes
    from whoever finds nothing at the address, so that nothing ran; in another form than the API's it says nothing of a
    batch, see ``lifecycle.not_found``. A 403 that is not the API's own was recorded there too, and passed by itself:
    see ``is_foreign_refusal`` for how long reading calls wait for that.

    Args:
        endpoint: what was called; only ``create`` and ``messages`` spend money.
        status: the HTTP status; None: no answer, or one of status 200 that cannot be read.
        own: the body is in the API's own form.
        error_type: the ``error.type`` of such a body.
        sent: False if the request certainly never left (connection refused, no free connection).
    """
    if not sent or status in (429, _NOT_REACHED) or (own and status == 529 and error_type == "overloaded_error"):
        return errors.TransientError
    if status == 404:
        return errors.NotFoundError
    if status == _NOT_IMPLEMENTED and endpoint == "create":
        return errors.BatchesUnsupported
    if own and status is not None and 400 <= status < 500:
        return errors.TransientError if status in _PASSING_REFUSALS else errors.PermanentError
    if endpoint not in ("create", "messages"):
        return errors.TransientError
    return errors.PermanentError if status in _REDIRECTS else errors.AmbiguousError


def is_foreign_refusal(status: int | None, error_type: str | None) -> bool:
    """Whether an error is a refusal (3xx, 4xx, 501) by something in front of the API that may never pass.

    Such as a challenge page, a login page, a gateway's own 401. Reading calls wait for its end for
    ``proxy_error_grace`` seconds.

    Args:
        status, error_type: the error's; only what is in the API's own form has a type.
    """
    if error_type is not None or status is None or status in _PASSING_REFUSALS:
        return False
    return 300 <= status < 500 or status == _NOT_IMPLEMENTED


def may_pass(status: int | None) -> bool:
    """Whether a foreign refusal of a create is worth another create: of these only a 403 passed by itself."""
    return status == 403


def concerns_request(status: int | None) -> bool:
    """Whether a permanent error is about the one request alone, which then has errored."""
    return status in _ABOUT_THE_REQUEST


def concerns_account(
    error_type: str | None, message: str | None, *, status: int | None = None, code: str | None = None
) -> bool:
    """Whether all that the account sends meets this error: bad credentials, no credit, a spend limit, a hold.

    A 403 that is not in the API's own form (it has no type) is none: it may be a challenge page, which passes.

    Args:
        error_type, message, code: Anthropic's ``error.type``, ``error.message``, ``error.details.error_code``.
        status: the HTTP status; None: it stands in a result file.
    """
    if (status in _ACCOUNT_STATUS and (status, error_type) != (403, None)) or code in _ACCOUNT_CODES:
        return True
    if code and _ACCOUNT_CODE.search(code) and not _REQUEST_CODE.search(code):
        return True
    if status is None and error_type in _ACCOUNT_TYPES:
        return True
    return status not in (404, 529) and bool(_ACCOUNT_WORDS.search(message or ""))
