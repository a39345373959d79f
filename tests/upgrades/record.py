"""Write down what a release leaves in Redis when all of it is killed in the middle of everything.

To be run once for each release, with that release's package:

    python -m tests.upgrades.record tests/upgrades/0.2.0.json.gz

``test_upgrade`` has the release that comes after it finish the jobs. What is written are keys and values and not what
Redis' ``DUMP`` gives, which only servers of a like version can read.

0.1.0 has no such script: this one was run with a checkout of it first on ``PYTHONPATH``.
"""

from __future__ import annotations

import base64
import gzip
import json
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from celery import Celery

from claude_batch_tasks import BatchJob, run_batch, submit
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.simulator import Fault, Outcome, Simulator
from claude_batch_tasks.store import open_store
from tests.support import FAST, inherited, wait_until
from tests.workers.rig import requests

META = b"celery-task-meta-"
KEY = "sk-ant-test-key-never-to-be-seen"

#: Requests of each job, and of each batch of the one that has two.
COUNT, HALF = 6, 3

#: Of the jobs to which another chance is given: the requests that need one, and those that have had it.
EXPIRED, ANSWERED = 3, 2

#: Seconds that nobody is at work before it is written down: leases end, messages are overdue, and what was on its way
#: to the API is answered to nobody.
DOWN = 15

#: Longer than any of this takes, seconds.
NEVER = 3600


class Recording:
    """One worker's jobs, each brought to where it is to be found by the next release."""

    def __init__(self, app: Celery, simulator: Simulator) -> None:
        self._app, self._simulator = app, simulator
        self.jobs: dict[str, str] = {}

    def submit(self, name: str, **options: Any) -> BatchJob:
        self.jobs[name] = run_batch.delay(requests(name, COUNT), **options).id
        return BatchJob(self.jobs[name], self._app)

    def created(self, job: BatchJob, batch: int = 0) -> str:
        return str(wait_until(lambda: job.status().batches[batch].batch_id))

    def leave_all(self) -> None:
        simulator = self._simulator
        simulator.behave(
            processing_seconds=NEVER,
            outcomes=[
                Outcome("expired", prompt="of in its second round", count=EXPIRED, attempts=1),
                Outcome("expired", prompt="of partly through the Messages API"),
            ],
        )
        completed = self.submit("completed")
        simulator.end(self.created(completed))
        completed.get(timeout=180)

        failed = self.submit("failed", max_wait=1)
        wait_until(lambda: failed.status().state == "failed")

        half = self.submit("half done", max_requests_per_batch=HALF)
        self.created(half, 1)
        simulator.end(self.created(half))
        wait_until(lambda: half.status().batches[0].state == "done")

        second = self.submit("in its second round")
        first = self.created(second)
        simulator.end(first)
        wait_until(lambda: second.status().batches[0].batch_id not in (first, None))

        # What waits longer than a second does so in the store; the others wait in messages.
        self.created(self.submit("running", poll_min=2, poll_max=2))
        self.created(self.submit("looked at often"))

        # Each call from the third on is answered too late.
        simulator.faults(Fault("messages", "delay", seconds=DOWN, per="server", calls=tuple(range(ANSWERED + 1, 100))))
        messages = self.submit("partly through the Messages API", retries=0, max_messages_in_flight=2)
        simulator.end(self.created(messages))
        wait_until(lambda: len(simulator.journal().calls_to("messages")) >= ANSWERED + 1)
        wait_until(lambda: simulator.state().totals.paid_messages == ANSWERED)

        simulator.faults(Fault("results", "status", status=500))
        ended = self.submit("ended, and not fetched")
        simulator.end(self.created(ended))
        wait_until(lambda: ended.status().batches[0].state == "ended")

        simulator.faults(Fault("create", "delay", seconds=DOWN, commit=True))
        batches = len(simulator.state().batches)
        self.submit("created, and not answered")
        wait_until(lambda: len(simulator.state().batches) > batches)


def main(path: Path) -> None:
    with RedisServer() as redis, Simulator() as simulator, tempfile.TemporaryDirectory() as folder:
        app = Celery("recorder", broker=redis.url, backend=redis.url)
        app.loader.import_task_module("claude_batch_tasks.tasks")
        app.set_current()
        env = {
            **inherited(),
            **FAST,
            "CELERY_BROKER_URL": redis.url,
            "CELERY_RESULT_BACKEND": redis.url,
            "ANTHROPIC_API_KEY": KEY,
            "ANTHROPIC_BASE_URL": simulator.url,
        }
        options = ("--concurrency=6", "--hostname=worker@recorder")
        worker = Worker(env, Path(folder) / "worker.log", options=options, cwd=folder)
        recording = Recording(app, simulator)
        try:
            worker.start()
            recording.leave_all()
        finally:
            worker.stop(kill=True)
        recording.submit("untaken")
        time.sleep(DOWN)
        found = {
            "taken_at": time.time(),
            "url": simulator.url,
            "jobs": recording.jobs,
            "batches": list(_batches(redis.url, recording.jobs, simulator)),
            "answered": [prompt.text for prompt in simulator.journal().prompts if prompt.paid_messages],
            "redis": list(_keys(redis, recording.jobs)),
        }
        text = json.dumps(found, indent=1)
        # What it was recorded on is nobody's business.
        for folder in (sys.prefix, str(Path(submit.__file__).parents[1])):
            text = text.replace(folder, "")
        text = text.replace(f"@{socket.gethostname()}", "@recorder")
        path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _batches(url: str, jobs: dict[str, str], simulator: Simulator) -> Iterator[dict[str, Any]]:
    """What is at Anthropic, as it was sent there."""
    store, known = open_store(url), {batch.id: batch for batch in simulator.state().batches}
    for job_id in jobs.values():
        job = store.job(job_id)
        assert job is not None
        for number, record in enumerate(store.batches(job_id)):
            if record.batch_id is None and record.state != "creating":
                continue
            # That of which we have no id was made last.
            seen = known[record.batch_id] if record.batch_id else list(known.values())[-1]
            body = b"".join(submit.body(store, job_id, job, number, record)).decode()
            ended, expired = seen.status == "ended", seen.request_counts["expired"]
            yield {"id": seen.id, "ended": ended, "expired": expired, "body": body}


def _keys(redis: RedisServer, jobs: dict[str, str]) -> Iterator[dict[str, Any]]:
    """All there is, but for what Celery keeps of tasks that nobody asks about."""
    client: Any = redis.client()
    read = {
        "string": client.get,
        "list": lambda key: client.lrange(key, 0, -1),
        "set": lambda key: sorted(client.smembers(key)),
        "hash": client.hgetall,
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    for key in sorted(client.keys("*")):
        if key.startswith(META) and key.removeprefix(META).decode() not in jobs.values():
            continue
        kind, ttl = client.type(key).decode(), client.pttl(key)
        yield {"key": key.decode(), "type": kind, "ttl": max(ttl, 0), "value": _plain(read[kind](key))}


def _plain(value: Any) -> Any:
    """As JSON has it: texts as they are, what is none as ``{"base64": ...}``, a hash as a list of pairs."""
    if isinstance(value, dict):
        return _plain(list(value.items()))
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    return value


if __name__ == "__main__":
    main(Path(sys.argv[1]))
