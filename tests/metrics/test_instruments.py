"""Instruments are made from a setting; what is wrong is said at a worker's start, and what fails disturbs no step."""

from __future__ import annotations

import ast
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import prometheus_client
import pytest
from celery import Celery
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import claude_batch_tasks
from claude_batch_tasks import instruments, metrics
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.instruments.opentelemetry import OpenTelemetry
from claude_batch_tasks.instruments.prometheus import Gauges, Prometheus
from claude_batch_tasks.metrics import METRICS, Instruments, Metric
from claude_batch_tasks.records import JobRecord
from claude_batch_tasks.settings import Settings, from_environment

PACKAGE = Path(claude_batch_tasks.__file__).parent


class Memory(Instruments):
    """Keeps what it is told; fails while ``broken``."""

    broken = False

    def __init__(self, app: Celery, *, forks: bool) -> None:
        super().__init__(app, forks=forks)
        self.told: list[tuple[str, float, Mapping[str, str]]] = []

    def count(self, metric: Metric, amount: float, labels: Mapping[str, str]) -> None:
        if self.broken:
            raise ConnectionError("no statsd")
        self.told.append((metric.name, amount, labels))

    observe = count


class Unmakeable(Memory):
    def __init__(self, app: Celery, *, forks: bool) -> None:
        raise ConnectionError("no statsd")


@pytest.fixture
def bare_app() -> Celery:
    return Celery("bare", broker="redis://127.0.0.1:1/0", set_as_current=False)


@pytest.fixture
def unused() -> Iterator[None]:
    """Whatever a test uses, the others do not."""
    yield
    metrics.use_instruments([])
    metrics.use_job_label(False)


def set_up(app: Celery, *names: str, pool: str = "solo") -> tuple[Instruments, ...]:
    instruments.set_up(SimpleNamespace(app=app, pool_cls=pool), names)
    return metrics.in_use()


class TestTelling:
    def test_costs_nothing_where_there_are_no_instruments(self) -> None:
        assert metrics.in_use() == ()
        metrics.count("not_found", endpoint="create")

    def test_reaches_a_class_of_ones_own(self, bare_app: Celery, unused: None) -> None:
        (memory,) = set_up(bare_app, f"{__name__}.Memory", pool="prefork")
        assert (memory.app, memory.forks) == (bare_app, True)
        metrics.count("looks", 3, how="list")
        metrics.observe("batch_seconds", 60.5)
        assert memory.told == [("looks", 3, {"how": "list"}), ("batch_seconds", 60.5, {})]  # type: ignore[attr-defined]

    def test_of_incomplete_answers_has_a_few_reasons(self) -> None:
        known = METRICS["incomplete_answers"].labels["reason"]
        assert [metrics.reason_label(reason) for reason in known] == list(known)
        assert metrics.reason_label("out_of_patience") == "other"

    def test_names_the_job_where_a_setting_says_so(self, bare_app: Celery, unused: None) -> None:
        job = JobRecord(nonce="n", requests=1, batches=1, submitted_at=1.0, label="nightly")
        bare_app.conf.claude_batch_metrics_job_label = True
        (memory,) = set_up(bare_app, f"{__name__}.Memory")
        assert [name for name, metric in metrics.reported_metrics().items() if "label" in metric.labels] == [
            *("requests", "incomplete_answers", "repairs", "cost_dollars", "saved_dollars", "jobs_ended")
        ]
        metrics.count("jobs_ended", state="failed", job=job)
        metrics.count("jobs_ended", state="failed")
        metrics.count("lost_messages", job=job)
        assert [labels for _, _, labels in memory.told] == [  # type: ignore[attr-defined]
            {"state": "failed", "label": "nightly"},
            {"state": "failed", "label": "none"},
            {},
        ]
        bare_app.conf.claude_batch_metrics_job_label = False
        (memory,) = set_up(bare_app, f"{__name__}.Memory")
        metrics.count("jobs_ended", state="failed", job=job)
        assert memory.told == [("jobs_ended", 1, {"state": "failed"})]  # type: ignore[attr-defined]

    def test_a_failure_is_logged_once_and_disturbs_no_other(
        self, bare_app: Celery, unused: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(metrics, "_logged", set())
        broken, whole = Memory(bare_app, forks=False), Memory(bare_app, forks=False)
        broken.broken = True
        metrics.use_instruments([broken, whole])
        for _ in range(3):
            metrics.count("lost_messages")
        assert len(whole.told) == 3
        assert caplog.text.count("Memory failed; figures are missing. This is logged once") == 1


class TestSettings:
    def test_names_may_come_from_the_environment(self) -> None:
        assert from_environment({"CLAUDE_BATCH_INSTRUMENTS": "prometheus, my.Statsd"}) == {
            "claude_batch_instruments": ("prometheus", "my.Statsd")
        }

    @pytest.mark.parametrize("value", [7, "prometheus,", [None], {"prometheus": 1}])
    def test_what_is_no_list_of_names_is_refused(self, value: Any) -> None:
        with pytest.raises(InvalidSettings, match="claude_batch_instruments must be a list of names"):
            Settings(instruments=value)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("statsd", "'statsd' cannot be imported"),
            ("no.such.Class", "'no.such.Class' cannot be imported: No module named 'no'"),
            ("collections.Counter", "collections.Counter is not a class derived from claude_batch_tasks.metrics"),
            (f"{__name__}.Unmakeable", "Unmakeable cannot be made: ConnectionError: no statsd"),
        ],
    )
    def test_a_class_that_cannot_be_had_is_named(self, bare_app: Celery, name: str, said: str) -> None:
        with pytest.raises(InvalidSettings, match=said):
            set_up(bare_app, name)

    @pytest.mark.parametrize(("name", "library"), [("prometheus", "prometheus_client"), ("opentelemetry",) * 2])
    def test_a_missing_extra_is_named_with_what_installs_it(
        self, bare_app: Celery, name: str, library: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, library, None)
        monkeypatch.delitem(sys.modules, f"claude_batch_tasks.instruments.{name}")
        with pytest.raises(InvalidSettings, match=rf"pip install 'claude-batch-tasks\[{name}\]'"):
            set_up(bare_app, name)


class TestPrometheus:
    def test_in_a_pool_of_threads_figures_are_in_the_registry_of_all(self, app: Celery, unused: None) -> None:
        (prometheus,) = set_up(app, "prometheus")
        prometheus.begin()
        before = prometheus_client.REGISTRY.get_sample_value("claude_batch_looks_total", {"how": "list"}) or 0
        metrics.count("looks", 3, how="list")
        after = prometheus_client.REGISTRY.get_sample_value("claude_batch_looks_total", {"how": "list"})
        assert after == before + 3
        assert prometheus_client.REGISTRY.get_sample_value("claude_batch_jobs", {"state": "staged"}) == 0
        prometheus.end()
        assert prometheus_client.REGISTRY.get_sample_value("claude_batch_jobs", {"state": "staged"}) is None
        assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ

    def test_has_the_labels_of_jobs_where_a_setting_says_so(self) -> None:
        program = """if True:
            from types import SimpleNamespace
            import prometheus_client
            from celery import Celery
            from claude_batch_tasks import instruments, metrics
            from claude_batch_tasks.records import JobRecord
            app = Celery("bare", broker="redis://127.0.0.1:1/0")
            app.conf.claude_batch_metrics_job_label = True
            instruments.set_up(SimpleNamespace(app=app, pool_cls="threads"), ["prometheus"])
            job = JobRecord(nonce="n", requests=1, batches=1, submitted_at=1.0, label="nightly")
            metrics.count("jobs_ended", 2, state="failed", job=job)
            metrics.count("jobs_ended", 3, state="failed")
            metrics.count("looks", how="list")
            for label in ("nightly", "none"):
                labels = {"state": "failed", "label": label}
                print(prometheus_client.REGISTRY.get_sample_value("claude_batch_jobs_ended_total", labels))
            print(prometheus_client.REGISTRY.get_sample_value("claude_batch_looks_total", {"how": "list"}))
        """
        ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
        assert ended.stdout.split() == ["2.0", "3.0", "1.0"]

    def test_a_port_that_is_taken_is_a_warning(self, app: Celery, caplog: pytest.LogCaptureFixture) -> None:
        with socket.create_server(("0.0.0.0", 0)) as taken:
            app.conf.claude_batch_metrics_port = taken.getsockname()[1]
            prometheus = Prometheus(app, forks=False)
            with caplog.at_level(logging.WARNING):
                prometheus.begin()
            prometheus.end()
        assert f"port {app.conf.claude_batch_metrics_port} is not available" in caplog.text
        assert "its own claude_batch_metrics_port" in caplog.text

    def test_gauges_can_be_served_by_another_process(self, app: Celery) -> None:
        registry = prometheus_client.CollectorRegistry(auto_describe=True)
        registry.register(Gauges(app))
        assert registry.get_sample_value("claude_batch_jobs", {"state": "running"}) == 0


def test_opentelemetry_names_and_units(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr("opentelemetry.metrics.get_meter", provider.get_meter)
    telemetry = OpenTelemetry(app, forks=False)
    for metric in METRICS.values():
        labels = {label: values[0] if values else "200" for label, values in metric.labels.items()}
        if metric.kind != "gauge":
            (telemetry.count if metric.kind == "counter" else telemetry.observe)(metric, 3, labels)
    (scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics  # type: ignore[union-attr]
    found = {metric.name: metric for metric in scope.metrics}
    without = "claude_batch_results_left_seconds"  # nothing is left to be deleted
    assert found.keys() == {metric.full_name for metric in METRICS.values()} - {without}
    units = {name: found[f"claude_batch_{name}"].unit for name in ("api_seconds", "cost_dollars", "jobs")}
    assert units == {"api_seconds": "s", "cost_dollars": "{USD}", "jobs": ""}
    (calls,) = found["claude_batch_api_seconds"].data.data_points
    assert calls.explicit_bounds == METRICS["api_seconds"].buckets
    provider.shutdown()


def told() -> list[tuple[str, str, dict[str, ast.expr]]]:
    """Each place in the package where something is told: how, of which metric, with which labels."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "metrics." in text else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("metrics.count", "metrics.observe"):
                how = ast.unparse(node.func).partition(".")[2]
                labels = {str(word.arg): word.value for word in node.keywords}
                assert ("job" in labels) == METRICS[ast.literal_eval(node.args[0])].of_job, "whose label is it?"
                labels.pop("job", None)
                found.append((how, ast.literal_eval(node.args[0]), labels))
    return found


def test_what_steps_tell_is_what_is_documented() -> None:
    kinds = {"count": "counter", "observe": "histogram"}
    for how, name, labels in told():
        metric = METRICS[name]
        assert (kinds[how], labels.keys()) == (metric.kind, metric.labels.keys()), name
        for label, value in labels.items():
            constants = [node.value for node in ast.walk(value) if isinstance(node, ast.Constant)]
            assert not metric.labels[label] or set(constants) <= {*metric.labels[label], "state"}, (name, label)
    assert {name for _, name, _ in told()} == {m.name for m in METRICS.values() if m.kind != "gauge"}


def test_names_are_as_prometheus_has_them() -> None:
    for metric in METRICS.values():
        assert metric.full_name.islower()
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket", "_info"))
        assert not {"le", "job", "instance"} & metric.labels.keys()
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert not metric.help.endswith(".")
