"""Hundreds of jobs through a storm: 404s, 5xx, dropped connections, and a worker that is killed every few seconds.

``python -m tests.adversarial.storm --jobs 500`` starts a Redis, the unfriendly server and two workers, and ends with a
report; its exit status says whether every job completed and every request was paid once.
"""

from __future__ import annotations

import argparse
import gc
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from celery.result import AsyncResult

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from tests.adversarial.conftest import environment, make_app
from tests.adversarial.server import Account, Manners, Storm, UnfriendlyServer
from tests.adversarial.tasks import params

ACCOUNT = "storm"
ENDED = re.compile(rb'"status": "(SUCCESS|FAILURE|REVOKED)"')

#: Settings whose names the design documents; the rest keeps its defaults, unless ``--fast`` says otherwise.
DOCUMENTED = {"POLL_MIN": "0.5", "POLL_MAX": "2", "RETRY_MIN": "0.2", "RETRY_MAX": "2"}

#: Settings that ``tests.support.FAST`` has and that here keep their defaults.
DEFAULTS = ("CLAUDE_BATCH_LEASE", "CLAUDE_BATCH_RECOVER_EVERY", "CLAUDE_BATCH_RECOVER_AFTER")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--requests", type=int, default=5)
    parser.add_argument("--identical", action="store_true", help="all jobs have the same requests")
    parser.add_argument("--expired", type=float, default=0.0, help="share of the requests that expire in their batch")
    parser.add_argument("--seed", type=int, default=1432)
    parser.add_argument("--not-found", type=float, default=0.3)
    parser.add_argument("--server-error", type=float, default=0.05)
    parser.add_argument("--dropped", type=float, default=0.05)
    parser.add_argument("--kill-every", type=float, default=10.0, help="seconds; 0: never")
    parser.add_argument("--concurrency", type=int, default=4, help="processes of each of the two workers")
    parser.add_argument("--visibility", type=float, default=5.0, help="the broker's visibility timeout, seconds")
    parser.add_argument("--settle", type=float, default=8.0, help="create_settle")
    parser.add_argument("--lag", type=float, default=3.0, help="seconds after which the list shows a batch, at most")
    parser.add_argument("--ends-after", type=float, default=10.0, help="seconds after which a batch ends, at most")
    parser.add_argument("--patience", type=float, default=1200.0, help="seconds after which the storm is broken off")
    parser.add_argument("--fast", action="store_true", help="short leases and early recovery instead of the defaults")
    parser.add_argument("--recover-after", type=float, help="seconds; default: as --fast says")
    parser.add_argument("--logs", type=Path, help="folder for the workers' logs; default: a temporary one")
    return parser.parse_args(argv)


class Workers:
    """Two workers; one of them, in turn, is killed with its whole process group, and started again."""

    def __init__(self, env: dict[str, str], folder: Path, concurrency: int, *options: str) -> None:
        options = (f"--concurrency={concurrency}", *options)
        self._workers = [
            Worker(
                env,
                folder / f"worker-{number}.log",
                app="tests.adversarial.forgetful",
                options=(*options, f"--hostname=worker-{number}@tests"),
            )
            for number in (0, 1)
        ]
        self.kills = 0

    def __enter__(self) -> Workers:
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop(kill=True)

    def kill_one(self) -> None:
        worker = self._workers[self.kills % 2]
        worker.stop(kill=True)
        self.kills += 1
        worker.start()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one storm and print what came of it; 0 if nothing is amiss."""
    args = parse(argv)
    # Whoever ends it early still has its children ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    chance = random.Random(args.seed)
    expired = {text for text in texts(args) if chance.random() < args.expired}

    def result(index: int, prompt: str) -> dict[str, Any]:
        return {"type": "expired"} if prompt in expired else {"type": "succeeded"}

    with ExitStack() as stack:
        folder = args.logs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="storm-")))
        folder.mkdir(parents=True, exist_ok=True)
        redis = stack.enter_context(RedisServer())
        server = stack.enter_context(UnfriendlyServer())
        account = server.account(ACCOUNT)
        account.manners = Manners(
            storm=Storm(args.seed, args.not_found, args.server_error, args.dropped),
            seconds=(0.0, args.ends_after),
            shows_after=(0.0, args.lag),
            result=result,
        )
        env = environment(redis.url, server.url, [ACCOUNT], STORM_VISIBILITY=str(args.visibility))
        env |= {f"CLAUDE_BATCH_{name}": value for name, value in DOCUMENTED.items()}
        env["CLAUDE_BATCH_CREATE_SETTLE"] = str(args.settle)
        if not args.fast:
            for name in DEFAULTS:
                env.pop(name)
        if args.recover_after is not None:
            env["CLAUDE_BATCH_RECOVER_AFTER"] = str(args.recover_after)
        app = make_app(redis.url, [ACCOUNT])
        stack.callback(app.close)
        app.set_current()
        begun = time.monotonic()
        with Workers(env, folder, args.concurrency) as workers:
            jobs = [run_batch.delay(requests(args, job), client=ACCOUNT) for job in range(args.jobs)]
            watch(args, app, jobs, workers, account, redis, begun)
        amiss = report(args, app, jobs, workers.kills, account, time.monotonic() - begun, folder)
        del jobs
        gc.collect()
    return int(amiss)


def text(args: argparse.Namespace, job: int, place: int) -> str:
    return f"prompt {place}" if args.identical else f"job {job} prompt {place}"


def texts(args: argparse.Namespace) -> list[str]:
    """Of every request, in order."""
    return [text(args, job, place) for job in range(args.jobs) for place in range(args.requests)]


def requests(args: argparse.Namespace, job: int) -> dict[str, Any]:
    return {f"id {place}": params(text(args, job, place)) for place in range(args.requests)}


def watch(
    args: argparse.Namespace,
    app: Any,
    jobs: list[AsyncResult[Any]],
    workers: Workers,
    account: Account,
    redis: RedisServer,
    begun: float,
) -> None:
    """Kill a worker now and then until every job has ended, and tell how it goes."""
    client = redis.client()
    next_kill = begun + args.kill_every if args.kill_every else float("inf")
    next_word = begun + 15
    left = list(jobs)
    while left and time.monotonic() - begun < args.patience:
        time.sleep(0.5)
        metas: Any = client.mget([f"celery-task-meta-{job.id}" for job in left])
        left = [job for job, meta in zip(left, metas, strict=True) if not meta or not ENDED.search(meta)]
        if time.monotonic() > next_kill:
            workers.kill_one()
            next_kill += args.kill_every
        if time.monotonic() > next_word:
            next_word += 15
            print(
                f"{time.monotonic() - begun:4.0f} s: {len(left)} jobs left, {len(account.own)} batches, "
                f"{client.llen('celery')} messages queued, {client.hlen('unacked')} with workers, "
                f"{workers.kills} kills, {sum(account.calls.values())} calls",
                flush=True,
            )


def report(
    args: argparse.Namespace,
    app: Any,
    jobs: list[AsyncResult[Any]],
    kills: int,
    account: Account,
    seconds: float,
    folder: Path,
) -> bool:
    """Print the figures; whether anything is amiss that the faults do not excuse."""
    states = Counter(job.state for job in jobs)
    outcomes, sources, without = Counter[str](), Counter[str](), 0
    ended = []
    for result in jobs:
        job = BatchJob(result.id, app)
        status = job.status()
        if status.ended_at is not None:
            ended.append((status.ended_at - status.submitted_at).total_seconds())
        rows = list(job.results())
        without += args.requests - len({row.custom_id for row in rows})
        outcomes.update(row.type for row in rows)
        sources.update(f"{row.type} by {row.source}" for row in rows)
    wanted = Counter(texts(args))
    paid = Counter[int]()
    for prompt, times in wanted.items():
        paid[account.paid[prompt] - times] += 1
    storm = account.manners.storm
    assert storm is not None
    lost = storm.drawn["messages dropped after the work"] + storm.drawn["messages dropped"]
    # What expired in its batch was not paid there; a Messages call that was lost leaves it so, paid or not.
    excused = lost + kills * args.concurrency * 2 if args.expired or account.calls["messages"] else 0
    short = sum(number for times, number in paid.items() if times < 0)
    over = sum(number for times, number in paid.items() if times > 0)
    ended.sort()
    lines = {
        "jobs": ", ".join(f"{number} {state}" for state, number in states.items()),
        "wall time": f"{seconds:.0f} s, {kills} kills",
        "job times": f"median {ended[len(ended) // 2]:.0f} s, last {ended[-1]:.0f} s" if ended else "none ended",
        "batches created": f"{len(account.own)} ({args.jobs} jobs)",
        "orphaned batches": f"{len(account.orphans)} {account.orphans[:5]}",
        "texts paid as wanted": f"{paid[0]} of {len(wanted)}",
        "texts paid too rarely": f"{short}",
        "texts paid too often": f"{over} {[p for p in wanted if account.paid[p] > wanted[p]][:5]}",
        "paid in batches, messages": f"{account.paid.total() - account.paid_messages.total()}, "
        f"{account.paid_messages.total()}",
        "outcomes": f"{dict(outcomes)}; {dict(sources)}; without any: {without}",
        "calls": f"{dict(account.calls)}",
        "faults": f"{dict(storm.drawn)}",
        "messages without an answer": f"{lost} dropped",
        "tasks": f"{dict(tasks(folder))}",
        "tracebacks in the logs": f"{sum(log.read_text().count('Traceback') for log in folder.glob('*.log'))}",
    }
    for name, value in lines.items():
        print(f"{name + ':':28}{value}")
    return bool(states.keys() - {"SUCCESS"} or without or over or account.orphans or short > excused)


def tasks(folder: Path) -> Counter[str]:
    """What the workers' logs count: retries, and what was only noise."""
    words = rb"(next poll in|retry in)|(ignored a duplicate|another worker runs it|sent again)"
    found = Counter[str]()
    for log in folder.glob("*.log"):
        found.update((one or other).decode() for one, other in re.findall(words, log.read_bytes()))
    return found


if __name__ == "__main__":
    sys.exit(main())
