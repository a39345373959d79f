"""The HTTP side of the simulator: Anthropic's endpoints, with the faults that strike them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import msgspec
from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from . import control
from .answers import Message, error_json, make_message
from .batch import Batch, new_id
from .faults import Target
from .journal import Call
from .prompts import ApiError, Judge, Prompt, read_batch, read_message
from .script import MESSAGE_OF, Endpoint, ErrorType, Fault, ResultsStyle, Scenario, error_type
from .world import World

logger = logging.getLogger("claude_batch_tasks.simulator")

#: The media type of a raw body, by its first character; others are plain text.
MEDIA_TYPE_OF = {"<": "text/html; charset=utf-8", "{": "application/json", "[": "application/json"}
MESSAGE_ID = re.compile(rb"msg_\w+")
#: Bodies over this size are read in a thread, so that other calls are answered meanwhile. Bytes.
LARGE_BODY = 1_000_000


class Protocol(H11Protocol):
    """The HTTP protocol of uvicorn, which gives the application access to the connection.

    It puts the transport into `request.state.transport`, so that a fault can close the connection.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # asyncio does this itself only if the listening socket was made with an explicit protocol; without it, every
        # answer waits 40 ms for a delayed acknowledgement.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # uvicorn gives every request a copy of this as scope["state"].
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


class HangUp(Exception):
    """The exception that closes the connection now; `abruptly`: with a TCP reset."""

    def __init__(self, abruptly: bool = False) -> None:
        super().__init__()
        self.abruptly = abruptly


class Stall(Exception):
    """The exception that sends nothing more, and keeps the connection open until the client closes it."""


@dataclass
class Reply:
    """An answer in units (the whole body, lines, events); a fault may cut it between units or inside one."""

    units: Iterable[bytes]
    count: int = 1
    status: int = 200
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    #: How to write results; everything else is written unit by unit.
    style: ResultsStyle | None = None
    #: Whether something in front of the API sends it, without the API's own headers.
    proxy: bool = False


@dataclass
class Work:
    """The work of a call. Faults count separately for each `subject`, a batch's number or a prompt's hash."""

    act: Callable[[], Awaitable[Reply]]
    subject: str = ""
    batch: Batch | None = None
    #: What the answer has several of, if it is not one piece.
    parts: Literal["", "events", "lines"] = ""


def build_app(scenario: Scenario) -> Starlette:
    """Build the simulator as an ASGI application. Dropping connections needs `Protocol`."""

    def make_route(path: str, endpoint: Endpoint, method: str) -> Route:
        async def serve(request: Request) -> Response:
            return await _serve_call(request, endpoint)

        return Route(path, serve, methods=[method])

    one = "/v1/messages/batches/{batch_id}"
    routes = [
        make_route("/v1/messages/batches", "create", "POST"),
        make_route("/v1/messages/batches", "list", "GET"),
        make_route(one, "retrieve", "GET"),
        make_route(one, "delete", "DELETE"),
        make_route(f"{one}/cancel", "cancel", "POST"),
        make_route(f"{one}/results", "results", "GET"),
        make_route("/v1/messages", "messages", "POST"),
        *control.make_routes(),
    ]
    app = Starlette(routes=routes, exception_handlers={404: _no_such_page, 405: _no_such_page})
    app.state.world = World(scenario)
    return app


async def _no_such_page(request: Request, _: Exception) -> Response:
    call = _record_call(request, None)
    call.status, call.error, call.reason = 404, "not_found_error", "not served: no such path"
    _log_call(call)
    return _make_response(_error_reply(ApiError("not_found_error", "Not Found"), call.request_id), request)


def _record_call(request: Request, endpoint: Endpoint | None) -> Call:
    world: World = request.app.state.world
    retries = request.headers.get("x-stainless-retry-count", "")
    call = Call(
        number=len(world.calls) + 1,
        at=world.now(),
        endpoint=endpoint,
        method=request.method,
        path=request.url.path,
        batch_id=request.path_params.get("batch_id"),
        request_id=new_id("req_"),
        sdk_retries=int(retries) if retries.isdecimal() else 0,
    )
    world.calls.append(call)
    return call


async def _serve_call(request: Request, endpoint: Endpoint) -> Response:
    """Answer one call: find its account, prepare its work, choose the faults, and do the work."""
    world: World = request.app.state.world
    call = _record_call(request, endpoint)
    cut = None
    headers: dict[str, str] = {}
    try:
        call.account, organization = identify_account(request)
        headers["anthropic-organization-id"] = organization
        work = await _prepare_call(request, endpoint, world, call)
        target = Target(endpoint, work.subject, work.parts)
        struck = world.faults.strike_call(target, world.moment_of(work.batch))
        call.faults = [fault.label for fault in struck]
        reply, cut = await _act_under(struck, work)
    except ApiError as error:
        call.error, call.reason = error.kind, error.message
        reply = _error_reply(error, call.request_id)
    except HangUp as end:
        _log_call(call)
        return await _hang_up(request, end.abruptly)
    except Stall:
        _log_call(call)
        await _await_disconnect(request)
        return Response(status_code=499)
    except ClientDisconnect:
        call.reason = "the client closed the connection"
        _log_call(call)
        return Response(status_code=499)
    call.status = reply.status
    if not reply.proxy:
        reply.headers = {"request-id": call.request_id, **headers, **reply.headers}
    if reply.status >= 400 and call.error is None:
        call.error = error_type(reply.status)
    _log_call(call)
    return _make_response(reply, request, cut)


def identify_account(request: Request) -> tuple[str, str]:
    """Return the account and organization of a call. Batches belong to an account: a key and a workspace.

    Raises:
        ApiError: the call has no key or no API version.
    """
    key = request.headers.get("x-api-key") or ""
    authorization = request.headers.get("authorization", "")
    if not key and authorization.lower().startswith("bearer "):
        key = authorization[len("bearer ") :].strip()
    if not key:
        raise ApiError("authentication_error", "x-api-key header is required")
    if not request.headers.get("anthropic-version"):
        raise ApiError("invalid_request_error", "anthropic-version: header is required")
    name = hashlib.sha256(key.encode()).hexdigest()
    organization = f"{name[:8]}-{name[8:12]}-4{name[13:16]}-8{name[17:20]}-{name[20:32]}"
    workspace = request.headers.get("anthropic-workspace-id")
    return f"key-{name[:8]}" + (f"/{workspace}" if workspace else ""), organization


async def _prepare_call(request: Request, endpoint: Endpoint, world: World, call: Call) -> Work:
    """Read a call, as far as this changes nothing.

    Raises:
        ApiError: the call is refused at once.
    """
    account = call.account
    behaviour = world.behaviour
    version = request.headers["anthropic-version"]
    if endpoint == "create":
        body = await _read_body(request, behaviour.max_bytes)
        judge = Judge(behaviour, "batch", world.attempts["batch"])
        if len(body) > LARGE_BODY:
            prompts = await asyncio.to_thread(read_batch, body, judge, version)
        else:
            prompts = read_batch(body, judge, version)

        async def create_batch() -> Reply:
            batch = world.create_batch(account, prompts)
            call.batch_id = batch.id
            return await _retrieve_batch(request, world, batch)

        return Work(create_batch)
    if endpoint == "messages":
        body = await _read_body(request, behaviour.max_message_bytes)
        judge = Judge(behaviour, "messages", world.attempts["messages"])
        prompt, stream = read_message(body, judge, version)
        return Work(
            lambda: _answer_prompt(world, account, prompt, stream),
            subject=prompt.digest.hex(),
            parts="events" if stream else "",
        )
    if endpoint == "list":
        return Work(lambda: _list_batches(request, world, account))

    batch = world.find_batch(account, request.path_params["batch_id"])
    if batch is None:
        # Faults also see calls for batches that do not exist: a 500 comes before any lookup.
        missing = ApiError("not_found_error", "Not found")
        return Work(lambda: _raise_error(missing), subject=request.path_params["batch_id"])
    acts = {"retrieve": _retrieve_batch, "cancel": _cancel_batch, "delete": _delete_batch, "results": _send_results}
    act = acts[endpoint]
    parts: Literal["", "lines"] = "lines" if endpoint == "results" else ""
    return Work(lambda: act(request, world, batch), subject=str(batch.number), batch=batch, parts=parts)


async def _raise_error(error: ApiError) -> NoReturn:
    raise error


async def _read_body(request: Request, limit: int) -> bytearray:
    """Read the body, at most `limit` bytes.

    A longer body is read to its end and discarded: many clients cannot read an answer while they are still sending.

    Raises:
        ApiError: the body is longer.
    """
    body = bytearray()
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            body += chunk
        else:
            body.clear()
    if size > limit:
        raise ApiError("request_too_large", "Request exceeds the maximum size")
    return body


# The work of each endpoint


async def _retrieve_batch(request: Request, world: World, batch: Batch) -> Reply:
    return _json_reply(batch.as_json(world.now(), str(request.base_url)))


async def _cancel_batch(request: Request, world: World, batch: Batch) -> Reply:
    now = world.now()
    if batch.has_ended(now):
        raise ApiError("invalid_request_error", f"Batch {batch.id} has already ended and cannot be canceled.")
    if batch.cancel_asked is None:
        batch.cancel_asked = now
    return _json_reply(batch.as_json(now, str(request.base_url)))


async def _delete_batch(request: Request, world: World, batch: Batch) -> Reply:
    if not batch.has_ended(world.now()):
        raise ApiError("invalid_request_error", f"Batch {batch.id} is still in progress: cancel it first.")
    batch.gone = True
    return _json_reply({"id": batch.id, "type": "message_batch_deleted"})


async def _send_results(request: Request, world: World, batch: Batch) -> Reply:
    now = world.now()
    if not batch.has_ended(now):
        raise ApiError("invalid_request_error", f"Batch {batch.id} has not ended: there are no results yet.")
    if batch.is_archived(now):
        raise ApiError("not_found_error", f"The results of batch {batch.id} are no longer available.")
    count, lines = batch.result_lines(now)
    style = batch.behaviour.results
    return Reply(_end_lines(lines, count, style), count, media_type="application/x-jsonl", style=style)


async def _list_batches(request: Request, world: World, account: str) -> Reply:
    query = request.query_params
    limit = query.get("limit", "20")
    if not limit.lstrip("-").isdigit():
        raise ApiError("invalid_request_error", "limit: Input should be a valid integer")
    if not 1 <= int(limit) <= 1000:
        bound = "greater than or equal to 1" if int(limit) < 1 else "less than or equal to 1000"
        raise ApiError("invalid_request_error", f"limit: Input should be {bound}")
    page, more = world.list_page(account, query.get("after_id"), query.get("before_id"), int(limit))
    now, base = world.now(), str(request.base_url)
    return _json_reply(
        {
            "data": [batch.as_json(now, base) for batch in page],
            "has_more": more,
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
        }
    )


async def _answer_prompt(world: World, account: str, prompt: Prompt, stream: bool) -> Reply:
    world.admit_call(account, prompt)
    await asyncio.sleep(world.behaviour.messages_seconds)
    world.send_prompt(account, prompt)
    headers = world.limit_headers(account)
    if prompt.outcome != "succeeded":
        kind = "api_error" if prompt.outcome in ("expired", "canceled") else prompt.outcome
        raise ApiError(msgspec.convert(kind, ErrorType), prompt.message, headers=headers)
    answer = make_message(prompt, new_id("msg_"), "standard", world.behaviour)
    if stream:
        events = list(_message_events(answer))
        return Reply(events, len(events), media_type="text/event-stream; charset=utf-8", headers=headers)
    reply = _json_reply(answer)
    reply.headers = headers
    return reply


def _message_events(answer: Message) -> Iterator[bytes]:
    """Yield a message as server-sent events."""

    def encode_event(kind: str, **data: Any) -> bytes:
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **data}))

    text = answer.content[0].text
    first = replace(answer.usage, output_tokens=1)
    start = replace(answer, content=[], stop_reason=None, usage=first)
    yield encode_event("message_start", message=start)
    yield encode_event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield encode_event("ping")
    for at in range(0, len(text), 40):
        yield encode_event("content_block_delta", index=0, delta={"type": "text_delta", "text": text[at : at + 40]})
    yield encode_event("content_block_stop", index=0)
    stop = {"stop_reason": answer.stop_reason, "stop_sequence": None}
    yield encode_event("message_delta", delta=stop, usage={"output_tokens": answer.usage.output_tokens})
    yield encode_event("message_stop")


# Faults


async def _act_under(faults: list[Fault], work: Work) -> tuple[Reply, Fault | None]:
    """Run the work, and let the faults strike before, after or in the answer.

    Returns:
        The answer, and the fault that strikes its body, if there is one.
    """
    fault = next((f for f in faults if f.effect != "delay"), None)
    await asyncio.sleep(_delay_seconds(faults, commit=False))
    if fault is None or fault.effect in ("cut", "append", "splice"):
        reply, cut = await work.act(), fault
    else:
        if fault.commit:
            await work.act()
        reply, cut = _apply_fault(fault), None
    await asyncio.sleep(_delay_seconds(faults, commit=True))
    return reply, cut


def _delay_seconds(faults: list[Fault], *, commit: bool) -> float:
    return sum(fault.seconds for fault in faults if fault.effect == "delay" and fault.commit == commit)


def _apply_fault(fault: Fault) -> Reply:
    if fault.effect == "drop":
        raise HangUp
    if fault.effect == "stall":
        raise Stall
    if fault.body is not None:
        return Reply(
            [fault.body.encode()],
            status=fault.status,
            media_type=MEDIA_TYPE_OF.get(fault.body.lstrip()[:1], "text/plain; charset=utf-8"),
            headers=fault.headers,
            proxy=fault.proxy,
        )
    kind = fault.error or error_type(fault.status)
    raise ApiError(kind, fault.message or MESSAGE_OF[kind], fault.status, fault.headers)


async def _await_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _hang_up(request: Request, abruptly: bool) -> Response:
    """Close the connection. The response that is returned goes nowhere."""
    transport: asyncio.Transport | None = getattr(request.state, "transport", None)
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if abruptly and connection is not None:
            # Lingering for zero seconds makes the close a reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        # The server notices the closed connection in the next turn of the loop, and then sends nothing.
        await asyncio.sleep(0)
    return Response(status_code=500)


def _strike_body(reply: Reply, fault: Fault) -> Iterator[bytes]:
    """Yield the units of an answer as a fault leaves them."""
    if fault.effect == "append":
        yield from reply.units
        yield (fault.body or "").encode()
    elif fault.effect == "splice":
        events = list(reply.units)
        yield from events[: max(1, int(reply.count * fault.at))]
        yield MESSAGE_ID.sub(new_id("msg_").encode(), events[0], count=1)
        yield from events[1:]
    else:
        yield from _cut_reply(reply, fault)


def _cut_reply(reply: Reply, fault: Fault) -> Iterator[bytes]:
    whole = int(reply.count * fault.at)
    for number, unit in enumerate(reply.units):
        if number < whole:
            yield unit
            continue
        if fault.how != "clean":
            yield unit[: max(1, len(unit) // 2)]
        break
    if fault.how in ("close", "reset"):
        raise HangUp(abruptly=fault.how == "reset")
    if fault.how == "stall":
        raise Stall


# Answers


def _json_reply(data: object) -> Reply:
    return Reply([msgspec.json.encode(data)])


def _error_reply(error: ApiError, request_id: str) -> Reply:
    body = msgspec.json.encode(error_json(error.kind, error.message, request_id))
    return Reply([body], status=error.status, headers={"request-id": request_id, **error.headers})


def _end_lines(lines: Iterator[bytes], count: int, style: ResultsStyle) -> Iterator[bytes]:
    end = style.newline.encode() * (2 if style.blank_lines else 1)
    for number, line in enumerate(lines, 1):
        yield line if number == count and not style.final_newline else line + end


def _make_response(reply: Reply, request: Request, cut: Fault | None = None) -> Response:
    if cut is None and isinstance(reply.units, list) and len(reply.units) == 1:
        return Response(reply.units[0], reply.status, reply.headers, reply.media_type)
    pieces = iter(reply.units) if cut is None else _strike_body(reply, cut)
    headers = reply.headers
    if reply.style is not None:
        pieces = _cut_chunks(pieces, reply.style.chunk_bytes)
        if reply.style.gzip and "gzip" in request.headers.get("accept-encoding", ""):
            pieces = _gzip_chunks(pieces)
            headers = {**headers, "content-encoding": "gzip"}
    return StreamingResponse(_stream_chunks(request, pieces), reply.status, headers, reply.media_type)


async def _stream_chunks(request: Request, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    try:
        for piece in pieces:
            yield piece
            # Making a large body must not keep other calls waiting.
            await asyncio.sleep(0)
    except Stall:
        await _await_disconnect(request)
    except HangUp as end:
        # Gives what was sent time to arrive: a reset may overtake it.
        await asyncio.sleep(0.05)
        await _hang_up(request, end.abruptly)


def _cut_chunks(units: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Yield the same bytes in chunks of `size`; what was made before a fault ends it still comes first."""
    buffer = bytearray()
    try:
        for unit in units:
            buffer += unit
            while len(buffer) >= size:
                yield bytes(buffer[:size])
                del buffer[:size]
    except (HangUp, Stall):
        if buffer:
            yield bytes(buffer)
        raise
    if buffer:
        yield bytes(buffer)


def _gzip_chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(wbits=31)
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def _log_call(call: Call) -> None:
    what = call.endpoint or "-"
    faults = f"  fault: {', '.join(call.faults)}" if call.faults else ""
    reason = f"  {call.method} {call.path}: {call.reason}" if call.reason else ""
    logger.info("%-8s %s  %s%s%s", what, call.status or "---", call.batch_id or "", faults, reason)
