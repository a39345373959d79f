"""A PostgreSQL fails over to its standby in the middle of jobs: what was acknowledged is there, and is paid once."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest
from celery import Celery
from celery.exceptions import TimeoutError as CeleryTimeoutError

from claude_batch_tasks import run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.simulator import Behaviour, Scenario, Simulator
from claude_batch_tasks.store.postgres.migrations import migrate
from tests.integration.rig import account_for, requests
from tests.postgres_server import PostgresServer, postgres_folder, why_missing
from tests.support import wait_until

pytestmark = [
    pytest.mark.latest,
    pytest.mark.workers,
    pytest.mark.slow,
    pytest.mark.timeout(500),
    pytest.mark.skipif(bool(why_missing()), reason=why_missing()),
]

#: Requests of each job.
SIZE = 5

#: Seconds for which jobs are submitted before and after the failover.
BEFORE, AFTER = 6.0, 6.0


@dataclass
class Pair:
    """A server and its standby, to which every commit is copied before it is acknowledged."""

    primary: PostgresServer
    standby: PostgresServer

    @property
    def url(self) -> str:
        """What finds the one of them that can be written to."""
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in (self.primary, self.standby))
        return f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"

    def fail_over(self) -> None:
        """Kill the one, and make the other the one to write to."""
        self.primary.stop(kill=True)
        time.sleep(1.0)
        self.standby.execute("SELECT pg_promote()")


@pytest.fixture
def pair() -> Iterator[Pair]:
    with PostgresServer() as primary:
        standby = PostgresServer()
        standby.prepare()
        command = [
            f"{postgres_folder()}/pg_basebackup",
            "-D",
            standby.data,
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
            "--no-sync",
        ]
        standby.run(*command, "-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres")
        with standby:
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            primary.execute("SELECT pg_reload_conf()")
            wait_until(lambda: _is_synchronous(primary))
            with psycopg.connect(primary.url(), autocommit=True) as connection:
                migrate(connection)
            yield Pair(primary, standby)


def _is_synchronous(primary: PostgresServer) -> bool:
    with psycopg.connect(primary.url()) as connection:
        return connection.execute("SELECT sync_state FROM pg_stat_replication").fetchall() == [("sync",)]


def test_what_was_acknowledged_is_there_after_a_failover(
    pair: Pair, environment: dict[str, str], start_here: Callable[..., Worker]
) -> None:
    with RedisServer() as broker, Simulator(Scenario("slow", "", Behaviour(processing_seconds=3.0))) as simulator:
        urls = {
            "CELERY_BROKER_URL": broker.url,
            "CELERY_RESULT_BACKEND": broker.url,
            "CLAUDE_BATCH_STORE_URL": pair.url,
        }
        for _ in range(2):
            start_here(simulator.url, **urls, CLAUDE_BATCH_RECOVER_AFTER="5", CLAUDE_BATCH_RECOVER_EVERY="1")
        app = Celery("tests", broker=broker.url, backend=broker.url, set_as_current=False)
        app.conf.claude_batch_store_url = pair.url
        app.loader.import_task_module("claude_batch_tasks.tasks")
        app.set_current()

        accepted: dict[str, str] = {}
        refused: list[str] = []
        over = threading.Event()

        def submit() -> None:
            app.set_current()  # in this thread, too
            for number in itertools.count():
                if over.is_set():
                    return
                name = f"job {number}"
                try:
                    accepted[name] = run_batch.delay(requests(name, SIZE)).id
                except StoreUnavailable:
                    refused.append(name)
                time.sleep(0.25)

        submitter = threading.Thread(target=submit)
        submitter.start()
        time.sleep(BEFORE)
        before = len(accepted)
        pair.fail_over()
        wait_until(lambda: len(accepted) > before, 60)
        time.sleep(AFTER)
        over.set()
        submitter.join()

        for name, job_id in accepted.items():
            with contextlib.suppress(CeleryTimeoutError):
                assert app.AsyncResult(job_id).get(timeout=200)["state"] == "completed", name
            assert account_for(app, job_id, name, SIZE) == {"succeeded": SIZE}
        assert before > 5
        assert len(accepted) > before
        paid = {prompt.text: prompt.paid for prompt in simulator.journal().prompts}
        assert {text: times for text, times in paid.items() if times != 1} == {}
        # One that was refused was not stored, or its acknowledgement was lost: then all of it was sent.
        for name in refused:
            assert sum(text.endswith(f" of {name}") for text in paid) in (0, SIZE), name
        app.close()
