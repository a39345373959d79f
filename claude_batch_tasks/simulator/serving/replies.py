"""Answers: their bodies in units, their headers, and how they are written to the connection."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..answers.shapes import error_json
from ..batch import new_id
from ..prompts import ApiError
from ..script import Fault, ResultsStyle
from .connections import HangUp, Stall, await_disconnect, hang_up

MESSAGE_ID = re.compile(rb"msg_\w+")


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


def json_reply(data: object) -> Reply:
    return Reply([msgspec.json.encode(data)])


def error_reply(error: ApiError, request_id: str) -> Reply:
    body = msgspec.json.encode(error_json(error.kind, error.message, request_id))
    headers = {"x-should-retry": "true" if _may_pass(error.status) else "false", **error.headers}
    return Reply([body], status=error.status, headers=headers)


def _may_pass(status: int) -> bool:
    """Return whether the same call may succeed later, as the API sees it."""
    return status in (408, 409, 429) or status >= 500


def end_lines(lines: Iterator[bytes], count: int, style: ResultsStyle) -> Iterator[bytes]:
    end = style.newline.encode() * (2 if style.blank_lines else 1)
    for number, line in enumerate(lines, 1):
        yield line if number == count and not style.final_newline else line + end


def make_response(reply: Reply, request: Request, cut: Fault | None = None) -> Response:
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
        await await_disconnect(request)
    except HangUp as end:
        # Gives what was sent time to arrive: a reset may overtake it.
        await asyncio.sleep(0.05)
        await hang_up(request, end.abruptly)


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
