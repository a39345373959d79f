"""What is known of the calls of ``on_result``: the header that they carry, what it confirms, and calls made again."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.canvas import Signature
from kombu.exceptions import OperationalError

from claude_batch_tasks import BatchJob, errors
from claude_batch_tasks.lifecycle import delivery, submission
from claude_batch_tasks.lifecycle.delivery import calls as delivery_calls, tracking
from claude_batch_tasks.records import Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps.step import Step
from claude_batch_tasks.store import Store, open_store_at
from claude_batch_tasks.wire.positions import find_runs

JOB = "job-1"

#: Requests of each of the job's two batches.
COUNT = 6


class TestTheHeader:
    @pytest.mark.parametrize(
        "positions",
        [[], [0], [0, 1, 2], [5], [127, 128, 129], [0, 2, 4, 900_000], list(range(999_000, 1_000_000)), [2**31]],
    )
    def test_comes_back(self, positions: list[int]) -> None:
        runs = find_runs(positions)
        text = tracking.encode_header("any: 'job' ü", runs, 1, 3)
        assert tracking.decode_header(text) == ("any: 'job' ü", runs, 1, 3)
        assert [first + number for first, count in runs for number in range(count)] == positions

    def test_is_small_wherever_its_requests_are(self) -> None:
        for seed in range(20):
            drawn = random.Random(seed)
            positions = sorted(drawn.sample(range(900_000, 1_000_000), delivery_calls.CHUNK))
            header = tracking.encode_header("", find_runs(positions), 0, 1)
            assert len(header) < tracking.LONGEST
        every_other = find_runs(range(0, 2 * delivery_calls.CHUNK, 2))
        assert len(tracking.encode_header("", every_other, 0, 1)) < 2_800
        assert len(tracking.encode_header("", [(900_000, 1000)], 0, 1)) < 20

    @pytest.mark.parametrize(
        "text", [None, 7, "", "x", "[]", '["job", 0, 1]', '["job", "x", 1, ""]', "{}", b"\xff", []]
    )
    def test_of_a_later_release_or_of_somebody_else_is_left_alone(self, text: Any) -> None:
        assert tracking.decode_header(text) is None

    def test_may_have_more_at_its_end(self) -> None:
        text = json.dumps([*json.loads(tracking.encode_header(JOB, [(1, 2)], 0, 1)), "later"])
        assert tracking.decode_header(text) == (JOB, [(1, 2)], 0, 1)

    def test_is_found_where_celery_and_tracers_put_it(self) -> None:
        for request in (
            SimpleNamespace(claude_batch_delivery="x", headers=None),
            SimpleNamespace(headers={"claude_batch_delivery": "x"}),
            SimpleNamespace(claude_batch_delivery="x", headers={"baggage": "of Sentry"}),
        ):
            assert tracking.find_header(request) == "x"
        assert tracking.find_header(SimpleNamespace()) is None


class TestTheTasksOfACall:
    @pytest.mark.parametrize(
        ("make", "found"),
        [
            (lambda s: s("a"), ["a!"]),
            (lambda s: chain(s("a"), s("b"), s("c")), ["a", "b", "c!"]),
            (lambda s: group(s("a"), s("b")), ["a!", "b!"]),
            (lambda s: chain(s("a"), group(s("b"), s("c"))), ["a", "b!", "c!"]),
            (lambda s: chord([s("a"), s("b")], s("c")), ["a", "b", "c!"]),
            (lambda s: chord([chain(s("a"), s("b"))], group(s("c"), s("d"))), ["a", "b", "c!", "d!"]),
            (lambda s: group(chain(s("a"), s("b")), s("c")), ["a", "b!", "c!"]),
            (lambda s: chain(s("a"), chain(s("b"), s("c"))), ["a", "b", "c!"]),
            (lambda s: s("a").on_error(s("e")), ["a!"]),
        ],
    )
    def test_are_those_that_end_it_and_those_before(self, make: Any, found: list[str], app: Celery) -> None:
        stored = json.loads(delivery.encode_hook(make(app.signature)) or "")
        walked = list(tracking.walk_tasks(stored))
        assert [task["task"] + "!" * last for task, last in walked] == found
        assert tracking.count_ends(stored) == "".join(found).count("!")


@pytest.fixture
def store(app: Celery, redis_url: str) -> Store:
    return open_store_at(redis_url)


@pytest.fixture
def called() -> list[list[str]]:
    return []


@pytest.fixture
def broken() -> list[Exception]:
    """What the task raises, if it does."""
    return []


@pytest.fixture
def save(app: Celery, called: list[list[str]], broken: list[Exception]) -> Any:
    import claude_batch_tasks.tasks  # noqa: F401 - it connects the signals

    app.conf.update(task_always_eager=True, task_eager_propagates=False)

    @app.task(name="tests.save", shared=False)
    def save(job_id: str, custom_ids: list[str]) -> None:
        called.append(custom_ids)
        if broken:
            raise broken[0]

    return save


@pytest.fixture
def steps(app: Celery, store: Store, make_request: Any) -> Callable[..., list[Step]]:
    """``steps(on_result)``: a step of each batch of a job that calls this."""

    def make(on_result: Any) -> list[Step]:
        requests = [make_request(f"r{n}") for n in range(2 * COUNT)]
        job = submission.submit_job(app, JOB, requests, {"max_requests_per_batch": COUNT, "on_result": on_result})
        made = []
        for number in range(2):
            unit = Unit(JOB, number)
            store.leases.acquire_lease(unit, 0, "me", 600)
            task = SimpleNamespace(app=app, request=SimpleNamespace(is_eager=False))
            made.append(Step(store, Settings.of(app), job, unit, "me", (JOB, number, 0, 0), task))
        return made

    return make


def end(step: Step, **changes: Any) -> None:
    step.update_record(state="fetched", final=True, done=True, **changes)


def events(app: Celery) -> list[str]:
    return [event.event for event in BatchJob(JOB, app).history()]


@pytest.mark.usefixtures("save")
class TestACallThatEnds:
    @pytest.fixture(autouse=True)
    def _few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(delivery_calls, "CHUNK", 4)

    def test_well_is_delivered(self, app: Celery, steps: Any, save: Any) -> None:
        first, second = steps(save.s())
        delivery.announce_results(first, [1, 3, 4])
        status = BatchJob(JOB, app).status()
        assert (status.announced, status.delivered, status.unconfirmed, status.delivery_failures) == (3, 3, 0, 0)
        assert status.delivery_at is not None
        assert "delivered" not in events(app)
        delivery.announce_results(first, range(COUNT))
        delivery.announce_results(second, range(COUNT))
        assert BatchJob(JOB, app).delivered == 2 * COUNT
        assert events(app).count("delivered") == 1

    def test_badly_is_reported_once_for_each_reason(
        self,
        app: Celery,
        steps: Any,
        save: Any,
        store: Store,
        broken: list[Exception],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        broken[:] = [ValueError("the answer is 42")]
        first, second = steps(save.s())
        delivery.announce_results(first, range(COUNT))
        broken[:] = [KeyError("another answer")]
        delivery.announce_results(second, range(COUNT))
        status = BatchJob(JOB, app).status()
        assert (status.delivered, status.delivery_failures) == (0, 2 * COUNT)
        assert status.on_result_error == "tests.save: KeyError"
        assert events(app).count("delivery_failed") == 2
        said = [record for record in caplog.records if getattr(record, "claude_batch_event", "") == "delivery_failed"]
        assert [record.levelname for record in said] == ["ERROR", "ERROR"]
        text = said[0].getMessage()
        assert text.startswith("job job-1: delivery failed: on_result (tests.save) ended with ValueError; 4 answers")
        assert "BatchJob('job-1').redeliver()" in text
        history = json.dumps([event.text for event in BatchJob(JOB, app).history()])
        assert "answer is 42" not in history + text + str(status.on_result_error)

    @pytest.mark.parametrize("propagates", [True, False])
    def test_badly_in_eager_mode_does_too(
        self, propagates: bool, app: Celery, steps: Any, save: Any, broken: list[Exception]
    ) -> None:
        app.conf.task_eager_propagates = propagates
        broken[:] = [ValueError("no")]
        first, _ = steps(save.s())
        first.task.request.is_eager = True
        delivery.announce_results(first, range(COUNT))
        assert BatchJob(JOB, app).status().delivery_failures == COUNT

    @pytest.mark.parametrize(
        "make",
        [
            lambda task: chain(task.s(), task.si(JOB, ["x"])),
            lambda task: group(task.s(), task.s()),
            lambda task: chord([task.s(), task.s()], task.si(JOB, ["x"])),
            lambda task: task.si(JOB, ["own"]),
            lambda task: dict(task.s()),
        ],
    )
    def test_well_is_delivered_whatever_the_signature(self, make: Any, app: Celery, steps: Any, save: Any) -> None:
        first, _ = steps(make(save))
        delivery.announce_results(first, range(COUNT))
        assert BatchJob(JOB, app).delivered == COUNT

    def test_in_one_task_of_a_group_only_is_not_delivered(
        self, app: Celery, steps: Any, save: Any, store: Store
    ) -> None:
        @app.task(name="tests.broken", shared=False)
        def broken(job_id: str, custom_ids: list[str]) -> None:
            raise ValueError

        first, _ = steps(group(save.s(), broken.s()))
        delivery.announce_results(first, range(COUNT))
        status = BatchJob(JOB, app).status()
        assert (status.delivered, status.delivery_failures) == (0, COUNT)

    def test_after_the_job_is_gone_changes_nothing(self, app: Celery, steps: Any, save: Any, store: Store) -> None:
        steps(save.s())
        store.storage.delete_job(JOB)
        tracked = tracking.Tracked(JOB, [(0, 2)], 0, 1)
        delivery.record_success(app, tracked, "tests.save")
        delivery.record_failure(app, tracked, "tests.save", ValueError())
        assert store.jobs.read_job(JOB) is None


@pytest.mark.usefixtures("save")
class TestRedelivery:
    def test_hands_over_what_failed_and_nothing_else(
        self, app: Celery, steps: Any, save: Any, called: list[list[str]], broken: list[Exception]
    ) -> None:
        first, second = steps(save.s())
        delivery.announce_results(first, range(COUNT))
        end(first)
        broken[:] = [ValueError("no")]
        delivery.announce_results(second, [0, 3])
        called.clear()
        broken.clear()
        job = BatchJob(JOB, app)
        assert job.redeliver() == 2
        assert called == [[f"r{COUNT}", f"r{COUNT + 3}"]]
        status = job.status()
        assert (status.delivered, status.delivery_failures, status.on_result_error) == (COUNT + 2, 0, None)
        assert job.redeliver() == 0
        assert events(app).count("redelivered") == 1

    def test_hands_over_what_nobody_confirmed(
        self, app: Celery, steps: Any, save: Any, store: Store, called: list[list[str]]
    ) -> None:
        """A worker without this package ran it, or was killed."""
        first, _ = steps(save.s())
        store.results.mark_announced(JOB, 0, [1, 2])
        status = BatchJob(JOB, app).status()
        assert (status.announced, status.unconfirmed, status.delivery_failures) == (2, 2, 0)
        assert BatchJob(JOB, app).redeliver() == 2
        assert called == [["r1", "r2"]]
        end(first)
        assert BatchJob(JOB, app).redeliver() == COUNT - 2, "of a batch that is done all is final"

    def test_hands_over_everything_if_asked(
        self, app: Celery, steps: Any, save: Any, called: list[list[str]], broken: list[Exception]
    ) -> None:
        for step in steps(save.s()):
            delivery.announce_results(step, range(COUNT))
            end(step)
        called.clear()
        broken[:] = [ValueError("no")]
        job = BatchJob(JOB, app)
        assert job.redeliver(all=True) == 2 * COUNT
        assert sum(map(len, called)) == 2 * COUNT
        assert (job.status().delivered, job.status().delivery_failures) == (0, 2 * COUNT)

    def test_reports_a_reason_again(self, app: Celery, steps: Any, save: Any, broken: list[Exception]) -> None:
        broken[:] = [ValueError("no")]
        first, _ = steps(save.s())
        delivery.announce_results(first, range(COUNT))
        for _ in range(2):
            BatchJob(JOB, app).redeliver()
        assert events(app).count("delivery_failed") == 3

    def test_makes_a_call_that_could_not_be_made_before(
        self, app: Celery, steps: Any, save: Any, store: Store, called: list[list[str]]
    ) -> None:
        first, second = steps(save.s())
        store.jobs.set_once(JOB, "on_result_error", "it takes other arguments")
        for step in (first, second):
            end(step)
        job = BatchJob(JOB, app)
        assert job.redeliver() == 2 * COUNT
        assert job.status().on_result_error is None

    def test_of_a_failed_batch_is_of_what_was_handed_over_before(self, app: Celery, steps: Any, save: Any) -> None:
        first, _ = steps(save.s())
        delivery.announce_results(first, [4])
        first.update_record(state="failed", done=True)
        assert BatchJob(JOB, app).redeliver(all=True) == 1

    def test_says_that_nobody_is_to_be_called(self, app: Celery, steps: Any) -> None:
        steps(None)
        with pytest.raises(errors.NotDeliverable, match="has no on_result"):
            BatchJob(JOB, app).redeliver()
        with pytest.raises(errors.JobNotFound):
            BatchJob("nobody", app).redeliver()

    def test_says_that_no_message_is_large_enough(
        self, app: Celery, steps: Any, save: Any, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps(save.s())
        store.results.mark_announced(JOB, 0, [1])
        monkeypatch.setattr(delivery_calls, "MOST", 100)
        with pytest.raises(errors.NotDeliverable, match="100 is the most"):
            BatchJob(JOB, app).redeliver()

    @pytest.mark.parametrize("propagates", [True, False])
    def test_in_eager_mode_that_fails_once_more_is_a_failure(
        self, propagates: bool, app: Celery, steps: Any, save: Any, broken: list[Exception]
    ) -> None:
        app.conf.task_eager_propagates = propagates
        broken[:] = [ValueError("no")]
        for step in steps(save.s()):
            end(step)
        assert BatchJob(JOB, app).redeliver() == 2 * COUNT
        assert BatchJob(JOB, app).status().delivery_failures == 2 * COUNT

    def test_says_what_is_wrong_with_its_message(
        self, app: Celery, steps: Any, save: Any, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps(save.s())
        store.results.mark_announced(JOB, 0, [1])
        app.conf.task_always_eager = False

        def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
            raise TypeError("it takes other arguments")

        monkeypatch.setattr(Signature, "apply_async", refuse)
        with pytest.raises(errors.NotDeliverable, match="TypeError: it takes other arguments"):
            BatchJob(JOB, app).redeliver()

    def test_that_met_an_outage_loses_nothing(
        self,
        app: Celery,
        steps: Any,
        save: Any,
        called: list[list[str]],
        broken: list[Exception],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        broken[:] = [ValueError("no")]
        first, _ = steps(save.s())
        delivery.announce_results(first, range(COUNT))
        broken.clear()

        def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
            raise OperationalError("away")

        job = BatchJob(JOB, app)
        with monkeypatch.context() as patched:
            patched.setattr(Signature, "apply_async", refuse)
            with pytest.raises(OperationalError):
                job.redeliver()
        assert job.redeliver() == COUNT
        assert job.delivered == COUNT
