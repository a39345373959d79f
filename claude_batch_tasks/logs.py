"""Loggers of this package: they work with any logging setup of a project, under names that nothing else uses."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import traceback
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter

#: Prefix of each field's name: formatters, record factories and trackers use plainer names of their own.
PREFIX = "claude_batch_"

_making_call = contextvars.ContextVar("making_call", default=False)


class Log(_Adapter):
    """A logger that only its level turns off, and that shows no variables of frames.

    ``logging.config`` disables all loggers that it does not name, unless its configuration says not to, and projects
    often call it after this package was imported.
    """

    def isEnabledFor(self, level: int) -> bool:
        """Return whether lines of this level are logged."""
        self.logger.disabled = False
        return super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Return a line unchanged."""
        return msg, kwargs

    def exception(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log an error with the traceback of the exception that is being handled, as text.

        With an ``exc_info``, formatters and trackers would show the variables of its frames, including prompts and
        answers.
        """
        self.error(f"{msg}\n%s", *args, traceback.format_exc(), stacklevel=2, **kwargs)


@contextlib.contextmanager
def making_call() -> Iterator[None]:
    """Mark the code inside as a call of the API by this package; see ``is_making_call``."""
    token = _making_call.set(True)
    try:
        yield
    finally:
        _making_call.reset(token)


def is_making_call() -> bool:
    """Return whether the running code is a call of the API by this package, in this thread or greenlet."""
    return _making_call.get()


def get_logger(name: str) -> Log:
    """Return the logger of that name."""
    return Log(logging.getLogger(name), {})


def fields(event: str, **values: Any) -> dict[str, Any]:
    """Return the ``extra`` of a line, for logs that are written as JSON; values that are None are left out."""
    return {PREFIX + name: value for name, value in {"event": event, **values}.items() if value is not None}
