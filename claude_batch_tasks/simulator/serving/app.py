"""The HTTP side of the simulator: Anthropic's endpoints, with the faults that strike them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import Literal, NoReturn

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from .. import control
from ..batch import new_id
from ..faults import Target
from ..journal import Call
from ..models import read_catalog
from ..prompts import ApiError, read_batch, read_message
from ..script import Behaviour, Endpoint, Scenario, error_type
from ..validation import Terms
from ..world import World
from .batches import cancel_batch, delete_batch, list_batches, retrieve_batch, send_results
from .connections import HangUp, Stall, await_disconnect, hang_up
from .effects import Work, act_under
from .messages import answer_prompt
from .replies import Reply, error_reply, make_response

logger = logging.getLogger("claude_batch_tasks.simulator")

#: Bodies over this size are read in a thread, so that other calls are answered meanwhile. Bytes.
LARGE_BODY = 1_000_000


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
    return make_response(error_reply(ApiError("not_found_error", "Not Found"), call.request_id), request)


def _record_call(request: Request, endpoint: Endpoint | None) -> Call:
    world: World = request.app.state.world
    retries = request.headers.get("x-stainless-retry-count", "")
    call = Call(
        number=len(world.calls) + 1,
        at=world.clock.show(world.now()),
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
        reply, cut = await act_under(struck, work)
    except ApiError as error:
        call.error, call.reason = error.kind, error.message
        reply = error_reply(error, call.request_id)
    except HangUp as end:
        _log_call(call)
        return await hang_up(request, end.abruptly)
    except Stall:
        _log_call(call)
        await await_disconnect(request)
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
    return make_response(reply, request, cut)


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


def read_terms(request: Request, behaviour: Behaviour, in_batch: bool) -> Terms:
    """Return what the requests of a call are checked against."""
    betas = ",".join(request.headers.getlist("anthropic-beta")).split(",")
    return Terms(
        request.headers["anthropic-version"],
        read_catalog(behaviour.models),
        frozenset(beta.strip() for beta in betas if beta.strip()),
        in_batch,
    )


async def _prepare_call(request: Request, endpoint: Endpoint, world: World, call: Call) -> Work:
    """Read a call, as far as this changes nothing.

    Raises:
        ApiError: the call is refused at once.
    """
    account = call.account
    behaviour = world.behaviour
    terms = read_terms(request, behaviour, in_batch=endpoint == "create")
    if endpoint == "create":
        body = await _read_body(request, behaviour.max_bytes)
        judge = world.make_judge("batch")
        if len(body) > LARGE_BODY:
            prompts = await asyncio.to_thread(read_batch, body, judge, terms)
        else:
            prompts = read_batch(body, judge, terms)

        async def create_batch() -> Reply:
            batch = world.create_batch(account, prompts)
            call.batch_id = batch.id
            return await retrieve_batch(request, world, batch)

        return Work(create_batch)
    if endpoint == "messages":
        body = await _read_body(request, behaviour.max_message_bytes)
        judge = world.make_judge("messages")
        prompt, stream = read_message(body, judge, terms)
        return Work(
            lambda: answer_prompt(world, account, prompt, stream),
            subject=prompt.digest.hex(),
            parts="events" if stream else "",
        )
    if endpoint == "list":
        return Work(lambda: list_batches(request, world, account))

    batch = world.find_batch(account, request.path_params["batch_id"])
    if batch is None:
        # Faults also see calls for batches that do not exist: a 500 comes before any lookup.
        missing = ApiError("not_found_error", "Not found")
        return Work(lambda: _raise_error(missing), subject=request.path_params["batch_id"])
    acts = {"retrieve": retrieve_batch, "cancel": cancel_batch, "delete": delete_batch, "results": send_results}
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


def _log_call(call: Call) -> None:
    what = call.endpoint or "-"
    faults = f"  fault: {', '.join(call.faults)}" if call.faults else ""
    reason = f"  {call.method} {call.path}: {call.reason}" if call.reason else ""
    logger.info("%-8s %s  %s%s%s", what, call.status or "---", call.batch_id or "", faults, reason)
