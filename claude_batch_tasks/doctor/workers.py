"""The checks of workers: whether any run, whether they take our jobs, and whether they are set up as this process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

from celery import Celery

from claude_batch_tasks._version import __version__
from claude_batch_tasks.checks import (
    celery_settings,
    configuration,
    inspection,
    pools,
    presence,
    problems,
)
from claude_batch_tasks.checks.problems import Finding, ok
from claude_batch_tasks.doctor import servers
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps.message_chain import NAME

#: Seconds within which a worker must answer, and within which the others must answer once one has.
FIRST = 3.0
REST = 1.0


def check_workers(app: Celery) -> Iterator[Finding]:
    """Check all workers that answer at the app's broker."""
    from claude_batch_tasks import tasks  # noqa: F401 - so that the app knows them

    yield from _ask_all(app)
    yield from pools.check_pools(app)


def _ask_all(app: Celery) -> Iterator[Finding]:
    with servers.open_broker(app) as connection:
        answers = connection is not None
    if not answers:
        yield ok("the workers were not asked, since the broker does not answer")
        return
    if not _ask_workers(app, "ping", limit=1, timeout=FIRST):
        yield problems.NO_WORKER.found(app=presence.guess_app(app))
        return
    known = _ask_workers(app, "registered")
    names = list(known)
    consumed = {
        worker: {queue["name"] for queue in queues}
        for worker, queues in _ask_workers(app, "active_queues", names, timeout=FIRST).items()
    }
    queues = presence.list_queues(app)
    yield from _find_unconsumed(app, queues, set().union(*consumed.values()))
    ours = []
    for worker in names:
        if not consumed.get(worker, set()) & queues.keys():
            continue
        if any(str(task).startswith(NAME) for task in known[worker]):
            ours.append(worker)
        else:
            yield problems.NO_TASKS.found(worker=worker)
    if ours:
        yield from _compare_workers(app, ours)


def _find_unconsumed(app: Celery, queues: Mapping[str, list[str]], consumed: set[str]) -> Iterator[Finding]:
    """Yield a finding for each queue of our tasks that no worker takes messages from."""
    for queue, sent in queues.items():
        if queue not in consumed:
            taken, tasks = ", ".join(sorted(consumed)) or "none", celery_settings.name_some(sent)
            yield problems.NO_CONSUMER.found(app=presence.guess_app(app), queue=queue, tasks=tasks, consumed=taken)


def ask_versions(app: Celery) -> dict[str, dict[str, str]]:
    """Return the versions that each worker that answers has installed, by the worker's name."""
    answers = _ask_workers(app, inspection.COMMAND, token="")
    return {name: answer["versions"] for name, answer in answers.items() if "versions" in answer}


def _ask_workers(
    app: Celery,
    command: str,
    workers: list[str] | None = None,
    *,
    limit: int | None = None,
    timeout: float = REST,
    **arguments: Any,
) -> dict[str, Any]:
    """Send a remote control command to workers, and return their answers by the worker's name."""
    # On a connection of its own: in kombu 5.5 a connection that was left after one answer does not bring the next.
    with servers.open_broker(app) as connection:
        if connection is None:
            return {}
        answers = app.control.broadcast(
            command,
            arguments=arguments,
            destination=workers,
            connection=connection,
            reply=True,
            limit=limit or (len(workers) if workers else None),
            timeout=timeout,
        )
    return {name: answer for each in answers or () for name, answer in each.items()}


def _compare_workers(app: Celery, workers: list[str]) -> Iterator[Finding]:
    """Compare what workers report about themselves with this process, and yield the findings."""
    settings, token = configuration.readable_settings(app), uuid4().hex
    marked = inspection.leave_mark(settings, token)
    asked = time.time()
    answers = _ask_workers(app, inspection.COMMAND, workers, timeout=FIRST, token=token)
    for worker in workers:
        found = of_worker(worker, answers.get(worker, {}), settings, marked=marked, asked=asked)
        yield from found or [ok(f"{worker} runs jobs, with claude-batch-tasks {__version__}")]


def of_worker(
    worker: str, answer: Mapping[str, Any], settings: Settings, *, marked: bool, asked: float
) -> list[Finding]:
    """Return the findings from a worker's answer.

    Args:
        answer: the answer of ``inspection``; empty if the worker gave none.
        settings: the settings of this process.
        marked: whether the store of this process has the mark that the worker searches for.
        asked: when the workers were asked, in epoch seconds.
    """
    if "version" not in answer:
        return [problems.SILENT_WORKER.found(worker=worker)]
    found = []
    if answer["version"] != __version__:
        found.append(problems.OTHER_VERSION.found(worker=worker, theirs=answer["version"], ours=__version__))
    if answer["sees"] is None:
        found.append(problems.STORELESS_WORKER.found(worker=worker, theirs=answer["store"]))
    elif marked and not answer["sees"]:
        ours = inspection.store_name(settings)
        found.append(problems.OTHER_STORE.found(worker=worker, theirs=answer["store"], ours=ours))
    if different := _different_settings(settings, answer["settings"]):
        found.append(problems.OTHER_SETTINGS.found(worker=worker, differences=", ".join(different)))
    for alias in sorted(set(settings.client_factories) - set(answer["clients"])):
        found.append(problems.UNKNOWN_CLIENT.found(worker=worker, alias=alias))
    if differs := servers.measure_drift(answer["now"], asked):
        found.append(problems.WORKER_CLOCK.found(worker=worker, seconds=differs.seconds, direction=differs.theirs))
    return found


def _different_settings(settings: Settings, theirs: Mapping[str, str]) -> list[str]:
    """Return the names of the settings that differ; one that another release does not know is no difference."""
    here = inspection.describe_worker(settings)
    return [name for name, value in here.items() if theirs.get(name, value) != value]
