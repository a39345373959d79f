"""The application's own task, called with the ids of requests whose outcome is final."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.canvas import Signature
from kombu.exceptions import OperationalError

from claude_batch_tasks import BatchJob, errors, run_batch
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.lifecycle import closing, delivery, resubmission, submission
from claude_batch_tasks.lifecycle.delivery import calls as delivery_calls
from claude_batch_tasks.records import Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps.step import Step
from claude_batch_tasks.store import Store, open_store_at
from claude_batch_tasks.wire.batch_requests import wire_id
from claude_batch_tasks.wire.completeness import Completeness

JOB = "job-1"
COUNT = 25


@pytest.fixture
def store(app: Celery, redis_url: str) -> Store:
    return open_store_at(redis_url)


@pytest.fixture
def calls() -> list[tuple[Any, ...]]:
    """What the task was called with."""
    return []


@pytest.fixture
def save(app: Celery, calls: list[tuple[Any, ...]]) -> Any:
    app.conf.task_always_eager = True

    @app.task(name="tests.save", shared=False)
    def save(*args: Any, **kwargs: Any) -> None:
        calls.append(args)

    return save


@pytest.fixture
def make_step(app: Celery, store: Store, make_request: Any, save: Any) -> Callable[..., Step]:
    """``make_step(on_result)``: a step of the second batch of a job that calls this."""

    def make(on_result: Any) -> Step:
        requests = [make_request(f"r{n}") for n in range(2 * COUNT)]
        options = {"max_requests_per_batch": COUNT, "on_result": on_result}
        job, unit = submission.submit_job(app, JOB, requests, options), Unit(JOB, 1)
        store.leases.acquire_lease(unit, 0, "me", 600)
        return Step(store, Settings.of(app), job, unit, "me", (JOB, 1, 0, 0), SimpleNamespace(app=app))

    return make


def ids(*places: int) -> list[str]:
    return [f"r{COUNT + place}" for place in places]


class TestASignature:
    def test_is_stored_as_it_is(self, save: Any) -> None:
        moment = datetime(2026, 11, 22, tzinfo=timezone.utc)
        for signature in (save.s(1, "ü", moment=moment).set(queue="slow"), chain(save.s(), save.s()), dict(save.s())):
            stored = delivery.encode_hook(signature)
            assert stored is not None
            found = json.loads(stored)
            assert (found["task"], found["options"].get("queue")) == (
                signature["task"],
                signature["options"].get("queue"),
            )

    def test_may_be_none(self) -> None:
        assert delivery.encode_hook(None) is None

    @pytest.mark.parametrize("value", ["tests.save", 7, {}, {"task": 7}, {"task": None}, [], lambda: None])
    def test_is_nothing_else(self, value: Any) -> None:
        with pytest.raises(InvalidSettings, match=r"must be the signature of a task.*, not " + type(value).__name__):
            delivery.encode_hook(value)

    def test_is_not_the_task_itself(self, save: Any) -> None:
        with pytest.raises(InvalidSettings, match=r"such as save_answers\.s\(\)"):
            delivery.encode_hook(save)

    def test_holds_only_what_json_can_carry(self, save: Any) -> None:
        loop: list[Any] = []
        loop.append(loop)
        for argument in (object(), {1, 2}.__iter__(), loop, {(1, 2): 3}):
            with pytest.raises(InvalidSettings, match="a value that JSON cannot carry"):
                delivery.encode_hook(save.s(argument))

    def test_is_no_option_of_the_job(self, make_step: Any, save: Any, store: Store) -> None:
        make_step(save.s("own"))
        job = store.jobs.read_job(JOB)
        assert job is not None
        assert "on_result" not in job.options
        assert json.loads(job.on_result or "")["args"] == ["own"]

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda task: task.s(), None),
            (lambda task: task.s("table"), "takes 2 positional arguments but 3 were given"),
            (lambda task: task.s(table="table"), "unexpected keyword argument 'table'"),
            (lambda task: task.si(), "missing 2 required positional arguments"),
            (lambda task: task.si("job", []), None),
            (lambda task: chain(task.s("table"), task.s()), "takes 2 positional"),
            (lambda task: chain(task.s(), task.s()), None),
            (lambda task: group(task.s(), task.s("table")), "takes 2 positional"),
            (lambda task: chord([task.s("table")], task.s()), "takes 2 positional"),
            (lambda task: dict(task.s("table")), "takes 2 positional"),
        ],
    )
    def test_is_one_that_can_be_called(self, make: Any, said: str | None, app: Celery, store: Store) -> None:
        @app.task(name="tests.two", shared=False)
        def two(job_id: str, custom_ids: list[str]) -> None:
            """Takes what it is called with, and nothing else."""

        signature = make(two)
        if said is None:
            delivery.check_hook(app, signature)
            return
        with pytest.raises(
            InvalidSettings, match=rf"on_result: tests.two is called .*{said}.*Nothing was stored or sent"
        ):
            run_batch.apply_async(([],), {"on_result": signature}, task_id=JOB)
        assert store.jobs.read_job(JOB) is None

    def test_of_a_task_that_the_app_does_not_know_or_check_is_taken(self, app: Celery) -> None:
        @app.task(name="tests.untyped", shared=False, typing=False)
        def untyped() -> None:
            """Not checked by Celery either."""

        delivery.check_hook(app, untyped.s())
        delivery.check_hook(app, app.signature("tests.elsewhere", args=(1, 2, 3)))

    def test_that_is_refused_leaves_no_job(self, make_step: Any, store: Store) -> None:
        with pytest.raises(InvalidSettings):
            make_step("tests.save")
        assert store.jobs.read_job(JOB) is None


class TestAnnouncing:
    @pytest.fixture(autouse=True)
    def _few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(delivery_calls, "CHUNK", 4)

    def test_calls_the_task_with_a_few_ids_at_a_time(self, make_step: Any, save: Any, calls: list[Any]) -> None:
        delivery.announce_results(make_step(save.s("own", 7)), iter(range(0, 20, 2)))
        assert calls == [
            (JOB, ids(0, 2, 4, 6), "own", 7),
            (JOB, ids(8, 10, 12, 14), "own", 7),
            (JOB, ids(16, 18), "own", 7),
        ]

    def test_calls_it_once_for_each(self, make_step: Any, save: Any, calls: list[Any]) -> None:
        step = make_step(save.s())
        for places in ([1, 8], [1, 2], [8], range(COUNT)):
            delivery.announce_results(step, places)
        assert calls[:2] == [(JOB, ids(1, 8)), (JOB, ids(2))]
        told = [custom_id for _, of_one in calls for custom_id in of_one]
        assert sorted(told) == sorted(ids(*range(COUNT)))

    def test_calls_nothing_where_nothing_is_new_or_nobody_asked(
        self, make_step: Any, save: Any, store: Store, calls: list[Any]
    ) -> None:
        delivery.announce_results(make_step(None), [1])
        assert (calls, store.results.read_announced(JOB, 1)) == ([], b"")
        store.storage.delete_job(JOB)
        delivery.announce_results(make_step(save.s()), [])
        assert calls == []

    def test_repeats_nothing_that_the_broker_took(
        self, make_step: Any, save: Any, calls: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        step, sent, apply = make_step(save.s()), [], Signature.apply_async

        def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
            sent.append(self)
            if len(sent) == 2:
                raise OperationalError("gone: SECRET")
            return apply(self, *args, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(Signature, "apply_async", refuse)
            with pytest.raises(errors.TransientError, match="not called: OperationalError") as caught:
                delivery.announce_results(step, range(8))
        assert "SECRET" not in str(caught.value)
        delivery.announce_results(step, range(8))
        assert calls == [(JOB, ids(0, 1, 2, 3)), (JOB, ids(4, 5, 6, 7))]

    def test_leaves_a_signature_alone_that_takes_no_arguments(
        self, make_step: Any, save: Any, calls: list[Any]
    ) -> None:
        """As Celery does with what is linked."""
        delivery.announce_results(make_step(save.si("own")), [1])
        assert calls == [("own",)]

    def test_of_a_job_that_is_gone_calls_nothing(
        self, make_step: Any, save: Any, store: Store, calls: list[Any]
    ) -> None:
        step = make_step(save.s())
        store.storage.delete_job(JOB)
        with pytest.raises(errors.JobNotFound):
            delivery.announce_results(step, [1])
        assert calls == []


class TestWhatCannotBeCalled:
    @pytest.fixture
    def refused(self, monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
        """The error that every call meets, and a note of each."""
        found: list[Exception] = [TypeError("save() takes 2 positional arguments but 3 were given")]

        def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
            found.append(found[0])
            raise found[0]

        monkeypatch.setattr(Signature, "apply_async", refuse)
        return found

    @pytest.fixture
    def step(self, make_step: Any, save: Any) -> Step:
        step: Step = make_step(save.s())
        step.task.request = SimpleNamespace(is_eager=False)
        return step

    def test_is_said_once_and_called_no_more(
        self, step: Step, store: Store, refused: list[Exception], app: Celery, caplog: pytest.LogCaptureFixture
    ) -> None:
        delivery.announce_results(step, range(COUNT))
        again = Step(store, step.settings, store.jobs.read_job(JOB), Unit(JOB, 0), "me", (JOB, 0, 0, 0), step.task)  # type: ignore[arg-type]
        delivery.announce_results(again, range(COUNT))
        delivery.announce_results(step, range(COUNT))
        assert len(refused) == 2
        said = [record for record in caplog.records if record.levelname == "ERROR"]
        assert [record.claude_batch_event for record in said] == ["not_sent"]  # type: ignore[attr-defined]
        assert "takes 2 positional arguments" in (text := BatchJob(JOB, app).status().on_result_error or "")
        assert "BatchJob('job-1').results()" in text
        assert [event.event for event in BatchJob(JOB, app).history()].count("not_sent") == 1

    @pytest.mark.parametrize("error", [OperationalError("away"), ConnectionError("away"), OSError("away")])
    def test_is_not_a_broker_that_is_away(
        self, step: Step, store: Store, refused: list[Exception], error: Exception
    ) -> None:
        refused[:] = [error]
        with pytest.raises(errors.TransientError):
            delivery.announce_results(step, range(COUNT))
        assert (found := store.jobs.read_job(JOB)) is not None
        assert found.on_result_error is None

    def test_is_what_is_not_known_after_some_attempts(self, step: Step, store: Store, refused: list[Exception]) -> None:
        refused[:] = [RuntimeError("a client of a broker that is not known here")]
        with pytest.raises(errors.TransientError):
            delivery.announce_results(step, range(COUNT))
        step.batch.failures = step.settings.max_step_failures
        delivery.announce_results(step, range(COUNT))
        assert (found := store.jobs.read_job(JOB)) is not None
        assert "RuntimeError" in (found.on_result_error or "")

    def test_is_what_no_broker_takes_with_one_id_even(
        self, step: Step, store: Store, save: Any, calls: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(delivery_calls, "MOST", 2000)
        delivery.announce_results(step, range(COUNT))
        assert calls == []
        assert (found := store.jobs.read_job(JOB)) is not None
        assert "2,000 is the most" in (found.on_result_error or "")


@pytest.mark.parametrize("serializer", ["json", "yaml", "pickle", "msgpack"])
@pytest.mark.parametrize("way", ["plain", "own arguments", "headers", "chain"])
def test_no_message_is_larger_than_brokers_take(serializer: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SQS gets it: the body as base64 in a message that is base64 itself."""
    app = Celery("sizes", broker="memory://", set_as_current=False)
    own = (["ü" * 40] * 100,) if way == "own arguments" else ()
    headers = {"baggage": "b" * 30_000} if way == "headers" else {}
    call = app.signature("tests.save", args=own).set(serializer=serializer, headers=headers)
    if way == "chain":
        if serializer in ("yaml", "msgpack"):
            pytest.skip("Celery's own signatures cannot be in it")
        call = chain(call, app.signature("tests.save", args=(["x" * 100] * 300,)), app=app)
    count = 300 if serializer == "yaml" else 1500  # it takes thirty times as long
    names = [f"é{number}\n".ljust(200, "ü" if number % 2 else "i") for number in range(count)]
    sizes: list[int] = []
    told: list[str] = []

    def note(self: Any, name: str, message: Any, **more: Any) -> None:
        sizes.append(len(base64.b64encode(json.dumps(message).encode())))

    monkeypatch.setattr("kombu.transport.memory.Channel._put", note)
    for ids, size in delivery_calls.cut_chunks(names, delivery_calls.make_meter(app, call, "j" * 36)):
        call.clone(args=("j" * 36, ids)).apply_async()
        assert sizes[-1] <= size <= 262_144
        told += ids
    assert told == names
    assert 1 < len(sizes) < 30


def test_what_was_announced_can_be_read_from_then_on(app: Celery, make_step: Any, store: Store) -> None:
    """The task may run before the step that called it is through."""
    read: list[str] = []

    @app.task(name="tests.read", shared=False)
    def read_all(job_id: str, ids: list[str]) -> None:
        read.extend(result.custom_id for result in BatchJob(job_id, app).results(ids=ids))

    step = make_step(read_all.s())
    seen = Completeness(step.job.nonce, COUNT, COUNT)
    results = [{"type": "succeeded", "message": {}}, {"type": "expired"}, {"type": "canceled"}]
    lines = (
        json.dumps({"custom_id": wire_id(step.job.nonce, COUNT + n), "result": results[n % 3]}).encode() + b"\n"
        for n in range(COUNT)
    )
    store.results.write_rows(JOB, 1, 1, seen.keep_rows(lines))
    rows = {"pieces": seen.pieces.tobytes(), "eligible_places": seen.judged.eligible.tobytes()}
    store.results.publish_rows(
        step.unit, "me", 1, **rows, state="fetched", attempt=1, eligible=len(seen.judged.eligible)
    )
    delivery.announce_results(step, resubmission.final_positions(step))
    assert read == ids(*(n for n in range(COUNT) if n % 3 != 1))
    closing.close_batch(step)
    assert sorted(read) == sorted(ids(*range(COUNT)))
