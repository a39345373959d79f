"""The fixture `claude_batch`: a job runs in memory, is answered by a script, and what was sent can be asserted."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import socket
from typing import Any

import pydantic
import pytest
from celery import Celery, shared_task

from claude_batch_tasks import BatchJob, RequestResult, errors, run_batch
from claude_batch_tasks.testing.claude_batch import ClaudeBatch


@pytest.fixture
def claude_batch_app() -> Celery:
    """An app whose broker and back end are nowhere, and that names no store."""
    app = Celery("shop", broker="redis://127.0.0.1:1", backend="redis://127.0.0.1:1", set_as_current=False)
    app.loader.import_task_module("claude_batch_tasks.tasks")
    app.set_current()
    return app


@pytest.fixture(autouse=True)
def _no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def make_request(custom_id: str, **params: Any) -> dict[str, Any]:
    return {
        "custom_id": custom_id,
        "params": {
            "model": "claude-haiku-4-5",
            "max_tokens": 100,
            "messages": [{"role": "user", "content": f"Rate: {custom_id}"}],
            **params,
        },
    }


def run_job(*custom_ids: str, **options: Any) -> dict[str, RequestResult]:
    job = run_batch.delay([make_request(custom_id) for custom_id in custom_ids], **options)
    job.get()
    return {result.custom_id: result for result in BatchJob(job.id).results()}


class Score(pydantic.BaseModel):
    value: int


def test_answers_with_the_prompt_where_there_is_no_script(claude_batch: ClaudeBatch) -> None:
    assert {name: each.text for name, each in run_job("a b", "ü").items()} == {
        "a b": "Echo: Rate: a b",
        "ü": "Echo: Rate: ü",
    }


def test_answers_as_the_script_says(claude_batch: ClaudeBatch) -> None:
    claude_batch.answer("fine")
    claude_batch.answer({"value": 3}, custom_id="json")
    claude_batch.answer(Score(value=4), custom_id=re.compile("^model"))
    claude_batch.answer(lambda request: request.prompt.upper(), prompt="function")
    claude_batch.answer("by pattern", prompt=re.compile("R.te: pattern$"))
    claude_batch.use_tool("save", {"value": 5}, custom_id="tool")
    claude_batch.refuse(custom_id="refused")
    claude_batch.error("invalid_request_error", "too long", custom_id="wrong")
    claude_batch.message(
        [{"type": "thinking", "thinking": "Hm.", "signature": "s"}, {"type": "text", "text": "Yes"}],
        stop_reason="max_tokens",
        usage={"output_tokens": 7},
        custom_id="whole",
    )
    claude_batch.answer("of another model", model="claude-opus-4-5")
    found = run_job("plain", "json", "model 1", "function", "pattern", "tool", "refused", "wrong", "whole")
    assert found["plain"].text == "fine"
    assert json.loads(found["json"].text) == {"value": 3}
    assert Score.model_validate_json(found["model 1"].text) == Score(value=4)
    assert found["function"].text == "RATE: FUNCTION"
    assert found["pattern"].text == "by pattern"
    tool = found["tool"].message
    assert tool is not None
    assert (tool["stop_reason"], tool["content"][0]["input"]) == ("tool_use", {"value": 5})
    refused = found["refused"]
    assert refused.message is not None
    assert (refused.type, refused.message["stop_reason"], refused.text) == ("succeeded", "refusal", "")
    assert found["wrong"].error == {"type": "invalid_request_error", "message": "too long"}
    whole = found["whole"].message
    assert whole is not None
    assert (found["whole"].text, whole["stop_reason"], whole["usage"]["output_tokens"]) == ("Yes", "max_tokens", 7)


@pytest.mark.parametrize(
    ("stop_reason", "params", "expected"),
    [
        ("max_tokens", {}, {"stop_sequence": None, "stop_details": None}),
        ("model_context_window_exceeded", {}, {"stop_sequence": None, "stop_details": None}),
        ("stop_sequence", {"stop_sequences": ["END", "STOP"]}, {"stop_sequence": "END", "stop_details": None}),
        (
            "refusal",
            {},
            {"stop_sequence": None, "stop_details": {"type": "refusal", "category": None, "explanation": None}},
        ),
        ("not_known_yet", {}, {"stop_sequence": None, "stop_details": None}),
    ],
)
def test_scripts_stop_reasons(
    claude_batch: ClaudeBatch, stop_reason: str, params: dict[str, Any], expected: dict[str, Any]
) -> None:
    claude_batch.answer("So far", stop_reason=stop_reason, usage={"output_tokens": 5})
    job = run_batch.delay([make_request("a", **params)], fallback="off")
    job.get()
    (found,) = BatchJob(job.id).results()
    assert found.message is not None
    assert found.text == "So far"
    assert {name: found.message[name] for name in ("stop_reason", *expected)} == {
        "stop_reason": stop_reason,
        **expected,
    }
    assert found.message["usage"]["output_tokens"] == 5


def test_a_refusal_has_details_and_may_come_in_the_middle(claude_batch: ClaudeBatch) -> None:
    claude_batch.refuse(category="bio", explanation="No.", custom_id="a")
    claude_batch.refuse("Well,", custom_id="b")
    found = run_job("a", "b")
    first, second = found["a"].message, found["b"].message
    assert first is not None
    assert second is not None
    assert (first["content"], first["usage"]["output_tokens"]) == ([], 0)
    assert first["stop_details"] == {"type": "refusal", "category": "bio", "explanation": "No."}
    assert (found["b"].text, second["stop_details"]["category"]) == ("Well,", None)


@dataclasses.dataclass
class Day:
    date: datetime.date


def test_a_value_is_the_input_of_a_forced_tool(claude_batch: ClaudeBatch) -> None:
    claude_batch.answer(Day(datetime.date(2026, 11, 30)))
    claude_batch.answer([Score(value=1)], custom_id="b")
    tool = {"name": "save", "input_schema": {"type": "object"}}
    requests = [make_request("a", tools=[tool], tool_choice={"type": "tool", "name": "save"}), make_request("b")]
    job = run_batch.delay(requests)
    job.get()
    forced, plain = sorted(BatchJob(job.id).results(), key=lambda each: each.custom_id)
    assert forced.message is not None
    assert (forced.message["stop_reason"], forced.message["content"][0]["input"]) == (
        "tool_use",
        {"date": "2026-11-30"},
    )
    assert json.loads(plain.text) == [{"value": 1}]


def test_an_answer_can_be_for_one_attempt(claude_batch: ClaudeBatch) -> None:
    claude_batch.expire(attempt=1)
    claude_batch.answer(lambda sent: f"{sent.custom_id} at attempt {sent.attempt}", attempt=2)
    claude_batch.error("overloaded_error", "busy", attempt=2, custom_id="b")
    claude_batch.answer("the third", attempt=3)
    for _ in range(2):  # each job counts for itself
        found = run_job("a", "b", retries=1, poll_min=0.01, poll_max=0.02, retry_min=0.01, retry_max=0.02)
        assert {name: each.text for name, each in found.items()} == {"a": "a at attempt 2", "b": "the third"}
    claude_batch.assert_sent(2, custom_id="b", attempt=3)
    claude_batch.assert_sent(0, custom_id="a", attempt=3)


def test_what_passes_is_sent_again_as_in_production(claude_batch: ClaudeBatch) -> None:
    claude_batch.answer("at last")
    claude_batch.error("overloaded_error", "busy", custom_id="a", times=2)
    claude_batch.expire(custom_id="b", times=1)
    claude_batch.error("overloaded_error", "busy", custom_id="c", times=1)
    found = run_job("a", "b", "c", retries=1, poll_min=0.01, poll_max=0.02, retry_min=0.01, retry_max=0.02)
    assert {name: (each.text, each.source) for name, each in found.items()} == {
        "a": ("at last", "messages"),
        "b": ("at last", "resubmitted"),
        "c": ("at last", "resubmitted"),
    }
    assert [(each.custom_id, each.via) for each in claude_batch.requests] == [
        *(("a", "batch"), ("b", "batch"), ("c", "batch")),
        *(("a", "batch"), ("b", "batch"), ("c", "batch")),
        ("a", "messages"),
    ]


@pytest.mark.parametrize("blocks", [[], [{"type": "tool_use", "id": "t", "name": "save", "input": {"x": ["ü"]}}]])
def test_a_streamed_answer_is_the_same(claude_batch: ClaudeBatch, blocks: list[Any]) -> None:
    claude_batch.message(blocks, stop_reason="tool_use")
    claude_batch.error("overloaded_error", "busy", times=1)
    requests = [make_request("a", max_tokens=60_000)]
    job = run_batch.delay(requests, retries=0)
    job.get()
    (found,) = BatchJob(job.id).results()
    assert found.source == "messages"
    assert found.message is not None
    assert (found.message["content"], found.message["stop_reason"]) == (blocks, "tool_use")


def test_refuses_what_the_api_refuses(claude_batch: ClaudeBatch) -> None:
    run_batch.delay([make_request("a", messages=[{"role": "user", "content": ""}])], fallback="off").get()
    (job,) = claude_batch.jobs
    (found,) = job.results()
    assert found.type == "errored"
    with pytest.raises(errors.InvalidRequests):
        run_batch.delay([{"custom_id": "a"}])


def test_asserts_what_was_sent(claude_batch: ClaudeBatch) -> None:
    with pytest.raises(AssertionError, match="expected at least one request, found 0; sent: nothing"):
        claude_batch.assert_sent()
    run_batch.delay([make_request("a", system="Be short."), make_request("b", model="claude-opus-4-5")]).get()
    claude_batch.assert_sent(2)
    claude_batch.assert_sent(prompt="Be short.")
    claude_batch.assert_sent(1, custom_id="b", model="claude-opus-4-5")
    claude_batch.assert_sent(0, custom_id="c")
    for wanted in ({"custom_id": "c"}, {"prompt": "nothing"}, {"count": 3}, {"count": 0, "model": "claude-haiku-4-5"}):
        with pytest.raises(AssertionError, match="sent: 'a', 'b'"):
            claude_batch.assert_sent(**wanted)  # type: ignore[arg-type]
    assert claude_batch.sent("a").params["system"] == "Be short."
    with pytest.raises(AssertionError, match="no request 'c' was sent"):
        claude_batch.sent("c")


def test_has_the_jobs(claude_batch: ClaudeBatch) -> None:
    run_job("a", "b")
    run_job("c")
    assert [job.status().requests for job in claude_batch.jobs] == [1, 2]


def test_calls_on_result(claude_batch: ClaudeBatch) -> None:
    calls = []

    @shared_task(name=f"{__name__}.save")
    def save(job_id: str, custom_ids: list[str]) -> None:
        calls.append({each.custom_id: each.text for each in BatchJob(job_id).results(ids=custom_ids)})

    claude_batch.answer("good")
    run_job("a", "b", on_result=save.s())
    assert calls == [{"a": "good", "b": "good"}]


@pytest.mark.parametrize("test", ["one", "two"])
def test_begins_empty_and_leaves_nothing(claude_batch: ClaudeBatch, test: str) -> None:
    assert claude_batch.jobs == []
    assert claude_batch.requests == []
    run_job("a")


def test_restores_the_app() -> None:
    app = Celery("shop", set_as_current=False)
    backend = app.backend
    with ClaudeBatch(app).installed():
        assert app.conf.task_always_eager
        assert app.backend is not backend
    assert not app.conf.task_always_eager
    assert app.backend is backend
    with pytest.raises(errors.InvalidSettings, match="claude_batch_store_url is not set"):
        BatchJob("none", app)


def test_uses_the_clients_of_the_app_by_their_names(claude_batch: ClaudeBatch, claude_batch_app: Celery) -> None:
    claude_batch_app.conf.claude_batch_client_factories = {"team": "nowhere.make"}
    claude_batch_app.conf.claude_batch_encryption_key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    assert run_job("a", client="team")["a"].text == "Echo: Rate: a"


def test_without_fakeredis_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fakeredis", None)
    with (
        pytest.raises(ImportError, match=r"pip install 'claude-batch-tasks\[testing\]'"),
        ClaudeBatch(Celery("shop", set_as_current=False)).installed(),
    ):
        pass


class Scores(pydantic.BaseModel):
    by_name: dict[str, int]


@pytest.mark.parametrize(("output", "value"), [(Score, Score(value=7)), (Scores, Scores(by_name={"a": 7}))])
def test_a_typed_answer_without_a_script_fits(
    claude_batch: ClaudeBatch, output: type[pydantic.BaseModel], value: pydantic.BaseModel
) -> None:
    """Structured outputs can express the first type, and for the second a tool is forced."""
    claude_batch.answer(value, custom_id="scripted")
    job = run_batch.delay([make_request("a"), make_request("scripted")], output=output)
    job.get()
    found = {each.custom_id: each.parsed for each in BatchJob(job.id).results()}
    assert isinstance(found["a"], output)
    assert found["scripted"] == value
    assert ("tools" in claude_batch.sent("a").params) == (output is Scores)
