"""What applications import is where it was: names, errors, documented dotted paths, entry points."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from celery.exceptions import ImproperlyConfigured
from kombu.exceptions import OperationalError

import claude_batch_tasks
from claude_batch_tasks import errors
from tests.guards import paths
from tests.guards.task_table import TASKS

#: What ``from claude_batch_tasks import ...`` has had in a release.
NAMES = {
    "Answer",
    "AskOptions",
    "AskResult",
    "Attempt",
    "BatchJob",
    "BatchStatus",
    "Estimate",
    "FailureCount",
    "HistoryEvent",
    "JobOptions",
    "JobStatus",
    "PoolSummary",
    "Progress",
    "RequestResult",
    "Summary",
    "WorkerPresence",
    "adopt",
    "ask",
    "errors",
    "estimate",
    "list_jobs",
    "list_pools",
    "list_workers",
    "run_batch",
    "signals",
}

#: Dotted paths that documentation, settings, command lines or other projects' files have, and what each leads to.
PATHS = {
    **dict.fromkeys((f"claude_batch_tasks.tasks.{name.rpartition('.')[2]}" for name in TASKS), "function"),
    "claude_batch_tasks.__version__": "str",
    "claude_batch_tasks.api.default_client": "function",
    "claude_batch_tasks.app": "module",
    "claude_batch_tasks.app.app": "Celery",
    "claude_batch_tasks.census.readings": "function",
    "claude_batch_tasks.cli": "module",
    "claude_batch_tasks.cli.__main__": "module",
    "claude_batch_tasks.cli.claude_batch": "function",
    "claude_batch_tasks.cli.main": "function",
    "claude_batch_tasks.contrib.django": "module",
    "claude_batch_tasks.contrib.django.admin": "module",
    "claude_batch_tasks.contrib.django.admin.JobAdmin": "class",
    "claude_batch_tasks.contrib.django.apps.ClaudeBatchConfig": "class",
    "claude_batch_tasks.contrib.django.models": "module",
    "claude_batch_tasks.contrib.django.models.Job": "class",
    "claude_batch_tasks.contrib.django.results": "module",
    "claude_batch_tasks.contrib.django.results.save_results": "function",
    "claude_batch_tasks.contrib.django.tasks": "module",
    "claude_batch_tasks.contrib.web": "module",
    "claude_batch_tasks.contrib.web.ProgressPage": "class",
    "claude_batch_tasks.embedded": "module",
    "claude_batch_tasks.embedded.RedisServer": "class",
    "claude_batch_tasks.embedded.Worker": "class",
    "claude_batch_tasks.embedded.free_port": "function",
    "claude_batch_tasks.errors": "module",
    "claude_batch_tasks.instruments": "module",
    "claude_batch_tasks.instruments.opentelemetry.OpenTelemetry": "class",
    "claude_batch_tasks.instruments.prometheus": "module",
    "claude_batch_tasks.instruments.prometheus.Gauges": "class",
    "claude_batch_tasks.instruments.prometheus.Prometheus": "class",
    "claude_batch_tasks.jobs.job_ids": "module",
    "claude_batch_tasks.jobs.job_ids.find_job_id": "function",
    "claude_batch_tasks.jobs.job_ids.short_id": "function",
    "claude_batch_tasks.metrics": "module",
    "claude_batch_tasks.metrics.Instruments": "class",
    "claude_batch_tasks.metrics.METRICS": "dict",
    "claude_batch_tasks.metrics.Metric": "class",
    "claude_batch_tasks.metrics.Reading": "class",
    "claude_batch_tasks.settings": "module",
    "claude_batch_tasks.settings.Settings": "class",
    "claude_batch_tasks.settings.configuration": "function",
    "claude_batch_tasks.signals": "module",
    **dict.fromkeys(
        (
            f"claude_batch_tasks.signals.{name}"
            for name in ("batch_created", "batch_ended", "not_found_seen", "results_published", "job_finished")
        ),
        "Signal",
    ),
    "claude_batch_tasks.simulator": "module",
    "claude_batch_tasks.simulator.SCENARIOS": "dict",
    **dict.fromkeys(
        (
            f"claude_batch_tasks.simulator.{name}"
            for name in (
                "Answer",
                "Attempt",
                "BatchRecord",
                "Behaviour",
                "Call",
                "Charge",
                "Control",
                "Fault",
                "Invoice",
                "Journal",
                "Model",
                "Outcome",
                "PromptRecord",
                "Refusal",
                "ResultsStyle",
                "Scenario",
                "Simulator",
                "State",
                "Tokens",
                "ToolCall",
                "Totals",
            )
        ),
        "class",
    ),
    "claude_batch_tasks.simulator.read_script": "function",
    "claude_batch_tasks.simulator.pytest_plugin": "module",
    "claude_batch_tasks.simulator.__main__": "module",
    "claude_batch_tasks.tasks": "module",
    "claude_batch_tasks.testing": "module",
    "claude_batch_tasks.testing.ClaudeBatch": "class",
    "claude_batch_tasks.testing.reset": "function",
    "claude_batch_tasks.transport": "module",
    "claude_batch_tasks.transport.install": "function",
}

#: Errors with which a job or a batch ends, which a caller meets, or which a record in the store names: the class, its
#: bases. Result back ends store module and name, and a caller of another release looks the class up by both.
ENDS = {
    "BatchTasksError": (Exception,),
    "AccountChanged": ("BatchTasksError",),
    "AmbiguousError": ("ApiError", "TryLater"),
    "ApiError": ("BatchTasksError",),
    "BatchArchived": ("BatchLost",),
    "BatchLost": ("ApiError",),
    "BatchesUnsupported": ("PermanentError",),
    "BrokerUnavailable": ("BatchTasksError", OperationalError),
    "BudgetSpent": ("BatchTasksError",),
    "CreateNotFound": ("ApiError",),
    "CreateUnconfirmed": ("BatchTasksError",),
    "InvalidRequests": ("BatchTasksError", ValueError),
    "InvalidSettings": ("BatchTasksError", ImproperlyConfigured),
    "JobNotFound": ("BatchTasksError", LookupError),
    "JobNotResumable": ("BatchTasksError",),
    "JobRunning": ("BatchTasksError",),
    "KeyMissing": ("StoreUnavailable",),
    "AmbiguousJobId": ("BatchTasksError", LookupError),
    "NotDeliverable": ("BatchTasksError",),
    "NothingToRetry": ("BatchTasksError",),
    "NotFoundError": ("ApiError", "TryLater"),
    "PayloadDamaged": ("BatchTasksError",),
    "PermanentError": ("ApiError",),
    "RequestFailed": ("BatchTasksError",),
    "RequestNotFound": ("BatchTasksError", KeyError),
    "RequestsUnknown": ("BatchTasksError", LookupError),
    "ResultsMissing": ("BatchTasksError", LookupError),
    "StepFailed": ("BatchTasksError",),
    "StoreNotMigrated": ("StoreUnavailable",),
    "StoreMoved": ("StoreUnavailable",),
    "StoreTooNew": ("StoreUnavailable",),
    "StoreUnavailable": ("TryLater",),
    "TransientError": ("ApiError", "TryLater"),
    "WaitExceeded": ("BatchTasksError",),
}

#: Errors that only bring a step back, and their bases. They may get better names; the old ones stay beside these.
WAITS = {
    "TryLater": ("BatchTasksError",),
    "Retryable": ("BatchTasksError",),
    "RateLimited": ("Retryable",),
    "ListCallRunning": ("RateLimited",),
    "SendingPaused": ("Retryable",),
    "BatchInProgress": ("TryLater",),
    "CreateUnresolved": ("TryLater",),
    "FallbackInProgress": ("TryLater",),
    "HeldBack": ("TryLater",),
    "ListingUnderWay": ("HeldBack",),
    "MoreToSend": ("TryLater",),
    "NotDue": ("TryLater",),
    "ResultsIncomplete": ("TryLater",),
    "Waiting": ("TryLater",),
}

#: What JSON result back ends keep of an error, and what the error has when it is made anew of that.
REBUILT: list[tuple[str, list[Any], dict[str, Any]]] = [
    (
        "InvalidRequests",
        ["2 problems", [[0, "a", "max_tokens", "missing"]], 1],
        {"problems": [[0, "a", "max_tokens", "missing"]], "more": 1},
    ),
    ("InvalidRequests", ["text"], {"problems": [], "more": 0}),
    (
        "PermanentError",
        ["create: no", 400, "invalid_request_error", "req_1", 2.5],
        {
            "status": 400,
            "error_type": "invalid_request_error",
            "request_id": "req_1",
            "retry_after": 2.5,
            "endpoint": "create",
        },
    ),
    ("NotFoundError", ["gone"], {"status": None, "error_type": None, "request_id": None, "retry_after": None}),
    ("ResultsMissing", ["text", 3, ["key"]], {"missing": 3, "keys": ["key"]}),
    ("ResultsMissing", ["text"], {"missing": None, "keys": []}),
    ("HeldBack", ["text", 1.5], {"retry_after": 1.5}),
    ("MoreToSend", ["text", 1.5], {"retry_after": 1.5}),
    ("CreateUnresolved", ["text", 1.5], {"retry_after": 1.5}),
    ("StepFailed", ["text"], {"args": ("text",)}),
    ("BudgetSpent", ["text", 60.0], {"retry_after": 60.0}),
    (
        "RequestFailed",
        ["text", "job", "ask", "errored", "api_error"],
        {"job_id": "job", "custom_id": "ask", "outcome": "errored", "error_type": "api_error"},
    ),
    ("RequestFailed", ["text"], {"job_id": None, "custom_id": None, "outcome": None, "error_type": None}),
]

#: ``pip install 'claude-batch-tasks[...]'``
EXTRAS = {"arrow", "cli", "demo", "encryption", "flower", "opentelemetry", "prometheus", "simulator"}
EXTRAS |= {"all", "django", "fastapi", "flask", "pandas", "polars", "postgres", "testing"}


def test_names_of_the_package() -> None:
    assert set(claude_batch_tasks.__all__) >= NAMES
    for name in claude_batch_tasks.__all__:
        assert getattr(claude_batch_tasks, name) is not None
    assert set(claude_batch_tasks.__all__) == NAMES, "a new name is to be written down here"


@pytest.mark.latest
def test_documented_paths() -> None:
    named = {path: place for path, place in paths.named().items() if path not in TASKS}
    assert len(named) > 30
    told = paths.found({*named, *PATHS})
    assert {path: told[path] for path in PATHS} == PATHS
    assert {path: (told[path], place) for path, place in named.items() if "Error: " in told[path]} == {}


def test_every_documented_path_is_written_down() -> None:
    documented = {path for path in paths.named() if path not in TASKS}
    ours = {f"claude_batch_tasks.{name}" for name in NAMES}
    ours |= {f"claude_batch_tasks.errors.{name}" for name in (*ENDS, *WAITS)}
    assert documented - PATHS.keys() - ours == set()


def _base(name: Any) -> type:
    found: type = getattr(errors, name) if isinstance(name, str) else name
    return found


@pytest.mark.parametrize("name", [*ENDS, *WAITS])
def test_errors(name: str) -> None:
    cls = getattr(errors, name)
    assert issubclass(cls, BaseException)
    assert cls.__module__ == "claude_batch_tasks.errors"
    assert all(issubclass(cls, _base(base)) for base in {**ENDS, **WAITS}[name])
    if name in ENDS:
        assert cls.__name__ == cls.__qualname__ == name
        assert cls.__bases__ == tuple(map(_base, ENDS[name]))


def test_all_errors_are_written_down() -> None:
    found = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type)
        and issubclass(value, BaseException)
        and value is not ImproperlyConfigured
        and not name.startswith("_")
    }
    assert found == {*ENDS, *WAITS}


@pytest.mark.parametrize(("name", "stored", "attributes"), REBUILT)
def test_errors_are_made_anew_of_what_was_stored(name: str, stored: list[Any], attributes: dict[str, Any]) -> None:
    cls = getattr(errors, name)
    for error in (cls(*json.loads(json.dumps(stored))), pickle.loads(pickle.dumps(cls(*stored)))):
        assert type(error) is cls
        assert {attribute: getattr(error, attribute) for attribute in attributes} == attributes
        assert str(error) == stored[0]


@pytest.mark.latest
def test_entry_points_and_extras() -> None:
    tomllib = pytest.importorskip("tomllib")  # since Python 3.11
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == "claude-batch-tasks"
    assert project["scripts"] == {"claude-batch": "claude_batch_tasks.cli:main"}
    assert project["entry-points"] == {
        "celery.commands": {"claude-batch": "claude_batch_tasks.cli:claude_batch"},
        "pytest11": {
            "claude_batch": "claude_batch_tasks.testing.pytest_plugin",
            "claude_batch_simulator": "claude_batch_tasks.simulator.pytest_plugin",
        },
    }
    assert set(project["optional-dependencies"]) - {"dev", "docs"} >= EXTRAS
