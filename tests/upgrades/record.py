"""Write down what a release leaves in Redis when all of it is killed in the middle of everything.

To be run once for each release, with that release's package:

    python -m tests.upgrades.record tests/upgrades/0.2.0.json.gz

``test_upgrade`` has the release that comes after it finish the jobs. What is written are keys and values and not what
Redis' ``DUMP`` gives, which only servers of a like version can read.

It is to be run in a checkout of that release, with its own environment, into which this folder's scripts are copied if
they have come further since (0.1.0 has none, and 0.2.0 fewer states). Beside what is left it writes down each key and
field that the release has named in its commands, for ``tests/guards``.
"""

from __future__ import annotations

import base64
import gzip
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import anthropic
from celery import Celery

from claude_batch_tasks import BatchJob, HistoryEvent, adopt, api, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.instruments import gauges
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.simulator import Fault, Outcome, Simulator
from claude_batch_tasks.store import open_store_at
from tests.integration.rig import requests
from tests.support import FAST, inherited, wait_until
from tests.upgrades.monitor import Monitor, touched

META = b"celery-task-meta-"
KEY = "sk-ant-test-key-never-to-be-seen"

#: Seals the payloads of one job; the worker that has it takes from a queue of its own.
SEALED, ENCRYPTION_KEY = "sealed", "bm9ib2R5IHdpbGwgZXZlciB3YW50IHRvIHJlYWQgaXQ="

#: A queue from which nobody takes.
NOBODY = "nobody"

#: Requests of each job, and of each batch of those that have two; and of the one that has a batch for each, which are
#: enough to be looked at by one listing.
COUNT, HALF, MANY = 6, 3, 12

#: Entries of the longest history: more than are kept.
LONG = 1_100

#: Of the jobs to which another chance is given: the requests that need one, and those that have had it.
EXPIRED, ANSWERED = 3, 2

#: Seconds that nobody is at work before it is written down: leases end, messages are overdue, and what was on its way
#: to the API is answered to nobody.
DOWN = 30

#: Longer than any of this takes, seconds.
NEVER = 3600


class Recording:
    """One worker's jobs, each brought to where it is to be found by the next release."""

    def __init__(self, app: Celery, sealing: Celery, redis: RedisServer, simulator: Simulator) -> None:
        self._app, self._sealing, self._redis, self._simulator = app, sealing, redis, simulator
        self.jobs: dict[str, str] = {}
        #: Of batches that were created elsewhere, by the job that they were made.
        self.bodies: dict[str, bytes] = {}

    def submit(self, name: str, count: int = COUNT, *, queue: str | None = None, **options: Any) -> BatchJob:
        sent = run_batch.apply_async((requests(name, count),), options, queue=queue)
        self.jobs[name] = sent.id
        return BatchJob(sent.id, self._app)

    def submit_encrypted(self, name: str, **options: Any) -> BatchJob:
        task: Any = self._sealing.tasks[run_batch.name]
        self.jobs[name] = task.apply_async((requests(name, COUNT),), options, queue=SEALED).id
        return BatchJob(self.jobs[name], self._sealing)

    def adopt(self, name: str) -> BatchJob:
        # What anybody sends has no spaces in its custom_ids.
        rows = [{"custom_id": str(n), "params": each} for n, each in enumerate(requests(name, COUNT).values())]
        body = json.dumps({"requests": rows}).encode()
        with anthropic.Anthropic(base_url=self._simulator.url, api_key=KEY, max_retries=0) as client:
            job = adopt(api.create_batch(client, [body], len(body)).id, app=self._app)
        self.jobs[name], self.bodies[job.id] = job.id, body
        return job

    def created(self, job: BatchJob, batch: int = 0) -> str:
        return str(wait_until(lambda: job.status().batches[batch].batch_id))

    def leave_all(self) -> None:
        simulator = self._simulator
        simulator.behave(
            processing_seconds=NEVER,
            outcomes=[
                Outcome("expired", prompt="of in its second round", count=EXPIRED, attempts=1),
                Outcome("expired", prompt="of partly through the Messages API"),
                Outcome("expired", prompt="of refused by the Messages API"),
                Outcome("expired", prompt="of spending its budget"),
            ],
        )
        self.leave_ended()
        self.leave_in_flight()
        self.leave_in_the_messages_api()

        simulator.faults(Fault("results", "status", status=500))
        ended = self.submit("ended, and not fetched")
        simulator.end(self.created(ended))
        wait_until(lambda: ended.status().batches[0].state == "ended")

        simulator.faults(Fault("create", "delay", seconds=DOWN, commit=True))
        batches = len(simulator.state().batches)
        self.submit("created, and not answered")
        wait_until(lambda: len(simulator.state().batches) > batches)

        # Of the account's calls none is to be made for a while.
        pause = {"retry-after": str(2 * DOWN)}
        simulator.faults(*(Fault(look, "status", status=429, headers=pause) for look in ("retrieve", "list")))
        wait_until(lambda: any(b":" not in name for name in self._redis.client().zrange("claude_batch:held", 0, -1)))

    def leave_ended(self) -> None:
        simulator = self._simulator
        completed = self.submit("completed")
        simulator.end(self.created(completed))
        completed.get(timeout=180)

        deleted = self.submit("deleted")
        simulator.end(self.created(deleted))
        deleted.get(timeout=180)
        deleted.delete()
        del self.jobs["deleted"]

        adopted = self.adopt("adopted, and completed")
        simulator.end(self.created(adopted))
        adopted.get(timeout=180)

        failed = self.submit("failed", max_wait=1)
        wait_until(lambda: failed.status().state == "failed")

        canceled = self.submit("canceled")
        self.created(canceled)
        canceled.cancel()
        wait_until(lambda: canceled.status().state == "canceled")

        revoked = run_batch.apply_async((requests("revoked", COUNT),), countdown=2)
        self.jobs["revoked"] = revoked.id
        revoked.revoke()
        wait_until(lambda: BatchJob(revoked.id, self._app).status().state == "revoked")

    def leave_in_flight(self) -> None:
        simulator = self._simulator
        told = self._app.signature("celery.accumulate")
        half = self.submit("half done", max_requests_per_batch=HALF, on_result=told)
        self.created(half, 1)
        simulator.end(self.created(half))
        wait_until(lambda: half.status().batches[0].state == "done")

        encrypted = self.submit_encrypted("encrypted", max_requests_per_batch=HALF)
        self.created(encrypted, 1)
        simulator.end(self.created(encrypted))
        wait_until(lambda: encrypted.status().batches[0].state == "done")

        second = self.submit("in its second round")
        first = self.created(second)
        simulator.end(first)
        wait_until(lambda: second.status().batches[0].batch_id not in (first, None))

        resumed = self.submit("resumed", max_wait=1)
        wait_until(lambda: resumed.status().state == "failed")
        resumed.resume(max_wait=None)
        wait_until(lambda: resumed.status().looks > 0)

        simulator.behave(cancel_seconds=NEVER)
        canceling = self.submit("canceling")
        self.created(canceling)
        canceling.cancel()
        wait_until(lambda: canceling.status().batches[0].state == "canceling")

        adopted = self.adopt("adopted")
        wait_until(lambda: adopted.status().looks > 0)
        self.created(self.submit("with a reserved budget", max_cost=5.0))

        # What waits longer than a second does so in the store; the others wait in messages.
        self.created(self.submit("running", poll_min=2, poll_max=2))
        self.created(self.submit("looked at often"))

        simulator.faults(Fault("list", "status", status=500, calls=(1,)))
        each = {"max_requests_per_batch": 1, "max_batches_in_flight": MANY, "poll_min": 2, "poll_max": 2}
        self.submit("listed together", MANY, **each)
        wait_until(lambda: len(simulator.journal().calls_to("list")) > 1)

        lost = self.submit("lost in a queue", queue=NOBODY)
        wait_until(lambda: any(event.event == "recovered" for event in lost.history()))

    def leave_in_the_messages_api(self) -> None:
        simulator = self._simulator
        # Each is refused once, and sent again after a while. That another model has limits of its own keeps it apart.
        simulator.faults(Fault("messages", "status", status=529, calls=(1,)))
        again = {
            custom_id: {**params, "model": "claude-sonnet-4-5"}
            for custom_id, params in requests("refused by the Messages API", COUNT).items()
        }
        limits = {"retries": 0, "retry_min": 2 * DOWN, "retry_max": 2 * DOWN}
        self.jobs["refused by the Messages API"] = run_batch.delay(again, **limits).id
        refused = BatchJob(self.jobs["refused by the Messages API"], self._app)
        simulator.end(self.created(refused))
        wait_until(lambda: len(simulator.journal().calls_to("messages")) >= COUNT)
        simulator.faults(replace=True)

        # Each call from the third on is answered too late.
        before = len(simulator.journal().calls_to("messages"))
        paid = simulator.state().totals.paid_messages
        simulator.faults(Fault("messages", "delay", seconds=DOWN, per="server", calls=tuple(range(ANSWERED + 1, 100))))
        messages = self.submit("partly through the Messages API", retries=0, max_messages_in_flight=2)
        simulator.end(self.created(messages))
        wait_until(lambda: len(simulator.journal().calls_to("messages")) >= before + ANSWERED + 1)
        wait_until(lambda: simulator.state().totals.paid_messages >= paid + ANSWERED)

        budget = {"max_cost": 5.0, "max_fallback_cost": 3.0}
        spending = self.submit("spending its budget", retries=0, max_messages_in_flight=4, **budget)
        simulator.end(self.created(spending))
        wait_until(lambda: self._redis.client().hlen(f"claude_batch:{{{spending.job_id}}}:batch:0:sent"))

    def tell_a_long_story(self) -> None:
        """Make one job's history longer than is kept."""
        store, at = open_store_at(self._redis.url), datetime.now(timezone.utc)
        for number in range(LONG):
            event = HistoryEvent(at=at, event="retry", batch=0, text=f"number {number}", details={"countdown": 0.5})
            store.history.append_event(self.jobs["completed"], event)


def main(path: Path) -> None:
    with RedisServer() as redis, Simulator() as simulator, tempfile.TemporaryDirectory() as folder:
        sealing = Celery("sealing", broker=redis.url, backend=redis.url, set_as_current=False)
        sealing.conf.claude_batch_encryption_key = ENCRYPTION_KEY
        app = Celery("recorder", broker=redis.url, backend=redis.url)
        for each in (sealing, app):
            each.loader.import_task_module("claude_batch_tasks.tasks")
        app.set_current()
        env = {
            **inherited(),
            **FAST,
            "CELERY_BROKER_URL": redis.url,
            "CELERY_RESULT_BACKEND": redis.url,
            "ANTHROPIC_API_KEY": KEY,
            "ANTHROPIC_BASE_URL": simulator.url,
        }
        workers = [
            Worker(
                {**env, **more},
                Path(folder) / f"{name}.log",
                options=(f"--concurrency={processes}", f"--hostname={name}@recorder", f"--queues={queue}"),
                cwd=folder,
            )
            for name, processes, queue, more in (
                ("worker", 12, "celery", {}),
                ("sealing", 2, SEALED, {"CLAUDE_BATCH_ENCRYPTION_KEY": ENCRYPTION_KEY}),
            )
        ]
        recording = Recording(app, sealing, redis, simulator)
        with Monitor(redis.client()) as monitor:
            try:
                for worker in workers:
                    worker.start()
                recording.leave_all()
                subprocess.run([sys.executable, "-m", "claude_batch_tasks.cli", "doctor", "workers"], env=env)
            finally:
                for worker in workers:
                    worker.stop(kill=True)
            recording.submit("untaken")
            recording.tell_a_long_story()
            time.sleep(DOWN)
            gauges.readings(app)
        found = {
            "taken_at": time.time(),
            "url": simulator.url,
            "jobs": recording.jobs,
            "batches": list(_batches(redis.url, recording, simulator)),
            "answered": [prompt.text for prompt in simulator.journal().prompts if prompt.paid_messages],
            "redis": list(_keys(redis, recording.jobs)),
            "touched": touched(monitor.commands, "claude_batch:"),
        }
        text = json.dumps(found, indent=1)
        # What it was recorded on is nobody's business.
        for folder in (sys.prefix, str(Path(submission.__file__).parents[2])):
            text = text.replace(folder, "")
        text = text.replace(f"@{socket.gethostname()}", "@recorder")
        path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _batches(url: str, recording: Recording, simulator: Simulator) -> Iterator[dict[str, Any]]:
    """What is at Anthropic, as it was sent there."""
    store = open_store_at(url, (ENCRYPTION_KEY,))
    known = {batch.id: batch for batch in simulator.state().batches}
    for job_id in recording.jobs.values():
        job = store.jobs.read_job(job_id)
        assert job is not None
        for number, record in enumerate(store.records.read_batches(job_id)):
            if record.batch_id is None and record.state != "creating":
                continue
            # That of which we have no id was made last.
            seen = known[record.batch_id] if record.batch_id else list(known.values())[-1]
            sent = recording.bodies.get(job_id) or b"".join(submission.read_body(store, job_id, job, number, record))
            yield {
                "id": seen.id,
                "ended": seen.status == "ended",
                "canceling": seen.status == "canceling",
                "expired": seen.request_counts["expired"],
                "body": sent.decode(),
            }


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
