"""Tasks are called as messages call them that are in queues already: by name, with arguments in this order."""

from __future__ import annotations

import base64
import gzip
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tests.guards.task_table import ATTRIBUTES, NAME, TASKS, Argument

DUMPS = sorted((Path(__file__).parents[1] / "upgrades").glob("*.json.gz"))


@pytest.fixture(scope="module")
def tasks() -> Iterator[dict[str, Any]]:
    """All tasks of ours, by name."""
    with Celery("guarded", set_as_current=False) as app:
        app.loader.import_task_module("claude_batch_tasks.tasks")
        yield {name: task for name, task in app.tasks.items() if name.startswith(NAME)}


def test_names(tasks: dict[str, Any]) -> None:
    assert tasks.keys() == TASKS.keys()


@pytest.mark.parametrize("name", TASKS)
def test_arguments(tasks: dict[str, Any], name: str) -> None:
    parameters = inspect.signature(tasks[name].__wrapped__).parameters.values()
    assert [Argument(each.name, each.kind.name, each.default) for each in parameters] == TASKS[name]


@pytest.mark.parametrize("name", TASKS)
def test_how_messages_are_delivered(tasks: dict[str, Any], name: str) -> None:
    assert {attribute: getattr(tasks[name], attribute) for attribute in ATTRIBUTES} == ATTRIBUTES
    assert tasks[name].ignore_result == (
        name.removeprefix(NAME) not in ("ask", "run_batch", "finish_job", "recover_jobs")
    )


def test_a_module_has_each_task_under_its_name() -> None:
    from claude_batch_tasks import tasks

    assert {name: getattr(tasks, name.removeprefix(NAME)).name for name in TASKS} == {name: name for name in TASKS}


def queued(path: Path) -> Iterator[tuple[str, list[Any], dict[str, Any]]]:
    """Each task that a release's messages call, by themselves or as what follows in their chain."""
    for entry in json.loads(gzip.decompress(path.read_bytes()))["redis"]:
        values: list[str] = []
        if entry["key"] == "unacked":
            values = [json.dumps(json.loads(value)[0]) for _, value in entry["value"]]
        elif entry["type"] == "list" and not entry["key"].startswith("claude_batch:"):
            values = entry["value"]
        for value in values:
            message = json.loads(value)
            args, kwargs, embedded = json.loads(base64.b64decode(message["body"]))
            yield message["headers"]["task"], args, kwargs
            for following in embedded["chain"] or ():
                yield following["task"], list(following["args"]), following["kwargs"]


@pytest.mark.parametrize("path", DUMPS, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_messages_of_earlier_releases_are_understood(tasks: dict[str, Any], path: Path) -> None:
    ours = [each for each in queued(path) if each[0].startswith(NAME)]
    assert {name for name, _, _ in ours} >= {NAME + name for name in ("run_batch", "poll_batch", "finish_job")}
    for name, args, kwargs in ours:
        tasks[name].__header__(*args, **kwargs)  # as Celery checks a call
