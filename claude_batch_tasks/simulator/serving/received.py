"""What was received of a call: its record in the journal and the log, its body and query."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass

from starlette.requests import Request

from ..batch import new_id
from ..journal import Call
from ..prompts import ApiError
from ..script import Endpoint
from ..validation import Terms
from ..world import World
from .accounts import Account, read_terms

logger = logging.getLogger("claude_batch_tasks.simulator")


@dataclass
class Received:
    """A call of a known account."""

    request: Request
    world: World
    call: Call
    account: Account

    @property
    def terms(self) -> Terms:
        """What its requests are checked against."""
        assert self.call.endpoint is not None
        return read_terms(self.request, self.call.endpoint, self.world, self.account)

    async def read_body(self, limit: int) -> bytearray:
        """Read the body, at most `limit` bytes.

        A longer body is read to its end and discarded: many clients cannot read an answer while they are still sending.

        Raises:
            ApiError: the body is longer.
        """
        body = bytearray()
        size = 0
        async for chunk in self.request.stream():
            size += len(chunk)
            if size <= limit:
                body += chunk
            else:
                body.clear()
        if size > limit:
            raise ApiError("request_too_large", "Request exceeds the maximum size")
        return body

    def read_limit(self) -> int:
        """Return how many entries a page is to have.

        Raises:
            ApiError: it is no number from 1 to 1000.
        """
        limit = self.request.query_params.get("limit", "20")
        if not limit.lstrip("-").isdigit():
            raise ApiError("invalid_request_error", "limit: Input should be a valid integer")
        if not 1 <= int(limit) <= 1000:
            bound = "greater than or equal to 1" if int(limit) < 1 else "less than or equal to 1000"
            raise ApiError("invalid_request_error", f"limit: Input should be {bound}")
        return int(limit)


def record_call(request: Request, endpoint: Endpoint | None) -> Call:
    world: World = request.app.state.world
    retries = request.headers.get("x-stainless-retry-count", "")
    call = Call(
        number=len(world.calls) + 1,
        at=world.clock.show(world.now()),
        endpoint=endpoint,
        method=request.method,
        path=request.url.path,
        batch_id=request.path_params.get("batch_id"),
        request_id=new_id("req_", "011C"),
        sdk_retries=int(retries) if retries.isdecimal() else 0,
    )
    world.calls.append(call)
    return call


def common_headers(call: Call) -> dict[str, str]:
    """Return the headers of every answer of the API."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return {"request-id": call.request_id, "traceresponse": f"00-{trace}-{span}-01"}


def log_call(call: Call) -> None:
    what = call.endpoint or "-"
    faults = f"  fault: {', '.join(call.faults)}" if call.faults else ""
    reason = f"  {call.method} {call.path}: {call.reason}" if call.reason else ""
    logger.info("%-8s %s  %s%s%s", what, call.status or "---", call.batch_id or "", faults, reason)
