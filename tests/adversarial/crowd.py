"""A crowd of processes that ask, under the faults of the report; workers and askers are killed, and Redis restarts.

``python -m tests.adversarial.crowd --producers 50 --asks 20000 --max-requests 1000`` ends with a report; its exit
status says whether each ask ended once, as it should, was paid once, and cost what the simulator's invoice says.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from decimal import Decimal
from math import ceil, log2
from pathlib import Path
from typing import Any

from celery import Celery

from claude_batch_tasks import BatchJob
from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.simulator import Behaviour, Fault, Outcome, Refusal, Scenario, Simulator
from claude_batch_tasks.store import Store, open_store_at
from tests.adversarial.asking import make_app
from tests.adversarial.crowd_asks import ENDED, FOLLOWED, CrowdAsk
from tests.adversarial.storm import ENDED as OVER, Workers
from tests.support import FAST, inherited

#: What a million tokens of input and of output cost, in dollars, by model.
PRICES = {"claude-haiku-4-5": (1.0, 5.0)}

#: Ids that are asked for in one go.
CHUNK = 1000

#: The faults of the report, again and again, and answers that are lost. What expires or is refused is good the next
#: time.
WEATHER = Scenario(
    "crowd",
    "The 404s of the report on every endpoint, creates whose answers are lost, broken downloads.",
    Behaviour(
        processing_seconds=(1.0, 5.0),
        list_lag_seconds=0.5,
        refusals=(Refusal("^poison question", message="It is poisonous"),),
        outcomes=(
            Outcome("errored", error="invalid_request_error", prompt="invalid question"),
            Outcome("expired", prompt="late question", attempts=1),
            Outcome("errored", error="overloaded_error", prompt="busy question", attempts=1),
        ),
    ),
    (
        Fault("create", "status", status=404, calls=(1, 2), name="create 404"),
        Fault("create", "status", status=404, probability=0.1),
        Fault("create", "drop", commit=True, probability=0.03, name="create drop after"),
        Fault("create", "status", status=500, commit=True, probability=0.03, name="create stored, 500"),
        Fault("create", "drop", probability=0.03, name="create drop before"),
        Fault("retrieve", "status", status=404, before=0.5, name="retrieve 404 after create"),
        Fault("retrieve", "status", status=404, probability=0.1),
        Fault("results", "status", status=404, since="ended", calls=(1,), name="results 404 at first"),
        Fault("results", "cut", how="reset", probability=0.05, name="results reset"),
        Fault("list", "status", status=529, probability=0.05),
    ),
)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--producers", type=int, default=6)
    parser.add_argument("--asks", type=int, default=300, help="of each producer")
    parser.add_argument("--pools", type=int, default=5)
    parser.add_argument("--max-requests", type=int, default=100)
    parser.add_argument("--max-wait", type=float, default=3.0)
    parser.add_argument("--kill-every", type=float, default=5.0, help="seconds between kills of workers; 0: never")
    parser.add_argument("--kill-producers-every", type=float, default=1.0, help="seconds; 0: never")
    parser.add_argument("--producer-kills", type=int, default=12, help="at most")
    parser.add_argument("--restarts", type=int, default=1, help="of Redis")
    parser.add_argument("--restart-every", type=float, default=8.0, help="seconds")
    parser.add_argument("--kills", type=int, default=6, help="of workers, at most")
    parser.add_argument("--concurrency", type=int, default=2, help="processes of each of the two workers")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--patience", type=float, default=240.0, help="seconds after which the crowd is given up")
    parser.add_argument("--visibility", type=float, default=4.0, help="the broker's visibility timeout, seconds")
    parser.add_argument("--recover-after", type=float, default=5.0, help="seconds")
    parser.add_argument("--lease", type=float, default=3.0, help="seconds")
    parser.add_argument("--calm", action="store_true", help="no faults")
    parser.add_argument("--counts", action=argparse.BooleanOptionalAction, default=True, help="count ends by signals")
    parser.add_argument("--logs", type=Path, help="folder for the workers' logs; default: a temporary one")
    return parser.parse_args(argv)


class Crowd:
    """The processes that ask, and the workers."""

    def __init__(self, args: argparse.Namespace, folder: Path, redis: RedisServer, env: dict[str, str]) -> None:
        self.args, self.folder, self.redis, self.env = args, folder, redis, env
        self.chance = random.Random(args.seed)
        self.producers: dict[int, subprocess.Popen[bytes]] = {}
        self.left = set(range(args.producers))
        self.kills: Counter[str] = Counter()
        self.workers = Workers(env, folder, args.concurrency, "--include=tests.adversarial.crowd_asks")

    def __enter__(self) -> Crowd:
        self.workers.__enter__()
        for producer in range(self.args.producers):
            self._start(producer)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.producers.values():
            process.kill()
            process.wait()
        self.workers.__exit__()

    def kill_worker(self) -> None:
        self.workers.kill_one()
        self.kills["worker"] += 1

    def kill_producer(self) -> None:
        if self.left:
            producer = self.chance.choice(sorted(self.left))
            self.producers[producer].kill()
            self.producers[producer].wait()
            self.kills["producer"] += 1
            self._start(producer)

    def restart_redis(self) -> None:
        self.redis.stop(kill=True)
        time.sleep(0.5)
        self.redis.start()
        self.kills["redis"] += 1

    def collect(self) -> bool:
        """Return whether all have asked.

        Raises:
            AssertionError: one of them ended with an error.
        """
        for producer in sorted(self.left):
            if (code := self.producers[producer].poll()) is not None:
                self.left.discard(producer)
                if code != 0:
                    raise AssertionError(f"producer {producer} ended with {code}: see {self._log(producer)}")
        return not self.left

    def _log(self, producer: int) -> Path:
        return self.folder / f"producer-{producer}.log"

    def _start(self, producer: int) -> None:
        args = self.args
        given = (self.redis.url, producer, args.asks, args.pools, args.max_requests, args.max_wait)
        command = [sys.executable, "-m", "tests.adversarial.asking", *map(str, given)]
        with self._log(producer).open("ab") as log:
            self.producers[producer] = subprocess.Popen(
                [*command, str(self.folder / f"producer-{producer}")],
                env=self.env,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


def asks(args: argparse.Namespace) -> Iterator[CrowdAsk]:
    """Every ask, those that were asked at about the same time together."""
    return (CrowdAsk(producer, number) for number in range(args.asks) for producer in range(args.producers))


def watch(args: argparse.Namespace, crowd: Crowd, begun: float) -> float:
    """Kill, and restart, until every ask has ended; return the seconds until all had asked."""
    left = [each.id for each in asks(args)]
    next_kill, next_end, next_restart = (
        begun + (every or float("inf")) for every in (args.kill_every, args.kill_producers_every, args.restart_every)
    )
    next_word, asked = begun + 15, 0.0
    while (left or not asked) and time.monotonic() - begun < args.patience:
        time.sleep(0.5)
        if not asked and crowd.collect():
            asked = time.monotonic() - begun
        left = still_running(crowd.redis, left)
        now = time.monotonic()
        if now > next_kill and crowd.kills["worker"] < args.kills:
            crowd.kill_worker()
            next_kill = now + args.kill_every
        if now > next_end and crowd.kills["producer"] < args.producer_kills:
            crowd.kill_producer()
            next_end = now + args.kill_producers_every
        if now > next_restart and crowd.kills["redis"] < args.restarts:
            crowd.restart_redis()
            next_restart = now + args.restart_every
        if now > next_word:
            next_word = now + 15
            print(f"{now - begun:4.0f} s: {len(left):,} asks left, {len(crowd.left)} producers, {dict(crowd.kills)}")
            sys.stdout.flush()
    return asked


def still_running(redis: RedisServer, left: list[str]) -> list[str]:
    """Return the ids without those that have ended, as far as the first of them have."""
    client, found = redis.client(), list[str]()
    for start in range(0, len(left), CHUNK):
        ids = left[start : start + CHUNK]
        metas: Any = client.mget([f"celery-task-meta-{ask_id}" for ask_id in ids])
        running = [ask_id for ask_id, meta in zip(ids, metas, strict=True) if not meta or not OVER.search(meta)]
        found += running
        if len(found) > 20 * CHUNK:
            return found + left[start + CHUNK :]
    return found


class Report:
    """What came of a crowd: figures, and what is amiss."""

    def __init__(self, args: argparse.Namespace, crowd: Crowd, app: Celery, simulator: Simulator) -> None:
        self.args, self.crowd, self.app, self.simulator = args, crowd, app, simulator
        self.store: Store = open_store_at(crowd.redis.url)
        self.client: Any = crowd.redis.client()
        self.amiss: list[str] = []
        self.figures: dict[str, Any] = {}
        self.fates: Counter[str] = Counter()
        #: The asks of each job, by custom_id: their prompts.
        self.jobs: dict[str, dict[str, CrowdAsk]] = {}

    def expect(self, true: bool, text: str) -> None:
        """Note what is not as it should be."""
        if not true:
            self.amiss.append(text)

    def check(self, seconds: float, asked: float) -> None:
        """Look at everything that can be looked at."""
        args = self.args
        count = args.producers * args.asks
        self.figures["asks"] = f"{count:,} of {args.producers} processes in {args.pools} pools"
        self.figures["time"] = f"{seconds:.0f} s, all asked after {asked:.0f} s; kills {dict(self.crowd.kills)}"
        self.check_states()
        self.check_jobs(asked)
        self.check_money()
        self.check_ends()
        self.check_leftovers()

    def check_states(self) -> None:
        """Every ask has ended in the back end and in the store, as its fate says."""
        states: Counter[str] = Counter()
        everything = list(asks(self.args))
        for start in range(0, len(everything), CHUNK):
            chunk = everything[start : start + CHUNK]
            places = self.store.asks.read_places([each.id for each in chunk])
            metas = self.client.mget([f"celery-task-meta-{each.id}" for each in chunk])
            for each, place, raw in zip(chunk, places, metas, strict=True):
                meta = json.loads(raw) if raw else {"status": "PENDING"}
                states[f"{each.fate}: {meta['status']}, {place and place.state}"] += 1
                self.expect(place is not None, f"ask {each} is not known")
                wanted = ("FAILURE", "failed") if each.fails else ("SUCCESS", "succeeded")
                self.expect(place is None or (meta["status"], place.state) == wanted, f"{each}: {meta}, {place}")
                self.fates[each.fate] += 1
                if place is not None:
                    self.jobs.setdefault(place.job_id, {})[each.id] = each
        self.figures["states"] = dict(states)

    def check_jobs(self, asked: float) -> None:
        """Every job has an answer for each of its asks, its own, and there are not too many jobs."""
        jobs: Counter[str] = Counter()
        rows = sizes = 0
        self.batch_ids: set[str] = set()
        self.cost = Decimal()
        unbilled = 0
        for job_id, members in self.jobs.items():
            status = BatchJob(job_id, self.app).status()
            jobs[str(status.label)] += 1
            sizes += status.requests
            if [each.fate for each in members.values()] == ["poison"]:
                self.expect("It is poisonous" in str(status.error), f"job {job_id} is {status.state}: {status.error}")
                rows += 1
                continue
            self.expect(status.state == "completed", f"job {job_id} is {status.state}: {status.error}")
            self.batch_ids.update((status.summary or {}).get("batch_ids", ()))
            summary = status.summary or {}
            self.cost += Decimal(str(summary.get("cost") or 0))
            unbilled += bool(summary.get("cost_unknown"))
            seen: Counter[str] = Counter()
            for row in BatchJob(job_id, self.app).results():
                rows += 1
                seen[row.custom_id] += 1
                each = members.get(row.custom_id)
                if each is None:
                    self.expect(False, f"job {job_id} has {row.custom_id}, which is elsewhere")
                elif row.type == "succeeded":
                    self.expect(row.text.rstrip(".") == f"Echo: {each.prompt}", f"{each} has {row.text!r}")
                else:
                    self.expect(each.fate == "invalid", f"{each} is {row.type} ({row.source})")
            self.expect(seen == Counter(list(members)), f"job {job_id} has {len(seen)} rows, {len(members)} asks")
        self.expect(not unbilled, f"{unbilled} jobs have a cost that is not known")
        args = self.args
        # Beside full pools: one that ran out of time, as often as the time for it went by, and the parts of one that
        # was divided because of one of its asks.
        more = ceil(asked / args.max_wait) + 1 + ceil(log2(args.max_requests)) + 2
        wanted = ceil(args.producers * args.asks / args.pools / args.max_requests) + more
        self.figures["jobs"] = f"{dict(sorted(jobs.items()))}, at most {wanted} of a pool wanted ({more} not full)"
        self.figures["rows"] = f"{rows:,}, {sizes:,} requests of jobs"
        for label, number in jobs.items():
            self.expect(number <= wanted, f"{number} jobs of {label}")
        self.expect(len(jobs) == args.pools, f"labels {set(jobs)}")

    def check_money(self) -> None:
        """Each answer is paid once, and the jobs cost what is charged."""
        state = self.simulator.state()
        paid = state.totals.paid_batch + state.totals.paid_messages
        good = sum(number for fate, number in self.fates.items() if fate not in ("invalid", "poison"))
        with urllib.request.urlopen(f"{self.simulator.url}/__sim__/paid_twice", timeout=300) as answer:
            twice = json.loads(answer.read())
        strangers = {batch.id for batch in state.batches} - self.batch_ids
        invoice = self.simulator.invoice().cost(PRICES)
        self.figures["batches"] = f"{len(state.batches)} created, {len(strangers)} of them of no job"
        self.figures["paid"] = f"{paid:,} for {good:,}; {state.totals.paid_messages} as messages; {len(twice)} twice"
        self.figures["cost"] = f"jobs ${self.cost:.6f}, invoice ${invoice:.6f}"
        self.expect(paid == good, f"{paid} paid, {good} good")
        self.expect(not twice, f"paid twice: {[prompt['text'] for prompt in twice[:3]]}")
        self.expect(not strangers, f"batches of no job: {sorted(strangers)[:3]}")
        self.expect(abs(invoice - self.cost) < Decimal("1e-6") * (1 + len(self.jobs)), "costs differ from the invoice")

    def check_ends(self) -> None:
        """What follows an ask ran, and with its answer."""
        followed = {key.decode(): int(value) for key, value in self.client.hgetall(FOLLOWED).items()}
        wanted = {each.prompt for each in asks(self.args) if each.is_followed and not each.fails}
        self.figures["followed"] = f"{len(followed):,}; more than once: {sum(n > 1 for n in followed.values())}"
        self.expect(followed.keys() == wanted, f"followed: {len(followed)} of {len(wanted)}")
        if not self.args.counts:
            return
        ended = {key.decode(): int(value) for key, value in self.client.hgetall(ENDED).items()}
        again = sum(number > 1 for number in ended.values())
        never = {each.id for each in asks(self.args)} - ended.keys()
        self.figures["ends told by signals"] = f"{len(ended):,}; more than once: {again}; never: {len(never)}"
        # As of any task, when its process is killed between the signal and the record of the end, or the other way.
        most = (self.crowd.kills["worker"] + self.crowd.kills["redis"]) * self.args.concurrency * 2
        self.expect(again <= most, f"{again} ended more than once, after {dict(self.crowd.kills)}")
        self.expect(len(never) <= most, f"of {len(never)} no end was told, after {dict(self.crowd.kills)}")

    def check_leftovers(self) -> None:
        """Nothing waits any more."""
        pools = list(self.store.pools.list_pools())
        self.expect(not pools, f"pools that wait: {pools[:3]}")
        names = ("celery", "unacked")
        waiting = {name: self.client.llen(name) if name == "celery" else self.client.hlen(name) for name in names}
        self.figures["left in the broker"] = waiting
        memory = self.client.info("memory")
        self.figures["Redis"] = f"{memory['used_memory_peak'] / 1e6:.0f} MB at most, {self.client.dbsize():,} keys"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one crowd, and print what came of it; 0 if nothing is amiss."""
    args = parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    return int(bool(run(args)))


def run(args: argparse.Namespace) -> list[str]:
    """Run one crowd, print the figures, and return what is amiss."""
    with ExitStack() as stack:
        folder = args.logs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crowd-")))
        folder.mkdir(parents=True, exist_ok=True)
        redis = stack.enter_context(RedisServer())
        scenario = Scenario("calm", "", WEATHER.behaviour) if args.calm else WEATHER
        simulator = stack.enter_context(Simulator(scenario, process=True))
        env = {
            **inherited(),
            **FAST,
            **simulator.env,
            "CELERY_BROKER_URL": redis.url,
            "CELERY_RESULT_BACKEND": redis.url,
            "STORM_VISIBILITY": str(args.visibility),
            "CLAUDE_BATCH_RECOVER_AFTER": str(args.recover_after),
            "CLAUDE_BATCH_LEASE": str(args.lease),
            "CLAUDE_BATCH_PRICES": json.dumps(
                {model: {"input_mtok": own[0], "output_mtok": own[1]} for model, own in PRICES.items()}
            ),
            **({"CROWD_COUNTS": "1"} if args.counts else {}),
        }
        app = make_app(redis.url, args.max_requests, args.max_wait)
        stack.callback(app.close)
        app.set_current()
        begun = time.monotonic()
        with Crowd(args, folder, redis, env) as crowd:
            asked = watch(args, crowd, begun)
            time.sleep(2)  # the last records of jobs are written
            report = Report(args, crowd, app, simulator)
            report.check(time.monotonic() - begun, asked)
        for name, value in report.figures.items():
            print(f"{name + ':':24}{value}")
        for text in report.amiss[:20]:
            print(f"AMISS: {text}")
        print(f"{len(report.amiss)} amiss")
        gc.collect()
        return report.amiss


if __name__ == "__main__":
    sys.exit(main())
