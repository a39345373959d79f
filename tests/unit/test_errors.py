from __future__ import annotations

import inspect
import json
import pickle
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest
from celery import Celery
from celery.backends.base import Backend
from celery.backends.redis import RedisBackend

from claude_batch_tasks import errors

API = ("404 of the API", 404, "not_found_error", "req_1", 2.5)
PROBLEMS = ("2 problem(s)", [[0, "a", "params.model", "is missing"], [1, None, "custom_id", "is missing"]], 7)

CLASSES = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, errors.BatchTasksError) and cls.__module__ == errors.__name__
]


def arguments(cls: type[errors.BatchTasksError]) -> list[tuple[Any, ...]]:
    if issubclass(cls, errors.ApiError):
        return [API, ("no answer",), ("no answer", None, None, None, None)]
    if cls is errors.InvalidRequests:
        return [PROBLEMS, ("bad",)]
    return [("what happened",), ()]


EXAMPLES = [pytest.param(cls, args, id=f"{cls.__name__}-{len(args)}") for cls in CLASSES for args in arguments(cls)]


@pytest.fixture
def backend() -> Iterator[Backend]:
    """The Redis result back end of a real app, which stores JSON."""
    with Celery("errors", set_as_current=False) as app:
        app.conf.result_serializer = "json"
        backend: Any = RedisBackend(app=app, url="redis://nowhere")
        backend.client = fakeredis.FakeRedis(server=fakeredis.FakeServer())
        yield backend


def same(error: BaseException, other: Any) -> None:
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert list(other.args) == list(error.args)
    for name in ("status", "error_type", "request_id", "retry_after", "problems", "more"):
        assert getattr(other, name, "absent") == getattr(error, name, "absent")


def test_there_are_all_the_classes() -> None:
    assert len(CLASSES) > 15


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")
@pytest.mark.parametrize(("cls", "args"), EXAMPLES)
class TestEveryException:
    @pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
    def test_survives_pickle(self, cls: Any, args: Any, protocol: int) -> None:
        error = cls(*args)
        same(error, pickle.loads(pickle.dumps(error, protocol)))

    def test_survives_the_result_back_end(self, backend: Backend, cls: Any, args: Any) -> None:
        error = cls(*args)
        stored = backend.encode(backend.prepare_exception(error))
        same(error, backend.exception_to_python(backend.decode(stored)))

    def test_is_raised_by_get(self, backend: Backend, cls: Any, args: Any) -> None:
        error = cls(*args)
        backend.store_result("task", error, "FAILURE", traceback="Traceback")
        same(error, backend.get_result("task"))

    def test_is_rebuilt_from_what_a_record_keeps(self, cls: Any, args: Any) -> None:
        error = cls(*args)
        name, kept = json.loads(json.dumps([type(error).__name__, list(error.args)]))
        same(error, errors.rebuild_error(name, kept))

    def test_says_what_happened_in_its_first_argument(self, cls: Any, args: Any) -> None:
        assert str(cls(*args)) == (args[0] if args else cls.__name__)


@pytest.mark.parametrize(
    ("cls", "base"),
    [
        (errors.InvalidRequests, ValueError),
        (errors.JobNotFound, LookupError),
        (errors.RequestNotFound, KeyError),
        (errors.TransientError, errors.Retryable),
        (errors.NotFoundError, errors.Retryable),
        (errors.AmbiguousError, errors.Retryable),
        (errors.StoreUnavailable, errors.Retryable),
    ],
)
def test_is_caught_as_what_a_caller_expects(cls: type, base: type) -> None:
    assert issubclass(cls, base)


@pytest.mark.parametrize(
    "cls", [errors.PermanentError, errors.CreateNotFound, errors.BatchLost, errors.WaitExceeded, errors.ResultsMissing]
)
def test_what_ends_a_job_is_not_tried_again(cls: type) -> None:
    assert not issubclass(cls, errors.Retryable)


def test_what_passes_asks_for_no_wait_unless_told() -> None:
    assert errors.BatchInProgress("runs").retry_after is None
    assert errors.TransientError("429", 429, "rate_limit_error", None, 7.0).retry_after == 7.0
