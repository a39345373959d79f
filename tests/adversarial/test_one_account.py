"""A job whose workers come back on another account: every kind of credential, of account, and every step of a batch."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from claude_batch_tasks import BatchJob, errors, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from tests.adversarial import tenants
from tests.adversarial.conftest import environment, make_app
from tests.adversarial.server import LOST, Manners, html, refusal
from tests.adversarial.tasks import params
from tests.adversarial.tenants import TenantServer
from tests.support import wait_until

pytestmark = [pytest.mark.workers, pytest.mark.timeout(600)]

CREDENTIALS = [*tenants.WITH_SECRET, *tenants.WITHOUT]
#: Whose the credential is that workers come back with. A gateway that strips the headers shows another organization's.
THEN = {"same": ("A", "w1", 2), "workspace": ("A", "w2", 1), "organization": ("B", "w1", 1), "silent": ("B", "w1", 1)}
STEPS = ["create", "poll", "results", "fallback"]


def cases(turn: int) -> list[tuple[str, str, str]]:
    """One step for each credential and account: in four turns all of them."""
    return [
        (credential, then, STEPS[(CREDENTIALS.index(credential) + number + turn) % len(STEPS)])
        for credential in CREDENTIALS
        for number, then in enumerate(THEN)
    ]


#: Listings that show nothing, after which nothing is concluded from them all the same.
ENOUGH = 5

LATER = {"retry-after": "20"}


def expires(index: int, prompt: str) -> dict[str, Any]:
    return {"type": "expired"} if index == 0 else {"type": "succeeded"}


def manners_for(step: str) -> Manners:
    """The API's, until the workers come back: each job gets to its step, and no further."""
    if step == "create":
        return Manners(script={"create": [LOST]}, looks=0, list_page=lambda page, _: {**page, "data": []})
    if step == "poll":
        return Manners(looks=10**9)
    if step == "results":
        return Manners(looks=0, forever={"results": html(503)})
    # No call is to be under way when the first workers are killed: it would count as lost.
    return Manners(looks=0, result=expires, forever={"messages": refusal(529, "overloaded_error", "x", **LATER)})


@dataclass
class Job:
    """One of them, and what is to become of it."""

    credential: str
    then: str
    step: str
    result: Any = None

    @property
    def name(self) -> str:
        return f"{self.credential}_{self.then}_{self.step}"

    def arrived(self, server: TenantServer) -> bool:
        call = {"poll": "retrieve", "fallback": "messages"}.get(self.step, self.step)
        return server.account(f"{self.name}/A/w1").calls[call] > 0

    @property
    def waits(self) -> bool:
        """Nothing says that the account is another, and nothing that it is the same."""
        return self.then == "silent" and self.unidentified and self.step != "fallback"

    @property
    def unidentified(self) -> bool:
        """A federation names its organization; of the others nothing changes that can be seen."""
        return self.credential in tenants.WITHOUT and self.credential != "federation"


class Jobs:
    """Jobs that all begin on one account, and all go on with workers that have another."""

    def __init__(self, cases: list[tuple[str, str, str]], folder: Path, stack: ExitStack) -> None:
        self.jobs = {case: Job(*case) for case in cases}
        self.server = stack.enter_context(TenantServer())
        redis = stack.enter_context(RedisServer())
        names = [job.name for job in self.jobs.values()]
        self.app = make_app(redis.url, names)
        self.app.set_current()
        stack.callback(self.app.close)
        env = environment(redis.url, self.server.url, names)
        env["CLAUDE_BATCH_CLIENT_FACTORIES"] = json.dumps({name: f"tests.adversarial.tenants.{name}" for name in names})
        env |= {tenants.FOLDER: str(folder), "CLAUDE_BATCH_NOT_FOUND_GRACE": "1", "CLAUDE_BATCH_CREATE_SETTLE": "25"}
        for job in self.jobs.values():
            self.server.manners[job.name] = manners_for(job.step)
            tenants.write(folder, job.name)
            if job.then == "silent":
                self.server.silent.add(job.name)
        options = ("--concurrency=4", "--include=tests.adversarial.tasks")
        worker = stack.enter_context(Worker(env, folder / "first.log", options=options))
        # The unanswered creates last: they are searched for a few seconds only.
        for creates in (False, True):
            jobs = [job for job in self.jobs.values() if (job.step == "create") is creates]
            for job in jobs:
                requests = {f"id {i}": params(f"{job.name} {i}") for i in range(3)}
                job.result = run_batch.delay(requests, client=job.name, retries=0)
            wait_until(lambda jobs=jobs: all(job.arrived(self.server) for job in jobs), 120)
        worker.stop(kill=True)
        for job in self.jobs.values():
            organization, workspace, serial = THEN[job.then]
            tenants.write(folder, job.name, organization, workspace, serial)
            manners = self.server.manners[job.name]
            manners.forever, manners.looks, manners.list_page = {}, 0, lambda page, _: page
        stack.enter_context(Worker(env, folder / "second.log", options=options))

    def check(self, case: tuple[str, str, str]) -> None:
        job = self.jobs[case]
        there = "{}/{}/{}".format(job.name, *THEN[job.then][:2])
        here = self.server.account(f"{job.name}/A/w1")
        other = self.server.account(there) if job.then != "same" else None
        if job.then == "same":
            assert job.result.get(timeout=200)["succeeded"] == 3
            assert set(here.paid.values()) == {1}
        elif job.waits:
            assert other is not None
            handle = BatchJob(job.result.id, self.app)
            # Listings within `create_settle` say nothing yet.
            wait_until(lambda: "nothing shows that client" in " ".join(e.text for e in handle.history()), 120)
            wait_until(lambda: other.calls["list"] >= ENOUGH or job.result.ready(), 120)
            status = handle.status()
            assert status.state == "running", status.error
        elif job.step == "fallback" and job.then == "silent" and job.unidentified:
            # Nothing is concluded from what does not show: what has expired is paid for the first time.
            assert job.result.get(timeout=200)["succeeded"] == 3
        elif job.step == "fallback":
            summary = job.result.get(timeout=200)
            assert (summary["succeeded"], summary["expired"]) == (2, 1)
            assert "was started " in summary["stopped"]
        else:
            with pytest.raises(errors.AccountChanged, match="was started ") as caught:
                job.result.get(timeout=200)
            assert "tok-" not in str(caught.value)
        assert here.calls["create"] == 1
        if other is not None:
            assert other.calls["create"] == 0
            paid = here.paid + other.paid
            assert max(paid.values()) == 1
            assert not other.canceled
            assert not here.canceled


@pytest.fixture(scope="module")
def jobs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with ExitStack() as stack:
        jobs = Jobs(cases(request.param), tmp_path_factory.mktemp("tenants"), stack)
        yield jobs
        jobs.jobs.clear()
        gc.collect()  # results unsubscribe while their Redis is there


@pytest.mark.parametrize("place", range(len(cases(0))), ids=lambda place: "-".join(cases(0)[place][:2]))
@pytest.mark.parametrize(
    "jobs", [0, *(pytest.param(turn, marks=pytest.mark.slow) for turn in (1, 2, 3))], indirect=True, scope="module"
)
def test_a_job_is_paid_once_whoever_comes_back(jobs: Jobs, place: int) -> None:
    jobs.check(list(jobs.jobs)[place])
