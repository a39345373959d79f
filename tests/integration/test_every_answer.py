"""A job whose answers are incomplete in every way: each is completed or says why not; the invoice agrees exactly."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, RequestResult, Summary, run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Simulator
from claude_batch_tasks.simulator.journal import Journal, PromptRecord
from tests.chaos.workers import Supervised
from tests.integration import answering
from tests.integration.answering import CASES, FAILED, MODELS, NO_REPAIRS, PRICES, REPAIRS, Attempt, Verdict
from tests.support import wait_until

pytestmark = [pytest.mark.workers, pytest.mark.latest]

OUTPUT: dict[str, Any] = {"output": Verdict, "check": "tests.integration.answering.check_verdict"}

#: Dollars for a million tokens of input and of output, by model.
PER_MILLION = {model: (price["input_mtok"], price["output_mtok"]) for model, price in PRICES.items()}

StartWorker = Callable[..., Worker]


@pytest.fixture
def answers(simulator: Simulator) -> Simulator:
    """A simulator that answers as the cases say."""
    simulator.behave(processing_seconds=0.3, answers=answering.script_answers())
    return simulator


@pytest.fixture
def prices(app: Celery) -> dict[str, str]:
    """The setting of workers, and of the caller, with the prices of all models."""
    app.conf.claude_batch_prices = PRICES
    return {"CLAUDE_BATCH_PRICES": json.dumps(PRICES)}


class Run:
    """A job that has ended, and what the simulator remembers of it."""

    def __init__(self, app: Celery, job_id: str, summary: Summary, cases: list[str], journal: Journal) -> None:
        self.summary, self.cases, self.journal = summary, cases, journal
        self.rows = {int(row.custom_id.partition(" ")[0]): row for row in BatchJob(job_id, app).results()}
        self.numbers = {batch.id: batch.number for batch in journal.batches}
        self.sent: dict[int, list[PromptRecord]] = defaultdict(list)
        for prompt in journal.prompts:
            for index in {int(custom_id.rpartition("-")[2]) for custom_id in prompt.custom_ids}:
                self.sent[index].append(prompt)

    def list_wrong(self, *, repaired: bool) -> list[str]:
        """Return what is not as the cases say: a line for each request."""
        return [
            f"{row.custom_id}: {problem}"
            for index, row in sorted(self.rows.items())
            if (problem := self._find_problem(index, row, repaired=repaired))
        ]

    def _find_problem(self, index: int, row: RequestResult, *, repaired: bool) -> str | None:
        case = CASES[self.cases[index]]
        attempts = case.attempts if repaired else case.attempts[:1]
        expected = [(each.kind, each.ended, MODELS[each.model]) for each in attempts]
        models = [model for _, _, model in expected] + ["unknown"] * len(row.attempts)
        found = [
            (each.kind, each.stop_reason or each.error_type or each.type, find_model(each.model, model))
            for each, model in zip(row.attempts, models, strict=False)
        ]
        if found != expected:
            return f"attempts {found}, expected {expected}"
        answered = [each for each in attempts if each.ended not in FAILED]
        incomplete = answered[-1].incomplete if answered else None
        if (row.type == "succeeded", row.incomplete) != (bool(answered), incomplete):
            return f"{row.type}, incomplete: {row.incomplete}; expected {incomplete}"
        if row.complete != (bool(answered) and incomplete is None):
            return f"complete: {row.complete}"
        return self._find_wrong_value(index, row) or self._find_wrong_payment(index, row, attempts)

    def _find_wrong_value(self, index: int, row: RequestResult) -> str | None:
        """Return what is wrong with the value of a complete answer."""
        if not row.complete:
            return f"parsed: {row.parsed!r}" if row.parsed is not None else None
        if not isinstance(row.parsed, Verdict):
            return f"parsed: {row.parsed!r}"
        case = self.cases[index]
        kinds = {attempt.kind for attempt in CASES[case].attempts}
        asked = f"[{case}] request {index}"
        if case.startswith("paused"):
            return None if row.parsed.echo == "searched" else f"parsed: {row.parsed!r}"
        if "reask" not in kinds and case != "by itself" and row.parsed.echo != asked:
            return f"parsed: {row.parsed!r}"
        return None

    def _find_wrong_payment(self, index: int, row: RequestResult, attempts: tuple[Attempt, ...]) -> str | None:
        """Return what the simulator says otherwise than the row."""
        records = self.sent[index]
        if sum(record.sent_in_batches for record in records) != len(attempts):
            return f"sent {[record.sent_in_batches for record in records]} times"
        if any(record.sent_as_messages for record in records):
            return "sent through the Messages API"
        if any(record.paid > 1 for record in records):
            return f"paid {[record.paid for record in records]} times"
        billed = [each.ended not in FAILED and not each.free for each in attempts]
        if sum(record.paid for record in records) != sum(billed):
            return f"paid {[record.paid for record in records]} times, expected {billed}"
        if [bool(each.cost) for each in row.attempts] != billed:
            return f"costs {[each.cost for each in row.attempts]}, billed {billed}"
        sent = sorted(each.batch for record in records for each in record.attempts)
        batches = [self.numbers.get(each.batch_id or "") for each in row.attempts]
        return None if batches == sent else f"its batches are {batches}, of {sent}"

    def compare_money(self) -> None:
        """Check that tokens and cost are those of the simulator's invoice, by model and to the last token."""
        invoice = self.journal.invoice
        assert (invoice.messages, invoice.unbilled_messages) == ({}, {})
        billed: Counter[tuple[str, str]] = Counter()
        for each in (each for row in self.rows.values() for each in row.attempts if each.cost):
            assert each.usage is not None
            model = find_model(each.model)
            billed.update({(model, name): each.usage[name] for name in ("input_tokens", "output_tokens")})
            billed[model, "searches"] += (each.usage.get("server_tool_use") or {}).get("web_search_requests", 0)
            billed[model, "answers"] += 1
        charged: Counter[tuple[str, str]] = Counter()
        for name, charge in invoice.batch.items():
            model = find_model(name)
            charged[model, "input_tokens"] += charge.tokens.input
            charged[model, "output_tokens"] += charge.tokens.output
            charged[model, "searches"] += charge.web_searches
            charged[model, "answers"] += charge.answers
        assert +billed == +charged
        cost = float(invoice.cost({name: PER_MILLION[find_model(name)] for name in invoice.batch}))
        assert self.summary["cost"] == pytest.approx(cost, abs=2e-9)
        assert sum(each.cost or 0 for row in self.rows.values() for each in row.attempts) == pytest.approx(cost)


def find_model(name: str | None, default: str = "unknown") -> str:
    """Return the model that a name or a dated id stands for; the default for an attempt without an answer."""
    return next((model for model in MODELS if (name or "").startswith(model)), default)


def run_job(app: Celery, simulator: Simulator, count: int, **options: Any) -> Run:
    cases = answering.assign_cases(count)
    result = run_batch.delay(answering.make_requests(cases), **OUTPUT, **options)
    summary = result.get(timeout=1_500)
    return Run(app, result.id, summary, cases, simulator.journal())


def check_repaired(run: Run) -> None:
    """Check a job in which all that can be mended is mended."""
    assert run.list_wrong(repaired=True) == []
    assert len(run.rows) == len(run.cases)
    answered = sum(CASES[case].is_answered for case in run.cases)
    expected = (answered, len(run.cases) - answered, 0, 0)
    assert tuple(run.summary[name] for name in ("succeeded", "errored", "expired", "canceled")) == expected
    assert run.summary["incomplete"] == answering.count_incomplete(run.cases, repaired=True)
    assert run.summary["repairs"] == answering.count_repairs(run.cases)
    assert Counter(row.incomplete for row in run.rows.values() if row.incomplete) == {
        reason: number for reason, number in run.summary["incomplete"].items() if reason != "done_thinking"
    }
    made = {batch.id: batch for batch in run.journal.batches}
    assert made.keys() == set(run.summary["batch_ids"])
    assert sum(batch.requests for batch in made.values()) == sum(len(row.attempts) for row in run.rows.values())
    run.compare_money()


def check_untouched(run: Run, batches: int) -> None:
    """Check a job in which nothing is sent again."""
    assert run.list_wrong(repaired=False) == []
    first = Counter(CASES[case].attempts[0].ended for case in run.cases)
    errored = first["overloaded_error"] + first["invalid_request_error"]
    expected = (len(run.cases) - errored - first["expired"], errored, first["expired"])
    assert (run.summary["succeeded"], run.summary["errored"], run.summary["expired"]) == expected
    assert run.summary["incomplete"] == answering.count_incomplete(run.cases, repaired=False)
    assert run.summary["repairs"] == {}
    assert run.journal.totals.batches_created == batches == len(run.summary["batch_ids"])
    assert run.journal.totals.requests_sent == len(run.cases)
    run.compare_money()


class TestRepairs:
    def test_complete_what_can_be_completed(
        self, app: Celery, answers: Simulator, prices: dict[str, str], start_worker: StartWorker
    ) -> None:
        start_worker(answers.url, **prices)
        check_repaired(run_job(app, answers, 300, max_requests_per_batch=120, **REPAIRS))

    @pytest.mark.slow
    @pytest.mark.timeout(1_800)
    def test_of_ten_thousand_requests_by_workers_that_are_killed(
        self, app: Celery, answers: Simulator, prices: dict[str, str], environment: dict[str, str], tmp_path: Path
    ) -> None:
        env = {**environment, **answers.env, **prices}
        with keep_killing([Worker(env, tmp_path / f"killed-{number}.log") for number in range(2)]) as kills:
            run = run_job(app, answers, 10_000, max_requests_per_batch=2_000, **REPAIRS)
        check_repaired(run)
        assert kills.total() >= 2  # on a fast machine the job is short


class TestNothingIsSentAgain:
    def test_with_everything_off(
        self, app: Celery, answers: Simulator, prices: dict[str, str], start_worker: StartWorker
    ) -> None:
        start_worker(answers.url, **prices)
        check_untouched(run_job(app, answers, 300, max_requests_per_batch=120, **NO_REPAIRS), 3)

    @pytest.mark.slow
    @pytest.mark.timeout(900)
    def test_of_ten_thousand_requests(
        self, app: Celery, answers: Simulator, prices: dict[str, str], start_worker: StartWorker
    ) -> None:
        start_worker(answers.url, **prices)
        check_untouched(run_job(app, answers, 10_000, max_requests_per_batch=2_000, **NO_REPAIRS), 5)


@contextmanager
def keep_killing(workers: list[Worker]) -> Iterator[Counter[str]]:
    """Keep the workers running, and kill a process of one about every second; yields what was killed so far."""
    began = time.monotonic()
    members = [Supervised(worker) for worker in workers]
    over, kills, random = threading.Event(), Counter[str](), Random(19)
    wait_until(lambda: all(member.ready.is_set() for member in members))
    # A machine on which workers start slowly also needs longer for what is killed.
    pace = max(1.0, (time.monotonic() - began) / 4)

    def kill() -> None:
        while not over.wait(random.uniform(0.4, 1.5) * pace):
            victim = random.choices(("child", "group", "main"), (8, 2, 1))[0]
            ready = [member for member in members if member.ready.is_set()]
            if len(ready) > (victim != "child"):
                kills[victim] += random.choice(ready).kill(victim)

    thread = threading.Thread(target=kill, name="killer", daemon=True)
    thread.start()
    try:
        yield kills
    finally:
        over.set()
        thread.join()
        for member in members:
            member.close()
