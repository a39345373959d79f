"""Jobs of this release in many states on a real worker, and all that it asks of Redis meanwhile.

Only what is documented is called, and what is watched is what passes between processes: keys, fields and messages. So
it stays as it is, however the modules are arranged.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import anthropic
from celery import Celery, group

from claude_batch_tasks import BatchJob, adopt, ask, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.instruments.gauges import readings
from claude_batch_tasks.simulator import Fault, Outcome, Simulator
from tests.integration.rig import requests
from tests.support import inherited, wait_until
from tests.upgrades.monitor import Monitor

KEY = "sk-ant-test-key-never-to-be-seen"

#: Longer than any of this takes, seconds.
NEVER = 3600

#: Requests of each job, and of the one with a batch for each, which are enough to be looked at by one listing.
COUNT, MANY = 2, 12

#: A queue that nobody takes from.
NOBODY = "nobody"

_FAST = {
    "POLL_MIN": "0.1",
    "POLL_MAX": "0.2",
    "RETRY_MIN": "0.1",
    "RETRY_MAX": "0.2",
    "CREATE_SETTLE": "0.2",
    "LISTINGS": "1",
    "LEASE": "1",
    "RECOVER_EVERY": "0.3",
    "RECOVER_AFTER": "1",
}


class Message(NamedTuple):
    """A message of a task, as it lies in its queue."""

    queue: str
    task: str
    id: str
    args: list[Any]
    kwargs: dict[str, Any]
    chain: list[dict[str, Any]]
    """What follows it, the last first."""
    headers: dict[str, Any]


@dataclass
class Live:
    """What has happened."""

    app: Celery
    redis: RedisServer
    simulator: Simulator
    jobs: dict[str, str] = field(default_factory=dict)
    commands: list[list[str]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    """What the worker answered to the remote control command."""
    events: set[str] = field(default_factory=set)
    """Of the jobs' histories."""
    custom_ids: set[str] = field(default_factory=set)
    """Under which requests were sent to Anthropic."""

    def submit(self, name: str, count: int = COUNT, **options: Any) -> BatchJob:
        """Hand a job over; what begins with an underscore is an option of ``apply_async``."""
        own = {option: options.pop(option) for option in [*options] if option.startswith("_")}
        task = self.app.tasks[run_batch.name]
        sent = task.apply_async((requests(name, count),), options, **{key[1:]: own[key] for key in own})
        self.jobs[name] = sent.id
        return BatchJob(sent.id, self.app)

    def messages(self) -> Iterator[Message]:
        """All messages that were sent, in their order."""
        for command, *args in self.commands:
            if command == "LPUSH" and len(args) == 2 and args[1].startswith('{"body"'):
                sent = json.loads(args[1])
                if "task" in sent["headers"]:  # else it is one of the remote control
                    called, kwargs, embedded = json.loads(base64.b64decode(sent["body"]))
                    names = sent["headers"]
                    yield Message(args[0], names["task"], names["id"], called, kwargs, embedded["chain"] or [], names)


def run(folder: Path) -> Live:
    """Run all of it."""
    with RedisServer() as server, Simulator() as simulator:
        app = Celery("live", broker=server.url, backend=server.url, set_as_current=False)
        app.loader.import_task_module("claude_batch_tasks.tasks")
        live = Live(app, server, simulator)
        env = {
            **inherited(),
            **{f"CLAUDE_BATCH_{name}": value for name, value in _FAST.items()},
            "CELERY_BROKER_URL": server.url,
            "CELERY_RESULT_BACKEND": server.url,
            "ANTHROPIC_API_KEY": KEY,
            "ANTHROPIC_BASE_URL": simulator.url,
        }
        worker = Worker(env, folder / "worker.log", options=("--pool=threads", "--concurrency=8"), cwd=str(folder))
        with Monitor(server.client()) as monitor:
            try:
                _live(live, worker)
            finally:
                worker.stop(kill=True)
                app.close()
        live.commands = monitor.commands
        return live


def _live(live: Live, worker: Worker) -> None:
    simulator = live.simulator
    simulator.behave(
        processing_seconds=NEVER,
        outcomes=[
            Outcome("expired", prompt="of again", attempts=1),
            Outcome("expired", prompt="of by message"),
            Outcome("expired", prompt="of answered too late"),
        ],
    )
    with anthropic.Anthropic(base_url=simulator.url, api_key=KEY, max_retries=0) as client:
        # As many as no job has: the search for the batch of an unanswered create must not take it for its own.
        chosen = requests("adopted", COUNT + 1).values()
        rows: Any = [{"custom_id": str(n), "params": each} for n, each in enumerate(chosen)]
        elsewhere = client.messages.batches.create(requests=rows).id
    refusal = Fault("messages", "status", status=529, headers={"retry-after": "1.5"}, calls=(1,))
    simulator.faults(
        Fault("create", "drop", commit=True, calls=(1,)),
        Fault("create", "status", status=429, headers={"retry-after": "0.2"}, calls=(3,)),
        Fault("retrieve", "status", status=429, headers={"retry-after": "0.2"}, per="server", calls=(1,)),
        refusal,
    )
    again = live.submit("again", retries=1, on_result=live.app.signature("celery.accumulate"))
    worker.start()
    command = [sys.executable, "-m", "claude_batch_tasks.cli", "doctor", "workers"]
    doctor = subprocess.Popen(command, env=worker.env, cwd=worker.cwd, stdout=subprocess.DEVNULL)
    two = group(live.app.signature("celery.accumulate") for _ in range(2))
    by_message = live.submit("by message", retries=0, max_cost=5.0, max_fallback_cost=3.0, on_result=two)
    failing = live.submit("failing", max_wait=0.3, on_result=live.app.signature("tasks.that_no_worker_knows"))
    revoked = live.submit("revoked", _countdown=1)
    live.app.control.revoke(revoked.id)
    canceled = live.submit("canceled")
    unread = live.submit("unread", _queue=NOBODY)
    adopted = adopt(elsewhere, app=live.app)
    each = {"max_requests_per_batch": 1, "max_batches_in_flight": MANY, "poll_min": 1.1, "poll_max": 1.1}
    together = live.submit("together", MANY, **each)

    wait_until(lambda: canceled.status().batches[0].batch_id)
    canceled.cancel()
    wait_until(lambda: failing.status().state == "failed")
    failing.resume(max_wait=None)
    wait_until(lambda: all(batch.batch_id for job in (again, together) for batch in job.status().batches))
    client = live.redis.client()
    wait_until(lambda: client.keys("claude_batch:account:*:listed"))
    simulator.faults(Fault("list", "status", status=500))
    wait_until(lambda: client.keys("claude_batch:account:*:failed"))
    simulator.faults(replace=True)
    assert doctor.wait(60) == 0
    [live.told] = live.app.control.broadcast("claude_batch", {"token": "guard"}, reply=True, timeout=5, limit=1)

    # A worker is killed in the middle of a create, and of a call of the Messages API.
    simulator.behave(processing_seconds=0.1)
    _kill_in_the_middle(live, worker)
    simulator.faults(refusal)

    simulator.end()
    for job in (again, by_message, failing, canceled, adopted, together):
        job.get(timeout=120)
    wait_until(lambda: revoked.status().state == "revoked")
    wait_until(lambda: any(event.event == "recovered" for event in unread.history()))
    retry = canceled.retry_failed(["canceled"])
    live.jobs["retry"] = retry.id
    retry.get(timeout=120)
    _ask(live)
    with TemporaryDirectory() as folder:
        live.app.conf.claude_batch_payload_url = f"file://{folder}"
        live.submit("in objects").get(timeout=120)
        live.app.conf.claude_batch_payload_url = None
    assert again.result("again 0").type == "succeeded"
    live.summary = again.get()
    _lose_rows(live, again)
    readings(live.app)
    live.events = {event.event for id in live.jobs.values() for event in BatchJob(id, live.app).history()}
    live.custom_ids = {id for prompt in simulator.journal().prompts for id in prompt.custom_ids}
    canceled.delete()


def _ask(live: Live) -> None:
    """Ask two questions by themselves, one of which is taken back."""
    task = live.app.tasks[ask.name]
    params, withdrawn = requests("asked", 2).values()
    options = {"pool": "guard", "ask_max_wait": 0.5, "ask_max_cost": 5.0}
    follows: Any = live.app.signature("celery.accumulate", immutable=True)
    asked = task.apply_async((params,), {**options, "deadline": NEVER}, link=follows, headers={"own": "header"})
    late = task.apply_async((withdrawn,), options, countdown=NEVER)
    live.jobs["asked"] = asked.job.id
    assert asked.get(timeout=120).type == "succeeded"
    assert late.cancel()
    wait_until(lambda: late.state == "REVOKED")


def _kill_in_the_middle(live: Live, worker: Worker) -> None:
    simulator, client = live.simulator, live.redis.client()
    simulator.faults(
        Fault("messages", "delay", seconds=20), Fault("create", "delay", seconds=20, calls=(2,)), replace=True
    )
    answered = live.submit("answered too late", retries=0)
    wait_until(lambda: answered.status().batches[0].batch_id)
    created = live.submit("created too late")
    wait_until(lambda: created.status().batches[0].state == "creating")
    wait_until(lambda: client.hlen(f"claude_batch:{{{answered.id}}}:batch:0:sent"))
    worker.stop(kill=True)
    simulator.faults(replace=True)
    worker.start()
    answered.get(timeout=120)


def _lose_rows(live: Live, job: BatchJob) -> None:
    """Lose what a job has for results; workers find out, and fetch them again."""
    client: Any = live.redis.client()
    rows = client.keys(f"claude_batch:{{{job.id}}}:batch:0:rows:*")
    assert client.delete(*rows) == len(rows)
    wait_until(lambda: client.exists(*rows) == len(rows))
