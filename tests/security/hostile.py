"""A server in Anthropic's place that means harm, and another host that nothing of ours may ever reach."""

from __future__ import annotations

import gzip
import json
import socket
import socketserver
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

KEY = "sk-ant-api03-hostile-key-never-to-be-seen"

Body = Callable[[], Iterator[bytes]]


class Hostile(socketserver.ThreadingTCPServer):
    """Answers each request with ``head`` and then ``body``, until the client hangs up. Keeps the heads of requests."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[str] = []
        self.sent = 0
        self.head: Callable[[str], bytes] = lambda request: head(200)
        self.body: Body = lambda: iter(())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answers(self, first: bytes, body: Body = lambda: iter(())) -> None:
        self.head, self.body, self.sent = (lambda request: first), body, 0

    def __enter__(self) -> Hostile:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what is hoped for."""


class _Handler(socketserver.StreamRequestHandler):
    server: Hostile

    def handle(self) -> None:
        lines = []
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            lines.append(line.decode("latin-1"))
        if not lines:
            return
        length = next((int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length")), 0)
        self.rfile.read(length)
        request = "".join(lines)
        self.server.seen.append(request)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.wfile.write(self.server.head(request))
        for part in self.server.body():
            self.wfile.write(part)
            self.server.sent += len(part)


def head(status: int, **headers: str) -> bytes:
    """The head of an answer whose end is that of the connection; ``headers`` with underscores for hyphens."""
    named = {"Content-Type": "application/json", "Connection": "close"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode()


def for_ever(part: bytes, first: bytes = b"") -> Body:
    """The same again and again."""

    def body() -> Iterator[bytes]:
        yield first
        while True:
            yield part * max(65_536 // len(part), 1)

    return body


def packed(gigabytes: int, *, first: bytes = b"", part: bytes = b" ", last: bytes = b"") -> Body:
    """So many gigabytes of the same, as gzip of a thousandth."""

    def body() -> Iterator[bytes]:
        pack = zlib.compressobj(9, zlib.DEFLATED, 31)
        yield pack.compress(first)
        for _ in range(gigabytes * 1000):
            yield pack.compress(part * (1_000_000 // len(part)))
        yield pack.compress(last) + pack.flush()

    return body


def packed_twice(gigabytes: int) -> bytes:
    """A gzip of a gzip of spaces."""
    return gzip.compress(b"".join(packed(gigabytes)()), 9)


def error(status: int, message: str, **headers: str) -> tuple[bytes, Body]:
    """An error in the API's own form."""
    body = json.dumps({"type": "error", "error": {"type": "some_error", "message": message}}).encode()
    return head(status, **headers), lambda: iter([body])
