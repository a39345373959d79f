"""Jobs whose answers have a type, from the request that asks for it to the object that is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import pytest
from celery import Celery, chain

from claude_batch_tasks import BatchJob, adopt, errors, estimate, run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Answer, Model, Simulator, ToolCall
from tests.factories import make_params
from tests.support import wait_until
from tests.unit.outputs import kinds

HERE = kinds.__name__
OLD = "claude-3-5-haiku-20241022"


def requests(*prompts: str, **params: Any) -> dict[str, Any]:
    return {prompt: make_params(prompt, **{"max_tokens": 1000, **params}) for prompt in prompts}


@pytest.fixture(autouse=True)
def _old_model(simulator: Simulator) -> None:
    """Models without structured outputs are retired at Anthropic; some platforms have them."""
    simulator.behave(models=[Model(OLD, structured_outputs=False, thinking=("disabled",))])


@pytest.fixture
def eager(app: Celery, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Celery:
    """An app that runs jobs in this process."""
    for name, value in simulator.env.items():
        monkeypatch.setenv(name, value)
    simulator.behave(processing_seconds=0.3)
    app.conf.update(task_always_eager=True)
    return app


@pytest.fixture
def worker(start_here: Callable[..., Worker], simulator: Simulator) -> Worker:
    return start_here(simulator.url)


class TestEachTypeIsAskedForAndRead:
    @pytest.mark.parametrize(
        ("output", "cls"),
        [
            (kinds.Review, kinds.Review),
            (kinds.Point, kinds.Point),
            (kinds.Place, dict),
            (kinds.Packet, kinds.Packet),
            (kinds.SCHEMA, dict),
            (f"{HERE}.Review", kinds.Review),
        ],
    )
    @pytest.mark.parametrize("model", ["claude-haiku-4-5", OLD])
    def test_by_structured_outputs_or_a_tool(
        self, eager: Celery, simulator: Simulator, output: Any, cls: type, model: str
    ) -> None:
        result = run_batch.delay(requests("hello", model=model), output=output)
        assert result.get()["succeeded"] == 1
        (answer,) = BatchJob(result.id, eager).results()
        assert (answer.complete, answer.parse_error) == (True, None)
        assert type(answer.parsed) is cls
        assert answer.message is not None
        assert answer.message["stop_reason"] == ("tool_use" if model == OLD else "end_turn")
        assert json.loads(json.dumps(answer.asdict()))["parsed"] is not None

    @pytest.mark.parametrize("output", [kinds.Node, kinds.Free])
    def test_by_a_tool_where_structured_outputs_cannot_say_it(self, eager: Celery, output: Any) -> None:
        result = run_batch.delay(requests("hello"), output=output)
        (answer,) = BatchJob(result.id, eager).results()
        assert type(answer.parsed) is output

    def test_or_not_at_all(self, eager: Celery) -> None:
        (answer,) = BatchJob(run_batch.delay(requests("hello")).id, eager).results()
        assert (answer.parsed, answer.parse_error) == (None, None)


class TestAtSubmission:
    def test_all_that_is_wrong_is_reported(self, app: Celery) -> None:
        given = {**requests("a"), **requests("b", output_config={"format": {}}), **requests("c", max_tokens=0)}
        given |= requests("d", tool_choice={"type": "any"})
        with pytest.raises(errors.InvalidRequests) as caught:
            run_batch.delay(given, output=kinds.Review)
        assert [(index, field) for index, _, field, _ in caught.value.problems] == [
            (1, "params.output_config.format"),
            (2, "params.max_tokens"),
            (3, "params.tool_choice"),
        ]

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({"output": list[kinds.Review]}, "must be a pydantic model"),
            ({"check": kinds.check_stars}, "needs output="),
            ({"reask": 1}, "reask needs output="),
            ({"output": kinds.Review, "check": "nowhere.check"}, "cannot be imported"),
        ],
    )
    def test_options_that_cannot_be(self, app: Celery, options: dict[str, Any], why: str) -> None:
        with pytest.raises(errors.InvalidSettings, match=why):
            run_batch.delay(requests("a"), **options)

    def test_an_estimate_has_the_schema(self) -> None:
        plain, typed = estimate(requests("a"), prices={}), estimate(requests("a"), prices={}, output=kinds.Review)
        assert typed.input_tokens > plain.input_tokens

    def test_a_signature_has_import_paths(self, app: Celery) -> None:
        made = run_batch.s(output=kinds.Review, check=kinds.check_stars)
        assert made.kwargs == {"output": f"{HERE}.Review", "check": f"{HERE}.check_stars"}
        assert json.loads(json.dumps(made))["kwargs"] == made.kwargs


def test_what_is_read_without_the_type_says_so(eager: Celery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = BatchJob(run_batch.delay(requests("hello"), output=kinds.Packet).id, eager)
    monkeypatch.delattr(kinds, "Packet")
    (answer,) = job.results()
    assert answer.parsed is None
    assert answer.parse_error is not None
    assert f"the type {HERE}.Packet cannot be used here" in answer.parse_error
    assert answer.complete
    for name in ("results.jsonl", "results.csv"):
        assert job.export(tmp_path / name) == 1
        assert "cannot be used here" not in (tmp_path / name).read_text()


class TestAnswersThatDoNotFit:
    """They are counted as invalid, say why, and are asked again."""

    @pytest.fixture(autouse=True)
    def _answers(self, simulator: Simulator) -> None:
        good, worse = {"title": "Fine", "stars": 4}, {"title": "Fine", "stars": 1}
        simulator.answer_with(
            *(Answer(prompt="^wrong$", attempts=(n,), json={"title": f"Fine {n}"}) for n in (1, 2, 3)),
            *(Answer(prompt="^broken$", attempts=(n,), text=f'{{"title": "secret {n} of') for n in (1, 2, 3)),
            Answer(prompt="^once$", attempts=1, json={"title": "Fine", "stars": 7}),
            Answer(prompt="^checked$", attempts=1, json=worse),
            Answer(prompt="^old once$", attempts=1, tool=ToolCall("record_answer", {"title": "Fine"})),
            Answer(prompt="^old", tool=ToolCall("record_answer", good)),
            Answer(json=good),
        )

    @pytest.mark.workers
    def test_are_asked_again(self, app: Celery, simulator: Simulator, worker: Worker) -> None:
        given = {**requests("right", "wrong", "broken", "once", "checked"), **requests("old once", model=OLD)}
        result = run_batch.delay(given, output=kinds.Review, check=kinds.check_stars, reask=2)
        summary = result.get(timeout=120)
        answers = {answer.custom_id: answer for answer in BatchJob(result.id, app).results()}
        assert {name for name, answer in answers.items() if answer.complete} == {"right", "once", "checked", "old once"}
        assert all(
            answers[name].parsed == kinds.Review(title="Fine", stars=4) for name in given if answers[name].complete
        )
        assert answers["wrong"].incomplete == answers["broken"].incomplete == "invalid"
        assert answers["wrong"].parse_error == "$.stars: Field required"
        assert answers["wrong"].parsed is None
        assert (answers["broken"].parse_error or "").startswith("$: it is not JSON that can be read: EOF")
        assert summary["incomplete"] == {"invalid": 2}
        assert summary["repairs"] == {"reask": 7}
        assert [len(answers[name].attempts) for name in given] == [1, 3, 3, 2, 2, 2]
        assert simulator.journal().paid_twice() == []
        assert "secret 1 of" not in worker.log.read_text()
        assert "Field required" not in worker.log.read_text()

    @pytest.mark.workers
    def test_are_told_what_is_wrong(self, app: Celery, simulator: Simulator, worker: Worker) -> None:
        given = {**requests("once"), **requests("old once", model=OLD)}
        run_batch.delay(given, output=kinds.Review, reask=1).get(timeout=120)
        asked = " ".join(record.text for record in simulator.journal().prompts)
        assert "$.stars: Input should be less than or equal to 5" in asked
        assert len(simulator.journal().prompts) == 2 * len(given), "the result of a tool is not in the text of a turn"

    @pytest.mark.workers
    def test_of_a_batch_created_elsewhere_are_counted(self, app: Celery, simulator: Simulator, worker: Worker) -> None:
        client = anthropic.Anthropic(api_key="sk-ant-test-key-never-to-be-seen", base_url=simulator.url)
        made: Any = [{"custom_id": name, "params": params} for name, params in requests("right", "wrong").items()]
        job = adopt(client.messages.batches.create(requests=made).id, output=kinds.Review, app=app)
        summary = job.get(timeout=120)
        assert summary["incomplete"] == {"invalid": 1}
        assert sorted(str(answer.parse_error) for answer in job.results()) == ["$.stars: Field required", "None"]

    @pytest.mark.workers
    def test_in_a_chain(self, app: Celery, worker: Worker) -> None:
        done = chain(run_batch.s(requests("right"), output=kinds.Review)).delay()
        wait_until(done.ready)
        (answer,) = BatchJob(done.id, app).results()
        assert answer.parsed == kinds.Review(title="Fine", stars=4)

    @pytest.mark.workers
    def test_are_not_judged_by_a_worker_that_cannot(
        self, app: Celery, simulator: Simulator, start_here: Callable[..., Worker]
    ) -> None:
        result = run_batch.delay(requests("right"), output=kinds.Review, check=kinds.return_bool, max_step_failures=2)
        start_here(simulator.url)
        with pytest.raises(errors.StepFailed, match="must return None or a text, not bool"):
            result.get(timeout=120)
        assert simulator.journal().paid_twice() == []
