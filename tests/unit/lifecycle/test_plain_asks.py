"""Asks that nothing follows are stored many at a time, as Celery's own back end stores each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, Task
from celery.backends.redis import RedisBackend
from celery.signals import task_prerun, task_success

from claude_batch_tasks.errors import TransientError
from claude_batch_tasks.lifecycle.pools import ask_run, plain_asks
from claude_batch_tasks.pool_records import AskPlace
from claude_batch_tasks.results.answers_by_reference import Answer

IDS = ("0b0c8a52-6a70-4a3c-8f34-2c6d2a7d9f11", "1c0c8a52-6a70-4a3c-8f34-2c6d2a7d9f12", 'of the "caller"')


def make_place(**fields: Any) -> AskPlace:
    return AskPlace(job_id="job", position=0, asked_at=1.0, **fields)


@pytest.fixture
def make_app(redis_url: str) -> Iterator[Callable[..., Celery]]:
    """``make_app(result_serializer="pickle")``: an app whose results are in Redis."""
    made: list[Celery] = []

    def make(task_cls: Any = None, **conf: Any) -> Celery:
        backend = conf.pop("result_backend", redis_url)
        app = Celery("plain", broker=redis_url, backend=backend, set_as_current=False, task_cls=task_cls)
        app.loader.import_task_module("claude_batch_tasks.tasks")
        app.conf.update(conf, accept_content=["json", "pickle"])
        made.append(app)
        return app

    yield make
    for app in made:
        app.close()


@pytest.mark.parametrize(
    "conf",
    [
        {},
        {"result_serializer": "pickle"},
        {"result_extended": True},
        {"result_compression": "zlib"},
        {"result_expires": None},
    ],
    ids=str,
)
def test_they_are_stored_as_celery_stores_them(conf: dict[str, Any], make_app: Callable[..., Celery]) -> None:
    app = make_app(**conf)
    backend: Any = app.backend
    places = [make_place(), make_place(canvas='{"parent_id":"parent"}'), make_place(headers='{"tenant":"ü"}')]
    asks = [(ask_id, place, Answer("job", ask_id)) for ask_id in IDS for place in places]
    for ask_id, place, answer in asks:
        plain_asks.store_answers(app, [("1" * 36, make_place(), answer), (ask_id, place, answer)], "worker@here")
        key = backend.get_key_for_task(ask_id)
        ours, ttl = backend.get_task_meta(ask_id), backend.client.ttl(key)
        backend.forget(ask_id)
        request = ask_run.make_request(ask_id, place, "worker@here")
        backend.mark_as_done(ask_id, answer, request)
        theirs = backend.get_task_meta(ask_id)
        assert ours.pop("date_done")[:10] == theirs.pop("date_done")[:10]
        assert ours == theirs
        assert ours["result"] == answer
        assert abs(ttl - backend.client.ttl(key)) <= 2


def test_who_waits_is_told(make_app: Callable[..., Celery]) -> None:
    app = make_app()
    result = app.AsyncResult(IDS[0])
    result.backend.add_pending_result(result)
    plain_asks.store_answers(app, [(IDS[0], make_place(), Answer("job", IDS[0]))], None)
    assert result.get(timeout=10) == Answer("job", IDS[0])


def test_nothing_is_stored_of_one_whose_result_is_ignored(make_app: Callable[..., Celery]) -> None:
    app = make_app()
    place = make_place(canvas='{"ignore_result":true}')
    plain_asks.store_answers(app, [(ask_id, place, Answer("job", ask_id)) for ask_id in IDS], None)
    assert [app.backend.get_state(ask_id) for ask_id in IDS] == 3 * ["PENDING"]


def test_a_back_end_that_does_not_answer_is_asked_again_later(make_app: Callable[..., Celery]) -> None:
    app = make_app(result_backend_transport_options={"retry_policy": {"max_retries": 0}})
    app.backend.client.connection_pool.connection_kwargs["port"] = 1
    app.backend.client.connection_pool.disconnect()
    with pytest.raises(TransientError):
        plain_asks.store_answers(app, [(IDS[0], make_place(), Answer("job", IDS[0]))], None)


class Counting(Task):  # type: ignore[type-arg]
    """An app's own task class that does something after each task."""

    abstract = True

    def on_success(self, *args: Any) -> None:
        """Count it."""


class Named(Task):  # type: ignore[type-arg]
    """An app's own task class that does nothing when a task runs."""

    abstract = True
    priority = 3


class OtherBackend(RedisBackend):
    """A back end that stores in its own way."""

    def _set(self, key: Any, value: Any, expires: Any = None) -> None:
        raise NotImplementedError


def test_whatever_is_called_for_each_task_is_called_for_each_ask(make_app: Callable[..., Celery]) -> None:
    """Then Celery's own tracer runs it."""
    assert plain_asks.can_store_at_once(make_app())
    assert plain_asks.can_store_at_once(make_app(Named))
    assert not plain_asks.can_store_at_once(make_app(Counting))
    assert not plain_asks.can_store_at_once(make_app(result_backend="rpc://"))
    assert not plain_asks.can_store_at_once(make_app(result_backend=f"{__name__}:OtherBackend"))

    def receive(**_: Any) -> None:
        """Somebody else's receiver."""

    for signal in (task_prerun, task_success):
        signal.connect(receive)
        try:
            assert not plain_asks.can_store_at_once(make_app())
        finally:
            signal.disconnect(receive)


@pytest.mark.parametrize(
    ("canvas", "plain"),
    [
        ("{}", True),
        ('{"root_id":"root","parent_id":"parent"}', True),
        ('{"group_id":"group","group_index":1}', True),
        ('{"chord":{}}', False),
        ('{"link":[{}]}', False),
        ('{"link_error":[{}]}', False),
        ('{"chain":[{}]}', False),
        ('{"reply_to":"queue"}', False),
        ('{"stamped_headers":["stamp"],"stamp":"value"}', False),
    ],
)
def test_what_something_follows_is_run_by_itself(canvas: str, plain: bool) -> None:
    assert plain_asks.is_plain(make_place(canvas=canvas)) is plain
