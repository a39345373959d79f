"""The instruments for OpenTelemetry, which use its API alone.

The MeterProvider that the application sets decides where figures go. Instruments that are made before there is a
provider use it as soon as it is set, in each process of a pool separately.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from celery import Celery
from opentelemetry import metrics as api
from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Observation

from claude_batch_tasks.instruments import gauges
from claude_batch_tasks.metrics import METRICS, Instruments, Metric

#: Units that leave names as they are: exporters add no ``s`` to a name that has its unit already, and never add what is
#: in braces. With the unit ``1``, they would take gauges for ratios.
_UNITS = {"seconds": "s", "dollars": "{USD}", "": ""}


class OpenTelemetry(Instruments):
    """The instruments of ``claude_batch_instruments = ["opentelemetry"]``."""

    def __init__(self, app: Celery, *, forks: bool) -> None:
        super().__init__(app, forks=forks)
        meter = api.get_meter("claude_batch_tasks")
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        for metric in METRICS.values():
            described = (metric.full_name, _UNITS[metric.unit], metric.help)
            if metric.kind == "counter":
                self._counters[metric.name] = meter.create_counter(*described)
            elif metric.kind == "histogram":
                self._histograms[metric.name] = meter.create_histogram(
                    *described, explicit_bucket_boundaries_advisory=metric.buckets
                )
            else:
                name, unit, text = described
                meter.create_observable_gauge(name, [partial(self._read_gauge, metric.name)], unit, text)

    def count(self, metric: Metric, amount: float, labels: Mapping[str, str]) -> None:
        """Add to a counter."""
        self._counters[metric.name].add(amount, dict(labels))

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Add a value to a histogram."""
        self._histograms[metric.name].record(value, dict(labels))

    def _read_gauge(self, name: str, _: CallbackOptions) -> Iterable[Observation]:
        found = gauges.readings(self.app)
        return [Observation(value, dict(labels)) for metric, labels, value in found if metric.name == name]
