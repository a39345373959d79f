"""One attempt of one call, and the translation of every failure into one of our errors."""

from __future__ import annotations

import contextlib
import functools
import importlib
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import NoneType
from typing import Any

import msgspec

from claude_batch_tasks import metrics, rules
from claude_batch_tasks.api import body_limits, error_reasons, identity
from claude_batch_tasks.api.clients import (
    Account,
    Caller,
    Client,
    hide_secrets,
    ignore_account,
    keep_credential,
    renew_credential,
    sdk_client,
)
from claude_batch_tasks.api.sdk import anthropic
from claude_batch_tasks.errors import (
    ApiError,
    BatchTasksError,
    InvalidSettings,
    PermanentError,
    TransientError,
)
from claude_batch_tasks.logs import get_logger, making_call
from claude_batch_tasks.wire import lenient_json

log = get_logger(__name__)
_ORGANIZATION = "anthropic-organization-id"
_USER_PROFILE = "anthropic-user-profile-id"
_BETA = "anthropic-beta"

#: Seconds. A create carries up to 256 MB, and a message may take minutes to write: this is the SDK's own default for
#: both.
LONG_TIMEOUT = 600.0
_CONNECT = 10.0

#: Exceptions of httpx and httpx2 before a request has left: the server or proxy cannot be reached, or the request
#: cannot be sent in this form.
_NOT_SENT = {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError"}
_UNSENDABLE = {"UnsupportedProtocol", "LocalProtocolError", "InvalidURL"}

#: Exceptions while a client signs a request that mean that it is not set up correctly, which does not pass by itself.
_WRONGLY_SET_UP = (RuntimeError, ImportError, LookupError, AttributeError)

#: Packages whose exceptions say that an answer broke off.
_TRANSPORTS = ("httpx", "httpx2", "httpcore", "httpcore2", "h11", "zlib")

#: Calls that spend money.
_PAID = ("create", "messages")
_LONGEST_MESSAGE = 500
LONGEST_NAME = 200


@contextlib.contextmanager
def mapped_errors(endpoint: rules.Endpoint, client: Client, *, begun: bool = False) -> Iterator[float]:
    """Translate what the SDK, its transport or a body that is not JSON raises into one of our errors; time the call.

    The context is the time when the call began, by ``time.perf_counter``.

    Args:
        begun: whether this is the rest of an answer whose beginning was timed.
    """
    since = time.perf_counter()
    try:
        yield since
    except Exception as exc:
        failure = _translate_exception(endpoint, exc, client, since)
        if failure is None:
            raise
    else:
        if not begun:
            keep_credential(client, since)
            metrics.observe("api_seconds", time.perf_counter() - since, endpoint=endpoint, status="200")
        return
    if begun:
        metrics.count("broken_answers", endpoint=endpoint)
    else:
        status = str(failure.status or "none")
        metrics.observe("api_seconds", time.perf_counter() - since, endpoint=endpoint, status=status)
    if failure.status == 404:
        metrics.count("not_found", endpoint=endpoint)
    raise failure from None


def _translate_exception(endpoint: rules.Endpoint, exc: Exception, client: Client, since: float) -> ApiError | None:
    """Return our error for an exception of a call; None: it has nothing to do with the call.

    Raises:
        Exception: the server never got all of the call, which is not counted then.
    """
    if isinstance(exc, body_limits.Unsent):
        cause = exc.__cause__
        assert cause is not None
        raise cause from None
    if isinstance(exc, ApiError):
        return exc
    if isinstance(exc, anthropic.APIStatusError):
        failure = error_from_status(endpoint, exc, client)
        if exc.status_code != 401:
            keep_credential(client, since)
            return failure
        return _as_transient(failure) if renew_credential(client, since) else failure
    if isinstance(exc, (anthropic.APIConnectionError, msgspec.DecodeError)):
        return _translate_lost_call(endpoint, exc.__cause__ or exc, client)
    if isinstance(exc, (anthropic.AnthropicError, TypeError, ValueError)):
        # Raised before anything is sent: no credentials, or parameters the client itself refuses.
        kind = TransientError if _may_pass(exc) else PermanentError
        return kind(f"{endpoint}: the client refused to send: {hide_secrets(str(exc), client)[:_LONGEST_MESSAGE]}")
    return _translate_foreign(endpoint, exc, client)


def _translate_lost_call(endpoint: rules.Endpoint, cause: BaseException, client: Client) -> ApiError:
    """Return our error for a call that got no usable answer."""
    if isinstance(cause, BatchTasksError):
        raise cause from None  # the body's source failed, so the server never got all of it
    name = type(cause).__name__
    if name in _UNSENDABLE:
        # Without the exception's text, which quotes what is wrong with the address or the key.
        return PermanentError(f"{endpoint}: the client cannot send it ({name})")
    kind = rules.classify_answer(endpoint, None, sent=name not in _NOT_SENT)
    return kind(f"{endpoint}: {_describe_exception(cause, client)}")


def _translate_foreign(endpoint: rules.Endpoint, exc: Exception, client: Client) -> ApiError | None:
    """Return our error for an exception that is not the SDK's; None: it is not the transport's either.

    Failures while a body is read come directly from the transport, in classes that differ between SDK versions.
    """
    if _while_signing(exc):
        kind = PermanentError if isinstance(exc, _WRONGLY_SET_UP) else TransientError
        said = _describe_exception(exc, client)
        raise kind(f"{endpoint}: the client could not sign in, and sent nothing: {said}") from None
    if type(exc).__name__ in _UNSENDABLE:
        raise PermanentError(f"{endpoint}: the client cannot send it ({type(exc).__name__})") from None
    if type(exc).__module__.partition(".")[0] not in _TRANSPORTS:
        return None
    said = _describe_exception(exc, client)
    return rules.classify_answer(endpoint, None)(f"{endpoint}: {said} while the answer was read")


def answered_at(headers: Mapping[str, str]) -> float:
    """Return the time against which an answer's own times are read: by the API's clock, if the answer shows it."""
    found = rules.date_of_answer(headers)
    return time.time() if found is None else found  # noqa: TID251 - there is no other


def _may_pass(exc: Exception) -> bool:
    """Return whether the exchange of a workload's identity for a token failed for a reason that passes."""
    if type(exc).__name__ != "WorkloadIdentityError":
        return False
    status = getattr(exc, "status_code", None)
    return (
        exc.__cause__ is not None
        if status is None
        else rules.classify_answer("list", status, own=True) is TransientError
    )


def _while_signing(exc: Exception) -> bool:
    """Return whether an exception was raised while the SDK's client prepared a request and looked up its credential."""
    frames = traceback.walk_tb(exc.__traceback__)
    return any(frame.f_code.co_name in ("_prepare_options", "_prepare_request") for frame, _ in frames)


def _as_transient(refused: ApiError) -> ApiError:
    """Turn the refusal of a token into a transient error: the next call signs in with another one."""
    failure = TransientError(*refused.args)
    failure.organization, failure.workspace = refused.organization, refused.workspace
    return failure


def account_of(headers: Mapping[str, str], client: Client | None = None) -> Account:
    names = (headers.get(_ORGANIZATION), headers.get(identity.WORKSPACE))
    return Account(*(hide_secrets(name, client)[:LONGEST_NAME] if name else None for name in names))


def request_id_of(client: Client, given: str | None) -> str | None:
    return hide_secrets(given, client)[:LONGEST_NAME] if given else None


def error_from_status(endpoint: rules.Endpoint, exc: anthropic.APIStatusError, client: Client) -> ApiError:
    try:
        body = exc.response.content
    except Exception:  # noqa: BLE001 - the body was not read, or is broken: the status says enough
        body = b""
    return error_from_answer(endpoint, exc.status_code, body, exc.response.headers, client)


def error_from_answer(endpoint: rules.Endpoint, given: int, content: bytes, headers: Any, client: Client) -> ApiError:
    """Return our error for an answer, or for an error event in a stream that began well."""
    error, request_id = _own_form(content)
    error_type, code = error.get("type"), None
    if error_type is not None:
        details = error.get("details")
        message, code = error.get("message"), details.get("error_code") if isinstance(details, dict) else None
        code = code if isinstance(code, str) else None
        status = rules.STATUS_OF.get(error_type, 500) if given < 300 else given
        error_type = hide_secrets(error_type[:LONGEST_NAME], client)
        source = error_type
    else:
        status = 500 if given < 300 else given
        message = error_reasons.reason_of(content, headers.get("content-type"))
        source = "(not in the API's own form)" if message else ""
    said = f": {hide_secrets(message, client)[:_LONGEST_MESSAGE]}" if message else " without a message of its own"
    failure = rules.classify_answer(endpoint, status, own=error_type is not None, error_type=error_type)(
        f"{endpoint}: Anthropic answered {status} {source}".rstrip() + said,
        status,
        error_type,
        request_id_of(client, headers.get("request-id") or request_id),
        rules.read_retry_after(headers, answered_at(headers)),
    )
    failure.organization, failure.workspace = account_of(headers, client)
    failure.code = code
    failure.limits = rules.read_rate_limits(headers)
    hold = rules.pause_of_model if endpoint == "messages" else rules.pause_of_account
    failure.hold = hold(status, headers, answered_at(headers))
    return failure


def _own_form(content: bytes) -> tuple[dict[str, Any], str | None]:
    """Return the ``error`` and the ``request_id`` of a body in the API's own form, else an empty dict and None.

    The API's own form is an object with ``"type": "error"`` and an ``error`` whose ``type`` is one that Anthropic
    documents, or ends like those. Gateways and proxies in front of the API use other forms.
    """
    try:
        body, _ = lenient_json.read_json(content)
        error, request_id = body["error"], body.get("request_id")
        kind, message = error["type"], error.get("message")
        own = body["type"] == "error" and (kind in rules.STATUS_OF or kind.endswith("_error"))
        if own and isinstance(message, (str, NoneType)):
            return error, request_id if isinstance(request_id, str) else None
    except (*lenient_json.REFUSED, LookupError, TypeError, AttributeError):
        pass  # a proxy's HTML page, a broken body
    return {}, None


def _http_library(client_type: type) -> Any:
    """Return the HTTP library under the SDK's client: httpx for 0.x, httpx2 from 1.0 on."""
    for cls in client_type.__mro__:
        if (name := cls.__module__.partition(".")[0]) in ("httpx", "httpx2"):
            return importlib.import_module(name)
    raise InvalidSettings(f"the client's HTTP library ({client_type.__module__}) is not known")


def _response_class(client: anthropic.Anthropic) -> Any:
    """Return the ``cast_to`` with which the SDK hands over the response as it came."""
    return _http_library(type(client._client)).Response


def send_request(
    client: Client,
    endpoint: rules.Endpoint,
    path: str,
    timeout: float,
    *,
    post: tuple[Iterable[bytes] | None, int] | None = None,
    stream: bool = False,
    accept: str | None = None,
    params: Mapping[str, Any] | None = None,
    on_account: Callable[[Account], None] = ignore_account,
) -> Any:
    """Make one attempt of a call; return the response as it came, with its body unread if it is streamed.

    Args:
        post: makes it a POST, with the parts of this JSON, and its size. The body is in parts because the SDK writes a
            whole body into its log, at DEBUG.
    """
    content, size = post or (None, 0)
    body = None if content is None else _Body(content, size)
    sdk = sdk_client(client)
    options = _make_options(client, endpoint, timeout, body, accept, params)
    arguments: dict[str, Any] = {"cast_to": _response_class(sdk), "options": options}
    if stream:
        arguments |= {"stream": True, "stream_cls": anthropic.Stream[Any]}
    method: Any = sdk.get if post is None else functools.partial(sdk.post, content=body)
    if isinstance(client, Caller) and endpoint not in _PAID:
        on_account = client.answered
    with making_call(), body_limits.limit_answer(sdk, endpoint, stream=stream and endpoint == "messages"):
        try:
            response = method(path, **arguments)
        except anthropic.APIStatusError as exc:
            _report_account(account_of(exc.response.headers, client), on_account)
            raise
        except anthropic.APIConnectionError as exc:
            _check_body_was_begun(endpoint, exc, body, client)
            raise
    _report_account(account_of(response.headers, client), on_account)
    return response


def _make_options(
    client: Client,
    endpoint: rules.Endpoint,
    timeout: float,
    body: _Body | None,
    accept: str | None,
    params: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the options of a call, as the SDK takes them."""
    headers = {"Accept-Encoding": body_limits.CODING}
    if accept:
        headers["Accept"] = accept
    headers |= _headers_of_job(client, endpoint)
    if body is not None:
        headers |= {"Content-Type": "application/json", "Content-Length": str(body.size)}
    options = {
        "timeout": anthropic.Timeout(timeout, connect=min(timeout, _CONNECT)),
        # Before 2.x the SDK sends its key along to any host.
        "follow_redirects": False,
        # Set here, not on a copy of the client: a subclass may have a constructor that the SDK's copies do not know.
        "max_retries": 0,
        "headers": headers,
    }
    return options if params is None else {**options, "params": params}


def _check_body_was_begun(endpoint: rules.Endpoint, exc: Exception, body: _Body | None, client: Client) -> None:
    """Raise a transient error if a call failed before anything of its body was read."""
    cause = exc.__cause__ or exc
    if body is None or body.begun or isinstance(cause, BatchTasksError) or type(cause).__name__ in _UNSENDABLE:
        return
    # For example, a provider of tokens may raise any exception.
    raise TransientError(f"{endpoint}: nothing was sent: {_describe_exception(cause, client)}") from None


def _report_account(account: Account, on_account: Callable[[Account], None]) -> None:
    """Count an answer by the account that it names, and pass the account to ``on_account``."""
    organization, workspace = account
    metrics.count("account_answers", organization=organization or "none", workspace=workspace or "none")
    on_account(account)


class _Body:
    """The parts of a body, and whether any of them was read: if not, the server cannot have acted on the request."""

    def __init__(self, pieces: Iterable[bytes], size: int) -> None:
        self._pieces, self.size, self.begun = pieces, size, False

    def __iter__(self) -> Iterator[bytes]:
        self.begun = True
        yield from self._pieces


def _headers_of_job(client: Client, endpoint: rules.Endpoint) -> dict[str, str]:
    """Return the headers that a job adds to its calls, under the names of the client's own headers."""
    if not isinstance(client, Caller):
        return {}
    wanted = {identity.WORKSPACE: client.workspace_id, _BETA: ",".join(client.betas)}
    if endpoint in _PAID:
        wanted[_USER_PROFILE] = client.user_profile_id
    found = {name: value for name, value in wanted.items() if value}
    if not found:
        return {}
    given = client.client.default_headers
    known = {name.lower(): name for name in given}
    if _BETA in found and isinstance(already := given.get(known.get(_BETA, "")), str):
        found[_BETA] = ",".join(dict.fromkeys([*map(str.strip, already.split(",")), *client.betas]))
    return {known.get(name, name): value for name, value in found.items()}


def _describe_exception(exc: BaseException, client: Client) -> str:
    text = hide_secrets(str(exc), client)[:_LONGEST_MESSAGE]
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__
