"""What ``ask`` does at its caller: what it checks, what it stores, and what it returns."""

from __future__ import annotations

import asyncio
import json
import pickle
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from celery import Celery, Task, chain, chord, group
from celery.app.task import Context
from celery.app.trace import trace_task
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.signals import before_task_publish
from kombu.utils.json import dumps, loads
from pydantic import BaseModel

from claude_batch_tasks import Answer, RequestResult, ask, errors
from claude_batch_tasks.jobs.job_ids import find_job_id
from claude_batch_tasks.lifecycle.pools import revoking
from claude_batch_tasks.pool_records import Ask, AskPlace, PoolRecord
from claude_batch_tasks.results.ask_result import AskResult
from claude_batch_tasks.steps import publishing
from claude_batch_tasks.store import Store, open_store_at
from claude_batch_tasks.tasks.asks.send_ask import SendAsk
from claude_batch_tasks.testing import ClaudeBatch
from tests.factories import make_params

PARAMS = make_params("hello")


class Review(BaseModel):
    stars: int


@pytest.fixture
def asking(app: Celery) -> Celery:
    """The app, as the one that is current."""
    app.loader.import_task_module("claude_batch_tasks.tasks")
    app.set_current()
    return app


@pytest.fixture
def store(redis_url: str) -> Store:
    return open_store_at(redis_url)


def pools(store: Store) -> dict[str, PoolRecord]:
    return dict(store.pools.list_pools())


def stored(store: Store) -> dict[str, Ask]:
    """All asks that wait, by their ids."""
    return {
        found.id: found
        for job_id in pools(store)
        for chunk in store.pools.read_asks(job_id)
        for found in chunk
        if found
    }


def place(store: Store, result: AskResult) -> AskPlace:
    [found] = store.asks.read_places([str(result.id)], with_canvas=True)
    assert found is not None
    return found


class TestAnAsk:
    def test_is_stored_under_its_task_id_and_no_message_is_sent(self, asking: Celery, store: Store) -> None:
        result = ask.delay(PARAMS)
        [(job_id, pool)] = pools(store).items()
        assert (pool.name, pool.client, pool.count, pool.mode) == ("default", "default", 1, "batch")
        assert json.loads(stored(store)[result.id].params) == PARAMS
        assert (result.job.job_id, result.custom_id) == (job_id, result.id)
        with asking.connection_for_read() as connection:
            assert connection.default_channel.client.llen("celery") == 0

    def test_waits_in_progress_with_its_pool_and_position(self, asking: Celery, store: Store) -> None:
        first, second = ask.delay(PARAMS, pool="reviews"), ask.delay(PARAMS, pool="reviews")
        assert second.state == "PROGRESS"
        assert second.info["pool"] == "reviews"
        assert second.info["position"] == 1
        assert second.info["job_id"] == first.job.job_id
        assert not second.ready()

    def test_has_a_job_that_says_that_it_is_a_pool_until_then(self, asking: Celery) -> None:
        job = ask.delay(PARAMS).job
        assert find_job_id(job.job_id, asking) == job.job_id
        for read in (job.status, lambda: list(job.results()), job.cancel):
            with pytest.raises(errors.JobNotFound, match="is a pool of 1 ask, and no job yet"):
                read()

    def test_has_the_canvas_and_the_headers_of_its_caller(self, asking: Celery, store: Store) -> None:
        signature = ask.s(PARAMS).set(headers={"x_tenant": "a"}, link=asking.signature("shop.save"))
        result = chain(signature, asking.signature("shop.after")).apply_async()
        found = place(store, result.parent)
        canvas = loads(found.canvas)
        assert [task["task"] for task in canvas["link"]] == ["shop.save"]
        assert [task["task"] for task in canvas["chain"]] == ["shop.after"]
        assert json.loads(found.headers or "") == {"x_tenant": "a"}

    def test_is_a_part_of_a_chord(self, asking: Celery, store: Store) -> None:
        chord([ask.s(PARAMS), ask.s(PARAMS)], asking.signature("shop.join")).apply_async()
        places = store.asks.read_places(list(stored(store)), with_canvas=True)
        canvases = [loads(found.canvas) for found in places if found]
        assert [canvas["chord"]["task"] for canvas in canvases] == ["shop.join"] * 2
        assert sorted(canvas["group_index"] for canvas in canvases) == [0, 1]

    def test_is_found_by_its_stamps(self, asking: Celery) -> None:
        stamped = []
        for marks in (["a", "b"], "c", None):
            signature = ask.s(PARAMS)
            if marks:
                signature.stamp(mark=marks)
            stamped.append(signature.delay().id)
        for wanted, found in (("b", [0]), (["a", "c"], [0, 1]), ("d", [])):
            assert revoking.find_stamped(asking, [{"mark": wanted}, {"other": "a"}]) == [stamped[n] for n in found]

    def test_of_the_same_id_is_asked_once(self, asking: Celery, store: Store) -> None:
        for _ in range(2):
            result = ask.apply_async((PARAMS,), task_id="one")
            assert isinstance(result, AskResult)
        assert list(stored(store)) == ["one"]

    def test_that_is_linked_is_asked_once_however_often_its_worker_dies(self, asking: Celery, store: Store) -> None:
        linked = [ask.si(PARAMS), ask.si(PARAMS)]
        for callbacks in (linked, linked[:1]):
            request = Context(id="first", callbacks=[dict(each) for each in callbacks])
            for _ in range(2):
                publishing.send_what_follows(asking, request, None, {})
        assert len(stored(store)) == 2

    @pytest.mark.parametrize("name", ["eta", "expires", "headers"])
    def test_is_refused_in_its_own_name(self, name: str, asking: Celery, store: Store) -> None:
        wrong: Any = {name: {"tenant": object()}}
        with pytest.raises(errors.InvalidSettings, match=f"^ask option {name} must be"):
            ask.apply_async((PARAMS,), **wrong)
        assert stored(store) == {}

    def test_may_have_a_uuid_as_its_id(self, asking: Celery, store: Store) -> None:
        chosen: Any = uuid.uuid4()
        result = ask.apply_async((PARAMS,), task_id=chosen)
        assert (result.id, list(stored(store))) == (str(chosen), [str(chosen)])
        assert AskResult(chosen, app=asking).info == result.info

    def test_that_may_be_stored_can_be_asked_again(self, asking: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
        def lose(*_: Any) -> None:
            raise errors.StoreUnavailable("no answer")

        monkeypatch.setattr(type(open_store_at("redis://x/0").pools), "add_ask", lose)
        with pytest.raises(errors.StoreUnavailable, match=r"not known .* task_id='one'"):
            ask.apply_async((PARAMS,), task_id="one")

    def test_gets_the_headers_that_handlers_add(self, asking: Celery, store: Store) -> None:
        seen: list[Any] = []

        def add_trace(sender: str, headers: dict[str, Any], body: Any, **_: Any) -> None:
            seen.append((sender, body[0], headers["id"]))
            headers["x_trace"] = "t"

        before_task_publish.connect(add_trace)
        try:
            result = ask.delay(PARAMS)
        finally:
            before_task_publish.disconnect(add_trace)
        assert seen == [("claude_batch_tasks.ask", (), result.id)]
        assert json.loads(place(store, result).headers or "") == {"x_trace": "t"}

    def test_asks_for_a_typed_answer(self, asking: Celery, store: Store) -> None:
        result = ask.delay(make_params("hello", model="claude-sonnet-4-5"), output=Review)
        sent = json.loads(stored(store)[result.id].params)
        assert sent["output_config"]["format"]["schema"]["properties"]["stars"]["type"] == "integer"
        assert [pool.options["output"] for pool in pools(store).values()] == [f"{__name__}.Review"]


class TestAPool:
    @pytest.mark.parametrize(
        "other",
        [
            {"pool": "other"},
            {"retries": 0},
            {"fallback": "off"},
            {"label": "nightly"},
            {"ask_max_wait": 5},
            {"ask_mode": "messages"},
            {"output": Review},
            {"deadline": 3600},
        ],
        ids=lambda other: next(iter(other)),
    )
    def test_has_asks_with_the_same_options_alone(self, asking: Celery, store: Store, other: dict[str, Any]) -> None:
        params = make_params("hello", model="claude-sonnet-4-5")
        for options in ({}, other, {}, other):
            ask.delay(params, **options)
        assert sorted(pool.count for pool in pools(store).values()) == [2, 2]

    def test_has_the_first_deadline_of_its_asks_and_waits_for_a_share_of_the_time(
        self, asking: Celery, store: Store
    ) -> None:
        asking.conf.claude_batch_deadline = 120
        for options in ({}, {"deadline": 100}, {"deadline": timedelta(seconds=110)}):
            ask.delay(PARAMS, **options)
        [pool] = pools(store).values()
        assert pool.deadline == pytest.approx(pool.opened_at + 100, abs=5)
        assert pool.due_at == pytest.approx(pool.opened_at + 10, abs=5)
        ask.delay(PARAMS, deadline=None)
        assert sorted(found.deadline is None for found in pools(store).values()) == [False, True]

    def test_has_asks_of_the_same_queue_alone(self, asking: Celery, store: Store) -> None:
        for queue in ("one", "two", "one"):
            ask.apply_async((PARAMS,), queue=queue)
        assert {pool.queue: pool.count for pool in pools(store).values()} == {"one": 2, "two": 1}

    def test_follows_the_route_of_the_task(self, asking: Celery, store: Store) -> None:
        asking.conf.task_routes = {"claude_batch_tasks.run_batch": {"queue": "jobs"}}
        ask.delay(PARAMS)
        asking.conf.task_routes = {"claude_batch_tasks.ask": {"queue": "asks"}, "*": {"queue": "rest"}}
        asking.amqp.__dict__.pop("router", None)
        asking.amqp._rtable = None
        ask.delay(PARAMS)
        assert sorted(str(pool.queue) for pool in pools(store).values()) == ["asks", "jobs"]

    def test_has_asks_that_start_at_about_the_same_time(self, asking: Celery, store: Store) -> None:
        now = store.now()
        late = datetime.fromtimestamp(now, timezone.utc) + timedelta(hours=1)
        for options in ({}, {"eta": late}, {"eta": late + timedelta(seconds=0.01)}, {"countdown": 7200}):
            ask.apply_async((PARAMS,), **options)
        found = sorted((pool.due_at, pool.count) for pool in pools(store).values())
        assert sorted(count for _, count in found) in ([1, 1, 2], [1, 1, 1, 1])  # the two may be in two minutes
        assert found[0][0] <= now + 61
        assert late.timestamp() < found[1][0] <= late.timestamp() + 61

    def test_that_starts_later_is_due_in_time_for_its_deadline(self, asking: Celery, store: Store) -> None:
        now = store.now()
        for countdown, deadline in ((100, 2200), (3500, 7500), (10, 100)):
            ask.apply_async((PARAMS,), {"ask_max_wait": 3600, "deadline": deadline}, countdown=countdown)
        waits = sorted(pool.due_at - now for pool in pools(store).values())
        assert 10 <= waits[0] < 20
        assert 100 <= waits[1] < 100 + 210
        assert 3500 <= waits[2] < 3500 + 400

    def test_calls_on_result_as_its_own_asks_want_it(self, asking: Celery, store: Store) -> None:
        for queue in ("one", "two"):
            ask.delay(PARAMS, on_result=asking.signature("shop.save", queue=queue))
        found = [pool.options["on_result"]["options"]["queue"] for pool in pools(store).values()]
        assert sorted(found) == ["one", "two"]

    def test_is_due_when_it_is_full(self, asking: Celery, store: Store) -> None:
        for _ in range(3):
            ask.delay(PARAMS, ask_max_requests=2)
        assert sorted((pool.count, pool.state) for pool in pools(store).values()) == [(1, "open"), (2, "closed")]

    def test_that_is_answered_at_once_is_due_at_once(self, asking: Celery, store: Store) -> None:
        ask.delay(PARAMS, ask_mode="messages")
        [pool] = pools(store).values()
        assert pool.mode == "messages"
        assert len(store.pools.take_due(10, 60)[0]) == 1

    def test_of_settings_that_changed_is_another(self, asking: Celery, store: Store) -> None:
        ask.delay(PARAMS)
        asking.conf.claude_batch_ask_mode = "messages"
        ask.delay(PARAMS)
        assert sorted(pool.mode for pool in pools(store).values()) == ["batch", "messages"]


class TestWhatIsWrong:
    @pytest.mark.parametrize(
        ("args", "options", "error", "text"),
        [
            ((), {}, TypeError, "params of one request"),
            ((PARAMS, PARAMS), {}, TypeError, "params of one request"),
            (("a prompt",), {}, errors.InvalidRequests, "params: must be an object"),
            (({"model": "m"},), {}, errors.InvalidRequests, "params.max_tokens: is missing"),
            (({"custom_id": "a", "params": PARAMS},), {}, errors.InvalidRequests, "give the params alone"),
            (({**PARAMS, "stream": True},), {}, errors.InvalidRequests, "cannot stream"),
            ((PARAMS,), {"retires": 1}, errors.InvalidSettings, "unknown ask option retires; did you mean retries"),
            ((PARAMS,), {"retries": "many"}, errors.InvalidSettings, "retries must be a whole number"),
            ((PARAMS,), {"pool": ""}, errors.InvalidSettings, "ask option pool"),
            ((PARAMS,), {"pool": "x" * 96}, errors.InvalidSettings, "ask option pool"),
            ((PARAMS,), {"client": "nobody"}, errors.InvalidSettings, "client 'nobody'"),
            ((PARAMS,), {"reask": 1}, errors.InvalidSettings, "ask option reask needs output="),
            ((PARAMS,), {"ask_mode": "soon"}, errors.InvalidSettings, "ask_mode must be"),
            ((PARAMS,), {"label": "\n"}, errors.InvalidSettings, "label must be"),
            ((PARAMS,), {"deadline": -1}, errors.InvalidSettings, "deadline must be from 0"),
            ((PARAMS,), {"deadline": datetime(2030, 1, 1)}, errors.InvalidSettings, "ask option deadline must have a"),
            ((PARAMS,), {"refusal_model": PARAMS["model"]}, errors.InvalidSettings, "refusal_model"),
            ((PARAMS,), {"store_url": "redis://elsewhere"}, errors.InvalidSettings, "store_url"),
        ],
    )
    def test_is_refused_at_the_caller(
        self, asking: Celery, store: Store, args: Any, options: Any, error: type[Exception], text: str
    ) -> None:
        with pytest.raises(error, match=text.replace("?", "[?]")):
            ask.apply_async(args, options)
        assert pools(store) == {}

    def test_is_refused_before_a_class_of_the_app_sends_later(self, asking: Celery, monkeypatch: Any) -> None:
        monkeypatch.setattr(SendAsk, "apply_async", lambda *_, **__: None)
        with pytest.raises(errors.InvalidRequests):
            ask.delay({})
        with pytest.raises(errors.InvalidSettings):
            ask.delay(PARAMS, deadline="soon")

    @pytest.mark.parametrize("limit", ["time_limit", "soft_time_limit"])
    def test_may_be_a_limit_of_one_run(self, asking: Celery, limit: str) -> None:
        with pytest.raises(errors.InvalidSettings, match="max_wait"):
            ask.apply_async((PARAMS,), **{limit: 5})

    def test_may_be_a_call_as_a_function(self, asking: Celery) -> None:
        for call in (lambda: ask(PARAMS), lambda: ask.s(PARAMS)()):
            with pytest.raises(TypeError, match=r"ask\.delay\(params\)"):
                call()
        for call in (lambda: ask.map([PARAMS]), lambda: ask.starmap([PARAMS]), lambda: ask.chunks([PARAMS], 1)):
            with pytest.raises(TypeError, match="group"):
                call()


class TestAMessageFromAnAppThatLacksTheTask:
    def receive(self, app: Celery, params: Any, options: dict[str, Any] | None = None, **request: Any) -> None:
        args, task = [params], app.tasks["claude_batch_tasks.ask"]
        delivery = {"exchange": "", "routing_key": "asks"}
        known = {"id": "sent", "task": task.name, "args": args, "kwargs": {}, "delivery_info": delivery}
        trace_task(task, "sent", args, {"pool": "reviews", **(options or {})}, {**known, **request}, app=app)

    def test_is_put_into_a_pool_with_what_follows_it(self, asking: Celery, store: Store) -> None:
        for _ in range(2):  # as a message that is delivered twice
            self.receive(asking, PARAMS, callbacks=[dict(asking.signature("shop.save"))], x_tenant="a")
        [pool] = pools(store).values()
        assert (pool.name, pool.queue, pool.count) == ("reviews", "asks", 1)
        found = place(store, ask.AsyncResult("sent"))
        assert [task["task"] for task in loads(found.canvas)["link"]] == ["shop.save"]
        assert json.loads(found.headers or "") == {"x_tenant": "a"}
        assert ask.AsyncResult("sent").state == "PROGRESS"

    @pytest.mark.parametrize(
        ("params", "options", "error"),
        [
            ({"prompt": "secret"}, {}, errors.InvalidRequests),
            (make_params("secret"), {"deadline": "soon"}, errors.InvalidSettings),
            (make_params("secret", model="claude-haiku-4-5"), {"ask_max_cost": 1e-9}, errors.BudgetSpent),
        ],
    )
    def test_that_is_refused_fails_without_its_params(
        self, asking: Celery, store: Store, params: Any, options: Any, error: type[Exception]
    ) -> None:
        asking.conf.result_extended = True
        self.receive(asking, params, options)
        result = asking.AsyncResult("sent")
        assert isinstance(result.result, error)
        assert "secret" not in str(asking.backend.client.get(asking.backend.get_key_for_task("sent")))
        assert pools(store) == {}


class TestAClassOfTheApp:
    """As Django's, which sends after a commit."""

    @pytest.fixture
    def later(self, redis_url: str) -> Iterator[list[Callable[[], Any]]]:
        calls: list[Callable[[], Any]] = []

        class Later(Task):
            abstract = True

            def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
                options["headers"] = {**(options.get("headers") or {}), "x_tenant": "a"}
                calls.append(partial(super().apply_async, args, kwargs, **options))

        app = Celery("later", broker=redis_url, backend=redis_url, task_cls=Later, set_as_current=False)
        app.loader.import_task_module("claude_batch_tasks.tasks")
        app.set_current()
        yield calls
        app.close()

    def test_may_ask_later_or_never(self, later: list[Callable[[], Any]], store: Store) -> None:
        assert ask.delay(PARAMS) is None
        assert pools(store) == {}
        [send] = later
        result = send()
        assert isinstance(result, AskResult)
        assert json.loads(place(store, result).headers or "") == {"x_tenant": "a"}
        assert list(stored(store)) == [result.id]


class TestACostLimit:
    def test_refuses_what_may_be_over_it(self, asking: Celery, store: Store) -> None:
        params = make_params("hello", model="claude-haiku-4-5", max_tokens=1000)
        ask.delay(params, ask_max_cost=0.008)
        with pytest.raises(errors.BudgetSpent) as refused:
            ask.delay(params, ask_max_cost=0.008)
        assert 0 < (refused.value.retry_after or 0) <= 86_400
        assert [pool.count for pool in pools(store).values()] == [1]

    def test_needs_prices(self, asking: Celery, store: Store) -> None:
        with pytest.raises(errors.InvalidRequests, match=r"ask_max_cost cannot be guaranteed.*\(params.model\)"):
            ask.delay(make_params("hello", model="nobody's"), ask_max_cost=1)
        assert pools(store) == {}

    @pytest.mark.parametrize(("options", "factor"), [({"fallback": "off"}, 1), ({}, 2)])
    def test_reserves_full_price_where_it_may_be_paid(
        self, asking: Celery, store: Store, options: Any, factor: int
    ) -> None:
        params = make_params("hello", model="claude-haiku-4-5", max_tokens=1000)
        result = ask.delay(params, ask_max_cost=1, **options)
        answer = 1000 * 5 * 1000 // 2  # at half of 5 dollars for a million tokens
        assert answer * factor <= place(store, result).reserved < 1.1 * answer * factor


class TestWhatIsLost:
    def test_in_the_back_end_ends_as_the_store_says(self, asking: Celery, store: Store) -> None:
        result = ask.delay(PARAMS)
        assert result.cancel()
        asking.backend.client.delete(asking.backend.get_key_for_task(result.id))
        assert asking.AsyncResult(result.id).state == "PENDING"
        assert ask.AsyncResult(result.id).state == "REVOKED"

    def test_in_the_store_is_not_waited_for_without_end(
        self, asking: Celery, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result = ask.delay(PARAMS)
        assert result.state == "PROGRESS"
        asking.backend.client.flushall()
        monkeypatch.setattr("claude_batch_tasks.results.ask_result.CERTAIN", 0.0)
        with pytest.raises(errors.JobNotFound):
            result.get(timeout=5)
        with pytest.raises(errors.JobNotFound):
            _ = ask.AsyncResult(result.id).job

    def test_in_the_store_is_not_waited_for_by_those_who_only_have_its_id(
        self, asking: Celery, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("claude_batch_tasks.results.ask_result.UNSEEN", 0.5)
        monkeypatch.setattr("claude_batch_tasks.results.async_result._EVERY", 0.2)
        with pytest.raises(errors.JobNotFound, match="does not know the ask nobody"):
            AskResult("nobody", app=asking).get(timeout=30)
        with pytest.raises(errors.JobNotFound, match="does not know the ask nobody"):
            asyncio.run(AskResult("nobody", app=asking).aget(timeout=30))

    def test_that_may_be_a_later_link_of_a_chain_is_waited_for(
        self, asking: Celery, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("claude_batch_tasks.results.ask_result.UNSEEN", 0.5)
        monkeypatch.setattr("claude_batch_tasks.results.async_result._EVERY", 0.2)
        last = chain(asking.signature("shop.before"), ask.si(PARAMS)).apply_async()
        with pytest.raises(CeleryTimeoutError):
            last.get(timeout=2)

    def test_no_seconds_are_no_wait(self, asking: Celery) -> None:
        with pytest.raises(CeleryTimeoutError):
            ask.delay(PARAMS).get(timeout=0)


class TestAnAnswer:
    def test_is_two_ids_in_a_message(self) -> None:
        answer = Answer("job-1", "ask-1")
        text = dumps([answer])
        assert json.loads(text) == [{"__type__": "claude_batch_answer", "__value__": ["job-1", "ask-1"]}]
        assert loads(text) == [answer]
        assert pickle.loads(pickle.dumps(answer)) == answer
        assert len({answer, loads(text)[0]}) == 1
        assert answer != Answer("job-1", "ask-2")
        assert repr(answer) == "Answer('job-1', 'ask-1')"

    def test_does_not_read_for_a_protocol(self) -> None:
        answer = Answer("job-1", "ask-1")
        assert not hasattr(answer, "__json__")
        assert not hasattr(answer, "_anything")


class TestInThisProcess:
    @pytest.fixture
    def claude_batch_app(self) -> Iterator[Celery]:
        app = Celery("here", broker="memory://", set_as_current=False)
        app.loader.import_task_module("claude_batch_tasks.tasks")
        app.set_current()
        yield app
        app.close()

    def test_the_answer_comes_at_once(self, claude_batch: ClaudeBatch) -> None:
        claude_batch.answer("four", prompt="two and two")
        result = ask.delay(make_params("two and two"), pool="sums")
        found = result.get()
        assert isinstance(found, RequestResult)
        assert (found.text, found.custom_id, result.state) == ("four", result.id, "SUCCESS")
        assert result.job.status().label == "pool:sums"
        assert ask.apply((make_params("two and two"),)).get().text == "four"

    def test_what_follows_gets_the_answer(self, claude_batch: ClaudeBatch) -> None:
        @claude_batch.app.task
        def read(answer: Any, more: str = "") -> str:
            return f"{answer.text}{more}{answer.complete}"

        @claude_batch.app.task
        def join(answers: list[Any]) -> list[str]:
            return [answer.text for answer in answers]

        claude_batch.answer("four")
        assert chain(ask.s(PARAMS), read.s(more="!")).delay().get() == "four!True"
        assert chord([ask.s(PARAMS), ask.s(PARAMS)], join.s()).delay().get() == ["four", "four"]
        assert [found.text for found in group(ask.s(PARAMS), ask.s(PARAMS)).delay().get()] == ["four", "four"]

    def test_the_task_before_may_make_the_params(self, claude_batch: ClaudeBatch) -> None:
        @claude_batch.app.task
        def make(prompt: str) -> dict[str, Any]:
            return make_params(prompt)

        assert chain(make.s("hello"), ask.s(pool="later")).delay().get().text == "Echo: hello"

    def test_a_request_that_errors_fails_its_ask(self, claude_batch: ClaudeBatch) -> None:
        claude_batch.error("invalid_request_error", "no such field")
        result = ask.delay(PARAMS)
        with pytest.raises(errors.RequestFailed, match="no such field") as failed:
            result.get()
        assert (failed.value.outcome, failed.value.error_type) == ("errored", "invalid_request_error")
        assert failed.value.custom_id == result.id
        assert result.job.job_id == failed.value.job_id

    def test_a_typed_answer_is_parsed(self, claude_batch: ClaudeBatch) -> None:
        claude_batch.answer(Review(stars=4))
        assert ask.delay(make_params("hello", model="claude-sonnet-4-5"), output=Review).get().parsed == Review(stars=4)

    def test_the_messages_api_answers_where_that_is_the_mode(self, claude_batch: ClaudeBatch) -> None:
        found = ask.delay(PARAMS, ask_mode="messages").get()
        assert found.source == "messages"
        assert [sent.via for sent in claude_batch.requests] == ["messages"]

    def test_the_fixture_answers_in_place_of_a_simulator(self, claude_batch: ClaudeBatch) -> None:
        claude_batch.answer("scripted")
        assert ask.delay(PARAMS, ask_mode="eager-simulator").get().text == "scripted"
