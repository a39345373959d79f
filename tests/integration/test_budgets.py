"""Budgets, costs and advice on real workers, against an API that bills what callers cannot see beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, errors, run_batch
from claude_batch_tasks.embedded import Worker
from tests.adversarial.server import NO_CREDIT, NOT_PAID, SPEND_LIMIT, Answer, Manners, UnfriendlyServer, refusal
from tests.chaos.ledgers import Ledger
from tests.integration.rig import requests

pytestmark = [pytest.mark.latest, pytest.mark.workers]

StartWorker = Callable[..., Worker]

OPUS = "claude-opus-4-5"  # 5 / 25 USD per million tokens; a context window of 200,000
WINDOW = 200_000


@pytest.fixture
def api() -> Iterator[UnfriendlyServer]:
    with UnfriendlyServer() as server:
        yield server


def files(count: int) -> dict[str, dict[str, Any]]:
    """Requests of which each holds a file."""
    made = requests("job", count)
    for number, params in enumerate(made.values()):
        block = {"type": "document", "source": {"type": "file", "file_id": f"file_{number}"}}
        params |= {"model": OPUS, "max_tokens": 100}
        params["messages"][0]["content"] = [{"type": "text", "text": f"prompt {number} of job"}, block]
    return made


def whole_window(index: int, prompt: str, params: Any) -> dict[str, int]:
    """Every file is as large as fits."""
    return {"input_tokens": WINDOW, "output_tokens": 100}


class TestAJobWithFiles:
    def test_is_refused_where_its_budget_does_not_cover_what_they_may_hold(self, app: Celery) -> None:
        with pytest.raises(errors.InvalidRequests) as caught:
            run_batch.delay(files(80), max_cost=2.0)
        text = str(caught.value)
        assert "may cost $40, more than max_cost ($2)" in text
        assert "80 files whose size is not known" in text
        assert "othing was stored or sent" in text

    def test_spends_no_more_than_its_budget_through_the_messages_api(
        self, app: Celery, start_worker: StartWorker, api: UnfriendlyServer
    ) -> None:
        """Each costs a dollar: three are sent, and not the eight that two cents each would have let through."""
        expired = {"type": "expired"}
        api.account().manners = Manners(result=lambda *_: expired, usage=whole_window, message_seconds=0.05)
        start_worker(api.url)
        result = run_batch.delay(files(8), retries=0, max_fallback_cost=3.1)
        summary = result.get(timeout=180)
        assert (summary["fallback"], summary["expired"]) == (3, 5)
        job = BatchJob(result.id, app)
        limited = [event for event in job.history() if event.event == "limited"]
        assert len(limited) == 1, "however many senders there are"
        assert "max_fallback_cost ($3.1) no longer covers it" in limited[0].text
        assert "the setting claude_batch_max_fallback_cost; none: no limit" in limited[0].text
        assert summary["limited"] == job.status().limited
        assert str(summary["limited"]) in limited[0].text
        assert summary["cost"] == pytest.approx(3 * (WINDOW * 5 + 100 * 25) / 1e6)

    def test_has_a_request_without_any_limit_keep_its_outcome(
        self, app: Celery, start_worker: StartWorker, api: UnfriendlyServer
    ) -> None:
        api.account().manners = Manners(result=lambda *_: {"type": "expired"})
        start_worker(api.url)
        made = requests("job", 2)
        made["job 1"]["tools"] = [{"type": "web_fetch_20260318", "name": "web_fetch"}]
        result = run_batch.delay(made, retries=0, max_fallback_cost=3)
        assert result.get(timeout=180)["fallback"] == 1
        kept = BatchJob(result.id, app).result("job 1")
        assert "web_fetch without max_uses" in (kept.note or "")


class TestWhatAnswersCost:
    def test_is_what_is_known_and_says_what_is_not(
        self, app: Celery, start_worker: StartWorker, api: UnfriendlyServer, ledger: Ledger
    ) -> None:
        """One row in fast mode leaves the others their cost."""
        plain = {"input_tokens": 1_000, "output_tokens": 100}
        compacted = {
            "type": "compaction",
            "input_tokens": 100_000,
            "output_tokens": 2_000,
            "cache_read_input_tokens": 0,
        }
        kinds: list[Any] = [
            plain,
            {**plain, "speed": "fast"},
            {**plain, "iterations": [compacted, {"type": "message", **plain}]},
            {**plain, "inference_geo": "us"},
        ]
        manners = Manners(usage=lambda index, prompt, params: kinds[int(prompt.split()[1])])
        api.account().manners = manners
        start_worker(api.url)
        made = requests("job", 4)
        for params in made.values():
            params["model"] = OPUS
        result = run_batch.delay(made, max_cost=1.0)
        summary = result.get(timeout=180)
        one = (1_000 * 5 + 100 * 25) / 2e6
        expected = one + (one + (100_000 * 5 + 2_000 * 25) / 2e6) + 1.1 * one
        assert summary["cost"] == pytest.approx(expected)
        assert summary["cost_unknown"] == {f"{OPUS} (speed fast)": 1}
        status = BatchJob(result.id, app).status()
        assert (status.cost, status.cost_unknown) == (summary["cost"], summary["cost_unknown"])
        money = ledger.read_money(result.id)
        assert money["reserved"] == 0
        assert money["spent"] >= expected * 1e9, "what is not known is not free"


class TestAnAccountThatRefusesInTheMiddle:
    @pytest.mark.parametrize("answer", [NO_CREDIT, NOT_PAID, SPEND_LIMIT], ids=["credit", "billing", "limit"])
    def test_stops_the_job_which_goes_on_when_it_may_pay_again(
        self, answer: Answer, app: Celery, start_worker: StartWorker, api: UnfriendlyServer
    ) -> None:
        account = api.account()
        account.manners = Manners(script={"create": [None, None, answer]})
        start_worker(api.url)
        result = run_batch.delay(requests("job", 50), max_requests_per_batch=10, max_batches_in_flight=1)
        with pytest.raises(errors.PermanentError) as caught:
            result.get(timeout=180)
        text, job = str(caught.value), BatchJob(result.id, app)
        assert "submit the requests again" not in text
        assert f"BatchJob('{result.id}').resume(), which sends only the 30 requests that were never sent" in text
        status = job.status()
        assert (status.state, status.succeeded) == ("failed", 20)
        assert status.stopped is not None
        assert status.stopped in text
        assert status.summary is not None
        assert status.summary["stopped"] == status.stopped
        assert len(list(job.results())) == 20
        assert account.calls["create"] == 3, "the other two were not tried"

        summary = job.resume().get(timeout=180)
        assert (summary["state"], summary["succeeded"], summary["stopped"]) == ("completed", 50, None)
        assert set(account.paid.values()) == {1}
        assert len(account.paid) == 50

    def test_is_not_said_to_have_been_paid_where_nothing_was_sent(
        self, app: Celery, start_worker: StartWorker, api: UnfriendlyServer
    ) -> None:
        api.account().manners = Manners(script={"create": [NO_CREDIT]})
        start_worker(api.url)
        result = run_batch.delay(requests("job", 3))
        with pytest.raises(
            errors.PermanentError, match=r"Correct what the error says about the account.*resume\(\)\.$"
        ):
            result.get(timeout=180)
        assert BatchJob(result.id, app).resume().get(timeout=180)["succeeded"] == 3

    def test_has_a_bad_batch_mended_without_paying_for_the_others_again(
        self, app: Celery, start_worker: StartWorker, api: UnfriendlyServer
    ) -> None:
        bad = refusal(400, "invalid_request_error", "requests.3.params: what is wrong")
        account = api.account()
        account.manners = Manners(script={"create": [None, bad]})
        start_worker(api.url)
        result = run_batch.delay(requests("job", 20), max_requests_per_batch=10, max_batches_in_flight=1)
        with pytest.raises(errors.PermanentError) as caught:
            result.get(timeout=180)
        text, job = str(caught.value), BatchJob(result.id, app)
        assert "10 requests may have been paid for, so do not submit all of them again" in text
        assert "submit only the 10 requests that have no outcome" in text.replace("Submit", "submit")
        answered = {found.custom_id for found in job.results()}
        again = [request for request in job.requests() if request["custom_id"] not in answered]
        assert run_batch.delay(again).get(timeout=180)["succeeded"] == 10
        assert set(account.paid.values()) == {1}
        assert len(account.paid) == 20
