"""A client in a process of its own, for processes that fork.

The threads of obstore do not survive a fork: in a child of a process that used it, no call ever returns. So the
main process of a prefork worker, which forks children as long as it lives, and a child of a process that used obstore
before, have another process make their calls. It ends with the process that it works for.

A call of obstore would block all greenlets of its process: with gevent, threads of its hub make the calls.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any, cast

from claude_batch_tasks.store.objects import client
from claude_batch_tasks.store.objects.client import CallFailed, Calls, Client, Found

_has_forked = False
_user: int | None = None


def _note_fork() -> None:
    global _has_forked
    _has_forked = True


def _forget_forks() -> None:
    global _has_forked
    _has_forked = False


os.register_at_fork(after_in_parent=_note_fork, after_in_child=_forget_forks)


def needs_helper() -> bool:
    """Return whether obstore is not to be used in this process itself."""
    # What gevent forks becomes another program at once.
    return not _has_greenlets() and (_has_forked or _user not in (None, os.getpid()))


def _has_greenlets() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def connect(url: str) -> Calls:
    """Return a client for a URL, in this process or through another one.

    Raises:
        CallFailed: there is none.
    """
    global _user
    if needs_helper():
        return HelperClient(url)
    _user = os.getpid()
    return cast(Calls, GreenletClient(url)) if _has_greenlets() else Client(url)


class GreenletClient:
    """``Calls`` that threads of gevent's hub make, while other greenlets run."""

    def __init__(self, url: str) -> None:
        self._client = self._run(Client, url)

    def __getattr__(self, name: str) -> Any:
        return functools.partial(self._run, getattr(self._client, name))

    @staticmethod
    def _run(act: Any, *args: Any) -> Any:
        import gevent

        return gevent.get_hub().threadpool.apply(act, args)


class HelperClient:
    """``Calls`` that another process makes. Threads share it, one call at a time."""

    def __init__(self, url: str) -> None:
        self._lock = threading.Lock()
        # The file of the client, and not the package, which takes a second to import.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            self._process = subprocess.Popen(
                [sys.executable, client.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
        except OSError as exc:
            raise CallFailed(f"its helper process cannot be started: {exc}", False) from None
        self._call(url)

    def put(self, path: str, data: bytes) -> None:
        self._call("put", path, data)

    def read(self, path: str, start: int, end: int) -> bytes:
        return bytes(self._call("read", path, start, end))

    def read_end(self, path: str, most: int) -> tuple[int, bytes]:
        size, data = self._call("read_end", path, most)
        return size, data

    def size(self, path: str) -> int:
        return int(self._call("size", path))

    def list(self, folder: str) -> list[Found]:
        return [Found(*each) for each in self._call("list", folder)]

    def remove(self, paths: Sequence[str]) -> None:
        self._call("remove", list(paths))

    def open(self, path: str) -> int:
        return int(self._call("open", path))

    def write(self, number: int, data: bytes) -> None:
        self._call("write", number, data)

    def close(self, number: int, whole: bool) -> None:
        self._call("close", number, whole)

    def _call(self, *call: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            try:
                client.send_message(self._process.stdin, call)
                failed, answer = client.receive_message(self._process.stdout)
            except (OSError, ValueError, EOFError):
                raise HelperGone("its helper process has ended", False) from None
        if failed:
            raise CallFailed(*answer)
        return answer


class HelperGone(CallFailed):
    """The other process has ended: a new client is needed."""
