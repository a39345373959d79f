"""What a store finds out about its server, and the marks by which two processes see that they have the same."""

from __future__ import annotations

import time
from typing import Any

import pytest

from claude_batch_tasks.checks import problems
from claude_batch_tasks.checks.servers import describe_problem
from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import LONG, Contents, OpenStore, PassTime


class TestAServerThatAnswers:
    @pytest.mark.parametrize("thorough", [False, True])
    def test_says_what_it_is_and_that_it_can_be_the_store(self, store: Store, thorough: bool) -> None:
        report = store.inspection.inspect_server(thorough=thorough)
        assert (report.product and report.state) or report.notes
        described = [describe_problem(each, "the server", ["store"]) for each in report.problems]
        # A server for tests need not survive a crash, nor run for long.
        allowed = {problems.NO_APPEND_ONLY_FILE.id, problems.UNSAFE_COMMITS.id, problems.NO_AUTOVACUUM.id}
        assert [one for one in described if one.id not in allowed] == []

    def test_is_left_as_it_was(self, store: Store, contents: Contents) -> None:
        before = contents()
        store.inspection.inspect_server(thorough=True)
        assert contents() == before

    def test_has_a_clock(self, store: Store) -> None:
        before = time.monotonic()
        ahead = store.inspection.inspect_server(thorough=False).ahead
        assert ahead is None or abs(ahead) < 5 + time.monotonic() - before


class TestAServerThatIsDown:
    @pytest.mark.parametrize("thorough", [False, True])
    def test_is_a_problem_and_no_exception(self, unreachable_store: Store, thorough: bool) -> None:
        report = unreachable_store.inspection.inspect_server(thorough=thorough)
        [problem] = report.problems
        assert (problem.kind, report.product) == ("NO_ANSWER", "")
        found: Any = describe_problem(problem, "the server", ["store"])
        assert "no server listens there" in found.text


class TestAMark:
    def test_is_seen_by_whoever_has_the_store(self, open_store: OpenStore, store: Store) -> None:
        store.inspection.leave_mark("a", LONG)
        assert [open_store().inspection.has_mark(each) for each in ("a", "b", "")] == [True, False, False]

    def test_goes(self, store: Store, pass_time: PassTime) -> None:
        store.inspection.leave_mark("a", 1.0)
        pass_time(2.2)
        assert not store.inspection.has_mark("a")
