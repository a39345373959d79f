from __future__ import annotations

import json
import threading
from typing import Any

import msgspec
import pydantic
import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from claude_batch_tasks import outputs
from claude_batch_tasks.outputs.checks import OutputUnusable
from claude_batch_tasks.outputs.sending import TOOL
from tests.unit.outputs import kinds

HERE = kinds.__name__
NO_JSON = "$: it is not JSON that can be read: "
GOOD = {"title": "Fine", "stars": 4}


def reader_of(output: Any = kinds.Review, check: Any = None) -> outputs.OutputReader:
    spec = outputs.describe_output(output, check)
    assert spec is not None
    return outputs.OutputReader.load(msgspec.json.decode(msgspec.json.encode(spec)))


def blocks_of(answer: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": answer if isinstance(answer, str) else json.dumps(answer)}]


def content_of(answer: Any) -> bytes:
    return json.dumps(blocks_of(answer)).encode()


class TestAnAnswerThatFits:
    @pytest.mark.parametrize(
        ("output", "answer", "expected"),
        [
            (kinds.Review, GOOD, kinds.Review(title="Fine", stars=4)),
            (kinds.Point, {"x": 1}, kinds.Point(1, 0)),
            (kinds.Place, {"name": "here"}, {"name": "here"}),
            (kinds.Packet, {"size": 1, "parts": [2]}, kinds.Packet(1, [2])),
            (kinds.Node, {"children": [{"children": []}]}, kinds.Node(children=[kinds.Node()])),
            (kinds.SCHEMA, {"count": 2}, {"count": 2}),
            ({"type": "array"}, [1, "x"], [1, "x"]),
            (kinds.Point, {"x": 10**40}, kinds.Point(10**40)),
        ],
    )
    def test_is_the_object(self, output: Any, answer: Any, expected: Any) -> None:
        reader = reader_of(output)
        assert reader.find_problem(content_of(answer)) is None
        assert reader.parse(content_of(answer)) == reader.parse(blocks_of(answer)) == (expected, None)

    def test_is_in_several_texts(self) -> None:
        text = json.dumps(GOOD)
        blocks = [
            {"type": "thinking", "thinking": "hm"},
            *({"type": "text", "text": part} for part in (text[:9], text[9:])),
        ]
        assert reader_of().find_problem(json.dumps(blocks).encode()) is None

    def test_comes_after_what_a_server_tool_found(self) -> None:
        blocks = [
            {"type": "text", "text": "Let me look."},
            {"type": "server_tool_use", "name": "web_search", "input": {}},
            {"type": "web_search_tool_result", "content": []},
            *blocks_of(GOOD),
        ]
        assert reader_of().find_problem(json.dumps(blocks).encode()) is None

    def test_is_the_input_of_the_tool(self) -> None:
        blocks = [{"type": "text", "text": "Here it is."}, {"type": "tool_use", "id": "t", "name": TOOL, "input": GOOD}]
        assert reader_of().find_problem(json.dumps(blocks).encode()) is None
        assert reader_of().parse(blocks)[0] == kinds.Review(**GOOD)  # type: ignore[arg-type]


class TestAnAnswerThatDoesNot:
    @pytest.mark.parametrize(
        ("answer", "problem"),
        [
            ({"stars": 4}, "$.title: Field required"),
            ({"title": "Fine", "stars": 9}, "$.stars: Input should be less than or equal to 5"),
            (
                {**GOOD, "items": [{"name": "n", "price": -1}]},
                "$.items[0].price: Input should be greater than or equal to 0",
            ),
            ({"stars": 4, "mood": "?"}, "$.title: Field required (and 1 more)"),
            ({"title": "refused", "stars": 4}, "$.title: Value error, this title is not allowed"),
            ({"title": "missing", "stars": 4}, "$: KeyError: 'a key of the application'"),
            ([], "$: Input should be an object"),
            ('```json\n{"title": "Fine", "stars": 4}\n```', NO_JSON + "expected value at line 1 column 1"),
            ('{"title": "Fine", "stars": 4', NO_JSON + "EOF while parsing an object at line 1 column 28"),
            ('{"title": "Fine", "stars": NaN}', NO_JSON + "expected value"),
            ('{"title": "\\ud800", "stars": 4}', NO_JSON + "unexpected end of hex escape"),
            ('{"title": "Fine", "stars": %s}' % ("9" * 5000), NO_JSON + "number out of range"),
            ("[" * 100_000, NO_JSON + "recursion limit exceeded"),
            (" ", NO_JSON + "EOF while parsing a value"),
            ("", "$: the message has no text"),
        ],
    )
    def test_has_a_path_and_a_reason(self, answer: Any, problem: str) -> None:
        found = reader_of().find_problem(content_of(answer))
        assert found is not None
        assert found.startswith(problem)
        assert reader_of().parse(blocks_of(answer)) == (None, found)

    @pytest.mark.parametrize(
        ("output", "answer", "problem"),
        [
            (kinds.Point, {"x": "no"}, "$.x: Input should be a valid integer"),
            (kinds.Place, {}, "$"),
            (kinds.Packet, {"size": 1, "parts": ["x"]}, "$.parts[0]: Expected `int`, got `str`"),
            (kinds.Packet, {}, "$: Object missing required field `size`"),
            (kinds.SCHEMA, {"count": 0}, "$.count: it is less than the minimum of 1"),
            (kinds.SCHEMA, {"count": "0"}, '$.count: it is not of type "integer"'),
            ({"type": "object", "additionalProperties": {"type": "null"}}, {"a b": 1}, "$['a b']: it is not of type"),
        ],
    )
    def test_of_each_kind_of_type(self, output: Any, answer: Any, problem: str) -> None:
        found = reader_of(output).find_problem(content_of(answer))
        assert found is not None
        assert found.startswith(problem)

    @pytest.mark.parametrize(
        "output", [kinds.Review, kinds.Packet, kinds.SCHEMA, {"additionalProperties": {"type": "null"}}]
    )
    @pytest.mark.parametrize("name", ["title", "size", "count", "k" * 10_000, "\n\x00"])
    def test_is_not_quoted_at_length(self, output: Any, name: str) -> None:
        found = reader_of(output).find_problem(content_of({name: "secret " * 10_000}))
        assert found is not None
        assert len(found) < 600
        assert "\n" not in found
        assert "secret secret" not in found

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"null",
            b"[]",
            b"{}",
            b"[1, null, []]",
            b'[{"type": 1, "text": 2}]',
            b'[{"type": "text", "text": "\\ud800"}]',
            b"[" * 100_000,
            b'[{"type": "text", "text": "\xff"}]',
            b'[{"type": "tool_use", "name": "record_answer", "input": {"title": NaN}}]',
            b'[{"type": "tool_use", "name": "record_answer", "input": {"title": "a", "title": "b"}}]',
            b'[{"type": "tool_use", "name": "record_answer", "input": {"stars": ' + b"9" * 5000 + b"}}]",
            b'[{"type": "tool_use", "name": "record_answer"}]',
            b'[{"type": "tool_use", "name": "record_answer"}, {"type": "tool_use", "name": "record_answer"}]',
        ],
    )
    def test_is_a_problem_whatever_the_message_is(self, content: bytes) -> None:
        found = reader_of().find_problem(content)
        assert found is not None
        assert found.startswith("$")
        assert reader_of().parse(content) == (None, found)

    def test_is_no_problem_if_it_calls_a_tool_of_the_application(self) -> None:
        blocks = [{"type": "tool_use", "id": "t", "name": "search", "input": {}}]
        assert reader_of().find_problem(json.dumps(blocks).encode()) is None
        assert reader_of().parse(blocks) == (None, "$: the message calls a tool, and has no answer")


class TestACheck:
    def test_says_what_is_wrong(self) -> None:
        reader = reader_of(check=kinds.check_stars)
        assert reader.find_problem(content_of(GOOD)) is None
        assert reader.find_problem(content_of({**GOOD, "stars": 1})) == "$: it has one star only"
        assert reader.parse(blocks_of({**GOOD, "stars": 1}))[1] is None, "it is not run where results are read"

    def test_that_raises_is_about_this_answer(self) -> None:
        found = reader_of(check=kinds.raise_error).find_problem(content_of(GOOD))
        assert found is not None
        assert found.startswith("$: the check raised LookupError: no such title: Fine")
        assert len(found) < 400

    def test_that_is_interrupted_ends_the_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(review: Any) -> None:
            raise SoftTimeLimitExceeded

        reader = reader_of(check=kinds.check_stars)
        monkeypatch.setattr(kinds, "check_stars", interrupt)
        with pytest.raises(SoftTimeLimitExceeded):
            reader.find_problem(content_of(GOOD))

    def test_must_return_none_or_a_text(self) -> None:
        with pytest.raises(OutputUnusable, match="must return None or a text, not bool"):
            reader_of(check=kinds.return_bool).find_problem(content_of(GOOD))

    def test_that_cannot_be_imported_here_is_no_verdict(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reader = reader_of(check=kinds.check_stars)
        monkeypatch.delattr(kinds, "check_stars")
        with pytest.raises(OutputUnusable, match=f"{HERE}.check_stars cannot be imported"):
            reader.find_problem(content_of(GOOD))
        assert reader.find_problem(content_of({})) is not None, "what is wrong by the type needs no check"

    def test_is_no_reason_to_lose_an_answer_that_is_paid_for(self) -> None:
        reader = reader_of(check=kinds.return_bool)
        found = reader.check_paid(content_of(GOOD))
        assert found is not None
        assert found.startswith("$: it could not be checked: ")
        assert reader_of().check_paid(content_of(GOOD)) is None


def test_a_schema_that_this_process_cannot_read_is_no_verdict() -> None:
    reader = outputs.OutputReader.load({"kind": "schema", "path": None, "schema": {"type": "odd"}, "hash": "0"})
    with pytest.raises(OutputUnusable, match="cannot read the job's schema"):
        reader.find_problem(content_of({}))
    value, error = reader.parse(content_of({}))
    assert value is None
    assert error is not None
    assert "cannot read the job's schema" in error


class NewReview(pydantic.BaseModel):
    """What the application has made of its type meanwhile."""

    title: str
    language: str


class TestAProcessWithAnotherSchema:
    @pytest.fixture
    def reader(self, monkeypatch: pytest.MonkeyPatch) -> outputs.OutputReader:
        spec = outputs.describe_output(kinds.Review)
        assert spec is not None
        monkeypatch.setattr(kinds, "Review", NewReview)
        return outputs.OutputReader.load(spec)

    def test_says_so(self, reader: outputs.OutputReader) -> None:
        assert reader.notice == f"the type {HERE}.Review has another schema here than when the job was submitted"

    def test_goes_by_the_schema_of_the_job(self, reader: outputs.OutputReader) -> None:
        assert reader.find_problem(content_of(GOOD)) is None
        assert (
            reader.find_problem(content_of({"title": "Fine", "language": "en"})) == '$: "stars" is a required property'
        )

    def test_reads_objects_as_far_as_it_can(self, reader: outputs.OutputReader) -> None:
        both = {**GOOD, "language": "en"}
        assert reader.parse(blocks_of(both)) == (NewReview(title="Fine", language="en"), None)
        value, error = reader.parse(blocks_of(GOOD))
        assert value is None
        assert error == f"{reader.notice}; $.language: Field required"

    def test_runs_a_check_on_objects_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = outputs.describe_output(kinds.Review, kinds.check_stars)
        assert spec is not None
        monkeypatch.setattr(kinds, "Review", NewReview)
        with pytest.raises(OutputUnusable, match="has another schema here"):
            outputs.OutputReader.load(spec).find_problem(content_of(GOOD))

    def test_or_without_the_type_says_so_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = outputs.describe_output(kinds.Packet)
        assert spec is not None
        monkeypatch.delattr(kinds, "Packet")
        reader = outputs.OutputReader.load(spec)
        assert reader.notice is not None
        assert f"the type {HERE}.Packet cannot be used here" in reader.notice
        assert reader.find_problem(content_of({"size": 1})) is None
        assert reader.find_problem(content_of({"size": "1"})) == '$.size: it is not of type "integer"'
        assert reader.parse(blocks_of({"size": 1})) == (None, reader.notice)


def test_threads_may_read_types_for_the_first_time() -> None:
    """msgspec crashed when two threads did."""
    types = [msgspec.defstruct(f"T{number}", [("a", int)], module=HERE) for number in range(40)]
    for each in types:
        setattr(kinds, each.__name__, each)
    found: list[Any] = []

    def read_all() -> None:
        found.extend(reader_of(each).find_problem(content_of({"a": 1})) for each in types)

    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [None] * 160


@pytest.mark.parametrize("option", ["output", "check"])
def test_memory_that_is_missing_says_nothing_about_an_answer(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step runs again: an invalid answer would be asked again, and paid again."""

    def fail(value: Any) -> None:
        raise MemoryError

    reader = reader_of()
    if option == "output":
        monkeypatch.setattr(reader, "_decode", fail)
    else:
        monkeypatch.setattr("claude_batch_tasks.outputs.checks.import_path", lambda path, option: fail)
        monkeypatch.setattr(reader, "_check_path", "some.check")
    with pytest.raises(MemoryError):
        reader.find_problem(content_of(GOOD))
