"""Fewer log lines in a worker: one for each poll, and not those of Celery and httpx that say the same again.

Celery logs "received" and "retry" or "succeeded" for each message, httpx logs each call. This package logs what came of
it in one line, with the ids of the job and of the batch. So the INFO lines of these libraries are left out where they
are about this package's own tasks and calls. All are shown at ``--loglevel=debug``, and where the level of their logger
was set.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from claude_batch_tasks.logs import is_making_call
from claude_batch_tasks.steps.message_chain import NAME

#: The task that has no job of its own, and so no line of its own.
_NO_JOB = NAME + "recover_jobs"


class _LeaveOut(logging.Filter):
    """A filter of one logger that leaves out INFO lines about this package, unless somebody asked for them."""

    def __init__(self, logger: logging.Logger, concerns_us: Callable[[logging.LogRecord], bool]) -> None:
        super().__init__()
        self._logger, self._concerns_us = logger, concerns_us

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is logged."""
        asked_for = self._logger.level != logging.NOTSET or self._logger.isEnabledFor(logging.DEBUG)
        return asked_for or record.levelno != logging.INFO or not self._concerns_us(record)


def _is_of_our_tasks(record: logging.LogRecord) -> bool:
    """Return whether a line of Celery's is about a task of a job."""
    name = record.args.get("name") if isinstance(record.args, dict) else None
    return isinstance(name, str) and name.startswith(NAME) and name != _NO_JOB


def _is_of_our_calls(record: logging.LogRecord) -> bool:
    """Return whether a line of httpx is about a call of this package."""
    return is_making_call()


#: The loggers whose INFO lines repeat what this package logs, and how to find those lines.
_REPEATED = {
    "celery.worker.strategy": _is_of_our_tasks,
    "celery.app.trace": _is_of_our_tasks,
    "httpx": _is_of_our_calls,
    "httpx2": _is_of_our_calls,
}


def leave_out_repeated(**_: object) -> None:
    """Leave out what Celery and httpx log about this package's tasks and calls in this process."""
    for name, concerns_us in _REPEATED.items():
        logger = logging.getLogger(name)
        if not any(isinstance(each, _LeaveOut) for each in logger.filters):
            logger.addFilter(_LeaveOut(logger, concerns_us))
