"""Bodies of calls: a paid request is sent completely only by its owner, and no answer is larger than its limit.

The last part of a request is withheld until its sender has proved that the request is still its own. A server acts on
whole requests only. So a sender that slept meanwhile, and can no longer prove it, has sent nothing.

Answers are unpacked and counted as they come: none is larger in memory than ``rules.body_limit`` allows. A server in
Anthropic's place (a gateway, a proxy, somebody who took its address) may send a few kilobytes that unpack to gigabytes,
or a body without end.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from claude_batch_tasks import rules
from claude_batch_tasks.api.sdk import anthropic
from claude_batch_tasks.errors import ApiError

#: The requested coding, because each part of it can be unpacked within a limit. The HTTP library unpacks any coding for
#: which a package is installed.
CODING = "gzip"

#: Bytes unpacked at a time.
_PIECE = 65_536


@dataclass
class _Call:
    endpoint: rules.Endpoint
    stream: bool
    unsent: Exception | None = None
    """Why its body was not sent completely."""


#: Bytes of a body that are withheld at most: the network takes them in one go.
_AT_ONCE = 1024

#: The call that we are making; other calls through the same HTTP client are not changed.
_call: ContextVar[_Call | None] = ContextVar("claude_batch_call", default=None)

#: The function that proves that the call is still to be made.
_confirm: ContextVar[Callable[[], None] | None] = ContextVar("claude_batch_confirm", default=None)


@contextmanager
def confirm_before_end(confirm: Callable[[], None]) -> Iterator[None]:
    """Call ``confirm`` before the last part of the call inside is sent, to prove that the call is still its sender's.

    If ``confirm`` or the body's source raises, the connection is closed over an incomplete body, and the call raises
    the same.
    """
    token = _confirm.set(confirm)
    try:
        yield
    finally:
        _confirm.reset(token)


class Unsent(Exception):
    """A request was stopped before its last part was sent.

    Its cause is the exception that stopped it, which the client did not raise.
    """


@contextmanager
def limit_answer(client: anthropic.Anthropic, endpoint: rules.Endpoint, *, stream: bool = False) -> Iterator[None]:
    """Limit the answer of a call inside, whether it is read here, later, or (an error's) by the SDK.

    Args:
        stream: whether the answer is a message that comes as server-sent events.
    """
    for name, hook in (("request", _hold_back), ("response", _limit_body)):
        hooks = client._client.event_hooks[name]
        if hook not in hooks:
            hooks.append(hook)
    call = _Call(endpoint, stream)
    token = _call.set(call)
    try:
        yield
    except Exception:
        if call.unsent is not None:
            raise Unsent from call.unsent
        raise
    finally:
        _call.reset(token)


def _hold_back(request: Any) -> None:
    """Keep back the last part of a request until the call is confirmed.

    The HTTP client calls this for every request, when its headers are complete (signed, for one).
    """
    call, confirm = _call.get(), _confirm.get()
    if call is not None and confirm is not None and not isinstance(request.stream, _Confirmed):
        request.stream = _body(_library_of(request))(call, confirm, request.stream)


class _Confirmed:
    """The body of a request as the HTTP client reads it, part by part; it confirms the call before the last part."""

    def __init__(self, call: _Call, confirm: Callable[[], None], parts: Iterable[bytes]) -> None:
        self._call, self._confirm, self._parts = call, confirm, parts

    def __iter__(self) -> Iterator[bytes]:
        last = b""
        try:
            for part in filter(None, self._parts):
                if last:
                    yield last
                last = part
            most = max(len(last) - _AT_ONCE, 0)
            for at in range(0, most, _PIECE):
                yield last[at : min(at + _PIECE, most)]
            last = last[most:]
            self._confirm()
        except Exception as exc:
            self._call.unsent = exc
            raise
        yield last


def _limit_body(response: Any) -> None:
    """Limit the body of an answer.

    The HTTP client calls this for every answer, before its body is read.
    """
    if (call := _call.get()) is None:
        return
    # Removed, so that the HTTP library does not unpack it.
    coding = response.headers.pop("content-encoding", "identity").strip().lower()
    unknown = coding not in ("identity", "gzip", "x-gzip", "deflate")
    limit = rules.body_limit(call.endpoint, stream=call.stream)
    if response.status_code >= 300:
        # The status says what happened, and must not be lost because of the body.
        limit = limit._replace(size=0 if unknown else rules.ERROR_BYTES, cut=True)
    elif unknown:
        raise _make_refusal(call, f"is coded as {coding[:40]!r}, which was not requested")
    parts = response.stream if unknown or coding == "identity" else _unpack_chunks(response.stream)
    response.stream = _stream(_library_of(response))(call, limit, response.stream, parts)


def _make_refusal(call: _Call, what: str) -> ApiError:
    return rules.classify_answer(call.endpoint, None)(f"{call.endpoint}: the answer {what}; the rest was not read")


class _Bounded:
    """The body of an answer as the HTTP client reads it, within limits."""

    def __init__(self, call: _Call, limit: rules.BodyLimit, stream: Any, parts: Iterable[bytes]) -> None:
        self._call, self._limit, self._stream, self._parts = call, limit, stream, parts

    def __iter__(self) -> Iterator[bytes]:
        limit, size, until = self._limit, 0, time.monotonic() + self._limit.seconds
        for part in self._parts:
            size += len(part)
            if limit.size is not None and size > limit.size:
                if limit.cut:
                    return
                raise _make_refusal(self._call, f"has more than {limit.size:,} bytes, more than any answer of the API")
            if time.monotonic() > until:
                raise _make_refusal(self._call, f"had not ended after {limit.seconds:,} s")
            yield part

    @property
    def elapsed(self) -> Any:
        """The time that a response of httpx2 reads from its stream; httpx sets it on the response."""
        return getattr(self._stream, "elapsed", None)

    def close(self) -> None:
        self._stream.close()


def _library_of(message: Any) -> str:
    return type(message).__module__.partition(".")[0]


@functools.cache
def _body(library: str) -> Any:
    """Return the class of a request's body for one of the HTTP libraries."""
    return type("Confirmed", (_Confirmed, importlib.import_module(library).SyncByteStream), {})


@functools.cache
def _stream(library: str) -> Any:
    """Return the class of an answer's body for one of the HTTP libraries."""
    return type("Bounded", (_Bounded, importlib.import_module(library).SyncByteStream), {})


def _unpack_chunks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Unpack a gzip, zlib or deflate stream in parts.

    Raises:
        zlib.error: it is not such a stream, or ends early.
    """
    parts, first = iter(chunks), b""
    for part in parts:
        first += part
        if len(first) >= 2:
            break
    if not first:
        return
    unpack = zlib.decompressobj(_window_bits(first))
    for part in itertools.chain([first], parts):
        while part and not unpack.eof:
            yield unpack.decompress(part, _PIECE)
            part = unpack.unconsumed_tail
    if not unpack.eof:
        yield unpack.flush()  # a few bytes for which the last part had no room
    if not unpack.eof:
        raise zlib.error("it is cut off")


def _window_bits(first: bytes) -> int:
    """Return the window size for a stream by its beginning: some servers send ``deflate`` without a header."""
    headed = first.startswith(b"\x1f\x8b") or (first[0] & 15 == 8 and int.from_bytes(first[:2], "big") % 31 == 0)
    return zlib.MAX_WBITS | 32 if headed else -zlib.MAX_WBITS
