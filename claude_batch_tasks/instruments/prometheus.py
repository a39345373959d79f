"""The instruments for Prometheus, made with ``prometheus_client``.

A worker's main process serves one page for all its processes. The processes of a pool keep their figures in files, in a
folder of the worker, and the page adds them up. A pool of threads is one process, and its figures are in
``prometheus_client.REGISTRY``.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Mapping
from typing import Any

import prometheus_client
from billiard.process import current_process
from celery import Celery
from prometheus_client import values
from prometheus_client.core import GaugeMetricFamily, Metric as Family
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from claude_batch_tasks import metrics
from claude_batch_tasks.instruments import gauges
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.metrics import METRICS, Instruments, Metric
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import dispatch

log = get_logger(__name__)

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Prometheus(Instruments):
    """The instruments of ``claude_batch_instruments = ["prometheus"]``.

    The page is at the port ``claude_batch_metrics_port``, if that is set.
    """

    def __init__(self, app: Celery, *, forks: bool) -> None:
        super().__init__(app, forks=forks)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._server: Any = None
        self._pid = os.getpid()
        self._registry = CollectorRegistry() if forks else prometheus_client.REGISTRY
        self._gauges = Gauges(app)
        self._registry.register(self._gauges)
        if forks:
            if _FOLDER not in os.environ:
                self._folder = tempfile.TemporaryDirectory(prefix="claude-batch-metrics-")
                os.environ[_FOLDER] = self._folder.name
            os.makedirs(os.environ[_FOLDER], exist_ok=True)
            self._registry.register(_Files(os.environ[_FOLDER]))
            # prometheus_client reads the folder's name when it is imported, which may have been long ago. Its own rule,
            # a file for each process id, would leave a file for each process that was replaced (--max-tasks-per-child).
            values.ValueClass = values.MultiProcessValue(functools.partial(_place_in_pool, self._pid))  # type: ignore[no-untyped-call]
        for metric in metrics.reported_metrics().values():
            if metric.kind != "gauge":
                _family(metric.name)  # now, while there is one thread
                # Counters begin at 0: if one appears with its first event, Prometheus does not see that it grew.
                for labels in metric.all_labels():
                    _labeled_family(metric, labels)

    def count(self, metric: Metric, amount: float, labels: Mapping[str, str]) -> None:
        """Add to a counter."""
        _labeled_family(metric, labels).inc(amount)

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Add a value to a histogram."""
        _labeled_family(metric, labels).observe(value)

    def begin(self) -> None:
        """Serve the page."""
        if (port := Settings.of(self.app).metrics_port) is None:
            return
        try:
            self._server, _ = prometheus_client.start_http_server(port, registry=self._registry)
        except (OSError, OverflowError) as exc:
            log.warning(
                "this worker's metrics are not served: port %d is not available (%s). Give each worker of a host its "
                "own claude_batch_metrics_port, or give all of them one folder in %s: then the first serves the "
                "metrics of all",
                port,
                exc,
                _FOLDER,
            )
        else:
            log.info("metrics are served at port %d", port)

    def forked(self) -> None:
        """Close the port in a forked process: it belongs to the main process alone, however long this one lives."""
        if self._server is not None and os.getpid() != self._pid:
            self._server.socket.close()

    def end(self) -> None:
        """Release the port and the folder."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self._registry.unregister(self._gauges)
        if self._folder is not None:
            del os.environ[_FOLDER]
            self._folder.cleanup()


class Gauges(Collector):
    """The gauges, for a registry that a process other than a worker serves.

    >>> prometheus_client.REGISTRY.register(Gauges(app))
    """

    def __init__(self, app: Celery) -> None:
        self._app = app

    def describe(self) -> list[GaugeMetricFamily]:
        """Return the gauges without values."""
        known = (metric for metric in METRICS.values() if metric.kind == "gauge")
        return [GaugeMetricFamily(metric.full_name, metric.help, labels=list(metric.labels)) for metric in known]

    def collect(self) -> list[GaugeMetricFamily]:
        """Return the gauges with their present values."""
        families = {family.name: family for family in self.describe()}
        for metric, labels, value in gauges.readings(self._app):
            families[metric.full_name].add_metric([labels[name] for name in metric.labels], value)
        return list(families.values())


class _Files(Collector):
    """The figures that all processes of the pool have counted."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def collect(self) -> list[Family]:
        with dispatch.no_fork:
            return list(MultiProcessCollector(None, self._folder).collect())  # type: ignore[no-untyped-call]


@functools.cache
def _family(name: str) -> Any:
    metric = metrics.reported_metrics()[name]
    if metric.kind == "counter":
        return prometheus_client.Counter(metric.full_name, metric.help, list(metric.labels))
    return prometheus_client.Histogram(metric.full_name, metric.help, list(metric.labels), buckets=metric.buckets)


def _labeled_family(metric: Metric, labels: Mapping[str, str]) -> Any:
    family = _family(metric.name)
    return family.labels(**labels) if labels else family


def _place_in_pool(worker: int) -> str:
    """Return a name for this process by its place in the pool.

    A process that replaces a dead one has its place, and so continues its file.

    Args:
        worker: the process id of the worker.
    """
    return f"{worker}-{getattr(current_process(), 'index', 'main')}"
