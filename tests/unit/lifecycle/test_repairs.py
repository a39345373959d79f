"""Answers that are not complete are repaired in smaller batches: what is sent, stored, counted and paid."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, RequestResult, run_batch
from claude_batch_tasks.lifecycle import lost_results
from claude_batch_tasks.store import lost_records
from claude_batch_tasks.testing.claude_batch import ClaudeBatch

MODEL, OTHER, THIRD = "claude-haiku-4-5", "claude-sonnet-4-5", "claude-opus-4-5"


@pytest.fixture
def claude_batch_app() -> Celery:
    app = Celery("shop", broker="redis://127.0.0.1:1", backend="redis://127.0.0.1:1", set_as_current=False)
    app.loader.import_task_module("claude_batch_tasks.tasks")
    app.conf.update(claude_batch_retry_min=0.01, claude_batch_retry_max=0.05, claude_batch_poll_min=0.01)
    app.set_current()
    return app


class Job:
    """A job that has ended."""

    def __init__(self, *custom_ids: str, params: dict[str, Any] | None = None, **options: Any) -> None:
        requests = {
            custom_id: {
                "model": MODEL,
                "max_tokens": 100,
                "messages": [{"role": "user", "content": f"Rate: {custom_id}"}],
                **(params or {}),
            }
            for custom_id in custom_ids
        }
        result = run_batch.delay(requests, **options)
        self.summary = result.get()
        self.job = BatchJob(result.id)
        self.results: dict[str, RequestResult] = {each.custom_id: each for each in self.job.results()}
        assert self.summary["state"] == "completed"
        assert self.summary["requests"] == len(custom_ids) == len(self.results)

    def kinds(self, custom_id: str) -> list[str]:
        return [each.kind for each in self.results[custom_id].attempts]


def sent(claude_batch: ClaudeBatch, custom_id: str) -> list[dict[str, Any]]:
    return [each.params for each in claude_batch.requests if each.custom_id == custom_id]


SCHEMA = {
    "type": "object",
    "properties": {"value": {"type": "integer"}},
    "required": ["value"],
    "additionalProperties": False,
}

PAUSE = [
    {"type": "text", "text": "one "},
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
]


def test_a_paused_answer_is_continued_and_joined(claude_batch: ClaudeBatch) -> None:
    claude_batch.message(PAUSE, stop_reason="pause_turn", custom_id="a", attempt=1, usage={"output_tokens": 10})
    claude_batch.message(PAUSE[:1], stop_reason="pause_turn", custom_id="a", attempt=2, usage={"output_tokens": 5})
    claude_batch.answer("three", custom_id="a", attempt=3, usage={"output_tokens": 7})
    job = Job("a", "b")
    result = job.results["a"]
    assert (result.text, result.complete, result.source) == ("one one three", True, "resubmitted")
    assert result.usage is not None
    assert result.usage["output_tokens"] == 22
    assert job.kinds("a") == ["first", "continue", "continue"]
    assert [each.stop_reason for each in result.attempts] == ["pause_turn", "pause_turn", "end_turn"]
    assert job.kinds("b") == ["first"]
    assert job.summary["repairs"] == {"continue": 2}
    assert job.summary["incomplete"] == {}
    assert (job.summary["succeeded"], job.summary["resubmitted"]) == (2, 1)
    assert sum(each.cost or 0 for found in job.results.values() for each in found.attempts) == pytest.approx(
        job.summary["cost"]
    )
    first, second, third = sent(claude_batch, "a")
    assert second["messages"] == [*first["messages"], {"role": "assistant", "content": PAUSE}]
    assert third["messages"] == [*first["messages"], {"role": "assistant", "content": [*PAUSE, PAUSE[0]]}]


def test_it_is_continued_so_many_times_at_most(claude_batch: ClaudeBatch) -> None:
    claude_batch.message(PAUSE, stop_reason="pause_turn")
    job = Job("a", continue_paused=2)
    assert job.kinds("a") == ["first", "continue", "continue"]
    assert job.results["a"].incomplete == "pause_turn"
    assert job.summary["incomplete"] == {"pause_turn": 1}
    assert job.summary["fallback"] == 0


def test_nothing_is_sent_again_with_everything_off(claude_batch: ClaudeBatch) -> None:
    claude_batch.message(PAUSE, stop_reason="pause_turn", custom_id="p")
    claude_batch.refuse(custom_id="r")
    claude_batch.answer("cut", stop_reason="max_tokens", custom_id="m")
    claude_batch.answer(" ", custom_id="e")
    job = Job("p", "r", "m", "e", "x", continue_paused=0)
    assert job.summary["incomplete"] == {"pause_turn": 1, "refusal": 1, "max_tokens": 1, "empty": 1}
    assert job.summary["repairs"] == {}
    assert job.summary["resubmitted"] == 0
    assert len(claude_batch.requests) == 5
    assert {name: each.incomplete for name, each in job.results.items()} == {
        "p": "pause_turn",
        "r": "refusal",
        "m": "max_tokens",
        "e": "empty",
        "x": None,
    }


def test_a_refused_request_goes_to_the_next_model_without_the_thoughts_of_the_first(claude_batch: ClaudeBatch) -> None:
    claude_batch.refuse(custom_id="a", model=MODEL)
    claude_batch.refuse("I", custom_id="a", model=OTHER)
    thought = {"type": "thinking", "thinking": "x", "signature": "y"}
    turns = [
        {"role": "user", "content": "thinking?"},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "Yes"}]},
        {"role": "assistant", "content": [thought]},
        {"role": "user", "content": "go"},
    ]
    job = Job("a", params={"messages": turns}, refusal_model=[OTHER, THIRD])
    assert job.kinds("a") == ["first", "refusal_model", "refusal_model"]
    assert [each["model"] for each in sent(claude_batch, "a")] == [MODEL, OTHER, THIRD]
    left = [turns[0], {"role": "assistant", "content": [{"type": "text", "text": "Yes"}]}, turns[3]]
    assert [each["messages"] for each in sent(claude_batch, "a")] == [turns, left, left]
    costs = [each.cost for each in job.results["a"].attempts]
    assert costs[0] == 0
    assert costs[1]
    assert job.results["a"].complete
    assert job.summary["repairs"] == {"refusal_model": 2}
    assert job.summary["cost"] == pytest.approx(sum(costs))


def test_a_cut_answer_is_sent_again_with_twice_the_tokens_up_to_the_limit(claude_batch: ClaudeBatch) -> None:
    claude_batch.answer("cut", stop_reason="max_tokens")
    thinking = {"type": "enabled", "budget_tokens": 1900}
    job = Job("a", max_tokens_limit=7000, params={"max_tokens": 2000, "thinking": thinking})
    assert [each["max_tokens"] for each in sent(claude_batch, "a")] == [2000, 4000, 7000]
    assert all(each["thinking"] == thinking for each in sent(claude_batch, "a"))
    assert job.summary["incomplete"] == {"max_tokens": 1}
    assert job.summary["repairs"] == {"max_tokens": 2}


def test_nothing_is_sent_again_where_no_more_tokens_are_allowed(claude_batch: ClaudeBatch) -> None:
    claude_batch.answer("cut", stop_reason="max_tokens")
    job = Job("a", max_tokens_limit=100)
    assert len(claude_batch.requests) == 1
    assert job.summary["incomplete"] == {"max_tokens": 1}
    job = Job("a", max_tokens_limit=1_000_000, params={"max_tokens": 64_000})
    assert len(sent(claude_batch, "a")) == 2


def test_an_invalid_answer_is_asked_again_with_what_is_wrong(claude_batch: ClaudeBatch) -> None:
    claude_batch.answer({"value": 3})
    claude_batch.answer({"value": "x"}, custom_id="a", attempt=1)
    job = Job("a", "b", output=SCHEMA, reask=2)
    assert job.kinds("a") == ["first", "reask"]
    assert json.loads(job.results["a"].text) == {"value": 3}
    assert job.results["a"].complete
    assert job.summary["repairs"] == {"reask": 1}
    first, second = sent(claude_batch, "a")
    assert [each["role"] for each in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][:1] == first["messages"]
    assert "value" in json.dumps(second["messages"][2])


def test_an_invalid_answer_stays_one_without_reask(claude_batch: ClaudeBatch) -> None:
    claude_batch.answer({"value": "x"})
    job = Job("a", output=SCHEMA)
    assert job.results["a"].incomplete == "invalid"
    assert job.summary["incomplete"] == {"invalid": 1}
    assert len(claude_batch.requests) == 1


def test_an_answer_of_the_messages_api_is_judged_and_not_repaired(claude_batch: ClaudeBatch) -> None:
    claude_batch.answer({"value": "x"}, custom_id="a")
    claude_batch.answer("cut", stop_reason="max_tokens", custom_id="b")
    claude_batch.expire(attempt=1)
    job = Job("a", "b", output=SCHEMA, retries=0, reask=3, max_tokens_limit=10_000)
    assert {name: (each.source, each.incomplete) for name, each in job.results.items()} == {
        "a": ("messages", "invalid"),
        "b": ("messages", "max_tokens"),
    }
    assert job.results["a"].parse_error
    assert job.summary["incomplete"] == {"invalid": 1, "max_tokens": 1}
    assert len(claude_batch.requests) == 4


def test_a_failed_repair_leaves_the_answer_and_is_repeated(claude_batch: ClaudeBatch) -> None:
    claude_batch.refuse("no", custom_id="a", attempt=1)
    claude_batch.expire(custom_id="a", attempt=2)
    claude_batch.answer("yes", custom_id="a", attempt=3)
    claude_batch.refuse("no", custom_id="b", model=MODEL)
    claude_batch.error("invalid_request_error", custom_id="b", model=OTHER)
    claude_batch.refuse("no", custom_id="c", model=MODEL)
    claude_batch.error("overloaded_error", custom_id="c", model=OTHER)
    job = Job("a", "b", "c", refusal_model=OTHER, retries=2)
    assert [each["model"] for each in sent(claude_batch, "a")] == [MODEL, OTHER, OTHER]
    assert job.kinds("a") == ["first", "refusal_model", "resubmission"]
    assert job.results["a"].text == "yes"
    assert job.kinds("b") == ["first", "refusal_model"]
    assert job.kinds("c") == ["first", "refusal_model", "resubmission", "resubmission"]
    for name in "bc":
        assert (job.results[name].type, job.results[name].incomplete, job.results[name].text) == (
            "succeeded",
            "refusal",
            "no",
        )
    assert job.results["b"].attempts[1].error_type == "invalid_request_error"
    assert job.summary["incomplete"] == {"refusal": 2}
    assert (job.summary["succeeded"], job.summary["errored"], job.summary["failures"]) == (3, 0, {})
    assert job.summary["fallback"] == 0


def test_what_failed_waits_for_the_repairs_and_then_goes_to_the_messages_api(claude_batch: ClaudeBatch) -> None:
    claude_batch.error("overloaded_error", custom_id="o", attempt=1)
    claude_batch.answer("o", custom_id="o", attempt=2)
    claude_batch.message(PAUSE, stop_reason="pause_turn", custom_id="p", attempt=1)
    claude_batch.error("invalid_request_error", custom_id="i")
    job = Job("o", "p", "i", "x", retries=0)
    assert job.kinds("p") == ["first", "continue"]
    assert job.results["o"].source == "messages"
    assert [each.via for each in claude_batch.requests if each.custom_id == "o"] == ["batch", "messages"]
    assert (job.summary["succeeded"], job.summary["errored"], job.summary["failures"]) == (
        3,
        1,
        {"invalid_request_error": 1},
    )
    assert (job.summary["fallback"], job.summary["resubmitted"]) == (1, 1)


def test_with_retries_and_fallback_off_only_the_paused_are_sent_again(claude_batch: ClaudeBatch) -> None:
    claude_batch.expire(custom_id="o")
    claude_batch.message(PAUSE, stop_reason="pause_turn", custom_id="p", attempt=1)
    job = Job("o", "p", retries=0, fallback="off")
    assert len(sent(claude_batch, "o")) == 1
    assert job.kinds("p") == ["first", "continue"]
    assert (job.summary["succeeded"], job.summary["expired"], job.summary["failures"]) == (1, 1, {"expired": 1})


def test_resubmission_and_repairs_share_a_batch(claude_batch: ClaudeBatch) -> None:
    claude_batch.error("overloaded_error", custom_id="o", attempt=1)
    claude_batch.refuse(custom_id="o", model=MODEL, attempt=2)
    claude_batch.message(PAUSE, stop_reason="pause_turn", custom_id="p", attempt=1)
    claude_batch.answer("cut", stop_reason="max_tokens", custom_id="p", attempt=2)
    job = Job("o", "p", "x", refusal_model=OTHER, max_tokens_limit=1000)
    assert job.kinds("o") == ["first", "resubmission", "refusal_model"]
    assert job.kinds("p") == ["first", "continue", "max_tokens"]
    assert len({each.batch_id for each in claude_batch.requests}) == 3
    assert job.summary["incomplete"] == {}
    assert job.summary["repairs"] == {"continue": 1, "refusal_model": 1, "max_tokens": 1}
    assert all(each.complete for each in job.results.values())


def test_max_cost_is_kept_with_what_repairs_may_cost(claude_batch: ClaudeBatch) -> None:
    claude_batch.answer("cut", stop_reason="max_tokens", usage={"output_tokens": 100})
    job = Job("a", max_tokens_limit=60_000, params={"max_tokens": 30_000}, max_cost=0.08)
    # The input is a few tokens; the answers may cost 0.075 at most, of which little was spent.
    assert job.summary["cost"] <= 0.08


def test_lost_rows_are_fetched_again_as_they_were_stored(claude_batch: ClaudeBatch) -> None:
    claude_batch.answer({"value": 1})
    claude_batch.message(PAUSE, stop_reason="pause_turn", custom_id="p", attempt=1)
    claude_batch.refuse("no", custom_id="r", model=MODEL)
    claude_batch.expire(custom_id="r", attempt=2)
    claude_batch.answer({"value": "x"}, custom_id="i", attempt=1)
    claude_batch.answer("cut", stop_reason="max_tokens", custom_id="m", attempt=1)
    claude_batch.expire(custom_id="e", attempt=1)
    job = Job("p", "r", "i", "m", "e", "x", output=SCHEMA, refusal_model=OTHER, reask=1, max_tokens_limit=500)
    assert job.summary["repairs"] == {"continue": 1, "refusal_model": 1, "reask": 1, "max_tokens": 1}
    store: Any = job.job._store
    record = store.records.read_batches(job.job.id)[0]
    assert len(record.layers) == 3
    names = lost_records.all_names_fetched(record)
    assert sum(name.startswith("again") for name in names) == 3

    def read_keys() -> list[Any]:
        rows = [list(store.results.read_rows(job.job.id, 0, attempt)) for attempt, _ in record.layers]
        return [rows, *([store.results.read_again(job.job.id, 0, attempt) for attempt, _ in record.layers])]

    before = read_keys()
    for name in names:
        store.records._redis.delete(f"{store.records.name_batch(job.job.id, 0)}:{name}")
    assert len(store.storage.missing_keys(job.job.id, 0, names)) == len(names)
    lost_results.refetch_job(claude_batch.app, job.job.id)
    assert read_keys() == before
    assert {each.custom_id: each for each in job.job.results()} == job.results


def test_repairs_for_which_a_batch_has_no_room_leave_the_answers(claude_batch: ClaudeBatch) -> None:
    """Three answers of three kilobytes each do not go into a batch of thirty, since they may grow threefold."""
    long = [{"type": "text", "text": "x" * 3000}, *PAUSE]
    for name in "abc":
        claude_batch.message(long, stop_reason="pause_turn", custom_id=name, attempt=1)
    claude_batch.expire(custom_id="o", attempt=1)
    job = Job("a", "o", "b", "c", "x", max_bytes_per_batch=30_000, fallback="off")
    assert job.summary["repairs"] == {"continue": 2}
    assert (job.summary["succeeded"], job.summary["incomplete"]) == (5, {"pause_turn": 1})
    assert {name: job.kinds(name) for name in "aobc"} == {
        "a": ["first", "continue"],
        "o": ["first", "resubmission"],
        "b": ["first", "continue"],
        "c": ["first"],
    }
    assert {name for name, each in job.results.items() if each.note} == {"c"}
    assert "max_bytes_per_batch" in str(job.results["c"].note)
    assert job.job.result("c") == job.results["c"]
    [text] = [event.text for event in job.job.history() if event.event == "resubmitted"]
    assert "1 more have no room in it" in text
    store: Any = job.job._store
    record = store.records.read_batches(job.job.id)[0]
    before = store.results.read_again(job.job.id, 0, 1)
    for name in lost_records.all_names_fetched(record):
        store.records._redis.delete(f"{store.records.name_batch(job.job.id, 0)}:{name}")
    lost_results.refetch_job(claude_batch.app, job.job.id)
    assert store.results.read_again(job.job.id, 0, 1) == before
    assert {each.custom_id: each for each in job.job.results()} == job.results


def test_on_result_is_called_once_with_the_answer_that_was_repaired(claude_batch: ClaudeBatch) -> None:
    claude_batch.message(PAUSE, stop_reason="pause_turn", custom_id="p", attempt=1)
    claude_batch.refuse("no", custom_id="r", model=MODEL)
    claude_batch.expire(custom_id="e", attempt=1)
    seen: list[tuple[str, str | None]] = []

    @claude_batch.app.task(name="tests.take", shared=False)
    def take(job_id: str, ids: list[str]) -> None:
        seen.extend((each.custom_id, each.incomplete) for each in BatchJob(job_id).results(ids=ids))

    Job("p", "r", "e", "x", refusal_model=OTHER, on_result=take.s())
    assert sorted(seen) == [("e", None), ("p", None), ("r", None), ("x", None)]
    assert seen[0] == ("x", None)  # while the others were sent again


def test_what_is_not_sent_again_in_time_keeps_its_answer(claude_batch: ClaudeBatch) -> None:
    claude_batch.message(PAUSE, stop_reason="pause_turn", custom_id="p")
    claude_batch.expire(custom_id="e", attempt=1)
    job = Job("p", "e", "x", deadline=60)
    assert (job.results["p"].incomplete, job.results["e"].source) == ("pause_turn", "messages")
    assert job.summary["repairs"] == {}
    assert job.summary["incomplete"] == {"pause_turn": 1}


def test_attempts_cost_what_the_prices_of_the_app_say(claude_batch: ClaudeBatch) -> None:
    claude_batch.app.conf.claude_batch_prices = {"claude-none": {"input_mtok": 2.0, "output_mtok": 10.0}}
    claude_batch.answer("yes", usage={"input_tokens": 1000, "output_tokens": 100})
    claude_batch.refuse("no", custom_id="r", attempt=1, usage={"input_tokens": 1000, "output_tokens": 100})
    claude_batch.error("overloaded_error", custom_id="m", attempt=1)
    job = Job("a", "r", "m", params={"model": "claude-none"}, retries=0)
    for read in (job.job.results(), job.job.results(ids=["a", "r", "m"]), job.job.results(with_retries=True)):
        costs = {each.custom_id: [attempt.cost for attempt in each.attempts] for each in read}
        assert costs["a"] == costs["r"] == [pytest.approx(0.0015)]
        assert costs["m"][-1] == pytest.approx(0.003)
    assert [each.attempts[0].cost for each in job.job.failures()] == [pytest.approx(0.0015)]
    assert job.job.result("a").attempts[0].cost == pytest.approx(0.0015)


def test_an_answer_of_the_messages_api_has_the_attempts_in_batches(claude_batch: ClaudeBatch) -> None:
    claude_batch.answer({"value": "x"})
    claude_batch.expire(attempt=1)
    claude_batch.error("overloaded_error", attempt=2)
    claude_batch.answer({"value": 1}, custom_id="b", attempt=3)
    claude_batch.error("invalid_request_error", custom_id="c", attempt=3)
    claude_batch.message(PAUSE, stop_reason="pause_turn", custom_id="p", attempt=1)
    claude_batch.expire(custom_id="p", attempt=3)
    job = Job("a", "b", "c", "p", output=SCHEMA, retries=1)
    before = [("first", "expired", None), ("resubmission", "errored", "overloaded_error")]
    told = {
        name: [(each.kind, each.type, each.error_type) for each in found.attempts]
        for name, found in job.results.items()
    }
    assert told["a"] == told["b"] == [*before, ("messages", "succeeded", None)]
    assert told["c"] == [*before, ("messages", "errored", "invalid_request_error")]
    assert {name: job.results[name].incomplete for name in "ab"} == {"a": "invalid", "b": None}
    attempts = job.results["b"].attempts
    assert attempts[0].batch_id != attempts[1].batch_id != attempts[2].batch_id is None
    assert attempts[2].cost
    assert list(job.job.results(order="request")) == list(job.results.values())
    lines = io.BytesIO()
    job.job.export(lines, format="jsonl")
    written = {each["custom_id"]: each for each in map(json.loads, lines.getvalue().splitlines())}
    assert {name: len(each["attempts"]) for name, each in written.items() if name in "abc"} == {"a": 3, "b": 3, "c": 3}
    assert written["a"]["result"].keys() == {"type", "message"}
    assert written["a"]["parse_error"]
