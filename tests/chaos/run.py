"""Running schedules: one Redis and one simulator for as many seeds as there are, workers as the seeds need them."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.simulator import Scenario, Simulator
from tests.chaos import check, check_asks, ledgers, points, schedule as schedules
from tests.chaos.asks import Asked, revoke_ask, submit_ask
from tests.chaos.callers import Caller, make_app
from tests.chaos.ledgers import ServedLedger
from tests.chaos.released import ReleasedCaller, unpack_release
from tests.chaos.schedule import MODEL, PRICES, Event, Job, Profile, Schedule, params
from tests.chaos.workers import Crew
from tests.support import inherited

KEY = "sk-ant-chaos-key-never-to-be-seen"

#: The number of SDK retries that a stranger's calls claim.
_STRANGER = 77

#: Seconds until every AsyncResult must be resolved, and then until all that is left in the broker must have drained.
#: Where each batch's first cancel is refused, all calls pause many times.
PATIENCE = 180.0
DRAIN = 25.0

#: Countdowns short enough for thousands of runs.
SETTINGS = {
    "CLAUDE_BATCH_POLL_MIN": "0.1",
    "CLAUDE_BATCH_POLL_MAX": "0.4",
    "CLAUDE_BATCH_RETRY_MIN": "0.1",
    "CLAUDE_BATCH_RETRY_MAX": "0.6",
    "CLAUDE_BATCH_TIMEOUT": "10",
    "CLAUDE_BATCH_RECOVER_EVERY": "0.5",
    "CLAUDE_BATCH_MAX_MESSAGES_IN_FLIGHT": "8",
    "CLAUDE_BATCH_PRICES": json.dumps({MODEL: PRICES}),
}


@dataclass
class Report:
    """What a run came to."""

    seed: int
    seconds: float = 0.0
    #: How much slower than usual the machine was.
    pace: int = 1
    jobs: int = 0
    requests: int = 0
    #: What was done to workers, Redis and messages, by kind.
    done: dict[str, int] = field(default_factory=dict)
    #: Crash points at which a worker was killed.
    fired: list[str] = field(default_factory=list)
    #: How often each crash point was passed.
    hits: dict[str, int] = field(default_factory=dict)
    redeliveries: int = 0
    searches: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    #: For a failed run: schedule, journal, logs, how to replay it.
    details: str = ""


class Bench:
    """Servers, and workers which live on from seed to seed. A context manager.

    Args:
        mixed: whether workers and callers of the release before this one take part.
        store: which store, one of ``ledgers.KINDS``.
    """

    def __init__(self, *, mixed: bool = False, store: str = "redis") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="claude-batch-chaos-"))
        self.released = self.folder / "released" if mixed else None
        self.server = RedisServer()
        self.store = store
        self.simulator = Simulator()
        self.crew: Crew | None = None

    def __enter__(self) -> Bench:
        """Start the servers.

        Raises:
            ReleaseMissing: the fleet is mixed, and the release cannot be had here.
        """
        if self.released is not None:
            unpack_release(self.released)
        self.server.start()
        self.simulator.start()
        self.servers = contextlib.ExitStack()
        self.client = self.server.client()
        self.ledger: ServedLedger = self.servers.enter_context(ledgers.KINDS[self.store](self.server))
        self.control = self.server.client(points.DATABASE)
        self.app = make_app(self.server.url, {MODEL: PRICES}, self.ledger.url)
        self.callers: list[Caller | ReleasedCaller] = [Caller(self.app)]
        if self.released is not None:
            self.callers.append(ReleasedCaller(self.released, self.server.url, {MODEL: PRICES}))
        return self

    def __exit__(self, *_: object) -> None:
        if self.crew is not None:
            self.crew.close()
        gc.collect()
        for caller in self.callers:
            caller.close()
        self.simulator.stop()
        self.servers.close()
        self.server.stop(kill=True)
        shutil.rmtree(self.server.folder, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def workers(self, profile: Profile) -> Crew:
        """Those of a profile: the last seed's, if they are of it."""
        pace = _pace()
        if self.crew is None or self.crew.profile != profile or self.crew.pace < pace:
            if self.crew is not None:
                self.crew.close()
            env = {
                **inherited(),
                **SETTINGS,
                **self.simulator.env,
                "ANTHROPIC_API_KEY": KEY,
                "CELERY_BROKER_URL": self.server.url,
                "CELERY_RESULT_BACKEND": self.server.url,
                "CLAUDE_BATCH_STORE_URL": self.ledger.url,
                "CHAOS_STORE": self.store,
                "CHAOS_URL": f"redis://127.0.0.1:{self.server.port}/{points.DATABASE}",
            }
            self.crew = Crew(profile, env, self.folder, pace, self.released)
        self.crew.wait()
        return self.crew

    def schedule(self, seed: int) -> Schedule:
        """Return what a seed stands for with these workers."""
        if self.released is None:
            return schedules.of(seed)
        return schedules.mixed(seed, schedules.known_points(self.released / "tests" / "chaos"))

    def empty(self) -> None:
        """Forget everything but what binds queues to exchanges, which workers that live on do not enter again."""
        self.control.flushdb()
        self.ledger.empty()
        keys = [key for key in self.client.scan_iter("*", count=1000) if not key.startswith(b"_kombu")]
        if keys:
            self.client.delete(*keys)

    def run(self, schedule: Schedule) -> Report:
        """The run of one seed."""
        self.app.set_current()
        return _Run(self, schedule).report()


class _Run:
    def __init__(self, bench: Bench, schedule: Schedule) -> None:
        self.bench, self.schedule = bench, schedule
        self.client, self.control, self.ledger = bench.client, bench.control, bench.ledger
        self.done: Counter[str] = Counter()
        self.ids: dict[int, str] = {}
        self.copied: set[bytes] = set()
        #: The numbers of the asks that were asked, and what came of revoking some.
        self.asked: set[int] = set()
        self.revoked: dict[int, bool | None] = {}
        self.problems: list[str] = []

    def report(self) -> Report:
        schedule = self.schedule
        began = time.monotonic()
        # What is left of a failed seed must not fall on the next one.
        crew = self.crew = self.bench.workers(schedule.profile)
        self.bench.empty()
        self.bench.simulator.reset(Scenario(f"seed {schedule.seed}", "", schedule.behaviour, schedule.faults))
        for crash in schedule.crashes:
            self.control.hset(points.ARMED, crash.point, f"{crash.number} {crash.victim}")
        offsets = {log: log.stat().st_size for log in crew.logs}
        self._play()
        fired = [entry.decode().split("|") for entry in self.control.lrange(points.FIRED, 0, -1)]
        for _, victim in fired:
            self.done[f"point {victim}"] += 1
        seen = self._evidence()
        if not self.problems:
            self.problems = [*check.problems(seen), *check_asks.problems(seen)]
        for member in crew.members:
            # On Celery 5.7.0 a worker that holds messages dies with its Redis; a supervisor starts it again.
            if member.deaths and not schedule.has("redis"):
                self.problems.append(f"a worker ended by itself: {member.deaths}")
            self.done["died by itself"] += len(member.deaths)
            self.problems += [f"a stop by SIG{how} did not end" for how in member.stuck]
            member.deaths.clear()
            member.stuck.clear()
        logs = {log: log.read_text(errors="replace")[offset:] for log, offset in offsets.items()}
        for text in logs.values():
            self.problems += [line for line in text.splitlines() if "it has no rule for" in line]
        hits = {name.decode(): int(count) for name, count in self.control.hgetall(points.HITS).items()}
        report = Report(
            schedule.seed,
            pace=crew.pace,
            jobs=len(seen.jobs),
            requests=sum(job.requests for job in seen.jobs),
            done=dict(self.done),
            fired=[point for point, _ in fired],
            hits=hits,
            redeliveries=hits.get("worker: after a message handed out again", 0),
            searches=hits.get("create_batch: before api.list_since", 0),
            counts=dict(seen.counts),
            problems=self.problems,
        )
        if self.problems:
            report.details = self._details(seen, fired, logs)
            # Whatever went wrong, the next seed begins with workers that know nothing of it.
            crew.close()
            self.bench.crew = None
        report.seconds = time.monotonic() - began
        return report

    # -- while it runs

    def _play(self) -> None:
        schedule = self.schedule
        todo: list[tuple[float, Callable[[], None]]] = []
        for job in schedule.jobs:
            todo.append((job.at, lambda job=job: self._submit(job)))
            if job.cancel_at is not None:
                todo.append((job.cancel_at, lambda job=job: self._cancel(job)))
        for each in schedule.asks:
            todo.append((each.at, lambda each=each: self._ask(each)))
            if each.revoke_at is not None:
                todo.append((each.revoke_at, lambda each=each: self._revoke(each)))
        todo += [(event.at, lambda event=event: self._happen(event)) for event in schedule.events]
        todo.sort(key=lambda entry: entry[0])
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE * self.crew.pace:
            while todo and todo[0][0] <= time.monotonic() - began:
                todo.pop(0)[1]()
            with contextlib.suppress(redis.RedisError, StoreUnavailable):
                self._copy_messages()
                handed_over = len(self.ids) == len(schedule.jobs) and len(self.asked) == len(schedule.asks)
                if handed_over and not self._unresolved():
                    break
            time.sleep(0.05)
        else:
            self.problems += [
                f"not resolved after {PATIENCE * self.crew.pace:.0f} s: {text}" for text in self._unresolved()
            ]
            return
        self._drain()
        if not self.problems and (lost := self._unresolved()):
            self.problems.append(f"resolved, and then no more: {lost}")

    def _drain(self) -> None:
        """Wait until nothing is left in the broker, however late it comes back."""
        deadline, still = time.monotonic() + DRAIN * self.crew.pace, 0
        left: dict[str, int] = {}
        while time.monotonic() < deadline:
            with contextlib.suppress(redis.RedisError, StoreUnavailable):
                # A worker killed while it handed messages out again leaves kombu's mutex, which lasts five minutes.
                self.client.delete("unacked_mutex")
                left = check.unfinished(self.client, self.ledger)
                still = 0 if left else still + 1
                # Where a message may have been lost, or a job has failed, nothing need follow.
                if still >= 3 and (self._disturbances() or self._has_called_back() or still >= 50 * self.crew.pace):
                    return
            time.sleep(0.1)
        self.problems.append(f"left over {DRAIN * self.crew.pace:.0f} s after the end: {left} {self._what_is_left()}")

    def _has_called_back(self) -> bool:
        """Whether what follows the jobs has run: Celery acknowledges its messages before that."""
        jobs = self.schedule.jobs
        followed = self.control.hlen("chaos:notes") >= sum(bool(job.follow) for job in jobs)
        told = all(self.control.llen(f"chaos:told:{job.number}") >= job.requests for job in jobs if job.told)
        return followed and told and all(self._has_heard(each) for each in self.schedule.asks if each.follow)

    def _has_heard(self, each: Asked) -> bool:
        revoked = self._ask_state(each.id(self.schedule.seed)) == "revoked"
        return revoked or bool(self.control.llen(f"chaos:heard:{each.number}"))

    def _disturbances(self) -> int:
        rough = ("kill", "stop", "redis", "lose", "purge")
        done = sum(number for kind, number in self.done.items() if kind.split()[0] in rough)
        return done + int(self.control.llen(points.FIRED))

    def _unresolved(self) -> list[str]:
        found = []
        for number, job_id in self.ids.items():
            if (status := self._state(job_id)) not in ("SUCCESS", "FAILURE"):
                found.append(f"job {number} ({job_id}) is {status}")
        for each in self.schedule.asks:
            if each.number in self.asked:
                ask_id = each.id(self.schedule.seed)
                status, known = self._state(ask_id), self._ask_state(ask_id)
                if known is None or (status not in ("SUCCESS", "FAILURE") and known != "revoked"):
                    found.append(f"ask {each.number} ({ask_id}) is {status}, in the store {known!r}")
        return found

    def _state(self, task_id: str) -> str:
        meta = self.client.get(f"celery-task-meta-{task_id}")
        return str(json.loads(meta)["status"]) if meta else "PENDING"

    def _ask_state(self, ask_id: str) -> str | None:
        """Return what the store says of an ask that is over; None: it is not."""
        [place] = self.ledger.open().asks.read_places([ask_id])
        return None if place is None or place.state == "waiting" else place.state

    def _submit(self, job: Job) -> None:
        seed = self.schedule.seed
        requests = {custom_id: params(job.prompt(seed, index)) for index, custom_id in enumerate(job.custom_ids)}
        caller = self.bench.callers[job.released]
        self.ids[job.number] = caller.submit_job(job.number, requests, job.options, job.follow, job.told)

    def _cancel(self, job: Job) -> None:
        if job.number in self.ids:
            self.done["cancel"] += self.bench.callers[job.released].cancel_job(self.ids[job.number])

    def _ask(self, each: Asked) -> None:
        submit_ask(self.bench.app, each, self.schedule.seed, params(each.prompt(self.schedule.seed)))
        self.asked.add(each.number)

    def _revoke(self, each: Asked) -> None:
        if each.number in self.asked:
            self.revoked[each.number] = revoke_ask(self.bench.app, each, self.schedule.seed)
            self.done[each.revoke_by] += 1

    def _happen(self, event: Event) -> None:
        kind, _, what = event.what.partition(" ")
        members = self.crew.members
        member = members[int(event.at * 100) % len(members)]
        if kind == "kill":
            done = member.kill(what)
        elif kind == "stop":
            done = member.stop(what)
        elif kind == "redis":
            self.bench.server.stop(kill=what == "kill")
            time.sleep(0.2)
            self.bench.server.start()
            self.ledger.restart(kill=what == "kill")
            done = True
        elif kind == "stranger":
            done = self._stranger(int(what))
        else:
            done = self._purge() if kind == "purge" else self._lose()
        self.done[event.what if kind != "stranger" else kind] += done

    def _stranger(self, size: int) -> bool:
        """Another application of the same account makes a batch of this size."""
        for attempt in range(5):  # the faults meet strangers too
            prompts = [f"stranger {time.monotonic()} {attempt} {index}" for index in range(size)]
            requests = [
                {"custom_id": f"theirs-{index}", "params": params(prompt)} for index, prompt in enumerate(prompts)
            ]
            request = urllib.request.Request(
                f"{self.bench.simulator.url}/v1/messages/batches",
                json.dumps({"requests": requests}).encode(),
                {
                    "x-api-key": KEY,
                    "anthropic-version": "2023-06-01",
                    "content-type": "application/json",
                    # By this the journal's calls can be told from ours.
                    "x-stainless-retry-count": str(_STRANGER),
                },
            )
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with contextlib.suppress(OSError), opener.open(request, timeout=10):
                return True
        return False

    def _purge(self) -> bool:
        """The queue is emptied, as by ``celery purge``, a few times in a row."""
        lost = 0
        for _ in range(20):
            with contextlib.suppress(redis.RedisError, StoreUnavailable):
                while self.client.lpop("celery"):
                    lost += 1
            time.sleep(0.01)
        return bool(lost)

    def _lose(self) -> bool:
        """What lies with the workers is forgotten, and they are killed."""
        try:
            held = {
                tag: json.loads(value)[0]["headers"]["task"] for tag, value in self.client.hgetall("unacked").items()
            }
            tags = [tag for tag, task in held.items() if task.startswith("claude_batch_tasks.")]
            for tag in tags:
                self.client.hdel("unacked", tag)
                self.client.zrem("unacked_index", tag)
        except redis.RedisError:
            return False
        for member in self.crew.members:
            member.kill("group")
        self.done["kill group"] += len(self.crew.members)
        return bool(tags)

    def _copy_messages(self) -> None:
        """Put what lies with a worker on its queue once more, byte for byte but for the tag."""
        if self.schedule.copies <= self.done["copy"]:
            return
        for tag, value in self.client.hgetall("unacked").items():
            message, _, queue = json.loads(value)
            ours = message["headers"]["task"].startswith("claude_batch_tasks.")
            if ours and tag not in self.copied and self.done["copy"] < self.schedule.copies:
                self.copied.add(tag)
                message["properties"]["delivery_tag"] += "-again"
                self.copied.add(message["properties"]["delivery_tag"].encode())
                self.client.lpush(queue, json.dumps(message))
                self.done["copy"] += 1

    # -- when it is over

    def _evidence(self) -> check.Evidence:
        notes = {name.decode(): int(count) for name, count in self.control.hgetall("chaos:notes").items()}
        told = {
            job.number: [entry.decode() for entry in self.control.lrange(f"chaos:told:{job.number}", 0, -1)]
            for job in self.schedule.jobs
        }
        published = sum(
            int(count)
            for name, count in self.control.hgetall(points.HITS).items()
            if name.endswith(b": after publish tests.chaos.note")
        )
        heard_published = sum(
            int(count)
            for name, count in self.control.hgetall(points.HITS).items()
            if name.endswith((b": after publish tests.chaos.heard", b": after publish tests.chaos.failed"))
        )
        heard = {
            each.number: [entry.decode() for entry in self.control.lrange(f"chaos:heard:{each.number}", 0, -1)]
            for each in self.schedule.asks
        }
        journal = self.bench.simulator.journal()
        pool_jobs = check_asks.find_pool_jobs(self.bench.app, self.schedule)
        return check.Evidence(
            self.schedule,
            self.bench.app,
            self.ledger,
            journal,
            {**self.ids, **{job.number: job_id for job_id, job in pool_jobs.items()}},
            [*self.schedule.jobs, *pool_jobs.values()],
            {call.batch_id for call in journal.calls if call.sdk_retries == _STRANGER and call.batch_id},
            notes,
            published,
            disturbances=self._disturbances(),
            concurrency=int(SETTINGS["CLAUDE_BATCH_MAX_MESSAGES_IN_FLIGHT"]),
            told={number: [tuple(entry.split("\n")) for entry in entries] for number, entries in told.items()},
            revoked=self.revoked,
            heard=heard,
            heard_published=heard_published,
        )

    def _what_is_left(self) -> str:
        texts = []
        with contextlib.suppress(redis.RedisError, StoreUnavailable, ValueError):
            for value in self.client.hvals("unacked"):
                headers = json.loads(value)[0]["headers"]
                texts.append(f"{headers['task']}{headers['argsrepr']} eta {headers['eta']}")
            texts += [f"{name} due" for name in self.ledger.list_due()]
        return "; ".join(texts)

    def _details(self, seen: check.Evidence, fired: list[list[str]], logs: dict[Path, str]) -> str:
        lines = ["-- schedule", str(self.schedule), f"  fired: {fired}; done: {dict(self.done)}"]
        lines += ["-- ids", *(f"  job {number}: {job_id}" for number, job_id in seen.ids.items())]
        lines += ["-- problems", *(f"  {problem}" for problem in self.problems)]
        origin = seen.journal.calls[0].at if seen.journal.calls else 0.0
        lines += ["-- calls"] + [
            f"  {call.at - origin:6.2f} {call.endpoint} {call.status} {call.batch_id or ''} {' '.join(call.faults)}"
            for call in seen.journal.calls[-120:]
        ]
        odd = [prompt for prompt in seen.journal.prompts if prompt.paid != 1 or len(prompt.outcomes) != 1]
        lines += ["-- prompts not simply paid once", *(f"  {check.as_text(prompt)}" for prompt in odd[:40])]
        lines += ["-- batches", *(f"  {check.as_text(batch)}" for batch in seen.journal.batches)]
        for log, text in logs.items():
            own = [line for line in text.splitlines() if " received" not in line]
            lines += [f"-- {log.name}", *(f"  {line}" for line in own[-150:])]
        mixed = " --mixed" if self.bench.released else f" --store {self.bench.store}"
        lines += ["-- replay", f"  python -m tests.chaos --seed {self.schedule.seed}{mixed}"]
        return "\n".join(lines)


def _pace() -> int:
    """By how much to slow everything down: on a busy machine three seconds are no time at all."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    return 1 if load < 2 else 2 if load < 4 else 4


def failure(report: Report) -> str:
    """A failed run, in full."""
    return f"seed {report.seed} failed:\n" + "\n".join(report.problems) + "\n\n" + report.details


def as_json(report: Report) -> str:
    """One line, for the process that counts."""
    return json.dumps(vars(report))


def from_json(line: str) -> Report:
    """What ``as_json`` wrote."""
    fields: dict[str, Any] = json.loads(line)
    return Report(**fields)
