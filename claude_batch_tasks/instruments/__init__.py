"""The instruments of a worker: made from ``claude_batch_instruments`` before its pool is, ended with the worker."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from celery import Celery, signals
from celery.concurrency import get_implementation

from claude_batch_tasks import metrics
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.metrics import Instruments

#: Our own, by name.
_OURS = {
    "prometheus": "claude_batch_tasks.instruments.prometheus.Prometheus",
    "opentelemetry": "claude_batch_tasks.instruments.opentelemetry.OpenTelemetry",
}


def connect() -> None:
    """Have Celery tell of processes that begin and end; ``set_up`` and ``begin`` are called by ``worker``."""
    signals.worker_process_init.connect(_forked)
    signals.worker_shutdown.connect(_end)


def set_up(worker: Any, names: Iterable[str]) -> None:
    """Make the instruments of a worker that is about to begin.

    Raises:
        InvalidSettings: one cannot be had.
    """
    from celery.concurrency import prefork  # here, and not wherever jobs are sent from

    forks = issubclass(get_implementation(worker.pool_cls), prefork.TaskPool)
    metrics.use([_made(name, worker.app, forks) for name in names])


def begin() -> None:
    """The worker's pool is there."""
    for instruments in metrics.in_use():
        instruments.begin()


def _made(name: str, app: Celery, forks: bool) -> Instruments:
    try:
        return _class(name)(app, forks=forks)
    except InvalidSettings:
        raise
    except Exception as exc:
        # Whatever it is: of what a receiver of worker_init raises, Celery says nothing.
        raise InvalidSettings(f"claude_batch_instruments: {name} cannot be made: {type(exc).__name__}: {exc}") from exc


def _class(name: str) -> type[Instruments]:
    module, _, attribute = _OURS.get(name, name).rpartition(".")
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as exc:
        if name in _OURS:
            raise InvalidSettings(
                f"claude_batch_instruments names {name}, which is not installed ({exc}): "
                f"pip install 'claude-batch-tasks[{name}]'"
            ) from None
        raise InvalidSettings(f"claude_batch_instruments: {name!r} cannot be imported: {exc}") from None
    if not (isinstance(found, type) and issubclass(found, Instruments)):
        base = f"{Instruments.__module__}.{Instruments.__name__}"
        raise InvalidSettings(f"claude_batch_instruments: {name} is not a class derived from {base}")
    return found


def _forked(**_: Any) -> None:
    for instruments in metrics.in_use():
        instruments.forked()


def _end(**_: Any) -> None:
    for instruments in metrics.in_use():
        instruments.end()
    metrics.use([])
