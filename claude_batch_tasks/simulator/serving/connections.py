"""The connections below HTTP: access to them, and their end without an answer."""

from __future__ import annotations

import asyncio
import socket
import struct

from starlette.requests import Request
from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol


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


async def await_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def hang_up(request: Request, abruptly: bool) -> Response:
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
