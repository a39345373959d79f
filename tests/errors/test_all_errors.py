"""Every error that a user can meet has an entry, a page has all entries, and a test provokes each."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import errors
from claude_batch_tasks._version import __version__
from claude_batch_tasks.checks import (
    broker_address,
    celery_settings,
    configuration,
    connections,
    error_entries,
    inspection,
    problems,
)
from claude_batch_tasks.checks.problems import Finding
from claude_batch_tasks.checks.servers import describe_problem
from claude_batch_tasks.doctor import accounts, servers, workers
from claude_batch_tasks.records import ServerReport
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store.redis.parts.inspection import refused_to_all
from tests.errors import test_errors_of_calls, test_errors_of_jobs, test_errors_of_retries
from tests.factories import find_in_info

ROOT = Path(__file__).parents[2]
CLASSES = {
    cls.__name__
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, errors.BatchTasksError) and cls.__module__ == errors.__name__ and cls.__name__[0] != "_"
}


def test_each_class_has_an_entry_or_is_a_base() -> None:
    assert {*error_entries.ENTRIES, *error_entries.BASES} == CLASSES
    assert not error_entries.ENTRIES.keys() & error_entries.BASES.keys()


def test_each_class_is_provoked() -> None:
    retries = {*test_errors_of_retries.FAULTS, *test_errors_of_retries.ELSEWHERE}
    assert {*test_errors_of_calls.WALK} == {*error_entries.OF_CALLS}
    assert {*test_errors_of_jobs.WALK} == {*error_entries.OF_JOBS}
    assert retries == {*error_entries.OF_RETRIES}


def test_each_entry_says_what_is_stored_what_was_paid_and_what_to_do() -> None:
    found = dict(error_entries.list_entries())
    assert len(found) > 90
    for name, entry in found.items():
        assert all(entry), name


def test_the_page_is_made_of_the_entries() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "errors_table.py"))
    assert (ROOT / "docs" / "reference" / "errors.md").read_text() == script["page"](), (
        "run: python docs/errors_table.py"
    )


def of_conf(**conf: Any) -> list[Finding]:
    return celery_settings.of_settings(conf)


def of_app(**conf: Any) -> list[Finding]:
    """What is found of an app with these settings, without a server."""
    app = Celery("checked", set_as_current=False)
    app.conf.update({"broker_url": "redis://localhost/0", "result_backend": "redis://localhost/0", **conf})
    app.loader.import_task_module("claude_batch_tasks.tasks")
    try:
        return [*configuration.check_statically(app), *connections.of_silent_servers(app)]
    finally:
        app.close()


def of_info(**info: Any) -> list[Finding]:
    return find_in_info(info)


def of_answer(late: float = 0.0, **changes: Any) -> list[Finding]:
    """What a worker's answer to doctor shows."""
    settings = Settings(store_url="redis://here/0")
    answer = {
        "version": __version__,
        "sees": True,
        "store": "there",
        "settings": inspection.describe_worker(settings),
        "clients": ["default"],
        "now": 1000.0 - late,
        **changes,
    }
    return workers.of_worker("w1", answer, settings, marked=True, asked=1000.0)


def of_drift() -> list[Finding]:
    report = ServerReport(product="Redis 8", ahead=60.0)
    server: Any = SimpleNamespace(urls={}, name="it", inspect=lambda *_, **__: report)
    return list(servers._check_server(server, Settings()))


def of_refusal() -> list[Finding]:
    found = refused_to_all(ValueError("MISCONF Redis is configured to save RDB snapshots"))
    return [describe_problem(found, "it", ["store"])] if found else []


#: Problems that no other test names.
PROVOKED: dict[str, Any] = {
    "E003": lambda: of_app(broker_transport_options={"visibility_timeout": "long"}),
    "W006": lambda: of_conf(worker_cancel_long_running_tasks_on_connection_loss=True),
    "W011": lambda: of_app(task_annotations={"claude_batch_tasks.poll_batch": {"acks_late": False}}),
    "W012": lambda: of_app(task_time_limit=10),
    "W014": lambda: of_app(result_backend="rpc://"),
    "E016": lambda: of_conf(task_default_queue_type="quorum", worker_detect_quorum_queues=False),
    "W017": lambda: of_app(broker_url="memory://"),
    "W019": lambda: of_app(redis_socket_timeout=None),
    "W024": lambda: of_app(broker_url="localhost:6379/0"),
    "W107": lambda: of_info(maxmemory_policy="volatile-lru"),
    "E112": of_refusal,
    "W113": of_drift,
    "W204": lambda: of_answer(version="0.0.1"),
    "W208": lambda: workers.of_worker("w1", {}, Settings(), marked=True, asked=0),
    "W209": lambda: of_answer(late=60),
    "E210": lambda: of_answer(sees=None),
    "E306": lambda: [
        accounts._without_answer({"alias": "a", "host": "h"}, errors.TransientError("list: ProxyError: 407"))
    ],
    "W314": lambda: [accounts._without_client("a", "p.f", errors.PermanentError("the client factory 'p.f' failed"))],
}


@pytest.mark.parametrize("number", PROVOKED)
def test_a_problem_is_found_with_what_to_do(number: str) -> None:
    found = {one.id: one for one in PROVOKED[number]()}
    assert f"claude_batch.{number}" in found
    assert found[f"claude_batch.{number}"].hint


def test_a_broker_that_is_not_set_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    app = Celery("checked", set_as_current=False)
    assert [one.id for one in broker_address.check_address(app)] == ["claude_batch.W025"]
    app.conf.task_always_eager = True
    assert list(broker_address.check_address(app)) == []
    app.close()


def test_each_problem_is_provoked_by_a_test() -> None:
    texts = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))
    names = {value.number: name for name, value in vars(problems).items() if isinstance(value, problems.Problem)}
    known = {number for number, name in names.items() if number in texts or re.search(rf"problems\.{name}\b", texts)}
    assert names.keys() - known - PROVOKED.keys() - {"W025"} == set()
