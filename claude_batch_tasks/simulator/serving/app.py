"""The HTTP side of the simulator: Anthropic's endpoints, with the faults that strike them."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from .. import control
from ..faults import Target
from ..prompts import ApiError
from ..script import Endpoint, Scenario, error_type
from ..world import World
from .accounts import identify_account
from .connections import HangUp, Stall, await_disconnect, hang_up
from .effects import act_under
from .received import Received, common_headers, log_call, record_call
from .replies import error_reply, make_response
from .routes import ROUTES, Prepare


def build_app(scenario: Scenario) -> Starlette:
    """Build the simulator as an ASGI application. Dropping connections needs `Protocol`."""
    routes = [*(_make_route(path, methods) for path, methods in ROUTES.items()), *control.make_routes()]
    app = Starlette(routes=routes, exception_handlers={404: _refuse_path, 405: _refuse_path})
    app.state.world = World(scenario)
    return app


def _make_route(path: str, methods: dict[str, tuple[Endpoint, Prepare]]) -> Route:
    async def serve(request: Request) -> Response:
        endpoint, prepare = methods["GET" if request.method == "HEAD" else request.method]
        return await _serve_call(request, endpoint, prepare)

    return Route(path, serve, methods=list(methods))


async def _refuse_path(request: Request, refused: Exception) -> Response:
    """Answer a call that reaches no endpoint: the path, or its method, is unknown."""
    call = record_call(request, None)
    if isinstance(refused, HTTPException) and refused.status_code == 405:
        error = ApiError("invalid_request_error", "Method Not Allowed", 405, dict(refused.headers or {}))
        call.reason = "not served: no such method"
    else:
        error = ApiError("not_found_error", "Not Found")
        call.reason = "not served: no such path"
    call.status, call.error = error.status, error.kind
    log_call(call)
    reply = error_reply(error, call.request_id)
    reply.headers = {**common_headers(call), **reply.headers}
    return make_response(reply, request)


async def _serve_call(request: Request, endpoint: Endpoint, prepare: Prepare) -> Response:
    """Answer one call: find its account, prepare its work, choose the faults, and do the work."""
    world: World = request.app.state.world
    call = record_call(request, endpoint)
    cut = None
    headers: dict[str, str] = {}
    try:
        account = identify_account(request)
        call.account, headers = account.name, account.headers
        work = await prepare(Received(request, world, call, account))
        target = Target(endpoint, work.subject, work.parts)
        struck = world.faults.strike_call(target, world.moment_of(work.batch))
        call.faults = [fault.label for fault in struck]
        reply, cut = await act_under(struck, work)
    except ApiError as error:
        call.error, call.reason = error.kind, error.message
        reply = error_reply(error, call.request_id)
    except HangUp as end:
        log_call(call)
        return await hang_up(request, end.abruptly)
    except Stall:
        log_call(call)
        await await_disconnect(request)
        return Response(status_code=499)
    except ClientDisconnect:
        call.reason = "the client closed the connection"
        log_call(call)
        return Response(status_code=499)
    call.status = reply.status
    if not reply.proxy:
        reply.headers = {**common_headers(call), **headers, **reply.headers}
    if reply.status >= 400 and call.error is None:
        call.error = error_type(reply.status)
    log_call(call)
    return make_response(reply, request, cut)
