"""An application with instruments of its own, and OpenTelemetry set up in each process of its pool."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from celery import signals
from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

from claude_batch_tasks.app import app
from claude_batch_tasks.metrics import Instruments, Metric

__all__ = ["Lines", "app"]


class Lines(Instruments):
    """Keeps a line for each event, as one would send it to statsd; and fails where it observes."""

    def count(self, metric: Metric, amount: float, labels: Mapping[str, str]) -> None:
        with open(Path(os.environ["FIGURES"], "lines"), "a") as lines:
            lines.write(f"{'.'.join([metric.name, *labels.values()])}:{amount:g}|c\n")

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        raise RuntimeError("an instrument that is broken")


@signals.worker_process_init.connect
def _export(**_: Any) -> None:
    out = open(Path(os.environ["FIGURES"], f"{os.getpid()}.otel"), "a")  # noqa: SIM115 - as long as the process lives
    exporter = ConsoleMetricExporter(out=out, formatter=lambda found: found.to_json(indent=None) + "\n")
    provider = MeterProvider(
        [PeriodicExportingMetricReader(exporter, export_interval_millis=300)], shutdown_on_exit=False
    )
    api.set_meter_provider(provider)
    signals.worker_process_shutdown.connect(lambda **_: provider.shutdown(), weak=False)
