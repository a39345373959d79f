"""The objects below a URL, and what is certain of them.

Whatever goes wrong becomes ``StoreUnavailable``, except that an object is certainly not there: ``ObjectGone``.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.store.objects import helper
from claude_batch_tasks.store.objects.client import CallFailed, Calls, Found

#: The name of the object that shows that this is the right bucket, and that it is there. Where it is missing as well,
#: nothing is said of another object.
MARKER = "claude-batch-objects"

_MARKER_TEXT = b"Written by claude-batch-tasks: payloads of its jobs are beside this object.\n"

#: Objects that are removed in one go.
_AT_ONCE = 1000

_Value = TypeVar("_Value")


class ObjectGone(Exception):
    """An object is not there, in a bucket that is."""


class Bucket:
    """The objects below a URL, by their paths. Threads share it, and a process forked from this one has it again.

    Args:
        url: as the setting ``payload_url`` has it; it holds no credentials.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._client: tuple[int, Calls] | None = None
        self._marked = False

    def name(self, path: str) -> str:
        """Return what people are shown for an object."""
        return f"{self.url}/{path}"

    def put(self, path: str, data: bytes) -> None:
        """Write an object."""
        self.mark()
        self._call(lambda client: client.put(path, data))

    def open_writer(self, path: str) -> Writer:
        """Begin an object, which is there once the writer is closed without an exception."""
        self.mark()
        client = self._connect()
        return Writer(self, client, self._call(lambda client: client.open(path)))

    def read(self, path: str, start: int, end: int) -> bytes:
        """Return the bytes of an object from ``start`` to ``end``.

        Raises:
            ObjectGone: it is not there.
        """
        found = self._call_for(path, lambda client: client.read(path, start, end))
        if len(found) != end - start:
            raise StoreUnavailable(f"{self.name(path)}: {len(found):,} of {end - start:,} bytes came")
        return found

    def read_end(self, path: str, most: int) -> tuple[int, bytes]:
        """Return how many bytes an object has, and the last of them.

        Raises:
            ObjectGone: it is not there.
        """
        return self._call_for(path, lambda client: client.read_end(path, most))

    def size(self, path: str) -> int:
        """Return how many bytes an object has.

        Raises:
            ObjectGone: it is not there.
        """
        return self._call_for(path, lambda client: client.size(path))

    def list(self, folder: str) -> list[Found]:
        """Return all objects in a folder and those below it."""
        return self._call(lambda client: client.list(folder))

    def remove(self, paths: Sequence[str]) -> None:
        """Remove objects, some of which may not be there."""
        for start in range(0, len(paths), _AT_ONCE):
            self._remove_some(paths[start : start + _AT_ONCE])

    def remove_folder(self, folder: str) -> None:
        """Remove all objects in a folder and those below it."""
        self.remove([found.path for found in self.list(folder)])

    def mark(self, *, again: bool = False) -> None:
        """Write the marker, once; ``again``: because a lifecycle rule may have removed it."""
        if again or not self._marked:
            self._call(lambda client: client.put(MARKER, _MARKER_TEXT))
            self._marked = True

    def confirm(self) -> None:
        """See that the bucket is there, and is the one that was written to.

        Raises:
            StoreUnavailable: it is not, or that is not known.
        """
        try:
            self._call(lambda client: client.size(MARKER))
        except _NotThere:
            raise StoreUnavailable(
                f"the object store at {self.url} cannot be used: the object {MARKER}, which is left there by everyone "
                "who writes to it, is not in it. See that the bucket or folder is there, and is the right one. Nothing "
                "was taken for lost"
            ) from None

    def unavailable(self, exc: CallFailed) -> StoreUnavailable:
        """Return the error for a call that failed."""
        return (_NotThere if exc.not_there else StoreUnavailable)(
            f"the object store at {self.url} did not answer: {exc.args[0]}"
        )

    def _remove_some(self, paths: Sequence[str]) -> None:
        try:
            self._call(lambda client: client.remove(paths))
        except _NotThere:  # which of them, it does not say
            if len(paths) == 1:
                self.confirm()
            else:
                for path in paths:
                    self._remove_some([path])

    def _call_for(self, path: str, act: Callable[[Calls], _Value]) -> _Value:
        """Return what a call returns that needs an object.

        Raises:
            ObjectGone: it is not there, and the bucket is.
        """
        try:
            return self._call(act)
        except _NotThere:
            self.confirm()
            raise ObjectGone(self.name(path)) from None

    def _call(self, act: Callable[[Calls], _Value]) -> _Value:
        """Return what a call returns, given the client."""
        try:
            return act(self._connect())
        except CallFailed as exc:
            if isinstance(exc, helper.HelperGone):
                self._client = None
            raise self.unavailable(exc) from None

    def _connect(self) -> Calls:
        # A process that has forked since it connected goes on as it did: its children have a client of their own.
        with self._lock:
            if self._client is None or self._client[0] != os.getpid():
                self._client = os.getpid(), helper.connect(self.url)
            return self._client[1]


class _NotThere(StoreUnavailable):
    """The answer was that something is not there: the object, or the whole bucket."""


class Writer:
    """An object that is being written; nobody sees it before it is closed."""

    def __init__(self, bucket: Bucket, client: Calls, number: int) -> None:
        self._bucket, self._client, self._number = bucket, client, number

    def write(self, data: bytes) -> None:
        """Append bytes."""
        try:
            self._client.write(self._number, data)
        except CallFailed as exc:
            raise self._bucket.unavailable(exc) from None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, exc: object, trace: object) -> None:
        try:
            self._client.close(self._number, kind is None)
        except CallFailed as failed:
            if kind is None:
                raise self._bucket.unavailable(failed) from None


def try_bucket(url: str) -> None:
    """Write an object, find it, read it and remove it.

    Raises:
        StoreUnavailable: one of these does not work.
    """
    bucket, path = Bucket(url), f"doctor/{secrets.token_hex(8)}"
    bucket.put(path, _MARKER_TEXT)
    found = [found.path for found in bucket.list("doctor")]
    try:
        right = path in found and bucket.read(path, 0, bucket.size(path)) == _MARKER_TEXT
    except ObjectGone:
        right = False
    bucket.remove([path])
    if not right:
        raise StoreUnavailable(f"the object store at {url} does not have what was written to it a moment before")
