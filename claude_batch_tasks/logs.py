"""How this package logs: whatever a project does to set up its logs, and under names that nothing else uses."""

from __future__ import annotations

import logging
import traceback
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter

#: What the name of each field begins with: a formatter, a record factory or a tracker has plainer ones of its own.
PREFIX = "claude_batch_"


class Log(_Adapter):
    """A logger that is turned off by its level alone, and shows no variables of frames.

    ``logging.config`` disables all loggers that it does not name, unless it is told not to, and projects call it when
    this package is imported already.
    """

    def isEnabledFor(self, level: int) -> bool:
        """Say whether lines of this level are logged."""
        self.logger.disabled = False
        return super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Leave a line as it is."""
        return msg, kwargs

    def exception(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log an error with the traceback of the exception that is being handled, as text.

        With an ``exc_info``, formatters and trackers would show what its frames hold, prompts and answers among it.
        """
        self.error(f"{msg}\n%s", *args, traceback.format_exc(), stacklevel=2, **kwargs)


def get_logger(name: str) -> Log:
    """Return the logger of that name."""
    return Log(logging.getLogger(name), {})


def fields(event: str, **values: Any) -> dict[str, Any]:
    """Return the ``extra`` of a line, for whoever writes logs as JSON; a value that is None is left out."""
    return {PREFIX + name: value for name, value in {"event": event, **values}.items() if value is not None}
