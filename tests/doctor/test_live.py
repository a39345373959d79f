"""``claude-batch doctor --live`` and ``claude-batch report``, with a real worker and the simulator."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import anthropic
import celery
import pytest
from celery import Celery
from click.testing import CliRunner

from claude_batch_tasks import BatchJob, __version__, run_batch
from claude_batch_tasks.cli import claude_batch
from claude_batch_tasks.doctor import support_report, workers
from claude_batch_tasks.embedded import free_port
from claude_batch_tasks.simulator import Fault
from tests.doctor.conftest import KEY, Context, Said, Set
from tests.factories import make_params
from tests.support import wait_until

pytestmark = pytest.mark.workers

MakeApp = Callable[..., Celery]
DoctorSays = Callable[..., Said]


def test_one_tiny_batch_goes_from_end_to_end(healthy: Set, make_app: MakeApp, doctor_says: DoctorSays) -> None:
    healthy.simulator.reset("healthy")
    healthy.simulator.faults(
        Fault("create", "status", status=404, times=1), Fault("retrieve", "status", status=404, times=2)
    )
    said = doctor_says(make_app(), "--live", answer="y\n")
    assert said.exit_code == 0, said.text
    assert "Send one request to claude-haiku-4-5 through a batch? It costs at most $0.0000" in said.text
    assert len(healthy.simulator.journal().calls) > 0

    # What a support ticket needs ...
    assert f"| claude-batch-tasks | {__version__} |" in said.text
    assert f"| anthropic | {anthropic.__version__} |" in said.text
    assert f"| celery | {celery.__version__} |" in said.text
    assert re.search(r"\| store, broker, result back end \| (Valkey|Redis) [\d.]+ \|", said.text)
    assert "| worker 1 | the same |" in said.text
    assert "| client | default |" in said.text
    assert "| models | claude-haiku-4-5-20251001 |" in said.text
    assert re.search(r"\| create \| 1: [\d.]+ s after submission \|", said.text)
    assert re.search(r"\| retrieve \| 2: [\d.]+ s after create, [\d.]+ s after create \|", said.text)
    assert re.search(r"\| 1 \| [\d.]+ s \| [\d.]+ s \| [\d.]+ s \| [\d.]+ s \|", said.text)  # the latencies
    sent = {call.request_id for call in healthy.simulator.journal().calls if call.endpoint in ("create", "retrieve")}
    assert set(re.findall(r"req_\w+", said.text)) <= sent
    assert len(set(re.findall(r"req_\w+", said.text))) >= 5  # three 404s, the create, the first look
    assert "| poll_min | 0.2 |" in said.text
    assert "| fallback | off (of this job) |" in said.text
    # ... and nothing else.
    block = said.text[said.text.index("## claude-batch report") :]
    for secret in (KEY, "127.0.0.1", "localhost", "Say OK", "Echo"):
        assert secret not in block


def test_nothing_is_sent_unless_somebody_says_yes(healthy: Set, make_app: MakeApp, doctor_says: DoctorSays) -> None:
    before = healthy.simulator.state().totals.batches_created
    said = doctor_says(make_app(), "--live", answer="n\n")
    assert said.exit_code == 1
    assert healthy.simulator.state().totals.batches_created == before


@pytest.mark.parametrize("option", ["settings", "--strict", "--json"])
def test_what_a_report_cannot_heed_is_refused(
    option: str, healthy: Set, make_app: MakeApp, doctor_says: DoctorSays
) -> None:
    before = healthy.simulator.state().totals.batches_created
    assert doctor_says(make_app(), "--live", "--yes", option).exit_code == 2
    assert healthy.simulator.state().totals.batches_created == before


def test_nothing_is_sent_that_no_worker_would_take(
    make_app: MakeApp, doctor_says: DoctorSays, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(task_default_queue="elsewhere")
    said = doctor_says(app, "--live", "--yes")
    assert said.exit_code == 1
    assert said.ids == ["E203"]
    assert "nothing was sent" in said.text


def test_a_timeout_leaves_the_job_running(healthy: Set, make_app: MakeApp, doctor_says: DoctorSays) -> None:
    app = make_app()
    said = doctor_says(app, "--live", "--yes", "--timeout", "0")
    assert said.exit_code == 1
    assert "the job continues. To see its report: claude-batch report" in said.text
    [job_id] = set(re.findall(r"claude-batch report (\S+)", said.text))
    job = BatchJob(job_id, app)
    wait_until(lambda: job.status().state == "completed")


def test_a_report_of_any_job(healthy: Set, make_app: MakeApp) -> None:
    app = make_app()
    task: Any = app.tasks[run_batch.name]
    params = make_params("a | secret", max_tokens=8)
    job = BatchJob(task.delay({"one": params, "two": params}, poll_max=0.3, fallback="off").id, app)
    wait_until(lambda: job.status().ended_at)
    told = CliRunner().invoke(claude_batch, ["report", job.id], obj=Context(app))
    assert told.exit_code == 0
    assert "| requests | 2: 2 succeeded, 0 without an outcome |" in told.output
    assert "| poll_max | 0.3 (of this job) |" in told.output
    # What the worker is set to is not what this process is set to.
    [worker] = re.findall(r"^\| 1 \| celery \| solo, \d \| (\S+) \| (.+) \|$", told.output, re.MULTILINE)
    assert worker[0] == __version__
    assert "poll_min 0.2" in worker[1]
    whole = json.loads(CliRunner().invoke(claude_batch, ["report", job.id, "--json"], obj=Context(app)).output)
    assert (whole["job_id"], whole["report"].splitlines()[0]) == (job.id, told.output.splitlines()[0])
    assert "secret" not in told.output


def test_a_report_names_no_host() -> None:
    text = "redis:6379 and redis.example said: certificate is not valid for 'gateway.example'. (_ssl.c:1006)"
    assert support_report._hide_hosts(["redis", "redis.example"], text) == (
        "<host>:6379 and <host> said: certificate is not valid for '<host>'. (_ssl.c:1006)"
    )


def test_a_report_where_nobody_answers(healthy: Set, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = CliRunner().invoke(claude_batch, ["report", "no-such-job"], obj=Context(make_app()))
    assert unknown.exit_code == 4
    assert "no job no-such-job in the store" in unknown.output
    monkeypatch.setattr(workers, "FIRST", 0.3)
    nobody = f"redis://127.0.0.1:{free_port()}/0"
    down = CliRunner().invoke(claude_batch, ["report", "a-job"], obj=Context(make_app(claude_batch_store_url=nobody)))
    assert down.exit_code == 75
    assert "did not answer" in down.output
