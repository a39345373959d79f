"""Every case of ``cases.CASES`` on one real prefork worker, all at the same time."""

from __future__ import annotations

import contextlib
from collections import Counter

import pytest

from tests.adversarial.cases import CASES
from tests.adversarial.conftest import KEY, SECRET, Given, World

pytestmark = [pytest.mark.workers, pytest.mark.timeout(600)]

#: Cases whose texts are not the echo.
SILENT = {"unknown_blocks", "odd_blocks", "no_blocks"}


@pytest.mark.parametrize("name", CASES)
def test_the_job_ends_as_it_should(name: str, submitted: dict[str, Given]) -> None:
    case, given = CASES[name], submitted[name]
    manners, account = case.manners, given.account
    if case.error is not None:
        with pytest.raises(case.error) as caught:
            given.get()
        assert type(caught.value) is case.error
        for part in case.says:
            assert part in str(caught.value)
    else:
        summary = given.get()
        assert summary["state"] in ("completed", "canceled")
    rows = list(given.job.results())
    assert len({row.custom_id for row in rows}) == len(rows), "an outcome twice"
    if case.error is None or case.types is not None:
        types = case.types if case.types is not None else {"succeeded": case.count}
        if not (case.after_submit and case.types is None):
            assert Counter(row.type for row in rows) == types
    if case.error is None:
        assert {row.custom_id for row in rows} == set(given.prompts), "a request without an outcome"
        if not case.after_submit:
            assert Counter(row.source for row in rows) == (case.sources or {"batch": case.count})
    for row in rows:
        if row.type == "succeeded" and name not in SILENT:
            assert row.text == manners.text(given.prompts[row.custom_id])
        elif row.type == "errored":
            assert isinstance(row.error, dict)
    for row in rows[:2]:
        assert given.job.result(row.custom_id) == row or row.message is not None
    for endpoint, number in case.calls.items():
        assert account.calls[endpoint] == number, endpoint
    if case.sent is not None:
        assert max(account.sent.values(), default=0) <= case.sent
        assert max(account.paid.values(), default=0) <= 1
    assert account.sdk_retries == 0
    assert [batch_id for batch_id in account.canceled if "foreign" in batch_id] == []
    if case.check is not None:
        case.check(given)


def test_nothing_leaked_anywhere(world: World, submitted: dict[str, Given]) -> None:
    for given in submitted.values():
        with contextlib.suppress(TimeoutError):
            given.get(propagate=False)
    assert world.server.trapped == []
    log = world.log.read_text(errors="replace")
    assert KEY not in log
    assert SECRET not in log
    client = world.redis.client()
    for key in client.scan_iter("celery-task-meta-*", count=1000):
        value = client.get(key) or b""
        assert SECRET.encode() not in value
        assert KEY.encode() not in value
