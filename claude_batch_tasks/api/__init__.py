"""The only module that talks to Anthropic, through the official SDK's client, and the only one that sees its errors.

Every call makes one attempt (``max_retries=0``) and ends in a value or in one of our exceptions. What the SDK
raises stays here: stored by Celery it could not be decoded (0.96) or would carry the API key (2.x).
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import hashlib
import importlib
import math
import os
import re
import time
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from types import NoneType
from typing import Annotated, Any, NamedTuple, TypeAlias, TypeVar

import anthropic
import msgspec

from claude_batch_tasks import metrics, rules
from claude_batch_tasks.api import body_limits, error_reasons, identity
from claude_batch_tasks.api.server_sent_events import Message, events, is_needed
from claude_batch_tasks.errors import (
    AmbiguousError,
    ApiError,
    BatchesUnsupported,
    BatchTasksError,
    InvalidSettings,
    PermanentError,
    TransientError,
)
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.wire import lenient_json

log = get_logger(__name__)

_PATH = "/v1/messages/batches"
_PAGE = 1000
_ORGANIZATION = "anthropic-organization-id"
_USER_PROFILE = "anthropic-user-profile-id"
_BETA = "anthropic-beta"
_CHUNK = 65_536

#: A create carries up to 256 MB and a message may take minutes to write: the SDK's own default for both.
_LONG = 600.0
_CONNECT = 10.0

#: What httpx and httpx2 raise before a request has left: nobody is there, a proxy makes no tunnel, or it cannot be sent
#: as it is.
_NOT_SENT = {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError"}
_UNSENDABLE = {"UnsupportedProtocol", "LocalProtocolError", "InvalidURL"}

#: The code of an error of ours: a key or a header of a client has a form that cannot be right.
MALFORMED = "malformed_credential"

#: What is raised while a client signs a request because it is not set up, and stays so.
_WRONGLY_SET_UP = (RuntimeError, ImportError, LookupError, AttributeError)

_LONGEST_MESSAGE = 500

#: Under a status of success: an error, and the beginning of a stream that was not asked for.
_NO_MESSAGES = ("error", "message_start")

#: Characters that a key has at least.
_SHORTEST_KEY = 8
_LONGEST_NAME = 200

#: Anthropic's keys and tokens look like this, whoever's they are.
_KEY = re.compile(r"sk-ant-[\w-]+")
_HIDDEN = "[key]"

#: More requests than any batch has; a number beyond is none.
_MOST_REQUESTS = 10**9

#: It becomes a part of addresses, keys and log lines.
_BatchId = Annotated[str, msgspec.Meta(pattern=r"\A[\w.:-]{1,200}\Z")]
#: No store takes half a surrogate pair.
_WHOLE = r"\A[^\ud800-\udfff]*\Z"
_Status = Annotated[str, msgspec.Meta(max_length=100, pattern=_WHOLE)]
_Cursor = Annotated[str, msgspec.Meta(pattern=_WHOLE)]

_STATES = ("processing", "succeeded", "errored", "canceled", "expired")


_T = TypeVar("_T")


class Account(NamedTuple):
    """Whose account an answer came from, as its headers name it."""

    organization: str | None = None
    workspace: str | None = None


def _ignore_account(account: Account) -> None:
    """What an answer says of its account is compared with nothing."""


@dataclass(frozen=True, eq=False)
class Caller:
    """A client as a job uses it: what the job's calls carry besides, and who hears of which account each answer is.

    ``answered`` is called with every answer, errors included, of calls that are free. Of those that spend money
    (``create``, ``create_message``) the account comes with the value or the error: what is paid is kept first.
    """

    client: anthropic.Anthropic
    workspace_id: str | None = None
    user_profile_id: str | None = None
    betas: tuple[str, ...] = ()
    answered: Callable[[Account], None] = _ignore_account


Client: TypeAlias = anthropic.Anthropic | Caller


class Batch(msgspec.Struct, kw_only=True):
    """A Message Batch as the API describes it, as far as we use it."""

    id: _BatchId
    processing_status: _Status
    counts: dict[str, Any] | None = msgspec.field(default=None, name="request_counts")
    created_at: datetime
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    archived_at: datetime | None = None
    organization: Any = None
    workspace: Any = None
    """What the API called those of the credential in the answer's headers."""
    hold: float | None = None
    """Seconds for which the answer asks all calls on the account to wait."""
    date: float | None = msgspec.field(default=None, name="our_date")
    """The time by the API's clock, epoch seconds, when it answered."""
    ahead: float = msgspec.field(default=0.0, name="our_ahead")
    """Seconds by which that clock is ahead of the one that ``list_since`` was given."""
    retry_after: float | None = None
    """Seconds before which the answer asks not to be asked for again."""
    call: dict[str, Any] = {}
    """The call that showed it by itself: ``request_id`` (what Anthropic's support asks for) and ``seconds``."""

    def __post_init__(self) -> None:
        # Python takes a time without a zone for the machine's own, and compares it with no other.
        for name in ("created_at", "expires_at", "ended_at", "archived_at"):
            if (moment := getattr(self, name)) is not None and moment.tzinfo is None:
                setattr(self, name, moment.replace(tzinfo=timezone.utc))
        # Of an answer's head and of how it came; a body has no say in them.
        self.organization = self.workspace = self.hold = self.retry_after = self.date = None
        self.ahead, self.call = 0.0, {}
        found = (self.counts or {}).items()
        self.counts = {name: n for name, n in found if type(n) is int and 0 <= n <= _MOST_REQUESTS}

    @property
    def account(self) -> Account:
        """Whose it is, as the API says."""
        return Account(self.organization, self.workspace)

    @property
    def running(self) -> bool:
        """It has not ended, whatever else its status may be called."""
        return self.processing_status != "ended"

    @property
    def request_counts(self) -> dict[str, int]:
        """How many requests are in which state."""
        return self.counts or {}

    def may_hold(self, count: int) -> bool:
        """Whether it may be a batch of ``count`` requests: the states that the API documents add up to that, or all."""
        counts = self.request_counts
        return count in (sum(counts.get(name, 0) for name in _STATES), sum(counts.values()))


class Page(msgspec.Struct):
    """A page of the account's batches, newest first."""

    data: list[Batch]
    has_more: bool | None = False
    last_id: _Cursor | None = None
    unreadable: int = 0
    """Entries that are left out, because they are not as the API documents them."""
    date: float | None = msgspec.field(default=None, name="our_date")
    """The time by the API's clock, epoch seconds, when it answered."""
    hold: float | None = None
    """Seconds for which the answer asks all calls on the account to wait."""
    retry_after: float | None = None
    """Seconds before which the answer asks not to be asked for again."""

    @property
    def oldest(self) -> float:
        """Every batch created from then on (epoch seconds) is in this page or in one before it."""
        if not self.has_more:
            return 0.0
        return self.data[-1].created_at.timestamp() if self.data else math.inf


class _RoughPage(msgspec.Struct):
    data: list[msgspec.Raw]
    has_more: bool | None = False
    last_id: _Cursor | None = None


# Made here, where there is one thread: msgspec (0.22) learns of a type when that is first decoded, and two threads that
# do so at once end the process.
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {cls: msgspec.json.Decoder(cls) for cls in (Batch, Page, _RoughPage)}


def default_client() -> anthropic.Anthropic:
    """Return a client with what the SDK finds in the environment: a key, a token, a profile or a workload identity."""
    return anthropic.Anthropic()


def client(alias: str, factories: Mapping[str, str]) -> anthropic.Anthropic:
    """The client of an alias, kept for as long as its factory and the environment, which that reads, stay the same.

    Cached by process id because a client used before a fork answers with another task's response.

    Raises:
        InvalidSettings: the factory cannot be imported or does not return a client.
        PermanentError: the factory raised; most often there are no credentials.
    """
    if alias not in factories:
        raise InvalidSettings(f"client {alias!r} is not in this worker's claude_batch_client_factories")
    slot = _client(alias, factories[alias], os.getpid())
    made_of = slot.would_be_made_of()
    if (found := slot.client) is None or slot.made_of != made_of:
        found = slot.client = _make(alias, factories[alias])
        slot.made_of = made_of
    return found


class _Slot:
    """Where the client of an alias is kept until its credential is refused, or would be another's."""

    def __init__(self, alias: str, factory: str) -> None:
        self.alias, self.factory = alias, factory
        self.client: anthropic.Anthropic | None = None
        self.made_of: Any = None

    def would_be_made_of(self) -> Any:
        """Return what tells whether the factory would make the same client: itself, and the environment, as a hash."""
        module, _, name = self.factory.rpartition(".")
        with contextlib.suppress(Exception):
            # A module may also make one each time it is asked; such ones are all the same.
            return vars(importlib.import_module(module)).get(name), hash(frozenset(os.environ.items()))
        return None


_slots: weakref.WeakSet[_Slot] = weakref.WeakSet()

#: When a client's token was thrown away because it was refused, by ``time.perf_counter``, until a call succeeds again.
_renewed: weakref.WeakKeyDictionary[anthropic.Anthropic, float] = weakref.WeakKeyDictionary()

#: Clients in whose place their factory has made others, with another key.
_replaced: weakref.WeakSet[anthropic.Anthropic] = weakref.WeakSet()


@functools.lru_cache(maxsize=256)
def _client(alias: str, factory: str, pid: int) -> _Slot:
    slot = _Slot(alias, factory)
    _slots.add(slot)
    return slot


def _make(alias: str, factory: str) -> anthropic.Anthropic:
    try:
        make = _import(factory)
    except (ImportError, AttributeError) as exc:
        raise InvalidSettings(
            f"the client factory {factory!r} of {alias!r} cannot be imported: {_hidden(str(exc))}"
        ) from None
    try:
        made = make()
    except Exception as exc:  # noqa: BLE001 - the user's code, which may raise anything
        raise PermanentError(f"the client factory {factory!r} of {alias!r} failed: {_hidden(str(exc))}") from None
    if reason := identity.why_no_batches(made):
        raise BatchesUnsupported(f"client {alias!r} cannot be used: {reason}")
    if not isinstance(made, anthropic.Anthropic):
        raise InvalidSettings(f"the client factory {factory!r} of {alias!r} returned no anthropic.Anthropic")
    if reason := identity.why_malformed(made):
        failure = PermanentError(f"client {alias!r} cannot be used, and nothing was sent with it: {reason}")
        failure.code = MALFORMED
        raise failure
    return made


def _sdk(client: Client) -> anthropic.Anthropic:
    return client.client if isinstance(client, Caller) else client


def _renew(client: Client, since: float) -> bool:
    """Have the next call sign in anew after a 401; whether that may help.

    A token that was refused is thrown away once. If what comes in its place is refused as well, or if it was a key, the
    client's factory is asked for another: one with another key may help, and else the client is forgotten.

    Args:
        since: when the call that was refused began.
    """
    sdk = _sdk(client)
    before = _renewed.get(sdk)
    if sdk in _replaced or (before is not None and since < before):
        return True  # the call was made with what has been thrown away since
    if identity.drop_token(sdk) and before is None:
        _renewed[sdk] = time.perf_counter()
        return True
    _renewed.pop(sdk, None)
    for slot in [slot for slot in _slots if slot.client is sdk]:
        slot.client = None
        with contextlib.suppress(BatchTasksError):
            made = _make(slot.alias, slot.factory)
            if identity.keyed_hash(made, "") != identity.keyed_hash(sdk, ""):
                slot.client = made
                _replaced.add(sdk)
    return sdk in _replaced


def _accepted(client: Client, since: float) -> None:
    """The credential of a call that began then was not refused."""
    sdk = _sdk(client)
    if (before := _renewed.get(sdk)) is not None and since >= before:
        _renewed.pop(sdk, None)


def _import(factory: str) -> Any:
    module, _, name = factory.rpartition(".")
    return getattr(importlib.import_module(module), name)


def unusable(factory: str) -> str | None:
    """Why a client factory cannot be imported or called, if so; it is not called."""
    try:
        return None if callable(_import(factory)) else "it is not callable"
    except Exception as exc:  # noqa: BLE001 - the user's module, which may raise anything
        return f"{type(exc).__name__}: {_hidden(str(exc))}"


def credential(client: anthropic.Anthropic, key: str) -> str:
    """A keyed hash of a client's address and of the key or token it has; neither can be had from it.

    It is as 0.2.0 computed it. For what else tells accounts apart see ``identity.keyed_hash``.
    """
    parts = (str(client.base_url), client.api_key or "", client.auth_token or "")
    return hashlib.blake2b("\n".join(parts).encode(), key=key.encode(), digest_size=16).hexdigest()


def account_name(
    client: anthropic.Anthropic, *, alias: str = "", workspace: str | None = None, account: Account | None = None
) -> str:
    """What the store calls the account of a client: a hash, for what all jobs on it have in common.

    Headers of the client's own tell accounts apart as well: one of them may name a workspace, or a tenant of a gateway.
    A client without a secret of its own goes by what the API called its account, and until that is known by its alias.

    Args:
        alias: the client's, and where its factory is.
        workspace: the one that a job's calls name in place of the client's own.
        account: what the API called it.
    """
    own = sorted(f"{name.lower()}: {value}" for name, value in getattr(client, "_custom_headers", {}).items())
    parts = [credential(client, "account"), *own]
    if not identity.has_secret(client):
        named = account is not None and account.organization is not None
        parts += [repr(tuple(account or ())) if named else f"{alias} {identity.keyed_hash(client, 'account')}"]
    if workspace is not None:
        parts.append(f"workspace {workspace}")
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def identify(client: Client, *, timeout: float) -> Account:
    """Ask the API, at no cost, whose account a client is of; what it does not say is None."""
    with _ours("list", client):
        response = _call(client, "list", _PATH, timeout, params={"limit": 1})
        return _account(response.headers, client)


class Knock(NamedTuple):
    """What came back when the API was asked for one batch."""

    status: int
    headers: Mapping[str, str]
    error: ApiError | None
    is_page: bool
    """It is a page of batches, as only the API gives it."""

    @property
    def account(self) -> Account:
        """Whose it is, as the API says."""
        return _account(self.headers)


def knock(client: Client, *, timeout: float) -> Knock:
    """Ask for one batch, which costs nothing, and tell whatever is answered.

    Raises:
        ApiError: nothing was.
    """
    with _ours("list", client):
        try:
            response = _call(client, "list", _PATH, timeout, params={"limit": 1})
        except anthropic.APIStatusError as exc:
            return Knock(exc.status_code, exc.response.headers, _from_status("list", exc, client), False)
        try:
            _page(response)
        except msgspec.DecodeError:
            return Knock(response.status_code, response.headers, None, False)
        return Knock(response.status_code, response.headers, None, True)


class Elsewhere(NamedTuple):
    """What a route of the API beside those of batches answered."""

    status: int
    is_json: bool


def ask_elsewhere(client: Client, *, timeout: float) -> list[Elsewhere]:
    """Ask routes of the API beside those of batches, at no cost; what answered, if anything did."""
    found = []
    for path, body in (("/v1/models", None), ("/v1/messages/count_tokens", b"{}")):
        post = None if body is None else (iter([body]), len(body))
        with contextlib.suppress(ApiError), _ours("list", client):
            try:
                answer = _call(client, "list", path, timeout, post=post)
            except anthropic.APIStatusError as exc:
                answer = exc.response
            found.append(Elsewhere(answer.status_code, _is_object(answer)))
    return found


def _is_object(answer: Any) -> bool:
    try:
        return isinstance(msgspec.json.decode(answer.content), dict)
    except Exception:  # noqa: BLE001 - a page, a broken body
        return False


def host(client: anthropic.Anthropic) -> str:
    """Where a client calls."""
    return client.base_url.netloc.decode()


def without_credentials(error: ApiError) -> bool:
    """Whether a client could not be made, or did not call, because it has no key."""
    return "authentication method" in str(error) or "api_key" in str(error)


def create(client: Client, body: Iterable[bytes], size: int) -> Batch:
    """Create a batch from the bytes of its body, streamed with an exact ``Content-Length``."""
    with _ours("create", client) as since:
        response = _call(client, "create", _PATH, _LONG, post=(body, size))
        return _batch(client, response, since)


def retrieve(client: Client, batch_id: str, *, timeout: float) -> Batch:
    """Look at one batch."""
    with _ours("retrieve", client) as since:
        response = _call(client, "retrieve", f"{_PATH}/{batch_id}", timeout)
        return _batch(client, response, since)


def cancel(client: Client, batch_id: str, *, timeout: float) -> Batch:
    """Ask for a batch to be canceled; what was processed keeps its results."""
    with _ours("cancel", client):
        response = _call(client, "cancel", f"{_PATH}/{batch_id}/cancel", timeout, post=(None, 0))
        return _decode(response, Batch)


def pages(client: Client, *, timeout: float) -> Iterator[Page]:
    """The account's batches, newest first, page by page."""
    after: str | None = None
    cursors: set[str] = set()
    while True:
        params: dict[str, Any] = {"limit": _PAGE} | ({"after_id": after} if after else {})
        with _ours("list", client):
            response = _call(client, "list", _PATH, timeout, params=params)
            page = _page(response)
            now = _now(response.headers)
            page.date = rules.date(response.headers)
            page.hold = rules.hold_back(response.status_code, response.headers, now)
            page.retry_after = rules.retry_after(response.headers, now)
        yield page
        if not page.has_more:
            return
        after = page.last_id or (page.data[-1].id if page.data else None)
        if after is None or after in cursors or len(cursors) >= rules.PAGES:
            raise TransientError("list: the pages broke off before their end")
        cursors.add(after)


def list_since(
    client: Client, since: float, *, timeout: float, now: Callable[[], float] | None = None
) -> Iterator[Batch]:
    """Every batch of the account created at or after ``since`` (epoch seconds), newest first, over all pages.

    Args:
        now: the clock that ``since`` is by. Where the API's own is behind, batches are listed from earlier on; where it
            is ahead they are not listed from later on, as an answer's ``Date`` may be a gateway's.

    Raises:
        TransientError: besides what a call raises: an entry cannot be read, so that nothing can be said of absence.
    """
    for page in pages(client, timeout=timeout):
        if page.unreadable:
            raise TransientError(f"list: {page.unreadable} of its entries cannot be read")
        ahead = rules.ahead(page.date, now()) if now is not None else 0.0
        first = since + min(ahead, 0.0)
        for batch in page.data:
            if batch.created_at.timestamp() >= first:
                batch.ahead = ahead
                yield batch
        if page.oldest < first:
            return


@contextlib.contextmanager
def results(client: Client, batch_id: str, *, timeout: float) -> Iterator[Iterator[bytes]]:
    """The result file as a stream of byte chunks, from one GET.

    Not the SDK's ``results()``: that makes a second, hidden ``retrieve`` and follows the batch's ``results_url`` to
    whatever host it names, with the key. This path is on the configured ``base_url``.
    """
    with _ours("results", client):
        path = f"{_PATH}/{batch_id}/results"
        response = _call(client, "results", path, timeout, stream=True, accept="application/binary")
    with contextlib.closing(response):
        yield _read(client, response)


def _read(client: Client, response: Any) -> Iterator[bytes]:
    with _ours("results", client, begun=True):
        yield from response.iter_bytes(_CHUNK)


class Answer(NamedTuple):
    """An answer of the Messages API."""

    message: bytes
    """As JSON."""
    limits: dict[str, tuple[int, int]]
    """What it says of the rate limits; see ``policy.limits``."""


def create_message(
    client: Client, params: bytes, *, stream: bool = False, on_account: Callable[[Account], None] = _ignore_account
) -> Answer:
    """Send one request through the Messages API.

    The params go as they are: the SDK's ``messages.create`` refuses what it does not know and long ``max_tokens``.

    Args:
        stream: let the answer come as it is written; it is put together here.
        on_account: called with the account that the answer names, an error's too, before it is read.
    """
    if stream:
        # At the end: of a name that is there twice the last one counts, and "stream": false is allowed in a batch.
        return _streamed(client, params.rstrip()[:-1] + b',"stream":true}', on_account)
    with _ours("messages", client):
        response = _call(
            client, "messages", "/v1/messages", _LONG, post=(iter([params]), len(params)), on_account=on_account
        )
        return _whole(client, response, bytes(response.content).removeprefix(codecs.BOM_UTF8))


def _whole(client: Client, response: Any, body: bytes) -> Answer:
    """Return an answer that came in one piece.

    Raises:
        ApiError: it is an error, under the status 200: there are gateways that do so.
    """
    message = _parsed(body)
    if message.get("error") and "content" not in message:
        raise _answered("messages", response.status_code, body, response.headers, client)
    if message.get("type") in _NO_MESSAGES:
        raise msgspec.DecodeError("the answer is not the API's JSON of a message")
    return Answer(body, rules.limits(response.headers))


def _streamed(client: Client, body: bytes, on_account: Callable[[Account], None]) -> Answer:
    """An answer that comes as server-sent events."""
    message = Message()
    with _ours("messages", client):
        # The status is that of the answer's beginning; what fails from here on has been answered in part.
        post = iter([body]), len(body)
        accept = "text/event-stream"
        response = _call(
            client, "messages", "/v1/messages", _LONG, stream=True, post=post, accept=accept, on_account=on_account
        )
        limits = rules.limits(response.headers)
    try:
        with _ours("messages", client, begun=True):
            if response.headers.get("content-type", "").startswith("application/json"):
                # There are gateways that stream nothing.
                return _whole(client, response, b"".join(response.iter_bytes()))
            # In the sizes they come in: a cut must not take along what came before it.
            for name, data in events(response.iter_bytes()):
                event = _event(name, data)
                if event.get("type", "error") == "error" and event.get("error"):
                    raise _answered("messages", response.status_code, data, response.headers, client)
                message.add(event)
                if message.over:  # whatever comes after that, or does not come, takes nothing from it
                    break
            whole = message.whole()
            for dropped in message.dropped:
                log.warning(
                    "messages: a stream began anew with another message; %s was left out, and may be billed too",
                    _hidden(dropped, client),
                )
            return Answer(whole, limits)
    except ApiError as exc:
        if message.begun and not isinstance(exc, AmbiguousError):
            raise AmbiguousError(f"{exc}, after a part of the answer", *exc.args[1:]) from None
        raise
    finally:
        with contextlib.suppress(Exception):
            response.close()


def _event(name: str, data: bytes) -> dict[str, Any]:
    """Return an event of a stream; an empty one for what is none, such as ``[DONE]``.

    Raises:
        DecodeError: it cannot be read, and the message is not whole without it.
    """
    if name == "message_stop":  # needs no data
        return {"type": name}
    try:
        event = _parsed(data)
    except msgspec.DecodeError:
        if is_needed(name, data):
            raise
        return {}
    return event if "type" in event or not name else {"type": name, **event}


def _parsed(data: bytes) -> dict[str, Any]:
    """An answer of the Messages API, or an event of one, as plain values.

    One that Python cannot hold is paid for all the same.
    """
    if sum(map(data.count, (b",", b"[", b"{"))) > rules.ANSWER_VALUES:
        raise msgspec.DecodeError("the answer has more parts than any of the API's")
    try:
        value = lenient_json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise msgspec.DecodeError("the answer is not the API's JSON")
    return value


@contextlib.contextmanager
def _ours(endpoint: rules.Endpoint, client: Client, *, begun: bool = False) -> Iterator[float]:
    """Turn whatever the SDK, its transport or a body that is not JSON raises into one of our errors; measure the call.

    Gives when it began, by ``time.perf_counter``.

    Args:
        begun: it is the rest of an answer, of which the beginning was measured.
    """
    failure: ApiError
    since = time.perf_counter()
    try:
        yield since
    except body_limits.Unsent as exc:
        cause = exc.__cause__
        assert cause is not None
        raise cause from None  # the server never had all of it, whatever the exception is
    except ApiError as exc:
        failure = exc
    except anthropic.APIStatusError as exc:
        failure = _from_status(endpoint, exc, client)
        if exc.status_code != 401:
            _accepted(client, since)
        elif _renew(client, since):
            failure = _again(failure)
    except (anthropic.APIConnectionError, msgspec.DecodeError) as exc:
        cause = exc.__cause__ or exc
        name = type(cause).__name__
        if isinstance(cause, BatchTasksError):
            raise cause from None  # the body's source failed, so the server never had all of it
        if name in _UNSENDABLE:
            # Without its text, which quotes what is wrong with the address or the key.
            failure = PermanentError(f"{endpoint}: the client cannot send it ({name})")
        else:
            failure = rules.classify(endpoint, None, sent=name not in _NOT_SENT)(f"{endpoint}: {_name(cause, client)}")
    except (anthropic.AnthropicError, TypeError, ValueError) as exc:
        # Raised before anything is sent: no credentials, or parameters the client itself refuses.
        kind = TransientError if _passes(exc) else PermanentError
        failure = kind(f"{endpoint}: the client refused to send: {_hidden(str(exc), client)[:_LONGEST_MESSAGE]}")
    except Exception as exc:
        if _while_signing(exc):
            kind = PermanentError if isinstance(exc, _WRONGLY_SET_UP) else TransientError
            raise kind(f"{endpoint}: the client could not sign in, and sent nothing: {_name(exc, client)}") from None
        # Failures while a body is read come raw from the transport, in classes that differ between SDK versions.
        if type(exc).__name__ in _UNSENDABLE:
            raise PermanentError(f"{endpoint}: the client cannot send it ({type(exc).__name__})") from None
        if type(exc).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore", "httpcore2", "h11", "zlib"):
            raise
        failure = rules.classify(endpoint, None)(f"{endpoint}: {_name(exc, client)} while the answer was read")
    else:
        if not begun:
            _accepted(client, since)
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


def _now(headers: Mapping[str, str]) -> float:
    """The time by which an answer's own times are to be read: the API's own clock, where it shows that."""
    found = rules.date(headers)
    return time.time() if found is None else found  # noqa: TID251 - there is no other


def _passes(exc: Exception) -> bool:
    """Whether the exchange of a workload's identity for a token failed for a reason that passes."""
    if type(exc).__name__ != "WorkloadIdentityError":
        return False
    status = getattr(exc, "status_code", None)
    return exc.__cause__ is not None if status is None else rules.classify("list", status, own=True) is TransientError


def _while_signing(exc: Exception) -> bool:
    """Whether it was raised while the SDK's client prepared a request, by whoever knows the credential."""
    frames = traceback.walk_tb(exc.__traceback__)
    return any(frame.f_code.co_name in ("_prepare_options", "_prepare_request") for frame, _ in frames)


def _again(refused: ApiError) -> ApiError:
    """A refusal of a token that the next call will not sign in with."""
    failure = TransientError(*refused.args)
    failure.organization, failure.workspace = refused.organization, refused.workspace
    return failure


def _batch(client: Client, response: Any, since: float) -> Batch:
    batch = _decode(response, Batch)
    batch.organization, batch.workspace = _account(response.headers, client)
    now = _now(response.headers)
    batch.date = rules.date(response.headers)
    batch.hold = rules.hold_back(response.status_code, response.headers, now)
    batch.retry_after = rules.retry_after(response.headers, now)
    # Not the response's own: there is none where a transport answers from memory.
    batch.call = {
        "request_id": _request_id(client, response.headers.get("request-id")),
        "seconds": round(time.perf_counter() - since, 3),
    }
    return batch


def _account(headers: Mapping[str, str], client: Client | None = None) -> Account:
    names = (headers.get(_ORGANIZATION), headers.get(identity.WORKSPACE))
    return Account(*(_hidden(name, client)[:_LONGEST_NAME] if name else None for name in names))


def _request_id(client: Client, given: str | None) -> str | None:
    return _hidden(given, client)[:_LONGEST_NAME] if given else None


def _from_status(endpoint: rules.Endpoint, exc: anthropic.APIStatusError, client: Client) -> ApiError:
    try:
        body = exc.response.content
    except Exception:  # noqa: BLE001 - an unread or broken body: the status says enough
        body = b""
    return _answered(endpoint, exc.status_code, body, exc.response.headers, client)


def _answered(endpoint: rules.Endpoint, given: int, content: bytes, headers: Any, client: Client) -> ApiError:
    """Return the error that an answer is; in a stream that began well, an event of it."""
    error, request_id = _own_form(content)
    error_type, code = error.get("type"), None
    if error_type is not None:
        details = error.get("details")
        message, code = error.get("message"), details.get("error_code") if isinstance(details, dict) else None
        code = code if isinstance(code, str) else None
        status = rules.STATUS_OF.get(error_type, 500) if given < 300 else given
        error_type = _hidden(error_type[:_LONGEST_NAME], client)
        source = error_type
    else:
        status = 500 if given < 300 else given
        message = error_reasons.reason_of(content, headers.get("content-type"))
        source = "(not in the API's own form)" if message else ""
    said = f": {_hidden(message, client)[:_LONGEST_MESSAGE]}" if message else " without a message of its own"
    failure = rules.classify(endpoint, status, own=error_type is not None, error_type=error_type)(
        f"{endpoint}: Anthropic answered {status} {source}".rstrip() + said,
        status,
        error_type,
        _request_id(client, headers.get("request-id") or request_id),
        rules.retry_after(headers, _now(headers)),
    )
    failure.organization, failure.workspace = _account(headers, client)
    failure.code = code
    failure.limits = rules.limits(headers)
    hold = rules.messages_hold if endpoint == "messages" else rules.hold_back
    failure.hold = hold(status, headers, _now(headers))
    return failure


def _own_form(content: bytes) -> tuple[dict[str, Any], str | None]:
    """Return the ``error`` and the ``request_id`` of a body in the API's own form; else nothing.

    That is an object with ``"type": "error"`` and an ``error`` whose ``type`` is one that Anthropic documents, or is
    named as those are: what stands in front of the API has other forms.
    """
    try:
        body, _ = lenient_json.read(content)
        error, request_id = body["error"], body.get("request_id")
        kind, message = error["type"], error.get("message")
        own = body["type"] == "error" and (kind in rules.STATUS_OF or kind.endswith("_error"))
        if own and isinstance(message, (str, NoneType)):
            return error, request_id if isinstance(request_id, str) else None
    except (*lenient_json.REFUSED, LookupError, TypeError, AttributeError):
        pass  # a proxy's page, a broken body
    return {}, None


def _page(response: Any) -> Page:
    try:
        return _decode(response, Page)
    except msgspec.DecodeError:
        rough = _decode(response, _RoughPage)
    page = Page(data=[], has_more=rough.has_more, last_id=rough.last_id)
    for entry in rough.data:
        try:
            page.data.append(_decode_json(entry, Batch))
        except lenient_json.REFUSED:
            page.unreadable += 1
    return page


def _decode(response: Any, cls: type[_T]) -> _T:
    try:
        return _decode_json(response.content, cls)
    except lenient_json.REFUSED:
        # A page of a proxy with status 200, for one. It keeps no word of the body: that may be somebody's text.
        raise msgspec.DecodeError("the answer is not the API's JSON") from None


def _decode_json(data: bytes | msgspec.Raw, cls: type[_T]) -> _T:
    found: _T
    try:
        found = _DECODERS[cls].decode(data)
    except lenient_json.REFUSED:
        found = msgspec.convert(lenient_json.read(bytes(data))[0], cls)
    return found


def _transport(client_type: type) -> Any:
    """The HTTP library under the SDK's client: httpx for 0.x, httpx2 from 1.0 on."""
    for cls in client_type.__mro__:
        if (name := cls.__module__.partition(".")[0]) in ("httpx", "httpx2"):
            return importlib.import_module(name)
    raise InvalidSettings(f"the client's HTTP library ({client_type.__module__}) is not known")


def _raw(client: anthropic.Anthropic) -> Any:
    """What ``cast_to`` must be for the SDK to hand over the response as it came."""
    return _transport(type(client._client)).Response


def _call(
    client: Client,
    endpoint: rules.Endpoint,
    path: str,
    timeout: float,
    *,
    post: tuple[Iterable[bytes] | None, int] | None = None,
    stream: bool = False,
    accept: str | None = None,
    params: Mapping[str, Any] | None = None,
    on_account: Callable[[Account], None] = _ignore_account,
) -> Any:
    """One attempt of a call; the response as it came, its body unread if it is streamed.

    Args:
        post: a POST, with the pieces of this JSON, and its size. In pieces, because the SDK writes a body that it is
            given whole into its log, at DEBUG.
    """
    content, size = post or (None, 0)
    body = None if content is None else _Body(content)
    sdk = _sdk(client)
    headers = {"Accept-Encoding": body_limits.CODING} | ({"Accept": accept} if accept else {}) | _own(client, endpoint)
    more: dict[str, Any] = {"stream": True, "stream_cls": anthropic.Stream[Any]} if stream else {}
    if body is not None:
        headers |= {"Content-Type": "application/json", "Content-Length": str(size)}
        more["content"] = body
    options: dict[str, Any] = {
        "timeout": anthropic.Timeout(timeout, connect=min(timeout, _CONNECT)),
        # Before 2.x the SDK sends its key along, to whatever host.
        "follow_redirects": False,
        # Not of a copy of the client: a subclass may have a constructor that the SDK's copies do not know.
        "max_retries": 0,
        "headers": headers,
    }
    if params is not None:
        options["params"] = params
    send: Any = sdk.get if post is None else sdk.post
    if isinstance(client, Caller) and endpoint not in ("create", "messages"):
        on_account = client.answered
    with body_limits.bounded(sdk, endpoint, stream=stream and endpoint == "messages"):
        try:
            response = send(path, cast_to=_raw(sdk), options=options, **more)
        except anthropic.APIStatusError as exc:
            _report_account(_account(exc.response.headers, client), on_account)
            raise
        except anthropic.APIConnectionError as exc:
            cause = exc.__cause__ or exc
            if body is None or body.begun or isinstance(cause, BatchTasksError) or type(cause).__name__ in _UNSENDABLE:
                raise
            # A provider of tokens, for one, raises whatever it likes.
            raise TransientError(f"{endpoint}: nothing was sent: {_name(cause, client)}") from None
    _report_account(_account(response.headers, client), on_account)
    return response


def _report_account(account: Account, on_account: Callable[[Account], None]) -> None:
    """Count an answer by the account that it names, and have that compared."""
    organization, workspace = account
    metrics.count("account_answers", organization=organization or "none", workspace=workspace or "none")
    on_account(account)


class _Body:
    """The pieces of a body, and whether any of it was asked for: else whoever was called cannot have acted on it."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces, self.begun = pieces, False

    def __iter__(self) -> Iterator[bytes]:
        self.begun = True
        yield from self._pieces


def _own(client: Client, endpoint: rules.Endpoint) -> dict[str, str]:
    """The headers that a job adds to its calls, under the names that the client's own have."""
    if not isinstance(client, Caller) or not (client.workspace_id or client.user_profile_id or client.betas):
        return {}
    known = {name.lower(): name for name in client.client.default_headers}
    betas = client.betas
    if betas and isinstance(already := client.client.default_headers.get(known.get(_BETA, "")), str):
        betas = tuple(dict.fromkeys([*(name.strip() for name in already.split(",")), *betas]))
    found = {identity.WORKSPACE: client.workspace_id, _BETA: ",".join(betas)}
    if endpoint in ("create", "messages"):
        found[_USER_PROFILE] = client.user_profile_id
    return {known.get(name, name): value for name, value in found.items() if value}


def _name(exc: BaseException, client: Client) -> str:
    text = _hidden(str(exc), client)[:_LONGEST_MESSAGE]
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _hidden(text: str, client: Client | None = None) -> str:
    """A text of somebody else's without keys: there are gateways that quote the one they refuse."""
    for secret in identity.to_hide(_sdk(client)) if client is not None else ():
        # A placeholder, such as "x", is no secret, and stands in many words.
        text = text.replace(secret, _HIDDEN) if len(secret) >= _SHORTEST_KEY else text
    # No store and no log takes half a surrogate pair.
    return _KEY.sub(_HIDDEN, text).encode(errors="replace").decode()
