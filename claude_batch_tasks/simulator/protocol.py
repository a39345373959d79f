"""uvicorn's HTTP protocol, with the connection within reach of the application."""

from __future__ import annotations

import asyncio
import socket

from uvicorn.protocols.http.h11_impl import H11Protocol


class Protocol(H11Protocol):
    """Puts the transport into `request.state.transport`, so that a fault can close the connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # asyncio does this itself only where the listening socket was made with an explicit protocol; without it
        # every answer waits 40 ms for a delayed acknowledgement.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # uvicorn gives every request a copy of this as scope["state"].
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)
