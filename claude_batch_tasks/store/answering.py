"""How the methods of a store's parts turn what its server cannot answer into ``StoreUnavailable``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from claude_batch_tasks.errors import BatchTasksError

_Method = TypeVar("_Method", bound=Callable[..., Any])


class _Connection(Protocol):
    """What a part asks its server through."""

    def open(self) -> None:
        """See, once, that this release can use the store."""

    def unavailable(self, exc: Exception) -> BatchTasksError:
        """Return the error for what prevented the server from answering."""


class _Part(Protocol):
    _connection: _Connection


def make_answering(*outages: type[Exception]) -> Callable[[_Method], _Method]:
    """Return a decorator of the methods and generators of a store's parts.

    The first call of all sees that the store is one for this release.

    Args:
        outages: what keeps the server from answering.
    """

    def answering(method: _Method) -> _Method:
        if inspect.isgeneratorfunction(method):

            @functools.wraps(method)
            def iterate(self: _Part, *args: Any, **kwargs: Any) -> Iterator[Any]:
                try:
                    self._connection.open()
                    yield from method(self, *args, **kwargs)
                except outages as exc:
                    raise self._connection.unavailable(exc) from exc

            return iterate  # type: ignore[return-value]

        @functools.wraps(method)
        def call(self: _Part, *args: Any, **kwargs: Any) -> Any:
            try:
                self._connection.open()
                return method(self, *args, **kwargs)
            except outages as exc:
                raise self._connection.unavailable(exc) from exc

        return call  # type: ignore[return-value]

    return answering
