"""What failed for a passing reason gets another chance: in smaller batches, then through the Messages API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, errors, run_batch
from claude_batch_tasks.simulator import Fault, Outcome, Simulator
from tests.integration.rig import account_for, forget_account, open_world, requests
from tests.support import LendStore, wait_until

pytestmark = pytest.mark.workers

EXPIRED = Outcome("expired")


def sources(app: Celery, job_id: str) -> Counter[tuple[str, str]]:
    return Counter((found.type, found.source) for found in BatchJob(job_id, app).results())


def notes(app: Celery, job_id: str) -> Counter[str | None]:
    return Counter(found.note for found in BatchJob(job_id, app).results())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, lend_store: LendStore) -> Iterator[tuple[Celery, Simulator]]:
    """A worker with two processes that all of these tests share: none does it any harm."""
    with open_world(tmp_path_factory.mktemp("chances") / "worker.log", lend_store) as found:
        yield found


@pytest.fixture
def app(world: tuple[Celery, Simulator]) -> Celery:
    """Of these tests; nothing is left of what others' calls have shown of the account."""
    app, _ = world
    app.set_current()
    app.conf.task_always_eager = False
    forget_account(app)
    return app


@pytest.fixture
def simulator(world: tuple[Celery, Simulator]) -> Simulator:
    _, simulator = world
    simulator.reset("healthy")
    return simulator


def calls(simulator: Simulator, endpoint: str, status: int | None = None) -> int:
    found = simulator.journal().calls
    return sum(call.endpoint == endpoint and status in (None, call.status) for call in found)


class TestRounds:
    def test_come_before_the_messages_api(self, app: Celery, simulator: Simulator) -> None:
        """Each source has what only it could answer; what cannot be mended is sent once."""
        simulator.behave(
            processing_seconds=0.2,
            outcomes=(
                Outcome("expired", prompt="1 of", attempts=1),
                Outcome("errored", error="api_error", prompt="2 of", attempts=2),
                Outcome("errored", error="overloaded_error", prompt="3 of"),
                Outcome("errored", error="invalid_request_error", prompt="4 of"),
            ),
        )
        result = run_batch.delay(requests("job", 50), max_requests_per_batch=25)
        summary = result.get(timeout=180)
        assert account_for(app, result.id, "job", 50) == {"succeeded": 45, "errored": 5}
        assert sources(app, result.id) == {
            ("succeeded", "batch"): 30,
            ("succeeded", "resubmitted"): 10,
            ("succeeded", "messages"): 5,
            ("errored", "batch"): 5,
        }
        told = ("succeeded", "errored", "expired", "resubmitted", "fallback", "fallback_skipped", "stopped")
        assert [summary[name] for name in told] == [45, 5, 0, 10, 5, 0, None]
        journal = simulator.journal()
        assert sorted(batch.requests for batch in journal.batches) == sorted([25, 25, *simulator_rounds(journal)])
        assert sorted(summary["batch_ids"]) == sorted(batch.id for batch in journal.batches)
        assert journal.paid_twice() == []
        assert {prompt.sent_in_batches for prompt in journal.prompts if "4 of" in prompt.text} == {1}
        status = BatchJob(result.id, app).status()
        assert (status.succeeded, status.resubmitted, status.fallback, status.cost) == (45, 10, 5, summary["cost"])

    def test_are_as_many_as_asked_for(self, app: Celery, simulator: Simulator) -> None:
        simulator.behave(processing_seconds=0.1, outcomes=(EXPIRED,))
        for retries in (0, 1, 3):
            result = run_batch.delay(requests(f"job{retries}", 4), retries=retries, fallback="off")
            summary = result.get(timeout=180)
            assert (len(summary["batch_ids"]), summary["expired"]) == (retries + 1, 4)
            assert sources(app, result.id) == {("expired", "resubmitted" if retries else "batch"): 4}
        assert calls(simulator, "messages") == 0

    def test_meet_the_same_404s(self, app: Celery, simulator: Simulator) -> None:
        simulator.behave(processing_seconds=0.2, outcomes=(Outcome("expired", prompt="1 of", attempts=2),))
        for endpoint in ("retrieve", "results"):
            simulator.faults(Fault(endpoint, "status", status=404, calls=(1,)))
        simulator.faults(Fault("create", "status", status=404, calls=(1, 3, 5)))
        result = run_batch.delay(requests("job", 20))
        assert result.get(timeout=180)["resubmitted"] == 2
        assert account_for(app, result.id, "job", 20) == {"succeeded": 20}
        assert BatchJob(result.id, app).status().polls_404 == 9
        assert simulator.journal().paid_twice() == []

    def test_whose_create_is_not_answered_are_searched_for(self, app: Celery, simulator: Simulator) -> None:
        """All of the first batch goes into the second, so that the two differ by nothing but their wire ids."""
        simulator.behave(processing_seconds=0.2, outcomes=(Outcome("expired", attempts=1),))
        simulator.faults(Fault("create", "drop", commit=True, calls=(2,)))
        result = run_batch.delay(requests("job", 5))
        assert result.get(timeout=180)["resubmitted"] == 5
        assert account_for(app, result.id, "job", 5) == {"succeeded": 5}
        assert simulator.state().totals.batches_created == 2

    @pytest.mark.parametrize(
        ("fault", "stopped"),
        [
            (Fault("create", "status", status=404, after=0.0, name="404"), False),
            (Fault("create", "status", status=400, error="invalid_request_error"), False),
            (Fault("create", "status", status=402, error="billing_error"), True),
        ],
    )
    def test_that_cannot_be_created_take_nothing_away(
        self, fault: Fault, stopped: bool, app: Celery, simulator: Simulator
    ) -> None:
        simulator.behave(processing_seconds=0.5, outcomes=(Outcome("expired", prompt="1 of"),))
        result = run_batch.delay(requests("job", 12), create_not_found_limit=2)
        wait_until(lambda: simulator.state().totals.batches_created == 1)
        simulator.faults(fault)
        summary = result.get(timeout=180)
        assert (summary["state"], len(summary["batch_ids"])) == ("completed", 1)
        if stopped:
            assert (summary["fallback"], summary["expired"], summary["fallback_skipped"]) == (0, 2, 2)
            assert "402 billing_error" in summary["stopped"]
            assert notes(app, result.id) == {None: 10, summary["stopped"]: 2}
        else:
            assert (summary["fallback"], summary["succeeded"], summary["stopped"]) == (2, 12, None)

    def test_end_when_the_job_is_canceled(self, app: Celery, simulator: Simulator) -> None:
        simulator.behave(processing_seconds=0.2, outcomes=(Outcome("expired", prompt="1 of"),))
        result = run_batch.delay(requests("job", 12))
        job = BatchJob(result.id, app)
        wait_until(lambda: calls(simulator, "results", 200))
        simulator.behave(processing_seconds=60, cancel_seconds=0.2)
        wait_until(lambda: simulator.state().totals.batches_created == 2)
        job.cancel()
        summary = result.get(timeout=180)
        assert (summary["state"], summary["succeeded"], summary["fallback"]) == ("canceled", 10, 0)
        assert summary["expired"] + summary["canceled"] == 2
        assert len(list(job.results())) == 12

    def test_that_take_too_long_can_be_waited_for_again(self, app: Celery, simulator: Simulator) -> None:
        simulator.behave(processing_seconds=0.2, outcomes=(Outcome("expired", prompt="1 of", attempts=1),))
        result = run_batch.delay(requests("job", 12), max_wait=4000)
        job = BatchJob(result.id, app)
        wait_until(lambda: calls(simulator, "results", 200))
        simulator.behave(processing_seconds=4)
        wait_until(lambda: simulator.state().totals.batches_created == 2)
        job._store.jobs.update_job(result.id, options={"max_wait": 1})
        with pytest.raises(errors.WaitExceeded, match=r"12 outcomes"):
            result.get(timeout=180)
        assert job.status().succeeded == 10
        assert job.resume(max_wait=60).get(timeout=180)["resubmitted"] == 2
        assert account_for(app, result.id, "job", 12) == {"succeeded": 12}
        assert simulator.state().totals.batches_created == 2

    def test_are_left_out_when_they_would_come_too_late(self, app: Celery, simulator: Simulator) -> None:
        simulator.behave(processing_seconds=0.2, outcomes=(Outcome("expired", prompt="1 of"),))
        summary = run_batch.delay(requests("soon", 12), deadline=600).get(timeout=180)
        assert (len(summary["batch_ids"]), summary["fallback"]) == (1, 2)
        summary = run_batch.delay(requests("later", 12), deadline=7200).get(timeout=180)
        assert (len(summary["batch_ids"]), summary["fallback"]) == (3, 2)

    def test_are_gone_through_in_eager_mode_too(self, app: Celery, simulator: Simulator, monkeypatch: Any) -> None:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-eager")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", simulator.url)
        simulator.behave(
            processing_seconds=0.1,
            outcomes=(Outcome("expired", prompt="1 of", attempts=1), Outcome("expired", prompt="2 of")),
        )
        app.conf.update(task_always_eager=True, task_store_eager_result=True)
        fast = {"poll_min": 0.1, "poll_max": 0.1, "retry_min": 0.02, "retry_max": 0.1}
        result = run_batch.delay(requests("job", 12), **fast)
        assert result.get()["succeeded"] == 12
        assert sources(app, result.id)["succeeded", "resubmitted"] == 2
        assert sources(app, result.id)["succeeded", "messages"] == 1


def simulator_rounds(journal: Any) -> list[int]:
    """The sizes of the smaller batches, from how often each prompt was sent."""
    sent = Counter(min(prompt.sent_in_batches, 3) for prompt in journal.prompts)
    total = sent[2] + 2 * sent[3]
    smaller = sorted(batch.requests for batch in journal.batches)[:-2]
    assert sum(smaller) == total
    return smaller


class TestTheMessagesApi:
    def test_is_not_used_where_its_cost_cannot_be_known(self, app: Celery, simulator: Simulator) -> None:
        simulator.behave(processing_seconds=0.2, outcomes=(EXPIRED,), models=("claude-of-tomorrow",))
        made = requests("job", 6)
        for params in made.values():
            params["model"] = "claude-of-tomorrow"
        result = run_batch.delay(made, retries=0, max_fallback_cost=100)
        assert result.get(timeout=180)["fallback_skipped"] == 6
        assert calls(simulator, "messages") == 0
        text = "the price of claude-of-tomorrow is not known (claude_batch_prices): max_fallback_cost ($100) cannot be "
        assert notes(app, result.id) == {text + "guaranteed": 6}
        summary = run_batch.delay(made, retries=0).get(timeout=180)
        assert summary["fallback"] == 0, "the default is a limit too"
        assert "max_fallback_cost ($5) cannot be guaranteed" in str(summary["limited"])
        summary = run_batch.delay(made, retries=0, max_fallback_cost=None).get(timeout=180)
        assert (summary["fallback"], summary["cost"], summary["limited"]) == (6, None, None)
        assert summary["cost_by_model"] == {"claude-of-tomorrow": None}

    @pytest.mark.parametrize(
        ("status", "error", "message"),
        [
            (401, "authentication_error", ""),
            (402, "billing_error", ""),
            (403, "permission_error", ""),
            (400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
            (400, "invalid_request_error", "You have reached your specified API usage limits."),
            (429, "rate_limit_error", "Your organization has reached its monthly spend limit."),
        ],
    )
    def test_is_left_alone_by_an_account_that_may_not_spend(
        self, status: int, error: Any, message: str, app: Celery, simulator: Simulator
    ) -> None:
        simulator.behave(processing_seconds=0.2, messages_seconds=0.02, outcomes=(EXPIRED,))
        simulator.faults(
            Fault("messages", "status", status=status, error=error, message=message, calls=range_from(20), per="server")
        )
        result = run_batch.delay(requests("job", 300), retries=0)
        summary = result.get(timeout=180)
        assert (summary["state"], summary["fallback"]) == ("completed", 19)
        assert str(status) in summary["stopped"]
        assert calls(simulator, "messages") < 19 + 33
        assert notes(app, result.id) == {None: 19, summary["stopped"]: 281}
        assert sources(app, result.id) == {("succeeded", "messages"): 19, ("expired", "batch"): 281}

    def test_is_not_asked_after_a_batch_that_the_account_could_not_pay(self, app: Celery, simulator: Simulator) -> None:
        """Thousands of rows say so as if each had been a bad request; what is left of them fans out nowhere."""
        credit = Outcome(
            "errored",
            error="invalid_request_error",
            message="Your credit balance is too low to access the Anthropic API.",
            probability=0.7,
        )
        simulator.behave(processing_seconds=0.2, outcomes=(credit, Outcome("errored", error="overloaded_error")))
        result = run_batch.delay(requests("job", 3000), max_fallback_requests=3000)
        summary = result.get(timeout=180)
        assert (summary["state"], summary["errored"], summary["fallback"]) == ("completed", 3000, 0)
        assert "credit balance is too low" in summary["stopped"]
        assert len(summary["batch_ids"]) == 1
        assert calls(simulator, "messages") == 0
        overloaded = sum(1 for note in notes(app, result.id).elements() if note == summary["stopped"])
        assert 0 < overloaded == summary["fallback_skipped"] < 1200

    def test_is_not_used_for_what_exists_in_batches_only(self, app: Celery, simulator: Simulator) -> None:
        simulator.behave(processing_seconds=0.2, outcomes=(EXPIRED,))
        made = requests("job", 4)
        made["job 2"] |= {"model": "claude-opus-4-8", "max_tokens": 300_000}
        result = run_batch.delay(made, retries=0, betas=["output-300k-2026-03-24"])
        assert result.get(timeout=180)["fallback"] == 3
        kept = BatchJob(result.id, app).result("job 2")
        assert (kept.type, kept.note) == (
            "expired",
            "answers of 300,000 tokens (max_tokens) are possible in batches only",
        )

    def test_has_no_model_wait_for_another(self, app: Celery, simulator: Simulator) -> None:
        simulator.behave(processing_seconds=0.2, outcomes=(EXPIRED,))
        simulator.faults(
            Fault("messages", "status", status=429, headers={"retry-after": "15"}, per="batch", calls=(1,), name="once")
        )
        made = requests("job", 1)
        result = run_batch.delay(made, retries=0)
        wait_until(lambda: calls(simulator, "messages", 429) == 1)
        simulator.faults(replace=True)
        other = requests("job", 200)
        for number, params in enumerate(other.values()):
            params["model"] = "claude-haiku-4-5" if number < 100 else "claude-sonnet-5"
        second = run_batch.delay(other, retries=0)
        wait_until(lambda: simulator.state().totals.paid_messages >= 100, 11)
        assert not result.ready()
        assert second.get(timeout=180)["fallback"] == 200

    def test_stops_for_an_account_until_the_job_is_resumed(self, app: Celery, simulator: Simulator) -> None:
        simulator.behave(processing_seconds=0.2, outcomes=(Outcome("errored", error="billing_error", prompt="1 of"),))
        simulator.faults(Fault("create", "status", status=402, calls=range_from(2)))
        result = run_batch.delay(requests("job", 20), max_requests_per_batch=10, max_batches_in_flight=1)
        job = BatchJob(result.id, app)
        with pytest.raises(errors.PermanentError, match="402"):
            result.get(timeout=180)
        assert job.status().stopped
        simulator.faults(replace=True)
        simulator.behave(processing_seconds=0.2, outcomes=(Outcome("expired", prompt="2 of", attempts=1),))
        summary = job.resume().get(timeout=180)
        assert (summary["stopped"], summary["resubmitted"]) == (None, 1)


def range_from(number: int) -> tuple[int, ...]:
    return tuple(range(number, number + 2000))


class TestTheCostOfAJob:
    def test_limits_what_is_sent(self, app: Celery, simulator: Simulator) -> None:
        """Batch after batch, as long as there is money; then the rest of the requests says what happened."""
        simulator.behave(processing_seconds=0.2)
        options = {"max_requests_per_batch": 10, "max_batches_in_flight": 2, "max_cost": 0.001}
        result = run_batch.delay(requests("job", 60), **options)
        summary = result.get(timeout=180)
        a_batch = summary["cost"] / len(summary["batch_ids"])
        assert 0.001 - a_batch < summary["cost"] < 0.001 + a_batch
        types = account_for(app, result.id, "job", 60)
        assert types == {"succeeded": summary["succeeded"], "errored": 60 - summary["succeeded"]}
        failed = next(BatchJob(result.id, app).results(type="errored"))
        assert failed.error is not None
        assert failed.error["type"] == "budget_exceeded"
        assert "max_cost ($0.001)" in failed.error["message"]

    def test_goes_on_when_a_batch_has_failed(self, app: Celery, simulator: Simulator) -> None:
        """What was reserved for it is not waited for; taken up again it is paid for as well."""
        simulator.behave(processing_seconds=0.2)
        simulator.faults(Fault("create", "status", status=400, calls=(1,)))
        options = {"max_requests_per_batch": 10, "max_batches_in_flight": 2, "max_cost": 0.002}
        result = run_batch.delay(requests("job", 20), **options)
        with pytest.raises(errors.PermanentError, match="400"):
            result.get(timeout=180)
        job = BatchJob(result.id, app)
        assert job.status().succeeded == 10
        assert job.resume().get(timeout=180)["succeeded"] == 20

    def test_is_refused_where_the_input_alone_is_too_dear(self, app: Celery, simulator: Simulator) -> None:
        with pytest.raises(errors.InvalidRequests, match=r"the input alone costs about \$.* more than max_cost"):
            run_batch.delay(requests("job", 60), max_cost=0.000001)

    def test_is_that_of_every_answer_by_its_model_and_cache(self, app: Celery, simulator: Simulator) -> None:
        """To the cent, and further: by Anthropic's price list, half of it in batches."""
        simulator.behave(processing_seconds=0.2, answer_chars=8000, outcomes=(Outcome("expired", prompt="1 of"),))
        made = requests("job", 40)
        for number, params in enumerate(made.values()):
            params |= {
                "model": ("claude-haiku-4-5", "claude-sonnet-5", "claude-opus-4-5")[number % 3],
                "max_tokens": 4000,
            }
            mark = {"type": "ephemeral", **({"ttl": "1h"} if number % 2 else {})}
            params["system"] = [{"type": "text", "text": f"{number % 4} " * 20_000, "cache_control": mark}]
        result = run_batch.delay(made, retries=1)
        summary = result.get(timeout=180)
        assert summary["fallback"] == 4
        # Dollars per million tokens: input, output; writes for 5 minutes and for an hour, and reads, as their shares.
        prices = {"claude-haiku-4-5": (1, 5), "claude-sonnet-5": (2, 10), "claude-opus-4-5": (5, 25)}
        totals = simulator.journal().totals
        expected = dict.fromkeys(prices, 0.0)
        for by_model, share in ((totals.batch_by_model, 0.5), (totals.messages_by_model, 1.0)):
            for model, used in by_model.items():
                a, b = prices[model]
                tokens = used.input + 1.25 * used.cache_write_5m + 2 * used.cache_write_1h + 0.1 * used.cache_read
                expected[model] += share * (a * tokens + b * used.output) / 1e6
        assert totals.messages_tokens.cache_read > 0
        assert totals.batch_tokens.cache_write_1h > 0
        # Answers name the snapshot that a name stands for.
        dated = {"claude-haiku-4-5": "claude-haiku-4-5-20251001", "claude-opus-4-5": "claude-opus-4-5-20251101"}
        served = {dated.get(model, model): cost for model, cost in expected.items()}
        assert summary["cost_by_model"] == pytest.approx(served, rel=1e-9)
        assert summary["cost"] == pytest.approx(sum(expected.values()), rel=1e-9)
        assert summary["cost"] > 0.5
