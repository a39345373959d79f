"""A second, independent implementation of the Message Batches and Messages APIs whose every answer is legal and none
is kind.

Accounts are told apart by the ``x-account`` header; each has its own ``Manners`` (how its answers look and fail), its
own batches and its own record of what was called and what was paid. A host beside it is the trap: no client may ever
contact it.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import itertools
import json
import math
import random
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

CHALLENGE = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>prove it</body></html>"
HTML = b"<!DOCTYPE html><html><head><title>Bad gateway</title></head><body>cloud</body></html>"
EVENTS = "text/event-stream; charset=utf-8"
OUTCOMES = ("succeeded", "errored", "expired", "canceled")

_ids = itertools.count(1)


def prompt_of(params: Mapping[str, Any]) -> str:
    """The text of a request's last message."""
    content = params["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def error_body(kind: str, message: str, details: Mapping[str, Any] | None = None) -> bytes:
    error = {"type": kind, "message": message, **({} if details is None else {"details": details})}
    return json.dumps({"type": "error", "error": error, "request_id": "req_body"}).encode()


@dataclass
class Answer:
    """What one call gets instead of its ordinary answer.

    ``acts``: the call does its work before (a batch is stored, a message is paid). ``drop``: the connection ends
    without an answer. ``to_trap``: a Location header to the trap.
    """

    status: int = 500
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    acts: bool = False
    drop: bool = False
    to_trap: bool = False
    hold: threading.Event | None = None
    """Waits for it before it answers; a reset connection meanwhile is fine."""


@dataclass
class Events(Answer):
    """A stream."""

    events: list[bytes] = field(default_factory=list)


def html(status: int, *, acts: bool = False) -> Answer:
    return Answer(status, HTML, {"Content-Type": "text/html"}, acts=acts)


#: What something in front of the API answered at its own host and that passed by itself.
CHALLENGED = Answer(403, CHALLENGE, {"Content-Type": "text/html"})
NOT_ALLOWED = Answer(
    403,
    b'{"error": {"type": "forbidden", "message": "Request not allowed"}}',
    {"Content-Type": "application/json"},
)

#: What it answered there after the answer was made.
CONNECTION_ENDED = b"upstream connect error or disconnect/reset before headers. reset reason: connection termination"


def refusal(status: int, kind: str, message: str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, error_body(kind, message), {"Content-Type": "application/json", **named})


def api_error() -> Answer:
    """A 500 in the API's own words, which a Messages call that was not answered gets."""
    return refusal(500, "api_error", "Internal server error")


NOT_FOUND = refusal(404, "not_found_error", "Not found", request_id="req_404")
DROP = Answer(drop=True)
#: The call does its work, and the connection ends without an answer.
LOST = Answer(drop=True, acts=True)

# What an account that may not spend is told, each in the API's own words.
NO_CREDIT = refusal(
    400,
    "invalid_request_error",
    "Your credit balance is too low to access the Anthropic API. "
    "Please go to Plans & Billing to upgrade or purchase credits.",
)
OWN_LIMIT = refusal(
    400,
    "invalid_request_error",
    "You have reached your specified API usage limits. You will regain access on 2100-01-01 at 00:00 UTC.",
)
NO_KEY = refusal(401, "authentication_error", "invalid x-api-key")
NOT_PAID = refusal(402, "billing_error", "There is an issue with your organization's billing.")
FORBIDDEN = refusal(403, "permission_error", "Your API key does not have permission to use the specified resource.")
OVERLOADED = refusal(529, "overloaded_error", "Overloaded")
#: A 429 that no waiting within the month helps against, and without a retry-after.
SPEND_LIMIT = replace(
    refusal(429, "rate_limit_error", ""),
    body=error_body(
        "rate_limit_error",
        "You have reached your API usage limits: your organization has crossed its monthly API usage threshold, set "
        "based on your organization's API tier. You will regain access on 2100-01-01 at 00:00 UTC.",
        {"error_code": "enforced_spend_limit_reached"},
    ),
)


def where(part: str, answer: Answer) -> Callable[[int, str, Mapping[str, Any]], Answer | None]:
    """For ``Manners.call``: the message calls whose prompt contains ``part`` get ``answer``."""
    return lambda number, prompt, params: answer if part in prompt else None


@dataclass
class Storm:
    """Faults by chance, from a seeded generator, on every endpoint; shares of the calls.

    A 404 is given instead of the work, except by the endpoints that only read, where there is no difference. A dropped
    connection breaks before or after the work, half and half, and that of a download anywhere in it. Of the 5xx on
    create, half come after the work. On the Messages API a 5xx comes before it: that is an answer, and not billed.
    """

    seed: int
    not_found: float = 0.3
    server_error: float = 0.05
    dropped: float = 0.05
    endpoints: frozenset[str] = frozenset({"create", "retrieve", "list", "results", "cancel", "messages"})
    drawn: Counter[str] = field(default_factory=Counter)
    """What was drawn, by endpoint and kind."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def draw(self, endpoint: str) -> Answer | None:
        """What the next call gets instead of its ordinary answer. The caller holds the server's lock."""
        if endpoint not in self.endpoints:
            return None
        number, acts = self._random.random(), self._random.random() < 0.5
        if number < self.not_found:
            kind, answer = "404", NOT_FOUND
        elif (number := number - self.not_found) < self.server_error:
            acts = acts and endpoint == "create"
            kind, answer = "5xx", replace(api_error() if endpoint == "messages" else html(502), acts=acts)
        elif number - self.server_error < self.dropped:
            kind, answer = "dropped", replace(DROP, acts=acts)
        else:
            return None
        self.drawn[f"{endpoint} {kind}{' after the work' if answer.acts else ''}"] += 1
        return answer


#: The fields of a usage object that the last events of a stream repeat.
CUMULATIVE = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "server_tool_use",
    "output_tokens_details",
)


def first_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """What message_start says of it: everything but what is not written yet."""
    return {**usage, "output_tokens": min(usage.get("output_tokens") or 0, 1)}


def last_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """What message_delta says of it."""
    return {name: usage[name] for name in CUMULATIVE if name in usage}


@dataclass
class Streaming:
    """How the answers of message calls that ask for a stream look; ``Manners.chunks`` (empty: a chunk is an event),
    ``trickle``, ``ascii``, ``coding`` and ``extra`` apply to them too."""

    ends: Sequence[str] = ()
    """How the first streams of the account end: "" (as it should), "error first" (an error event before
    message_start; nothing is paid), "error" (one in the middle), "cut" (the connection ends in the middle), "reset"
    (with a reset), "early" (in the middle, at the end of an event, and the HTTP of it is well-formed), "unstopped"
    (all but the message_stop, well-formed), "done" (with what gateways send after it), "cut after" (the connection ends
    after the message_stop, and the HTTP does not), "twice" (a half of another message comes before it), "mixed" (and
    goes on in it)."""
    end: str | Callable[[int, str, Mapping[str, Any]], str] = ""
    """Every later one's; or of the call's number (from 1), prompt and params."""
    error: tuple[str, str] = ("overloaded_error", "Overloaded")
    """Type and message of the error events."""
    eol: bytes = b"\n"
    comments: bool = False
    """Comment lines before every event."""
    unknown: bool = False
    """Events of a type that nobody knows, everywhere."""
    space: bool = True
    """``data: {`` rather than ``data:{``."""
    pretty: bool = False
    """JSON over several data lines."""
    pings: int = 1
    """Ping events after the first content_block_start."""
    piece: int = 7
    """Characters in a delta."""
    deltas: int = 1
    """message_delta events; those before the last know a part of the output."""
    first_usage: Callable[[dict[str, Any]], dict[str, Any]] = first_usage
    last_usage: Callable[[dict[str, Any]], dict[str, Any]] = last_usage

    def end_of(self, stream: int, call: MessageCall) -> str:
        """How the n-th stream (from 1) ends."""
        if stream <= len(self.ends):
            return self.ends[stream - 1]
        return self.end(call.number, call.prompt, call.params) if callable(self.end) else self.end

    def events(self, message: dict[str, Any], extra: Mapping[str, Any], how: str) -> list[dict[str, Any]]:
        """The events of a message, in order, up to where the stream ends."""
        failure = {"type": "error", "error": {"type": self.error[0], "message": self.error[1]}, **extra}
        if how == "error first":
            return [failure]
        usage: Any = message.get("usage")
        known = isinstance(usage, dict)
        late = [name for name in ("stop_reason", "stop_sequence", "stop_details", "container") if name in message]
        start: dict[str, Any] = {**message, "content": [], **dict.fromkeys(late)}
        start["usage"] = self.first_usage(usage) if known else usage
        pings = [{"type": "ping", **extra} for _ in range(self.pings)]
        body: list[dict[str, Any]] = []
        for index, block in enumerate(message["content"] if isinstance(message.get("content"), list) else []):
            begun, deltas = self._pieces(block)
            body.append({"type": "content_block_start", "index": index, "content_block": begun, **extra})
            body += pings if not index else []
            body += [{"type": "content_block_delta", "index": index, "delta": delta, **extra} for delta in deltas]
            body.append({"type": "content_block_stop", "index": index, **extra})
        tail: list[dict[str, Any]] = []
        for n in range(1, self.deltas + 1):
            counted: Any = self.last_usage(usage) if known else usage
            if n < self.deltas and known:
                counted = {**counted, "output_tokens": (counted.get("output_tokens") or 0) * n // self.deltas}
            delta: dict[str, Any] = {name: message[name] if n == self.deltas else None for name in late}
            tail.append({"type": "message_delta", "delta": delta, "usage": counted, **extra})
        stop = {"type": "message_stop", **extra}
        events = [{"type": "message_start", "message": start, **extra}, *(body or pings), *tail, stop]
        if how in ("twice", "mixed"):
            other = {**start, "id": "msg_of_another", "model": "claude-of-another"}
            first = [{**events[0], "message": other}, *events[1 : len(events) // 2]]
            late = [event for event in first if event["type"] == "content_block_delta"][-1:]
            events = [*first, events[0], *(late if how == "mixed" else []), *events[1:]]
        if how in ("error", "early"):
            events = events[: max(len(events) // 2, 1)] + ([failure] if how == "error" else [])
        elif how == "unstopped":
            events.pop()
        if self.unknown:
            # A stream begins with message_start whatever comes to be known, and ends with message_stop.
            delta = {"type": "hologram_delta", "text": "not to be read"}
            odd = {"type": "hologram", "index": 0, "delta": delta, **extra}
            events = [part for i, event in enumerate(events) for part in ((odd, event) if i else (event,))]
        return events

    def _pieces(self, block: Any) -> tuple[Any, list[dict[str, Any]]]:
        """What content_block_start shows of a block, and the deltas that make the rest of it."""
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text" and isinstance(block.get("text"), str):
            cited = block.get("citations") or []
            deltas = [{"type": "text_delta", "text": text} for text in self._cut(block["text"])]
            notes = [{"type": "citations_delta", "citation": citation} for citation in cited]
            # One between the texts, the others after them.
            deltas = deltas[:1] + notes[:1] + deltas[1:] + notes[1:]
            return {**block, "text": "", **({"citations": []} if cited else {})}, deltas
        if kind == "thinking":
            deltas = [{"type": "thinking_delta", "thinking": text} for text in self._cut(block.get("thinking") or "")]
            deltas.append({"type": "signature_delta", "signature": block.get("signature") or ""})
            return {**block, "thinking": "", "signature": ""}, deltas
        if kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
            # The first piece is empty, and so is the whole where there is no input.
            pieces = ["", *(self._cut(json.dumps(block["input"], ensure_ascii=False)) if block.get("input") else [])]
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": text} for text in pieces]
        return block, []

    def _cut(self, text: str) -> list[str]:
        return [text[at : at + self.piece] for at in range(0, len(text), self.piece)]

    def encoded(self, event: Mapping[str, Any], ascii: bool) -> bytes:
        text = json.dumps(event, ensure_ascii=ascii, indent=1 if self.pretty else None)
        colon = b": " if self.space else b":"
        lines = [b": nothing happened", b":"] if self.comments else []
        lines.append(b"event" + colon + str(event["type"]).encode())
        lines += [b"data" + colon + line for line in text.encode().split(b"\n")]
        return self.eol.join([*lines, b"", b""])


@dataclass
class Manners:
    """How one account is treated. ``script[endpoint]`` are the answers of the first calls (None: the ordinary one);
    ``forever[endpoint]`` is every later one's. Endpoints: create, retrieve, list, results, cancel, messages."""

    script: dict[str, Sequence[Answer | None]] = field(default_factory=dict)
    forever: dict[str, Answer] = field(default_factory=dict)
    storm: Storm | None = None
    """Faults by chance, where the script has nothing."""
    looks: int = 1
    """Retrieves that still say in_progress."""
    asks: str | None = None
    """The Retry-After that these have."""
    seconds: tuple[float, float] | None = None
    """Instead: a batch ends by itself after a time between these."""
    status_word: str = "in_progress"
    result: Callable[[int, str], dict[str, Any]] | None = None
    """Result of the request of that index with that prompt; default: succeeded."""
    text: Callable[[str], str] = "Echo: {}".format
    usage: Callable[[int, str, dict[str, Any]], Any] | None = None
    """The usage of an answer, by index, prompt and params; the index of a message call is how many of the account were
    accepted before it. ``message`` is over it."""
    message: dict[str, Any] = field(default_factory=dict)
    """Fields over those of every message."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Fields added to every object."""
    batch: dict[str, Any] = field(default_factory=dict)
    """Fields over those of every batch object; a value that is a callable gets the account; ``...`` leaves it out."""
    counts: Callable[[dict[str, int]], Any] = dict
    stamp: Callable[[datetime], str] = datetime.isoformat
    order: str = "as sent"
    eol: bytes = b"\n"
    final_newline: bool = True
    blanks: Sequence[bytes] = ()
    """Blank lines put between every two lines."""
    ascii: bool = False
    line: Callable[[bytes], bytes] = bytes
    lines: Callable[[list[bytes], int], list[bytes]] = lambda lines, download: lines
    """The lines of the n-th download (from 1)."""
    coding: str | None = None
    chunks: Sequence[int] = ()
    """Sizes of the chunks of a chunked answer, in turn; empty: with a Content-Length."""
    cut: Sequence[str] = ()
    """How the first downloads end: "boundary", "middle" (both well-formed), "short" (below the length), "reset"."""
    trickle: float = 0.0
    """Pause between chunks, seconds."""
    close: str = "no"
    """"says": Connection: close on every answer. "quietly": closes without having said so."""
    odd_headers: bool = False
    request_id: bool = True
    page: int | None = None
    """Batches in a page of the list, whatever the limit says."""
    last_id: bool = True
    lag: int = 0
    """Calls of list that do not show the newest batch yet."""
    shows_after: tuple[float, float] = (0.0, 0.0)
    """A batch shows in the list after a time between these, seconds."""
    cancel_works: bool = True
    strangers_stay: int = 10**9
    """Calls of list after which other applications have deleted their batches."""
    list_page: Callable[[dict[str, Any], int], dict[str, Any]] = lambda page, call: page
    call: Callable[[int, str, dict[str, Any]], Answer | None] | None = None
    """What the message call of that number (from 1), prompt and params gets instead of its ordinary answer, where the
    script and ``forever`` have nothing. See ``where``."""
    streaming: Streaming = field(default_factory=Streaming)
    message_seconds: float = 0.0
    """How long an accepted message call takes; it is paid at its beginning."""
    messages_limit: int | None = None
    """Message calls a minute. What is planned (script, ``forever``, ``call``, storm) is not counted unless it acts."""
    input_tokens_limit: int | None = None
    """Input tokens a minute; a prompt has a fourth of its characters and one. A call above the capacity never fits."""
    ahead: float = 0.0
    """Seconds by which the server's clock is ahead of this machine's."""
    minute: float = 60.0
    """Seconds that a minute of the limits takes."""
    window: bool = False
    """Fixed windows from the first call on, rather than buckets that are refilled all the time."""
    burst_share: float = 1.0
    """A bucket holds the limit divided by this."""
    reset: str = "full"
    """What the reset headers name: when the limit is "full" again, when the "next" call can be made; "absent". Their
    format is ``stamp``."""
    precise: bool = True
    """A 429 of the limits has a retry-after-ms beside its retry-after, which is in whole seconds."""


@dataclass
class Stored:
    """A batch."""

    id: str
    requests: list[dict[str, Any]]
    created: datetime
    manners: Manners
    looks: int = 0
    looked_at: list[float] = field(default_factory=list)
    """When it was retrieved, by ``time.monotonic``."""
    downloads: int = 0
    fetched: int = 0
    """Downloads that were sent to the end."""
    canceled: bool = False
    _tally: Counter[str] | None = None
    share: float = field(default_factory=random.random)
    """Where between the two limits its times are."""

    @property
    def ended(self) -> bool:
        if self.manners.seconds is not None and not self.canceled:
            return self.age >= _between(self.manners.seconds, self.share)
        return self.canceled or self.looks > self.manners.looks

    @property
    def age(self) -> float:
        """Seconds since it was created."""
        return (datetime.now(timezone.utc) - self.created).total_seconds()

    @property
    def shown(self) -> bool:
        """Whether the list shows it already."""
        return self.age >= _between(self.manners.shows_after, self.share)

    @property
    def foreign(self) -> bool:
        """Another application's."""
        return self.id.startswith("msgbatch_foreign")

    def tally(self) -> Counter[str]:
        """How many requests end how; counted once, as a list of hundreds of batches asks for all of them."""
        if self.canceled:
            return Counter(canceled=len(self.requests))
        if self._tally is None:
            self._tally = Counter(result["type"] for result in self.results())
        return self._tally

    def results(self) -> list[dict[str, Any]]:
        if self.canceled:
            return [{"type": "canceled"} for _ in self.requests]
        return [outcome(self.manners, i, request["params"]) for i, request in enumerate(self.requests)]


def _between(limits: tuple[float, float], share: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * share


def outcome(manners: Manners, index: int, params: dict[str, Any]) -> dict[str, Any]:
    prompt = prompt_of(params)
    if manners.result is not None and (result := manners.result(index, prompt)).get("type") != "succeeded":
        return {**result, **manners.extra}
    return {"type": "succeeded", "message": message_of(manners, index, params), **manners.extra}


def message_of(manners: Manners, index: int, params: dict[str, Any]) -> dict[str, Any]:
    prompt = prompt_of(params)
    if manners.usage is not None:
        usage = manners.usage(index, prompt, params)
    else:
        usage = {"input_tokens": 10, "output_tokens": 5, "service_tier": "batch", **manners.extra}
    return {
        "id": f"msg_{next(_ids):08}",
        "type": "message",
        "role": "assistant",
        "model": params.get("model", "claude-x"),
        "content": [{"type": "text", "text": manners.text(prompt), "citations": None, **manners.extra}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
        **manners.extra,
        **manners.message,
    }


def tokens_of(prompt: str) -> int:
    """What a prompt counts for the limit of input tokens."""
    return len(prompt) // 4 + 1


@dataclass
class MessageCall:
    """A call of the Messages API."""

    number: int
    """From 1, among all of the account's."""
    prompt: str
    params: dict[str, Any]
    """The whole body; empty if it was none."""
    headers: dict[str, str]
    """Names in lower case."""
    at: float
    """When it came, by ``time.monotonic``."""
    accepted: bool = False
    """It was let through and did its work."""
    refused: bool = False
    """The limits did not let it through."""
    valid: bool = True
    limits: dict[str, str] = field(default_factory=dict)
    """The headers about the limits, as of when it was let through, however long its answer takes."""
    ended: bool = False
    """It is no longer in flight."""
    end: str = ""
    """How its stream ended."""

    @property
    def stream(self) -> bool:
        return self.params.get("stream") is True


def _message_call(number: int, body: bytes, headers: Mapping[str, str]) -> MessageCall:
    names = {name.lower(): value for name, value in headers.items()}
    call = MessageCall(number, "", {}, names, time.monotonic())
    try:
        params = json.loads(body)
        call.params = params if isinstance(params, dict) else {}
        call.prompt = prompt_of(call.params)
    except (ValueError, LookupError, TypeError, AttributeError):
        call.valid = False
    return call


@dataclass
class Meter:
    """How much of one limit is used."""

    used: float = 0.0
    at: float = 0.0
    """For when that holds; the beginning of the window."""

    def turn(self, manners: Manners, limit: int, now: float) -> None:
        """Bring it up to date."""
        if not self.at:
            self.at = now
        elif manners.window:
            windows = (now - self.at) // manners.minute
            self.used, self.at = 0.0 if windows else self.used, self.at + windows * manners.minute
        else:
            self.used, self.at = max(self.used - (now - self.at) * limit / manners.minute, 0.0), now

    def wait(self, manners: Manners, limit: int, need: float, now: float) -> float:
        """Seconds until ``need`` more can be used."""
        lacking = self.used + need - self.capacity(manners, limit)
        if lacking <= 1e-9:
            return 0.0
        if manners.window:
            return self.at + manners.minute - now
        return lacking * manners.minute / limit if limit else manners.minute

    @staticmethod
    def capacity(manners: Manners, limit: int) -> float:
        return limit if manners.window else min(max(limit / manners.burst_share, 1.0), limit)

    def headers(self, name: str, manners: Manners, limit: int, need: float, now: float) -> dict[str, str]:
        left = max(math.floor(self.capacity(manners, limit) - self.used + 1e-9), 0)
        named = {"limit": str(limit), "remaining": str(left)}
        if manners.reset != "absent":
            if manners.reset == "next":
                wait = self.wait(manners, limit, need, now)
            else:
                wait = self.at + manners.minute - now if manners.window else self.used * manners.minute / max(limit, 1)
            named["reset"] = manners.stamp(datetime.now(timezone.utc) + timedelta(seconds=wait))
        return {f"anthropic-ratelimit-{name}-{key}": value for key, value in named.items()}


@dataclass
class Account:
    """One account's world; everything is guarded by the server's lock."""

    manners: Manners = field(default_factory=Manners)
    batches: list[Stored] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    paid: Counter[str] = field(default_factory=Counter)
    """Per prompt, how often a successful answer was produced."""
    paid_messages: Counter[str] = field(default_factory=Counter)
    """Those of them that the Messages API answered."""
    sent: Counter[str] = field(default_factory=Counter)
    """Per prompt, how often it was accepted, whatever came of it."""
    sdk_retries: int = 0
    canceled: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    """Calls that came to wait for their ``hold``."""
    messages: list[MessageCall] = field(default_factory=list)
    """Every call of the Messages API, in the order they came."""
    accepted_at: list[float] = field(default_factory=list)
    """When the limits let a message call through, by ``time.monotonic``."""
    refused: int = 0
    """Message calls that the limits refused."""
    input_tokens: int = 0
    """Of the accepted message calls, as the limits count."""
    streams: int = 0
    """Accepted message calls that asked for a stream."""
    in_flight: int = 0
    most_in_flight: int = 0
    """Message calls at once, at most. A call ends just before the end of its answer is sent, so a client is never
    taken for having had more of them than it had."""
    meters: dict[str, Meter] = field(default_factory=lambda: {"requests": Meter(), "input-tokens": Meter()})

    @property
    def accepted(self) -> int:
        """Message calls that were let through."""
        return len(self.accepted_at)

    def enter(self, number: int, body: bytes, headers: Mapping[str, str]) -> MessageCall:
        """A message call has come."""
        call = _message_call(number, body, headers)
        self.messages.append(call)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        return call

    def leave(self, call: MessageCall) -> None:
        self.in_flight -= not call.ended
        call.ended = True

    def _limits(self, prompt: str) -> Iterator[tuple[str, Meter, int, int]]:
        for name, limit, need in (
            ("requests", self.manners.messages_limit, 1),
            ("input-tokens", self.manners.input_tokens_limit, tokens_of(prompt)),
        ):
            if limit is not None:
                yield name, self.meters[name], limit, need

    def admit(self, call: MessageCall) -> Answer | None:
        """Let a message call through, or refuse it because of a limit."""
        now, waits = time.monotonic(), {}
        for name, meter, limit, need in self._limits(call.prompt):
            meter.turn(self.manners, limit, now)
            waits[name] = meter.wait(self.manners, limit, need, now)
        wait = max(waits.values(), default=0.0)
        if wait:
            call.refused = True
            self.refused += 1
            what = " and ".join(name.replace("-", " ") for name, seconds in waits.items() if seconds)
            answer = refusal(429, "rate_limit_error", f"This request would exceed your rate limit of {what} per minute")
            answer.headers["retry-after"] = str(math.ceil(wait))
            if self.manners.precise:
                answer.headers["retry-after-ms"] = str(math.ceil(wait * 1000))
            return answer
        for _, meter, _, need in self._limits(call.prompt):
            meter.used += need
        call.accepted = True
        self.accepted_at.append(now)
        self.input_tokens += tokens_of(call.prompt)
        call.limits = self.limit_headers(call)
        return None

    def limit_headers(self, call: MessageCall) -> dict[str, str]:
        """What is left, as of now."""
        now, headers = time.monotonic(), dict[str, str]()
        for name, meter, limit, need in self._limits(call.prompt):
            meter.turn(self.manners, limit, now)
            headers |= meter.headers(name, self.manners, limit, need, now)
        return headers

    @property
    def own(self) -> list[Stored]:
        """The batches that are no stranger's."""
        return [batch for batch in self.batches if not batch.foreign]

    @property
    def orphans(self) -> list[str]:
        """Own batches that nobody ever read to the end."""
        return [batch.id for batch in self.own if not batch.fetched]

    def add_foreign(self, count: int, *, age: float = 0.0, looks: int = 0, manners: Manners | None = None) -> Stored:
        """Another application's batch."""
        requests = [
            {"custom_id": f"other-{i}", "params": {"messages": [{"role": "user", "content": f"other {i}"}]}}
            for i in range(count)
        ]
        created = datetime.now(timezone.utc) - timedelta(seconds=age)
        own = manners or Manners(looks=looks)
        batch = Stored(f"msgbatch_foreign{next(_ids):04}", requests, created, own)
        self.batches.append(batch)
        return batch


class UnfriendlyServer:
    """The API on a free port, as a context manager.

    >>> with UnfriendlyServer() as server:
    ...     server.account("a").manners = Manners(eol=b"\\r\\n")
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.accounts: dict[str, Account] = {}
        self.trapped: list[str] = []
        self._servers = [_server(self, _Handler), _server(self, _Trap)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_address[1]}"

    @property
    def trap(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_address[1]}"

    def account(self, name: str = "default") -> Account:
        with self.lock:
            return self.accounts.setdefault(name, Account())

    def whose(self, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """The account that a call is on, and the headers in which its answer names it."""
        return headers.get("x-account", "default"), {}

    def refuses(self, headers: Mapping[str, str]) -> bool:
        """Whether the credential of a call is none."""
        return False

    def exchange(self, body: bytes) -> dict[str, Any]:
        """A token for what a workload identifies itself with."""
        raise NotImplementedError

    def __enter__(self) -> UnfriendlyServer:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    api: UnfriendlyServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the game."""


def _server(api: UnfriendlyServer, handler: type[BaseHTTPRequestHandler]) -> _Server:
    server = _Server(("127.0.0.1", 0), handler)
    server.api = api
    return server


class _Trap(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.api.trapped.append(f"{self.command} {self.path}")  # type: ignore[attr-defined]
        self.send_error(418)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None: ...


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 0
    server: _Server
    _named: Mapping[str, str] = {}

    def log_message(self, format: str, *args: Any) -> None: ...

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_GET(self) -> None:
        self._call()

    def do_POST(self) -> None:
        self._call()

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _call(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self._body()
        if length and len(body) < length:  # the client died while it sent
            self.close_connection = True
            return
        url = urlsplit(self.path)
        parts = [part for part in url.path.split("/") if part]
        api = self.server.api
        if url.path == "/v1/oauth/token":
            self._send(Manners(), _json(api.exchange(body)))
            return
        name, self._named = api.whose(self.headers)
        account = api.account(name)
        endpoint = _endpoint(self.command, parts)
        with api.lock:
            account.calls[endpoint] += 1
            number = account.calls[endpoint]
            account.sdk_retries += self.headers.get("x-stainless-retry-count", "0") != "0"
            call = account.enter(number, body, dict(self.headers)) if endpoint == "messages" else None
        try:
            self._answer(account, endpoint, number, parts, parse_qs(url.query), body, call)
        finally:
            self._leave(account, call)

    def _leave(self, account: Account, call: MessageCall | None) -> None:
        if call is not None:
            with self.server.api.lock:
                account.leave(call)

    def _answer(
        self,
        account: Account,
        endpoint: str,
        number: int,
        parts: list[str],
        query: dict[str, list[str]],
        body: bytes,
        call: MessageCall | None,
    ) -> None:
        api, manners = self.server.api, account.manners
        if not (self.headers.get("authorization") or self.headers.get("x-api-key")) or api.refuses(self.headers):
            self._leave(account, call)
            self._send(manners, refusal(401, "authentication_error", "no key"))
            return
        script = manners.script.get(endpoint, ())
        planned = script[number - 1] if number <= len(script) else manners.forever.get(endpoint)
        if planned is None and call is not None and manners.call is not None:
            planned = manners.call(number, call.prompt, call.params)
        if planned is None and manners.storm is not None:
            with api.lock:
                planned = manners.storm.draw(endpoint)
        ordinary: Answer | None = None
        if planned is None or planned.acts:
            with api.lock:
                ordinary = self._act(api, account, endpoint, parts, query, body, call)
        # What was refused did not act.
        answer = ordinary if call is not None and call.refused else planned or ordinary
        assert answer is not None
        if answer.hold is not None:
            with api.lock:
                account.held.append(endpoint)
            answer.hold.wait(60)
        if answer.drop and answer.acts and endpoint == "results" and ordinary is not None and ordinary.status == 200:
            self._send_results(account, parts[3], random.choice(("short", "reset")))
            return
        if call is not None:
            if call.accepted and manners.message_seconds:
                time.sleep(manners.message_seconds)
            if answer.headers.get("Content-Type") in ("application/json", EVENTS):
                with api.lock:
                    limits = call.limits or account.limit_headers(call)
                answer = replace(answer, headers={**limits, **answer.headers})
            if isinstance(answer, Events):
                self._send_events(account, call, answer)
                return
            self._leave(account, call)
        if answer.drop:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if planned is None and endpoint == "results" and answer.status == 200:
            self._send_results(account, parts[3])
            return
        self._send(manners, answer)

    # -- what the calls do

    def _act(
        self,
        api: UnfriendlyServer,
        account: Account,
        endpoint: str,
        parts: list[str],
        query: dict[str, list[str]],
        body: bytes,
        call: MessageCall | None = None,
    ) -> Answer:
        manners = account.manners
        if endpoint == "unknown":
            return NOT_FOUND
        if endpoint == "create":
            requests = json.loads(body)["requests"]
            if len({request["custom_id"] for request in requests}) != len(requests):
                return refusal(400, "invalid_request_error", "requests: duplicate custom_id")
            own = manners
            stored = Stored(f"msgbatch_{next(_ids):06}", requests, datetime.now(timezone.utc), own)
            account.batches.append(stored)
            for request, result in zip(requests, stored.results(), strict=True):
                prompt = prompt_of(request["params"])
                account.sent[prompt] += 1
                account.paid[prompt] += result["type"] == "succeeded"
            return _json(self._object(api, stored, manners))
        if call is not None:
            if not call.valid:
                return refusal(400, "invalid_request_error", "messages: Field required")
            if (refused := account.admit(call)) is not None:
                return refused
            account.streams += call.stream
            call.end = manners.streaming.end_of(account.streams, call) if call.stream else ""
            account.sent[call.prompt] += 1
            if call.end != "error first":
                account.paid[call.prompt] += 1
                account.paid_messages[call.prompt] += 1
            message = message_of(manners, account.accepted - 1, call.params)
            if not call.stream:
                return Answer(200, json.dumps(message).encode(), {"Content-Type": "application/json"})
            streaming = manners.streaming
            events = [
                streaming.encoded(event, manners.ascii) for event in streaming.events(message, manners.extra, call.end)
            ]
            return Events(200, b"", {"Content-Type": EVENTS}, events=events)
        if endpoint == "list":
            return _json(self._page(api, account, query))
        found = next((batch for batch in account.batches if batch.id == parts[3]), None)
        if found is None:
            return NOT_FOUND
        if endpoint == "cancel":
            account.canceled.append(found.id)
            if manners.cancel_works and not found.ended:
                found.canceled = True
                if not found.foreign:
                    for request in found.requests:
                        account.paid[prompt_of(request["params"])] -= 1
        elif endpoint == "retrieve":
            found.looks += 1
            found.looked_at.append(time.monotonic())
        elif endpoint == "results" and not found.ended:
            return NOT_FOUND
        answer = _json(self._object(api, found, manners))
        if endpoint == "retrieve" and manners.asks is not None and not found.ended:
            answer.headers["retry-after"] = manners.asks
        return answer

    def _object(self, api: UnfriendlyServer, batch: Stored, manners: Manners) -> dict[str, Any]:
        tally = batch.tally() if batch.ended else Counter()
        counts = {"processing": 0 if batch.ended else len(batch.requests)} | {name: tally[name] for name in OUTCOMES}

        def stamp(moment: datetime) -> str:
            return manners.stamp(moment + timedelta(seconds=manners.ahead))

        own = {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": "ended" if batch.ended else manners.status_word,
            "request_counts": manners.counts(counts),
            "created_at": stamp(batch.created),
            "expires_at": stamp(batch.created + timedelta(days=1)),
            "ended_at": stamp(datetime.now(timezone.utc)) if batch.ended else None,
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"{api.trap}/v1/messages/batches/{batch.id}/results" if batch.ended else None,
            **manners.extra,
        }
        own |= {name: value(api) if callable(value) else value for name, value in manners.batch.items()}
        return {name: value for name, value in own.items() if value is not ...}

    def _page(self, api: UnfriendlyServer, account: Account, query: dict[str, list[str]]) -> dict[str, Any]:
        manners = account.manners
        shown = [batch for batch in account.batches if batch.shown]
        shown.sort(key=lambda batch: batch.created, reverse=True)
        if account.calls["list"] <= manners.lag:
            shown = [batch for batch in shown if batch.foreign]
        if after := query.get("after_id"):
            places = [i for i, batch in enumerate(shown) if batch.id == after[0]]
            shown = shown[places[0] + 1 :] if places else []
        limit = manners.page or int(query.get("limit", ["20"])[0])
        page = shown[:limit]
        if account.calls["list"] >= manners.strangers_stay:
            account.batches = [batch for batch in account.batches if "foreign" not in batch.id]
        answer = {
            "data": [self._object(api, batch, manners) for batch in page],
            "has_more": len(shown) > len(page),
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page and manners.last_id else None,
            **manners.extra,
        }
        return manners.list_page(answer, account.calls["list"])

    # -- how they look

    def _send(self, manners: Manners, answer: Answer, body: Iterator[bytes] | None = None) -> None:
        headers = {**answer.headers}
        if answer.to_trap:
            headers["Location"] = f"{self.server.api.trap}/stolen"
        if manners.request_id:
            headers.setdefault("request-id", "req_header")
        headers["Content-Length"] = str(len(answer.body))
        self._head(manners, answer.status, headers)
        self.wfile.write(answer.body)
        self._after(manners)

    def _head(self, manners: Manners, status: int, headers: Mapping[str, str]) -> None:
        headers = {"Date": self.date_time_string(time.time() + manners.ahead), **self._named, **headers}
        if manners.close == "says":
            headers["Connection"] = "close"
        names = {name: name.swapcase() if manners.odd_headers else name for name in headers}
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{names[name]}: {value}" for name, value in headers.items())]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def _after(self, manners: Manners) -> None:
        if manners.close != "no":
            self.close_connection = True

    def _send_chunks(self, manners: Manners, chunks: Iterable[bytes]) -> None:
        for chunk in chunks:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            if manners.trickle:
                time.sleep(manners.trickle)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _send_events(self, account: Account, call: MessageCall, answer: Events) -> None:
        manners, headers = account.manners, {"Cache-Control": "no-cache", **answer.headers}
        if manners.request_id:
            headers["request-id"] = "req_header"
        headers["Transfer-Encoding"] = "chunked"
        chunks, data = answer.events, b"".join(answer.events)
        if manners.coding:
            data, headers["Content-Encoding"] = _coded(manners.coding, data)
            chunks = [data]
        broken = call.end in ("cut", "reset")
        if manners.chunks:
            chunks = list(_cut(data[: len(data) // 2] if broken else data, manners.chunks))
        elif broken:
            # In the middle of an event, too.
            half = len(chunks) // 2
            chunks = [*chunks[:half], chunks[half][: len(chunks[half]) // 2]]
        if call.end == "done":
            chunks = [*chunks, b"data: [DONE]\n\n", b"data:\n\n", b"data: \n\n", b": keep-alive\n\n"]
        self._head(manners, 200, headers)
        self._send_chunks(manners, chunks)
        self._leave(account, call)
        broken = broken or call.end == "cut after"
        if not broken:
            self.wfile.write(b"0\r\n\r\n")
            self._after(manners)
            return
        self.close_connection = True
        if call.end == "reset":
            self._reset()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send_results(self, account: Account, batch_id: str, how: str | None = None) -> None:
        manners = account.manners
        with self.server.api.lock:
            batch = next(batch for batch in account.batches if batch.id == batch_id)
            batch.downloads += 1
            download = batch.downloads
            rows = [
                {"custom_id": request["custom_id"], "result": result, **manners.extra}
                for request, result in zip(batch.requests, batch.results(), strict=True)
            ]
        if manners.order == "reversed":
            rows.reverse()
        elif manners.order == "shuffled":
            random.Random(batch_id).shuffle(rows)
        encoded = [manners.line(json.dumps(row, ensure_ascii=manners.ascii).encode("utf-8")) for row in rows]
        encoded = manners.lines(encoded, download)
        if how is None:
            how = manners.cut[download - 1] if download <= len(manners.cut) else ""
        if how == "boundary":
            encoded = encoded[: len(encoded) // 2]
        joint = b"".join([manners.eol, *(blank + manners.eol for blank in manners.blanks)])
        data = joint.join(encoded) + (manners.eol if manners.final_newline and encoded else b"")
        if how == "middle":
            data = data[: len(data) // 2 + 3]
        headers = {"Content-Type": "application/x-jsonl"}
        if manners.request_id:
            headers["request-id"] = "req_header"
        if manners.coding:
            data, headers["Content-Encoding"] = _coded(manners.coding, data)
        if how in ("short", "reset"):
            headers["Content-Length"] = str(len(data))
            self._head(manners, 200, headers)
            self.wfile.write(data[: len(data) // 2])
            if how == "reset":
                self._reset()
            self.close_connection = True
            return
        if not manners.chunks:
            headers["Content-Length"] = str(len(data))
            self._head(manners, 200, headers)
            self.wfile.write(data)
        else:
            headers["Transfer-Encoding"] = "chunked"
            self._head(manners, 200, headers)
            self._send_chunks(manners, _cut(data, manners.chunks))
            self.wfile.write(b"0\r\n\r\n")
        with self.server.api.lock:
            batch.fetched += not how
        self._after(manners)


def _endpoint(method: str, parts: list[str]) -> str:
    match parts:
        case ["v1", "messages"]:
            return "messages"
        case ["v1", "messages", "batches"]:
            return "create" if method == "POST" else "list"
        case ["v1", "messages", "batches", _]:
            return "retrieve"
        case ["v1", "messages", "batches", _, ("results" | "cancel") as what]:
            return what
    return "unknown"


def _cut(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    turns, at = itertools.cycle(sizes), 0
    while at < len(data):
        size = next(turns)
        yield data[at : at + size]
        at += size


def _json(value: Any) -> Answer:
    return Answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _coded(coding: str, data: bytes) -> tuple[bytes, str]:
    if coding == "gzip":
        return gzip.compress(data), "gzip"
    if coding == "raw deflate":
        packer = zlib.compressobj(wbits=-15)
        return packer.compress(data) + packer.flush(), "deflate"
    return zlib.compress(data), "deflate"


def token() -> str:
    """A short random name."""
    return base64.b32encode(random.randbytes(5)).decode().lower()


with contextlib.suppress(ImportError):
    import pytest

    pytest.register_assert_rewrite("tests.adversarial.cases")
