"""The page on clients has what the last runs saw; a verdict says what was raised, lost or paid twice."""

from __future__ import annotations

from typing import Any

import pytest

from claude_batch_tasks.simulator.journal import Call, Journal, PromptRecord, Totals
from tests.compat.clients import CLIENTS
from tests.compat.environments import DRIVERS
from tests.compat.page import PAGE, read_results, update_page
from tests.compat.running import COUNT, EXPECTED, judge

pytestmark = pytest.mark.latest


def a_report(**changes: Any) -> dict[str, Any]:
    return {"answers": dict(EXPECTED), "messages": [], "raised": [], "error": "", **changes}


def a_journal(*, prompts: int = 0, paid: int = 0, failed: tuple[Call, ...] = ()) -> Journal:
    created = Call(number=1, at=0.0, endpoint="create", method="POST", path="", status=200)
    records = [PromptRecord(str(n), "", [], paid_batch=paid) for n in range(prompts)]
    return Journal([created, *failed], records, [], Totals(2, 1, prompts, prompts * paid, 0, {}, {}))


NOT_FOUND = Call(number=2, at=0.0, endpoint="results", method="GET", path="", status=404)
HALF = dict(list(EXPECTED.items())[: COUNT // 2])


def test_the_page_has_the_present_tables() -> None:
    page = PAGE.read_text()
    assert update_page(page) == page, "run: python -m tests.compat.page"


def test_each_client_has_run_and_has_its_driver() -> None:
    assert set(read_results()) == {client.name for client in CLIENTS}
    for client in CLIENTS:
        assert (DRIVERS / client.driver).exists(), client.name
        assert all("==" in package for package in client.packages), client.name


@pytest.mark.parametrize(
    ("report", "journal", "verdict"),
    [
        (a_report(), a_journal(prompts=COUNT, paid=1), "works"),
        (a_report(raised=["NotFoundError: gone"]), a_journal(), "works (1 of its runs raised `NotFoundError`)"),
        (None, a_journal(), "hangs"),
        (a_report(answers=HALF), a_journal(), "loses 10 of 20 without a word"),
        (
            a_report(answers={}, error="NotFoundError: no"),
            a_journal(prompts=COUNT, paid=1, failed=(NOT_FOUND,)),
            "raises `NotFoundError` (results 404); 20 answers paid and not collected",
        ),
        (a_report(), a_journal(prompts=3, paid=2), "pays twice for 3"),
        (a_report(answers={**EXPECTED, "question-0": "other"}, messages=["x"]), a_journal(), "2 wrong answers"),
        (a_report(error="TypeError: a `b`"), a_journal(), "raises `TypeError: a 'b'`"),
    ],
)
def test_a_verdict_says_what_went_wrong(report: dict[str, Any] | None, journal: Journal, verdict: str) -> None:
    assert judge(report, journal) == verdict


def test_a_client_without_batches_works_without_them() -> None:
    assert judge(a_report(), Journal([], [], [], Totals(0, 0, 0, 0, 0, {}, {}))) == "works (without batches)"
