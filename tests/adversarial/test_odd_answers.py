"""Answers that are hard to hold, on a real worker: fetched, read, exported, and through the Messages API."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow.parquet
import pytest

from claude_batch_tasks import run_batch
from tests.adversarial.conftest import Given, World
from tests.adversarial.server import EVENTS, Answer, Events, Manners
from tests.factories import make_params
from tests.odd_answers import ODD, RESULTS, UNREADABLE, check, events, events_with_a_whole_block, message, succeeded

pytestmark = pytest.mark.workers

Spare = Callable[[], str]

ALL = {**{name: succeeded(odd.json) for name, odd in ODD.items()}, **{n: r.json for n, r in RESULTS.items()}}


def run(world: World, name: str, manners: Manners, names: list[str], max_tokens: int = 64, **options: Any) -> Given:
    """A job with a request for each name, which is its id and its prompt."""
    world.app.set_current()
    account = world.server.account(name)
    account.manners = manners
    requests = {each: make_params(each, max_tokens=max_tokens) for each in names}
    result = run_batch.delay(requests, client=name, **options)
    return Given(name, account, result, world.app, {each: each for each in names})


def with_results(results: dict[str, bytes]) -> Callable[[list[bytes], int], list[bytes]]:
    """A result file with these results, as the API has them."""

    def lines(written: list[bytes], download: int) -> list[bytes]:
        ids = [json.loads(line)["custom_id"].encode() for line in written]
        return [b'{"custom_id":"%s","result":%s}' % each for each in zip(ids, results.values(), strict=True)]

    return lines


def exported(given: Given) -> tuple[list[bytes], list[dict[str, Any]]]:
    lines, table = io.BytesIO(), io.BytesIO()
    assert given.job.export(lines) == given.job.export(table, "parquet") == len(given.prompts)
    return lines.getvalue().splitlines(), pyarrow.parquet.read_table(table).to_pylist()


def check_all(given: Given, source: str) -> None:
    """Every odd value comes out, in every way."""
    found = {result.custom_id: result for result in given.job.results()}
    for name in set(ODD) & set(given.prompts):
        for result in (found[name], given.job.result(name)):
            odd = ODD[name]
            if source == "stream" and odd.noted in ("UTF-8", "escape"):
                odd = odd._replace(noted="")
            check(odd, result.message, result.note)
            assert result.source == ("messages" if source == "stream" else source)
    lines, rows = exported(given)
    assert len(lines) == len(rows) == len(given.prompts)
    assert {row["custom_id"] for row in rows} == set(given.prompts)
    if set(given.prompts) == set(ODD):
        assert {row["text"] for row in rows} == {"fine"}


class TestABatch:
    def test_of_every_odd_answer_is_fetched_and_read(self, world: World, spare: Spare) -> None:
        """One answer that is not JSON has the file downloaded again; what is there each time is believed."""
        kinds = Counter(RESULTS[name].type if name in RESULTS else "succeeded" for name in ALL)
        manners = Manners(lines=with_results(ALL), counts=lambda counts: {**counts, "succeeded": len(ALL)})
        given = run(world, spare(), manners, list(ALL), retries=0, fallback="off")
        summary = given.get()
        assert summary["state"] == "completed"
        assert {kind: summary[kind] for kind in kinds} == kinds
        check_all(given, "batch")
        found = {result.custom_id: result for result in given.job.results()}
        for name, expected in RESULTS.items():
            assert (found[name].type, (found[name].error or {}).get("type")) == (expected.type, expected.error_type)
        assert given.account.calls["results"] == 3
        assert given.account.calls["create"] == 1

    def test_whose_answers_are_all_json_is_downloaded_once(self, world: World, spare: Spare) -> None:
        some = {name: result for name, result in ALL.items() if name not in UNREADABLE}
        tally = Counter(RESULTS[name].type if name in RESULTS else "succeeded" for name in some)
        unknown = [name for name in some if name in RESULTS and RESULTS[name].error_type == "unknown_result_type"]
        counts = {**tally, "errored": tally["errored"] - len(unknown), "paused": len(unknown)}
        given = run(world, spare(), Manners(lines=with_results(some), counts=lambda _: counts), list(some), retries=0)
        assert given.get()["state"] == "completed"
        check_all(given, "batch")
        assert given.account.calls["results"] == 1


class TestTheMessagesApi:
    def run(self, world: World, name: str, answer: Callable[[bytes], Answer], max_tokens: int) -> Given:
        manners = Manners(
            result=lambda index, prompt: {"type": "expired"},
            call=lambda number, prompt, params: answer(ODD[prompt].json),
        )
        return run(world, name, manners, list(ODD), max_tokens, retries=0)

    def test_is_paid_for_odd_answers_and_they_are_read(self, world: World, spare: Spare) -> None:
        given = self.run(
            world,
            spare(),
            lambda value: Answer(200, message(value), {"Content-Type": "application/json"}, acts=True),
            max_tokens=64,
        )
        summary = given.get()
        assert (summary["fallback"], summary["succeeded"]) == (len(ODD), len(ODD))
        assert summary["cost"] is not None
        check_all(given, "messages")
        assert set(given.account.paid_messages.values()) == {1}

    @pytest.mark.parametrize("sent", [events, events_with_a_whole_block])
    def test_streams_them_too(self, world: World, spare: Spare, sent: Callable[[bytes], list[bytes]]) -> None:
        given = self.run(
            world,
            spare(),
            lambda value: Events(200, b"", {"Content-Type": EVENTS}, acts=True, events=sent(value)),
            max_tokens=30_000,
        )
        summary = given.get()
        assert (summary["fallback"], summary["succeeded"]) == (len(ODD), len(ODD))
        check_all(given, "stream")
        assert set(given.account.paid_messages.values()) == {1}


def test_nothing_of_an_odd_answer_is_in_the_log(world: World) -> None:
    log = world.log.read_text(errors="replace")
    assert "99999999999999999999" not in log
    assert "[[[[[[[[" not in log
    assert not any(len(line) > 20_000 for line in log.splitlines())
