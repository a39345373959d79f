"""obstore, one client for S3, Google Cloud Storage, Azure and a folder: the few calls that are made of it.

No call waits for longer than about a minute: each request has time-outs, and is tried again a few times. Whatever goes
wrong is ``CallFailed``. This module imports nothing of ours: ``helper`` runs it by itself in another process.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import IO, Any, NamedTuple, Protocol

import msgspec

#: Time-outs of a request: to connect, and with its whole answer.
_CLIENT: dict[str, Any] = {
    "connect_timeout": timedelta(seconds=5),
    "timeout": timedelta(seconds=30),
}

#: How often a request is repeated that a 5xx or a broken connection answered, and for how long.
_RETRIES: dict[str, Any] = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
}

#: Bytes of a part of a multipart upload, the least that S3 takes, and parts that are on their way at a time.
_PART, _PARTS = 5 * 1024 * 1024, 3

#: Objects that a listing shows in one page.
_PAGE = 1000

#: What in the text of an error says what was wrong, and holds no secret: of the protocol, and of the operating system.
_REASONS = (
    re.compile(r"(status)(?: code)?: (\d{3})"),
    re.compile(r"<Code>(\w{1,60})</Code>"),
    re.compile(r'message: "([A-Za-z -]{1,60})"|: ([A-Za-z -]{1,60}) \(os error'),
    re.compile(
        r"(dns error)|(InvalidCertificate)\((\w{1,60})|kind: (Timeout)|^Generic \w+ error: ([A-Za-z -]{1,60})$", re.M
    ),
)

#: Where machines and containers are asked for credentials of their own.
_METADATA = "//169.254."


class CallFailed(Exception):
    """A call failed: ``CallFailed(text, not_there)``, with what may be shown of the reason.

    ``not_there``: the answer was that something is not there, the object or the whole bucket.
    """

    @property
    def not_there(self) -> bool:
        return bool(self.args[1])


class Found(NamedTuple):
    """An object that a listing shows."""

    path: str
    modified_at: float
    """Epoch seconds, by the clock of the object store."""


class Calls(Protocol):
    """The calls, of whichever process makes them."""

    def put(self, path: str, data: bytes) -> None:
        """Write an object."""

    def read(self, path: str, start: int, end: int) -> bytes:
        """Return the bytes of an object from ``start`` to ``end``."""

    def read_end(self, path: str, most: int) -> tuple[int, bytes]:
        """Return how many bytes an object has, and the last of them."""

    def size(self, path: str) -> int:
        """Return how many bytes an object has."""

    def list(self, folder: str) -> list[Found]:
        """Return all objects in a folder and those below it."""

    def remove(self, paths: Sequence[str]) -> None:
        """Remove objects, some of which may not be there."""

    def open(self, path: str) -> int:
        """Begin an object; return the number of what writes it."""

    def write(self, number: int, data: bytes) -> None:
        """Append to an object that was begun."""

    def close(self, number: int, whole: bool) -> None:
        """End an object, which is there from now on; or, if it is not ``whole``, forget it."""


class Client:
    """``Calls`` on the objects below a URL, through obstore in this process.

    Args:
        url: as the setting ``payload_url`` has it.
    """

    def __init__(self, url: str) -> None:
        with _failing():
            import obstore

            self._api: Any = obstore
            self._store = _connect(url)
        self._writers: dict[int, Any] = {}
        self._opened = 0

    def put(self, path: str, data: bytes) -> None:
        with _failing():
            self._api.put(self._store, path, data)

    def read(self, path: str, start: int, end: int) -> bytes:
        with _failing():
            return bytes(self._api.get_range(self._store, path, start=start, end=end))

    def read_end(self, path: str, most: int) -> tuple[int, bytes]:
        with _failing():
            try:
                found = self._api.get(self._store, path, options={"range": {"suffix": most}})
                return int(found.meta["size"]), bytes(found.bytes())
            except self._api.exceptions.NotSupportedError:  # by Azure
                size = self.size(path)
                return size, self.read(path, max(size - most, 0), size)

    def size(self, path: str) -> int:
        with _failing():
            return int(self._api.head(self._store, path)["size"])

    def list(self, folder: str) -> list[Found]:
        with _failing():
            pages = self._api.list(self._store, folder, chunk_size=_PAGE)
            return [Found(each["path"], each["last_modified"].timestamp()) for page in pages for each in page]

    def remove(self, paths: Sequence[str]) -> None:
        with _failing():
            self._api.delete(self._store, list(paths))

    def open(self, path: str) -> int:
        with _failing():
            self._opened += 1
            writer = self._api.open_writer(self._store, path, buffer_size=_PART, max_concurrency=_PARTS)
            self._writers[self._opened] = writer
            return self._opened

    def write(self, number: int, data: bytes) -> None:
        with _failing():
            self._writers[number].write(data)

    def close(self, number: int, whole: bool) -> None:
        writer = self._writers.pop(number)
        if whole:
            with _failing():
                writer.close()
        else:
            with suppress(Exception):  # then the parts are left to the lifecycle rule of the bucket
                writer.__exit__(CallFailed, CallFailed("", False), None)


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except ImportError:
        text = "the package obstore is not installed in this process: pip install 'claude-batch-tasks[obstore]'"
        raise CallFailed(text, False) from None
    except BaseException as exc:  # of all its kinds; a URL in their texts may be signed
        if not isinstance(exc, Exception) and type(exc).__name__ != "PanicException":
            raise
        raise CallFailed(_describe(exc), isinstance(exc, FileNotFoundError)) from None


def _describe(exc: BaseException) -> str:
    """Return what may be shown of an error: its kind, and what is known to hold no secret."""
    text = str(exc)
    known = [" ".join(filter(None, found.groups())) for reason in _REASONS if (found := reason.search(text))]
    if _METADATA in text:
        known.append("no credentials in the environment, and none from the machine")
    return type(exc).__name__ + (f" ({', '.join(known)})" if known else "")


def _connect(url: str) -> Any:
    from obstore.store import from_url

    if url.startswith("file://"):
        return from_url(url, automatic_cleanup=True)  # of folders that are empty
    # An endpoint without TLS is one that somebody has named: of a test, or in a network of its own.
    endpoints = (value for name, value in os.environ.items() if "ENDPOINT" in name.upper())
    allow_http = any(value.startswith("http://") for value in endpoints)
    options: Any = {"client_options": {**_CLIENT, "allow_http": allow_http}, "retry_config": _RETRIES}
    return from_url(url, **options)


#: The calls of a client, by their names.
CALLS: dict[str, Callable[..., Any]] = {
    name: getattr(Client, name)
    for name in ("put", "read", "read_end", "size", "list", "remove", "open", "write", "close")
}


def serve() -> None:
    """Make the calls that come on the standard input, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # that of a terminal; what it is for decides when it ends
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    client: Client | None = None
    while True:
        try:
            call = receive_message(requests)
        except EOFError:
            return
        try:
            if client is None:
                client, answer = Client(call[0]), None
            else:
                answer = CALLS[call[0]](client, *call[1:])
            send_message(answers, (False, answer))
        except CallFailed as exc:
            send_message(answers, (True, exc.args))


def send_message(stream: IO[bytes], message: Any) -> None:
    """Write a message to a pipe."""
    data = msgspec.msgpack.encode(message)
    stream.write(len(data).to_bytes(4, "big") + data)
    stream.flush()


def receive_message(stream: IO[bytes]) -> Any:
    """Return the next message of a pipe.

    Raises:
        EOFError: there is none.
    """
    head = stream.read(4)
    if len(head) < 4:
        raise EOFError
    return msgspec.msgpack.decode(stream.read(int.from_bytes(head, "big")))


if __name__ == "__main__":
    serve()
