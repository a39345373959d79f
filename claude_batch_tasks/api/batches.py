"""Calls of the Message Batches API."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from typing import Annotated, Any, TypeVar

import msgspec

from claude_batch_tasks import rules
from claude_batch_tasks.api.calls import (
    LONG_TIMEOUT,
    account_of,
    answered_at,
    mapped_errors,
    request_id_of,
    send_request,
)
from claude_batch_tasks.api.clients import Account, Client
from claude_batch_tasks.errors import TransientError
from claude_batch_tasks.wire import lenient_json

BATCHES_PATH = "/v1/messages/batches"
_PAGE = 1000
_CHUNK = 65_536

#: More requests than any batch has; a larger number is ignored.
_MOST_REQUESTS = 10**9

#: An id becomes a part of URLs, keys and log lines.
_BatchId = Annotated[str, msgspec.Meta(pattern=r"\A[\w.:-]{1,200}\Z")]

#: No store accepts half a surrogate pair.
_WHOLE = r"\A[^\ud800-\udfff]*\Z"
_Status = Annotated[str, msgspec.Meta(max_length=100, pattern=_WHOLE)]
_Cursor = Annotated[str, msgspec.Meta(pattern=_WHOLE)]
_STATES = ("processing", "succeeded", "errored", "canceled", "expired")
_T = TypeVar("_T")


class Batch(msgspec.Struct, kw_only=True):
    """A Message Batch as the API describes it, with the fields that we use."""

    id: _BatchId
    processing_status: _Status
    counts: dict[str, Any] | None = msgspec.field(default=None, name="request_counts")
    created_at: datetime
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    archived_at: datetime | None = None
    organization: Any = None
    workspace: Any = None
    """The organization and workspace of the credential, as the API named them in the answer's headers."""
    hold: float | None = None
    """Seconds for which the answer asks all calls on the account to pause."""
    date: float | None = msgspec.field(default=None, name="our_date")
    """The time by the API's clock when it answered, epoch seconds."""
    ahead: float = msgspec.field(default=0.0, name="our_ahead")
    """Seconds by which that clock is ahead of the one that ``list_since`` was given."""
    retry_after: float | None = None
    """Seconds for which the answer asks us not to repeat the call."""
    call: dict[str, Any] = {}
    """The call that showed this batch alone: ``request_id`` (which Anthropic's support asks for) and ``seconds``."""

    def __post_init__(self) -> None:
        # Python reads a time without a zone as the machine's own time, and cannot compare it with one that has a zone.
        for name in ("created_at", "expires_at", "ended_at", "archived_at"):
            if (moment := getattr(self, name)) is not None and moment.tzinfo is None:
                setattr(self, name, moment.replace(tzinfo=timezone.utc))
        # These fields come from the answer's headers and from how it came; a body must not set them.
        self.organization = self.workspace = self.hold = self.retry_after = self.date = None
        self.ahead, self.call = 0.0, {}
        found = (self.counts or {}).items()
        self.counts = {name: n for name, n in found if type(n) is int and 0 <= n <= _MOST_REQUESTS}

    @property
    def account(self) -> Account:
        """The account that the API named."""
        return Account(self.organization, self.workspace)

    @property
    def running(self) -> bool:
        """Whether the batch has not ended, whatever else its status may be called."""
        return self.processing_status != "ended"

    @property
    def request_counts(self) -> dict[str, int]:
        """Number of requests in each state."""
        return self.counts or {}

    def may_hold(self, count: int) -> bool:
        """Return whether this may be a batch of ``count`` requests.

        That is so if the states that the API documents add up to ``count``, or all states do.
        """
        counts = self.request_counts
        return count in (sum(counts.get(name, 0) for name in _STATES), sum(counts.values()))


class Page(msgspec.Struct):
    """A page of the account's batches, newest first."""

    data: list[Batch]
    has_more: bool | None = False
    last_id: _Cursor | None = None
    unreadable: int = 0
    """Number of entries that are left out because they are not as the API documents them."""
    date: float | None = msgspec.field(default=None, name="our_date")
    """The time by the API's clock when it answered, epoch seconds."""
    hold: float | None = None
    """Seconds for which the answer asks all calls on the account to pause."""
    retry_after: float | None = None
    """Seconds for which the answer asks us not to repeat the call."""

    @property
    def oldest(self) -> float:
        """The time (epoch seconds) from which on every created batch is in this page or in one before it."""
        if not self.has_more:
            return 0.0
        return self.data[-1].created_at.timestamp() if self.data else math.inf


class _RoughPage(msgspec.Struct):
    data: list[msgspec.Raw]
    has_more: bool | None = False
    last_id: _Cursor | None = None


# Made at import, in a single thread: msgspec (0.22) analyzes a type when that is first decoded, and two threads that do
# so at once crash the process.
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {cls: msgspec.json.Decoder(cls) for cls in (Batch, Page, _RoughPage)}


def create_batch(client: Client, body: Iterable[bytes], size: int) -> Batch:
    """Create a batch from the bytes of its body, streamed with an exact ``Content-Length``."""
    with mapped_errors("create", client) as since:
        response = send_request(client, "create", BATCHES_PATH, LONG_TIMEOUT, post=(body, size))
        return _decode_batch(client, response, since)


def retrieve_batch(client: Client, batch_id: str, *, timeout: float) -> Batch:
    """Poll one batch."""
    with mapped_errors("retrieve", client) as since:
        response = send_request(client, "retrieve", f"{BATCHES_PATH}/{batch_id}", timeout)
        return _decode_batch(client, response, since)


def cancel_batch(client: Client, batch_id: str, *, timeout: float) -> Batch:
    """Ask for a batch to be canceled; requests that were already processed keep their results."""
    with mapped_errors("cancel", client):
        response = send_request(client, "cancel", f"{BATCHES_PATH}/{batch_id}/cancel", timeout, post=(None, 0))
        return _decode_answer(response, Batch)


def list_pages(client: Client, *, timeout: float) -> Iterator[Page]:
    """Yield the account's batches, newest first, page by page."""
    after: str | None = None
    cursors: set[str] = set()
    while True:
        params: dict[str, Any] = {"limit": _PAGE} | ({"after_id": after} if after else {})
        with mapped_errors("list", client):
            response = send_request(client, "list", BATCHES_PATH, timeout, params=params)
            page = read_page(response)
            _read_times(page, response)
        yield page
        if not page.has_more:
            return
        after = page.last_id or (page.data[-1].id if page.data else None)
        if after is None or after in cursors or len(cursors) >= rules.PAGES:
            raise TransientError("list: the pages ended before the last one")
        cursors.add(after)


def list_since(
    client: Client, since: float, *, timeout: float, now: Callable[[], float] | None = None
) -> Iterator[Batch]:
    """Yield all batches of the account created at or after ``since`` (epoch seconds), newest first, from all pages.

    Args:
        now: the clock that ``since`` refers to. If the API's clock is behind it, batches are listed from an earlier
            time on. If the API's clock is ahead, the time is not changed, because an answer's ``Date`` may be a
            gateway's.

    Raises:
        TransientError: a call failed with a temporary error, or an entry cannot be read, so that absence proves
        nothing.
    """
    for page in list_pages(client, timeout=timeout):
        if page.unreadable:
            raise TransientError(f"list: {page.unreadable} of its entries are unreadable")
        ahead = rules.clock_offset(page.date, now()) if now is not None else 0.0
        first = since + min(ahead, 0.0)
        for batch in page.data:
            if batch.created_at.timestamp() >= first:
                batch.ahead = ahead
                yield batch
        if page.oldest < first:
            return


@contextlib.contextmanager
def open_results(client: Client, batch_id: str, *, timeout: float) -> Iterator[Iterator[bytes]]:
    """Open the result file as a stream of byte chunks, from one GET.

    The SDK's ``results()`` is not used: it makes a second, hidden ``retrieve``, and follows the batch's ``results_url``
    to any host that it names, with the key. This path is on the configured ``base_url``.
    """
    with mapped_errors("results", client):
        path = f"{BATCHES_PATH}/{batch_id}/results"
        response = send_request(client, "results", path, timeout, stream=True, accept="application/binary")
    with contextlib.closing(response):
        yield _read_chunks(client, response)


def _read_chunks(client: Client, response: Any) -> Iterator[bytes]:
    with mapped_errors("results", client, begun=True):
        yield from response.iter_bytes(_CHUNK)


def _decode_batch(client: Client, response: Any, since: float) -> Batch:
    batch = _decode_answer(response, Batch)
    batch.organization, batch.workspace = account_of(response.headers, client)
    _read_times(batch, response)
    # Measured here: a response has no time of its own if a transport answers from memory.
    batch.call = {
        "request_id": request_id_of(client, response.headers.get("request-id")),
        "seconds": round(time.perf_counter() - since, 3),
    }
    return batch


def _read_times(found: Batch | Page, response: Any) -> None:
    """Set what the headers of an answer say about times."""
    headers, now = response.headers, answered_at(response.headers)
    found.date = rules.date_of_answer(headers)
    found.hold = rules.pause_of_account(response.status_code, headers, now)
    found.retry_after = rules.read_retry_after(headers, now)


def read_page(response: Any) -> Page:
    try:
        return _decode_answer(response, Page)
    except msgspec.DecodeError:
        rough = _decode_answer(response, _RoughPage)
    page = Page(data=[], has_more=rough.has_more, last_id=rough.last_id)
    for entry in rough.data:
        try:
            page.data.append(_decode_json(entry, Batch))
        except lenient_json.REFUSED:
            page.unreadable += 1
    return page


def _decode_answer(response: Any, cls: type[_T]) -> _T:
    try:
        return _decode_json(response.content, cls)
    except lenient_json.REFUSED:
        # For example a proxy's page with status 200. The error has no word of the body, which may be somebody's text.
        raise msgspec.DecodeError("the answer is not the API's JSON") from None


def _decode_json(data: bytes | msgspec.Raw, cls: type[_T]) -> _T:
    found: _T
    try:
        found = _DECODERS[cls].decode(data)
    except lenient_json.REFUSED:
        found = msgspec.convert(lenient_json.read_json(bytes(data))[0], cls)
    return found
