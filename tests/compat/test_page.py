"""The page on clients has what the last runs saw; a verdict says what was raised, lost or paid twice."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from claude_batch_tasks.simulator import Simulator
from tests.compat.clients import CLIENTS
from tests.compat.environments import DRIVERS
from tests.compat.page import PAGE, read_results, update_page
from tests.compat.running import COUNT, EXPECTED, Seen, judge

pytestmark = pytest.mark.latest


def a_report(**changes: Any) -> dict[str, Any]:
    return {"answers": dict(EXPECTED), "messages": [], "raised": [], "error": "", **changes}


HALF = dict(list(EXPECTED.items())[: COUNT // 2])


def test_the_page_has_the_present_tables() -> None:
    page = PAGE.read_text()
    assert update_page(page) == page, "run: python -m tests.compat.page"


def test_each_client_has_run_and_has_its_driver() -> None:
    assert set(read_results()) == {client.name for client in CLIENTS}
    for client in CLIENTS:
        assert (DRIVERS / client.driver).exists(), client.name
        assert all("==" in package for package in client.packages), client.name


def test_each_client_of_the_page_works_where_nothing_goes_wrong() -> None:
    verdicts = {name: entry["runs"]["healthy"]["verdict"] for name, entry in read_results().items()}
    failing = [name for name, verdict in verdicts.items() if not verdict.startswith("works")]
    assert failing == [client.name for client in CLIENTS if not client.works]


@pytest.mark.parametrize(
    ("report", "seen", "verdict"),
    [
        (a_report(), Seen(creates=1, paid=COUNT), "works"),
        (a_report(), Seen(), "works (without batches)"),
        (a_report(raised=["NotFoundError: gone"]), Seen(creates=1), "works (1 of its runs raised `NotFoundError`)"),
        (None, Seen(creates=1), "hangs"),
        (a_report(answers=HALF), Seen(creates=1), "10 of 20 lost without a word"),
        (
            a_report(answers=HALF, raised=["expired"] * 10),
            Seen(creates=1, paid=10),
            "10 of 20 failed: `expired`; paid and not collected: 10",
        ),
        (
            a_report(answers={}, error="NotFoundError: no"),
            Seen(creates=1, paid=COUNT, failed="results 404", cancels=1),
            "raises `NotFoundError` (results 404); cancels the batch; paid and not collected: 20",
        ),
        (a_report(), Seen(paid_twice=3), "pays twice for 3"),
        (a_report(answers={**EXPECTED, "question-0": "other"}, messages=["x"]), Seen(), "2 wrong answers"),
        (a_report(error="TypeError: a `b`"), Seen(), "raises `TypeError: a 'b'`"),
    ],
)
def test_a_verdict_says_what_went_wrong(report: dict[str, Any] | None, seen: Seen, verdict: str) -> None:
    assert judge(report, seen) == verdict


def test_the_journal_of_a_run_is_read() -> None:
    with Simulator() as simulator:
        with anthropic.Anthropic(base_url=simulator.url, api_key="any", max_retries=0) as client:
            params: Any = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "?"}]}
            batch = client.messages.batches.create(requests=[{"custom_id": "one", "params": params}])
            with pytest.raises(anthropic.NotFoundError):
                client.messages.batches.retrieve("msgbatch_other")
            simulator.end(batch.id)
            assert len(list(client.messages.batches.results(batch.id))) == 1
        seen = Seen.read(simulator.journal())
    assert seen == Seen(batches=1, paid=1, downloads=1, creates=1, failed="retrieve 404")
