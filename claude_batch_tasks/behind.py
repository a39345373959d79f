"""One call behind: while the caller makes the next piece of something long, the last is put away in a thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Behind:
    """Makes calls in their order, one at a time, in a thread of its own.

    What a call raises is raised by the next one, or at the end of the ``with``, which waits for the last. When the
    body itself raises, the last call is waited for, and that is all.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "claude-batch-behind")
        self._last: Future[Any] | None = None

    def __call__(self, function: Callable[..., Any], *args: Any) -> None:
        """Begin a call, once the one before is through."""
        self._wait()
        self._last = self._pool.submit(function, *args)

    def _wait(self) -> None:
        if self._last is not None:
            last, self._last = self._last, None
            last.result()

    def __enter__(self) -> Behind:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._wait()
        finally:
            self._pool.shutdown()
