"""The progress page in terms of ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import aclosing
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from claude_batch_tasks.contrib.web.answers import Answer, Asked

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def read_scope(scope: Scope) -> Asked:
    """Return what a request asks for."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    # Behind a proxy that takes a part of the path away, the path has only what Starlette has added to the root.
    for mounted_at in (root, root.removeprefix(str(scope.get("app_root_path", "")))):
        if path == mounted_at or path.startswith(f"{mounted_at}/"):
            path = path[len(mounted_at) :]
            break
    if not path and not root:
        path = "/"
    return Asked(scope["method"], path, scope["query_string"].decode("latin-1"), quote(root))


async def send_answer(send: Send, answer: Answer, *, head: bool) -> None:
    """Send a whole answer."""
    length = ("Content-Length", str(len(answer.body)))
    await _send_start(send, answer.status, (*answer.headers, length))
    await send({"type": "http.response.body", "body": b"" if head else answer.body})


async def send_stream(send: Send, headers: Iterable[tuple[str, str]], chunks: AsyncIterator[bytes] | None) -> None:
    """Send an answer in parts; of None only the headers."""
    await _send_start(send, HTTPStatus.OK, headers)
    if chunks is not None:
        async with aclosing(chunks):  # type: ignore[type-var]
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


class Client:
    """The client that waits for an answer, and may go."""

    def __init__(self, receive: Receive) -> None:
        self._gone = asyncio.ensure_future(_wait_for_disconnect(receive))

    async def wait_until_gone(self, seconds: float) -> bool:
        """Wait, and return whether the client is gone."""
        await asyncio.wait([self._gone], timeout=seconds)
        return self._gone.done()

    def stop_listening(self) -> None:
        """Stop listening to the client."""
        self._gone.cancel()


async def refuse_other(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what is no request: the start and the end of a server, and a WebSocket."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
        return
    while scope["type"] == "lifespan":
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_start(send: Send, status: HTTPStatus, headers: Iterable[tuple[str, str]]) -> None:
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status.value, "headers": encoded})
