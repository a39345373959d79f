"""Whatever is lost, killed, repeated or shown late: one batch per batch of a job, one payment per request, no orphan.

The jobs of an account have the same texts and the same size, so nothing but their own ids tells their batches apart.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.lifecycle import recovery
from tests.adversarial.conftest import environment, make_app
from tests.adversarial.server import (
    DROP,
    LOST,
    NOT_FOUND,
    Account,
    Answer,
    Manners,
    Storm,
    UnfriendlyServer,
    html,
)
from tests.adversarial.tasks import params
from tests.support import wait_until

pytestmark = [pytest.mark.workers, pytest.mark.timeout(400)]

COUNT = 5

#: Batches that may run for ever: a stranger's that nobody here waits for.
ENDLESS = 10**9


def expires(index: int, prompt: str) -> dict[str, Any]:
    """The first request of every batch expires, and goes through the Messages API."""
    return {"type": "expired"} if index == 0 else {"type": "succeeded"}


@dataclass
class Case:
    """Jobs with identical requests, submitted to one account at the same moment."""

    manners: Manners
    jobs: int = 4
    strangers: Callable[[Account], None] = lambda account: None
    """Adds what other applications have in the account before the jobs."""
    later: Callable[[Account], None] | None = None
    """Adds more the moment the first create has come in."""
    options: dict[str, Any] = field(default_factory=dict)
    batches: int | None = None
    """Batches there must be in the end; default: one of each job."""


def half_lost(acts: tuple[bool, ...]) -> list[Answer | None]:
    """Creates whose answers are dropped, after the work or before it."""
    return [LOST if stored else DROP for stored in acts]


def before(account: Account) -> None:
    """Strangers' batches of the same size, some of them ended, some still running."""
    for age in (200.0, 20.0, 2.0, 0.0):
        account.add_foreign(COUNT, age=age)


def soon(account: Account) -> None:
    """Strangers' batches of the same size, made after ours or between them; the likeliest one will not do."""
    account.add_foreign(COUNT)
    account.add_foreign(COUNT, looks=1)


def endless(account: Account) -> None:
    """Others' batches that may be the one and run on: whoever takes one of them for theirs must look elsewhere."""
    account.add_foreign(COUNT, looks=ENDLESS)
    before(account)
    account.add_foreign(COUNT, looks=ENDLESS)


def breaks_off(page: dict[str, Any], call: int) -> dict[str, Any]:
    """Some pages promise another and do not say where it begins: what came before is no complete listing."""
    return {**page, "data": [], "last_id": None, "has_more": True} if call in (2, 3, 7) else page


CASES = {
    "all_answers_lost": Case(Manners(script={"create": [LOST] * 4}, looks=2)),
    "some_answered": Case(Manners(script={"create": [LOST, None, html(502, acts=True), None]}, looks=2)),
    "some_never_stored": Case(Manners(script={"create": half_lost((True, False, False, True))}, looks=1)),
    "none_stored": Case(Manners(script={"create": [DROP, html(500), DROP, html(503)]}, looks=1)),
    "lost_twice": Case(Manners(script={"create": [DROP, DROP, DROP, LOST, LOST]}), jobs=2),
    "strangers": Case(Manners(script={"create": [LOST] * 3}, looks=1), jobs=3, strangers=before, later=soon),
    "strangers_and_never_stored": Case(
        Manners(script={"create": [DROP, LOST, DROP]}), jobs=2, strangers=before, later=soon
    ),
    "strangers_that_run_on": Case(
        Manners(script={"create": [LOST, None, LOST]}, looks=1), jobs=3, strangers=endless, later=endless
    ),
    "shown_late": Case(
        Manners(script={"create": [LOST, LOST, None, LOST]}, shows_after=(1.0, 3.0)), options={"create_settle": 6}
    ),
    "small_pages": Case(
        Manners(script={"create": [LOST, LOST, LOST]}, page=2, last_id=False, list_page=breaks_off),
        jobs=3,
        strangers=before,
    ),
    "list_fails": Case(
        Manners(script={"create": [LOST, DROP], "list": [NOT_FOUND, html(500), DROP, LOST, NOT_FOUND]}, page=2),
        jobs=2,
        strangers=before,
    ),
    "several_batches_each": Case(
        Manners(script={"create": [LOST, LOST, None, LOST, DROP, LOST]}),
        jobs=2,
        options={"max_requests_per_batch": 2},
        batches=6,
    ),
    "fallback_too": Case(
        Manners(script={"create": [LOST, None, LOST]}, result=expires), jobs=3, options={"retries": 0}
    ),
    "smaller_batches_too": Case(
        # Of the jobs' smaller batches, too, nothing but their own ids tells one from another, or from a stranger's.
        Manners(script={"create": [None, LOST, None, LOST, DROP, LOST, LOST, DROP, LOST]}, result=expires, looks=1),
        jobs=3,
        strangers=lambda account: [account.add_foreign(1, age=age) for age in (20.0, 2.0, 0.0)] and None,
        later=lambda account: [account.add_foreign(1, looks=looks) for looks in (0, 1)] and None,
        options={"retries": 2},
        batches=9,
    ),
    "storm": Case(Manners(storm=Storm(7), looks=2, shows_after=(0.0, 1.0)), jobs=8, options={"create_settle": 4}),
}

#: Storms may use up the 404s a create is allowed, and then the requests are paid through the Messages API.
MAY_MISS = {"storm"}

NAMES = [*CASES, "twins", "mixed", "results", "message", "patient"]


class Bench:
    """A Redis, a server, and workers whose broker hands out a dead worker's messages after seconds."""

    def __init__(self, stack: ExitStack, folder: Path, redis: RedisServer) -> None:
        self.stack, self.folder, self.redis = stack, folder, redis
        redis.client().flushall()
        self.server = stack.enter_context(UnfriendlyServer())
        self.app: Celery = make_app(redis.url, NAMES)
        self.app.set_current()
        stack.callback(self.app.close)

    def worker(self, concurrency: int, **env: str) -> Worker:
        log = self.folder / f"worker-{len(list(self.folder.iterdir()))}.log"
        whole = environment(self.redis.url, self.server.url, NAMES, **env)
        options = (f"--concurrency={concurrency}",)
        return self.stack.enter_context(Worker(whole, log, app="tests.adversarial.forgetful", options=options))

    def submit(self, name: str, jobs: int, manners: Manners, **options: Any) -> list[Any]:
        """Jobs with identical requests, at once."""
        self.app.set_current()
        self.server.account(name).manners = manners
        return [run_batch.delay(prompts(name), client=name, **options) for _ in range(jobs)]

    @contextmanager
    def recovered(self) -> Iterator[None]:
        """Everything that waits is sent again all the time."""
        over = threading.Event()

        def go_on() -> None:
            while not over.wait(0.3):
                with suppress(StoreUnavailable, OperationalError):
                    recovery.recover_messages(self.app)

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def check(self, name: str, results: list[Any], *, batches: int | None = None, unanswered: int = 0) -> None:
        """Every request has one outcome and was paid once, and every batch was read.

        Args:
            batches: those there must be; default: one for each job.
            unanswered: Messages calls whose answers were lost.
        """
        account = self.server.account(name)
        deadline = time.monotonic() + 150
        types = Counter[str]()
        for result in results:
            summary = result.get(timeout=max(deadline - time.monotonic(), 1))
            rows = list(BatchJob(result.id, self.app).results())
            assert {row.custom_id for row in rows} == set(prompts(name))
            assert len(rows) == COUNT, "an outcome twice"
            types.update(row.type for row in rows)
            assert sum(summary[kind] for kind in ("succeeded", "errored", "expired", "canceled")) == COUNT
        paid_for(account, name, len(results))
        assert len(account.own) == (len(results) if batches is None else batches)
        assert account.orphans == []
        assert types["succeeded"] == COUNT * len(results) - unanswered
        assert account.canceled == []


def prompts(name: str) -> Mapping[str, Any]:
    """The same for every job of an account."""
    return {f"id {i}": params(f"{name} {i}") for i in range(COUNT)}


def paid_for(account: Account, name: str, times: int) -> None:
    """Each text was paid as often as there are jobs that have it."""
    assert account.paid == {f"{name} {i}": times for i in range(COUNT)}


@pytest.fixture
def bench(tmp_path: Path, redis_server: RedisServer) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack, tmp_path, redis_server)


def test_killed_in_create_fetch_and_fallback(bench: Bench) -> None:
    """The process group goes down while the answers of identical creates, of downloads and of messages are out.

    A message that is killed under may have been billed, so its request keeps its outcome. Meanwhile another worker
    lives, strangers' batches come in, and what waits is sent again all the time.
    """
    gate = threading.Event()
    lost = Answer(drop=True, acts=True, hold=gate)
    held = {
        "twins": (2, Manners(script={"create": [lost, lost]}, looks=2)),
        "mixed": (3, Manners(script={"create": [lost, None, Answer(drop=True, hold=gate)]}, looks=2)),
        "results": (2, Manners(script={"results": [Answer(200, hold=gate), lost]})),
        "message": (2, Manners(result=expires, script={"messages": [lost, lost]})),
    }
    doomed = bench.worker(8)
    jobs = {name: bench.submit(name, number, manners, retries=0) for name, (number, manners) in held.items()}
    waiting = {"twins": 2, "mixed": 2, "results": 2, "message": 2}
    with bench.recovered():
        wait_until(lambda: all(len(bench.server.account(name).held) == n for name, n in waiting.items()), 180)
        for name in ("twins", "mixed"):
            before(bench.server.account(name))
        doomed.stop(kill=True)
        gate.set()
        bench.worker(4)
        for name, results in jobs.items():
            bench.check(name, results, unanswered=2 if name == "message" else 0)
    assert bench.server.account("message").calls["messages"] == 2


def test_waits_longer_than_the_broker_remembers(bench: Bench) -> None:
    """Looks further apart than the visibility timeout, and downloads longer than it, come once and leave no copies."""
    bench.worker(2)
    slowly = Manners(looks=1, chunks=[50], trickle=0.15)
    results = bench.submit("patient", 2, slowly, poll_min=7, poll_max=7)
    with bench.recovered():
        bench.check("patient", results)
    account = bench.server.account("patient")
    assert account.calls["retrieve"] == 4
    assert account.calls["create"] == account.calls["results"] == 2
    client = bench.redis.client()
    wait_until(lambda: client.llen("celery") == client.hlen("unacked") == 0, 180)


@pytest.fixture(scope="module")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, Any]]:
    """All of CASES side by side on one worker, while recovery sends everything again all the time."""
    with ExitStack() as stack:
        # A Redis of its own: the fixture outlives its tests, and its worker would take other tests' messages.
        bench = Bench(stack, tmp_path_factory.mktemp("paid-once"), stack.enter_context(RedisServer()))
        jobs = {}
        bench.worker(4)
        for name, case in CASES.items():
            account = bench.server.account(name)
            case.strangers(account)
            jobs[name] = bench.submit(name, case.jobs, case.manners, **case.options)
        for name, case in CASES.items():
            if case.later is not None:
                account = bench.server.account(name)
                wait_until(lambda account=account: account.calls["create"], 180)
                with bench.server.lock:
                    case.later(account)
        with bench.recovered():
            yield bench, jobs


@pytest.mark.parametrize("name", CASES)
def test_identical_jobs(name: str, submitted: tuple[Bench, dict[str, list[Any]]]) -> None:
    bench, jobs = submitted
    case = CASES[name]
    account = bench.server.account(name)
    if name in MAY_MISS:
        for result in jobs[name]:
            result.get(timeout=150)
        assert max(account.paid.values()) <= case.jobs
        assert account.orphans == []
        return
    bench.check(name, jobs[name], batches=case.batches)
