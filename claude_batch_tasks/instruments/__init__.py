"""The instruments of a worker: made from ``claude_batch_instruments`` before its pool, and ended with the worker."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from celery import Celery, signals
from celery.concurrency import get_implementation

from claude_batch_tasks import metrics
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.metrics import Instruments
from claude_batch_tasks.settings import Settings

#: Our own instruments, by name.
_OURS = {
    "prometheus": "claude_batch_tasks.instruments.prometheus.Prometheus",
    "opentelemetry": "claude_batch_tasks.instruments.opentelemetry.OpenTelemetry",
}


def connect_signals() -> None:
    """Connect to Celery's signals of pool processes that begin and of workers that end.

    ``worker`` calls ``set_up`` and ``begin_instruments``.
    """
    signals.worker_process_init.connect(_continue_in_fork)
    signals.worker_shutdown.connect(_end_instruments)


def set_up(worker: Any, names: Iterable[str]) -> None:
    """Make the instruments of a worker that is about to start.

    Raises:
        InvalidSettings: one of the instruments cannot be made.
    """
    from celery.concurrency import prefork  # here, since processes that only submit jobs do not need it

    forks = issubclass(get_implementation(worker.pool_cls), prefork.TaskPool)
    metrics.use_job_label(Settings.of(worker.app).metrics_job_label)
    metrics.use_instruments([_make_instruments(name, worker.app, forks) for name in names])


def begin_instruments() -> None:
    """Start the instruments, when the worker's pool exists."""
    for instruments in metrics.in_use():
        instruments.begin()


def _make_instruments(name: str, app: Celery, forks: bool) -> Instruments:
    try:
        return _find_class(name)(app, forks=forks)
    except InvalidSettings:
        raise
    except Exception as exc:
        # Any exception: Celery says nothing about what a receiver of worker_init raises.
        raise InvalidSettings(f"claude_batch_instruments: {name} cannot be made: {type(exc).__name__}: {exc}") from exc


def _find_class(name: str) -> type[Instruments]:
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


def _continue_in_fork(**_: Any) -> None:
    for instruments in metrics.in_use():
        instruments.forked()


def _end_instruments(**_: Any) -> None:
    for instruments in metrics.in_use():
        instruments.end()
    metrics.use_instruments([])
