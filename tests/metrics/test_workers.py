"""What a worker's page, its OpenTelemetry exports and instruments of one's own say is what the simulator saw."""

from __future__ import annotations

import gc
import json
import re
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery import Celery
from prometheus_client.parser import text_string_to_metric_families

from claude_batch_tasks import BatchJob, ask, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker, free_port
from claude_batch_tasks.metrics import METRICS
from claude_batch_tasks.simulator import Fault, Outcome, Simulator
from claude_batch_tasks.simulator.journal import Journal
from tests.factories import make_params
from tests.integration.rig import account_for, requests
from tests.support import FAST, inherited, wait_until

pytestmark = pytest.mark.workers

Figures = dict[tuple[str, tuple[str, ...]], float]


class World(NamedTuple):
    worker: Worker
    page: str
    folder: Path
    journal: Journal
    job_id: str
    cost: float
    app: Celery


def scraped(page: str) -> Figures:
    with urllib.request.urlopen(page, timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {
            (sample.name, tuple(value for name, value in sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """After a job that met 404s, a create without an answer and a fallback, in processes that are often replaced."""
    folder, port = tmp_path_factory.mktemp("metrics"), free_port()
    with RedisServer() as redis, Simulator("healthy") as simulator:
        env = {
            **inherited(),
            **FAST,
            **simulator.env,
            "CELERY_BROKER_URL": redis.url,
            "CELERY_RESULT_BACKEND": redis.url,
            "CLAUDE_BATCH_INSTRUMENTS": "prometheus, opentelemetry, tests.metrics.app.Lines",
            "CLAUDE_BATCH_METRICS_PORT": str(port),
            "FIGURES": str(folder),
            "TMPDIR": str(folder),
        }
        options = ("--concurrency=2", "--max-tasks-per-child=8")
        with Worker(env, folder / "worker.log", app="tests.metrics.app", options=options) as worker:
            app = Celery("metrics", broker=redis.url, backend=redis.url, set_as_current=False)
            app.loader.import_task_module("claude_batch_tasks.tasks")
            app.set_current()
            simulator.behave(
                processing_seconds=0.2,
                outcomes=(
                    Outcome("expired", prompt="1 of", attempts=1),
                    Outcome("errored", error="api_error", prompt="2 of"),
                    Outcome("errored", error="invalid_request_error", prompt="3 of"),
                ),
            )
            simulator.faults(
                Fault("create", "status", status=404, calls=(1,)),
                Fault("create", "drop", commit=True, calls=(2,)),
                Fault("retrieve", "status", status=404, calls=(1,)),
                Fault("results", "status", status=404, calls=(1,)),
                Fault("results", "cut", how="clean", at=0.5, calls=(2,)),
                Fault("results", "cut", how="reset", at=0.5, calls=(3,), name="reset"),
                Fault("messages", "status", status=404, calls=(1,), per="server"),
            )
            result = run_batch.delay(requests("job", 40), retries=1)
            summary = result.get(timeout=180)
            assert account_for(app, result.id, "job", 40) == {"succeeded": 36, "errored": 4}
            job_id = result.id
            del result  # before its app is closed
            page, journal = f"http://127.0.0.1:{port}/metrics", simulator.journal()
            yield World(worker, page, folder, journal, job_id, summary["cost"], app)
            gc.collect()
            app.close()


def told(world: World, name: str) -> Counter[tuple[str, ...]]:
    """What the page says of a metric, without zeros; its labels in the order of their names."""
    return +Counter({labels: round(value) for (found, labels), value in scraped(world.page).items() if found == name})


def test_404s_are_those_the_api_answered(world: World) -> None:
    answered = Counter((call.endpoint,) for call in world.journal.calls if call.status == 404)
    assert answered.keys() == {("create",), ("retrieve",), ("results",), ("messages",)}
    assert told(world, "claude_batch_not_found_total") == answered


def test_each_call_is_measured(world: World) -> None:
    calls = Counter((call.endpoint, str(call.status or "none")) for call in world.journal.calls)
    assert told(world, "claude_batch_api_seconds_count") == calls
    assert told(world, "claude_batch_looks_total") == {("retrieve",): calls["retrieve", "200"]}


def test_downloads_that_break_off_or_do_not_add_up_are_told(world: World) -> None:
    broken = sum("reset" in call.faults for call in world.journal.calls)
    assert told(world, "claude_batch_broken_answers_total") == {("results",): broken}
    events = Counter(event.event for event in BatchJob(world.job_id, world.app).history())
    assert events["incomplete"] >= 1
    downloads = {("complete",): events["fetched"], ("incomplete",): events["incomplete"]}
    assert told(world, "claude_batch_downloads_total") == downloads


def test_the_search_for_an_unanswered_create_is_told(world: World) -> None:
    assert told(world, "claude_batch_orphan_searches_total") == {("batch",): 1}


def test_requests_are_counted_by_outcome_and_source(world: World) -> None:
    found = Counter((row.type, row.source) for row in BatchJob(world.job_id, world.app).results())
    assert {source for _, source in found} == {"batch", "resubmitted", "messages"}
    assert told(world, "claude_batch_requests_total") == found
    assert told(world, "claude_batch_smaller_batches_total") == {(): 1}
    assert told(world, "claude_batch_batch_seconds_count") == {(): 2}
    assert told(world, "claude_batch_jobs_ended_total") == {("completed",): 1}


def test_costs_are_those_of_the_summary(world: World) -> None:
    costs = {labels[0]: cost for (name, labels), cost in scraped(world.page).items() if "cost_dollars_total" in name}
    assert sum(costs.values()) == pytest.approx(world.cost)
    assert costs["messages"] == pytest.approx(4 * 5e-5)


def test_gauges_are_read_from_the_store(world: World) -> None:
    world.app.backend.client.delete("claude_batch:census", "claude_batch:census:fresh")
    figures = wait_until(lambda: (f := scraped(world.page)).get(("claude_batch_jobs", ("completed",))) and f)
    assert figures["claude_batch_jobs", ("completed",)] == 1
    assert figures["claude_batch_jobs", ("running",)] == 0
    assert figures["claude_batch_oldest_batch_seconds", ()] == 0
    assert ("claude_batch_results_left_seconds", ()) not in figures


def test_opentelemetry_is_told_the_same(world: World) -> None:
    counters = [metric for metric in METRICS.values() if metric.kind == "counter"]
    page = [told(world, metric.exposed_name) for metric in counters]
    wait_until(lambda: [exported(world.folder, metric.full_name) for metric in counters] == page)
    assert exported(world.folder, "claude_batch_api_seconds") == told(world, "claude_batch_api_seconds_count")
    wait_until(lambda: last_exported(world.folder, "claude_batch_jobs"))


def exported(folder: Path, name: str) -> Counter[tuple[str, ...]]:
    """What all processes have exported in the end, without zeros."""
    found: Counter[tuple[str, ...]] = Counter()
    for point in last_exported(folder, name):
        labels = tuple(value for _, value in sorted(point["attributes"].items()))
        found[labels] += round(point.get("count", point.get("value")))
    return +found


def last_exported(folder: Path, name: str) -> list[dict[str, Any]]:
    found = []
    for file in folder.glob("*.otel"):
        lines = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
        last = json.loads(lines[-1]) if lines else {"resource_metrics": []}
        scopes = [scope for resource in last["resource_metrics"] for scope in resource["scope_metrics"]]
        metrics = [metric for scope in scopes for metric in scope["metrics"]]
        found += [point for metric in metrics if metric["name"] == name for point in metric["data"]["data_points"]]
    return found


def test_instruments_of_ones_own_are_told_and_may_fail(world: World) -> None:
    lines = (world.folder / "lines").read_text().splitlines()
    not_found = Counter((line.split(".")[1].split(":")[0],) for line in lines if line.startswith("not_found."))
    assert not_found == told(world, "claude_batch_not_found_total")
    log = (world.folder / "worker.log").read_text()
    assert 1 <= log.count("tests.metrics.app.Lines failed; figures are missing") <= len(processes(log))


def test_processes_that_take_the_place_of_others_go_on_with_their_files(world: World) -> None:
    assert len(processes((world.folder / "worker.log").read_text())) > 2
    (files,) = world.folder.glob("claude-batch-metrics-*")
    assert {file.name.rpartition("-")[2] for file in files.iterdir()} <= {"main.db", "0.db", "1.db"}


def processes(log: str) -> set[str]:
    return set(re.findall(r"/ForkPoolWorker-\d+", log))


def test_the_page_shows_no_prompt_and_no_key(world: World) -> None:
    with urllib.request.urlopen(world.page, timeout=10) as answer:
        page = answer.read().decode()
    assert "claude_batch_api_seconds_bucket" in page
    for secret in (world.worker.env["ANTHROPIC_API_KEY"], "prompt 1 of job", "job 1", "msgbatch_"):
        assert secret not in page


def test_asks_are_told_with_what_their_batch_has_saved(world: World) -> None:
    asked = [ask.delay(make_params(f"asked {number}"), ask_max_requests=4) for number in range(4)]
    assert [result.get(timeout=60).type for result in asked] == ["succeeded"] * 4
    assert told(world, "claude_batch_pool_size_sum") == {(): 4}
    figures = scraped(world.page)
    saved, cost = (
        {labels[0]: value for (name, labels), value in figures.items() if name == metric}
        for metric in ("claude_batch_saved_dollars_total", "claude_batch_cost_dollars_total")
    )
    assert saved["ask"] == pytest.approx(asked[0].job.status().cost)
    assert saved["ask"] + saved["job"] == pytest.approx(cost["batch"] + cost["resubmitted"])


def test_a_worker_that_ends_leaves_nothing_behind(world: World) -> None:
    """Last: the worker is stopped."""
    world.worker.stop()
    assert list(world.folder.glob("claude-batch-metrics-*")) == []
