"""A script file says what the simulator answers; what is wrong in it is named by entry and field."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from claude_batch_tasks.simulator import Answer, Behaviour, Control, Fault, Scenario, ToolCall
from claude_batch_tasks.simulator.answers.files import read_script
from claude_batch_tasks.simulator.cli import simulator as command

from .test_answers import send, texts

SCRIPT = """
answers:
  - prompt: weather
    attempts: 1
    refusal: cyber
  - prompt: weather
    json: {sky: blue, "n": [1, 2]}
  - custom_id: -3$
    tool: {name: look_up, input: {q: x}}
    usage: {output_tokens: 5}
  - {model: opus, attempts: [2, 3], error: api_error, message: oh}
faults:
  - {endpoint: results, effect: status, status: 404, calls: [1]}
behaviour:
  processing_seconds: [0, 0.5]
  answers: [{text: last}]
"""


def test_a_script_adds_to_a_scenario(tmp_path: Path) -> None:
    file = tmp_path / "script.yaml"
    file.write_text(SCRIPT)
    fault = Fault("create", "drop")
    scenario = read_script(file, Scenario("mine", behaviour=Behaviour(seed=5), faults=(fault,)))
    assert scenario.behaviour == Behaviour(
        seed=5,
        processing_seconds=(0, 0.5),
        answers=(
            Answer(prompt="weather", attempts=1, refusal="cyber"),
            Answer(prompt="weather", json={"sky": "blue", "n": [1, 2]}),
            Answer(custom_id="-3$", tool=ToolCall("look_up", {"q": "x"}), usage={"output_tokens": 5}),
            Answer(model="opus", attempts=(2, 3), error="api_error", message="oh"),
            Answer(text="last"),
        ),
    )
    assert scenario.faults == (fault, Fault("results", "status", status=404, calls=(1,)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("answers: [{}, {promt: x}]", "answers[1]: Object contains unknown field promt"),
        ("answers: [{prompt: no}]", "answers[0].prompt: Expected str, got bool"),
        ("answers: [{custom_id: '*'}]", "answers[0]: custom_id is no regular expression: nothing to repeat"),
        ("answers: [{error: nope}]", "answers[0].error: Invalid enum value 'nope'"),
        ("faults: [{endpoint: create, effect: status, calls: x}]", "faults[0].calls: Expected array, got str"),
        ("behaviour: {seed: x}", "behaviour.seed: Expected int, got str"),
        ("behaviour: {sed: 1}", "behaviour: Object contains unknown field sed"),
        ("- {}", "Expected object, got array"),
        ("answers: [", "expected the node content"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "script.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match="^" + str(file).replace(".", r"\.")) as caught:
        read_script(file)
    assert problem in str(caught.value)


def test_json_and_missing_files(tmp_path: Path) -> None:
    file = tmp_path / "script.json"
    file.write_text(json.dumps({"answers": [{"text": "x"}]}))
    assert read_script(file).behaviour.answers == (Answer(text="x"),)
    file.write_text("{")
    with pytest.raises(ValueError, match=r"script.json: Input data was truncated"):
        read_script(file)
    with pytest.raises(ValueError, match="No such file"):
        read_script(tmp_path / "none.yaml")


def test_the_command_refuses_a_wrong_script(tmp_path: Path) -> None:
    file = tmp_path / "script.yaml"
    file.write_text("answers: [{pauses: x}]")
    result = CliRunner().invoke(command, ["--script", str(file)])
    assert result.exit_code == 1
    assert "answers[0].pauses: Expected int, got str" in result.output


def test_the_command_serves_a_script(tmp_path: Path) -> None:
    file = tmp_path / "script.yaml"
    file.write_text("answers: [{prompt: hi, text: scripted}]")
    arguments = [sys.executable, "-m", "claude_batch_tasks.simulator", "--port", "0", "--script", str(file)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env={"PYTHONUNBUFFERED": "1"}) as process:
        assert process.stdout is not None
        url = next(word for line in process.stdout for word in line.split() if word.startswith("http://"))
        control = Control(url)
        try:
            assert texts(send(control, "hi")) == "scripted"
        finally:
            process.terminate()
