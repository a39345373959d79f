"""What workers do with a store that has many jobs: each of one request, whose batch is in flight.

``records`` is the number of jobs. One is made as the package makes it, the others are its copies.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from celery import Celery
from celery.app.trace import trace_task
from celery.utils import uuid

from benchmarks import material, world
from benchmarks.copies import copy_job, nth_id
from benchmarks.measure import Bench
from claude_batch_tasks.lifecycle import recovery, submission
from claude_batch_tasks.records import Flight, Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import credentials, message_chain
from claude_batch_tasks.store import Store, open_store

#: The job whose copies wait for a poll, and the one whose copies have lost their messages.
_FLYING, _LOST = "flying-0000000", "lost-0000000"

#: Jobs that are submitted, that are polled each by itself, and that are recovered, at most.
_SUBMITTED, _POLLED, _RECOVERED = 200, 400, 5_000

#: Threads that do these at the same time, as several workers do.
_THREADS = 4

#: Seconds for which no list call is made while each batch is polled by a call of its own.
_NO_LISTS = 20.0

#: The position of a batch's first poll.
_POLL = message_chain.position_of(0, 1)

_HOUR, _DAY = 3600.0, 86_400.0


def flying(bench: Bench) -> None:
    """Make the jobs whose batches wait for their next poll, which is due."""
    begun, folder = time.time() - _HOUR, Path(os.environ["BENCHMARK_FOLDER"])
    running = {
        "processing_status": "in_progress",
        "ended_at": None,
        "results_url": None,
        "created_at": datetime.fromtimestamp(begun, timezone.utc).isoformat(),
        "expires_at": datetime.fromtimestamp(begun + _DAY, timezone.utc).isoformat(),
    }
    (folder / "in_flight.json").write_text(json.dumps({"count": bench.records, "running": running}))
    _make_jobs(bench, _FLYING, begun, lost=False)


def lost(bench: Bench) -> None:
    """Make the jobs for whose polls messages are missing: nobody waits for them, and no worker has them."""
    _make_jobs(bench, _LOST, time.time() - _HOUR, lost=True)


def _make_jobs(bench: Bench, job_id: str, begun: float, *, lost: bool) -> None:
    app, batch_id = _app(bench), f"msgbatch_{job_id}"
    store, unit = open_store(Settings.of(app)), Unit(job_id, 0)
    submission.submit_job(app, job_id, material.requests(1, 60), {})
    store.jobs.update_job(job_id, state="running", started_at=begun, admitted=1)
    store.jobs.persist_job(job_id)
    store.schedule.remove_unit(Unit(job_id))
    store.leases.acquire_lease(unit, 0, "benchmark", 60)
    made: dict[str, Any] = {
        "state": "in_progress",
        "batch_id": batch_id,
        "created_at": begun,
        "expires_at": begun + _DAY,
    }
    assert store.batch_ids.claim_id(unit, "benchmark", batch_id, **made) == unit
    if lost:
        assert store.leases.advance_unit(unit, "benchmark", _POLL, due_at=begun)
    else:
        flight = Flight(
            batch_id=batch_id, created_at=begun, expires_at=begun + _DAY, requests=1, poll_min=5.0, poll_max=120.0,
            deadline=None,
        )  # fmt: skip
        assert store.leases.park_unit(
            unit, "benchmark", _POLL, store.now(), account=_account(app, store, job_id), flight=flight
        )
    copy_job(bench.store_url, job_id, bench.records)


def submit(bench: Bench) -> None:
    """``run_batch.delay`` of one request up to the message, for some more jobs, by four threads."""
    app = _app(bench)
    submission.submit_job(app, f"first{bench.suffix}", material.requests(1, 60), {})
    jobs = iter([f"small-{number}{bench.suffix}" for number in range(min(bench.records, _SUBMITTED))])

    def submit_rest() -> int:
        return sum(bool(submission.submit_job(app, job_id, material.requests(1, 60), {})) for job_id in jobs)

    _run_threads(bench, open_store(Settings.of(app)), submit_rest)


def poll_all(bench: Bench) -> None:
    """One round of polls, all of them due: one batch is due for a poll, whose list call shows all others too."""
    app = _app(bench)
    store = open_store(Settings.of(app))
    account = _account(app, store, _FLYING)
    store.schedule.postpone_units(dict.fromkeys(store.in_flight.list_batches(account), store.now() - 1))
    # List calls are paused after ``poll_each``, and of who made the last one no other is asked for within a second.
    time.sleep(max(store.in_flight.paused_until(f"{account}:list") - store.now(), 1.1))
    with bench.measure():
        units, _ = store.schedule.take_due(50)
        for unit in units:
            _poll(app, store, unit)
    assert (len(units), store.in_flight.count_batches(account, bench.records + 1)) == (1, bench.records)


def poll_each(bench: Bench) -> None:
    """Polls by a call each, from ``take_due`` until the batch waits for its next poll, by four threads."""
    app = _app(bench)
    store = open_store(Settings.of(app))
    account = _account(app, store, _FLYING)
    store.in_flight.pause_calls(f"{account}:list", store.now() + _NO_LISTS)
    store.in_flight.add_page(account, {}, taken_at=0.0, since=0.0, first=True)  # there is no list that shows them
    store.schedule.wake_units([Unit(nth_id(_FLYING, number), 0) for number in range(min(bench.records, _POLLED))])
    _poll(app, store, Unit(_FLYING, 0))  # makes the client
    store.schedule.wake_units([Unit(_FLYING, 0)])

    def poll_rest() -> int:
        polled = 0
        while units := store.schedule.take_due(10)[0]:
            for unit in units:
                _poll(app, store, unit)
            polled += len(units)
        return polled

    _run_threads(bench, store, poll_rest)
    assert store.in_flight.paused_until(f"{account}:list") > store.now()


def recover(bench: Bench) -> None:
    """``recover_messages`` after all messages are gone, of up to 5,000 jobs; the broker is in this process's memory."""
    app = _app(bench)
    logging.getLogger("claude_batch_tasks").setLevel(logging.ERROR)  # a warning for each
    with bench.measure():
        bench.measured.records = recovery.recover_messages(app, limit=_RECOVERED)
    assert bench.measured.records == min(bench.records, _RECOVERED)


def _run_threads(bench: Bench, store: Store, do: Callable[[], int]) -> None:
    """Measure what four threads do until nothing is left to be done; each returns how much it has done."""
    met = threading.Barrier(_THREADS)

    def connect() -> None:
        met.wait()
        store.jobs.was_deleted("")

    with ThreadPoolExecutor(_THREADS) as threads:
        wait([threads.submit(connect) for _ in range(_THREADS)])
        with bench.measure():
            done = [threads.submit(do) for _ in range(_THREADS)]
            bench.measured.records = sum(each.result() for each in done)


def _poll(app: Celery, store: Store, unit: Unit) -> None:
    """Run the next message of a batch that waits for a poll, as a worker does."""
    position = store.records.read_position(unit)
    task, task_id, args = app.tasks["claude_batch_tasks.poll_batch"], uuid(), (unit.job_id, 0, 0, position - _POLL)
    request = {"id": task_id, "args": args, "kwargs": {}, "is_eager": False, "delivery_info": {}}
    trace_task(task, task_id, args, {}, request, app=app)
    assert store.records.read_position(unit) == position + 1, f"{unit} was not polled"


def _app(bench: Bench) -> Celery:
    """Return an app whose broker and result back end are in the memory of this process."""
    app = world.app(bench)
    app.conf.update(broker_url="memory://", result_backend="cache+memory://")
    return app


def _account(app: Celery, store: Store, job_id: str) -> str:
    """Return the name of the account in the store."""
    settings, job = Settings.of(app), store.jobs.read_job(job_id)
    assert job is not None
    return credentials.name_account(credentials.make_caller(settings, job, lambda _: None), settings, job)
