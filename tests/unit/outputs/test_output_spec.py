from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pydantic
import pytest

from claude_batch_tasks import outputs
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.outputs import schemas
from tests.unit.outputs import kinds

HERE = kinds.__name__

TYPES = {
    "pydantic": kinds.Review,
    "dataclass": kinds.Point,
    "typeddict": kinds.Place,
    "msgspec": kinds.Packet,
}


def describe(output: Any, check: Any = None) -> dict[str, Any]:
    found = outputs.describe_output(output, check)
    assert found is not None
    return found


def refusal_of(output: Any, check: Any = None) -> str:
    with pytest.raises(InvalidSettings) as caught:
        outputs.describe_output(output, check)
    text = str(caught.value)
    assert text.endswith("Nothing was stored or sent")
    return text


class TestATypeIsDescribed:
    @pytest.mark.parametrize("kind", TYPES)
    def test_by_its_import_path_and_schema(self, kind: str) -> None:
        found = describe(TYPES[kind])
        assert (found["kind"], found["path"]) == (kind, f"{HERE}.{TYPES[kind].__name__}")
        assert schemas.inline_root(found["schema"])["type"] == "object"
        assert msgspec.json.decode(msgspec.json.encode(found)) == found

    @pytest.mark.parametrize("path", [f"{HERE}.Review", f"{HERE}:Review"])
    def test_given_as_a_path(self, path: str) -> None:
        assert describe(path) == describe(kinds.Review)

    def test_within_another(self) -> None:
        assert describe(kinds.Review.Inner)["path"] == f"{HERE}.Review.Inner"
        assert outputs.OutputReader.load(describe(kinds.Review.Inner)).notice is None

    def test_as_a_schema(self) -> None:
        found = describe(kinds.SCHEMA)
        assert (found["kind"], found["path"], found["schema"]) == ("schema", None, kinds.SCHEMA)
        assert describe(f"{HERE}.SCHEMA") == found

    def test_in_the_folder_where_the_process_runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "types_of_this_folder.py").write_text("SCHEMA = {'type': 'object'}\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.path", [each for each in sys.path if each not in ("", str(tmp_path))])
        assert describe("types_of_this_folder.SCHEMA")["schema"] == {"type": "object"}

    def test_or_not_at_all(self) -> None:
        assert outputs.describe_output(None) is None


class TestAHash:
    def test_is_that_of_the_schema(self) -> None:
        assert len({describe(each)["hash"] for each in (*TYPES.values(), kinds.SCHEMA)}) == len(TYPES) + 1

    def test_does_not_depend_on_remarks_and_order(self) -> None:
        titles, numbers = {"title": {"type": "string"}}, {"n": {"type": "integer"}}
        one = {"title": "A", "type": "object", "properties": {**titles, **numbers}}
        two = {"type": "object", "description": "B", "properties": {**numbers, **titles}}
        assert schemas.hash_schema(one) == schemas.hash_schema(two)
        three = {"type": "object", "properties": numbers}
        assert schemas.hash_schema(two) != schemas.hash_schema(three), "a property that is called title is no remark"


class TestRefused:
    def test_is_a_class_that_is_local_to_a_function(self) -> None:
        class Mine(pydantic.BaseModel):
            a: int

        assert "local to a function" in refusal_of(Mine)

    def test_is_a_class_of_the_script_that_runs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kinds.Point, "__module__", "__main__")
        assert "the script that runs here" in refusal_of(kinds.Point)

    def test_is_what_the_path_does_not_lead_to(self) -> None:
        kinds.Local.__module__ = HERE
        assert "cannot be imported" in refusal_of(kinds.Local)

    @pytest.mark.parametrize("output", [list[kinds.Review], kinds.Review | None, dict[str, int]])
    def test_is_a_generic_type(self, output: Any) -> None:
        assert "must be a pydantic model, a dataclass, a TypedDict" in refusal_of(output)

    @pytest.mark.parametrize("output", [int, str, object(), 7, [], f"{HERE}.NO_SCHEMA"])
    def test_is_what_is_no_type_of_answers(self, output: Any) -> None:
        assert "must be a pydantic model, a dataclass, a TypedDict" in refusal_of(output)

    @pytest.mark.parametrize("path", ["nowhere.Review", f"{HERE}.Nothing", "", "a b"])
    def test_is_a_path_that_cannot_be_imported(self, path: str) -> None:
        assert f"{path or 'an empty text'} cannot be imported" in refusal_of(path)

    @pytest.mark.parametrize(
        ("schema", "why"),
        [
            ({"type": "strin"}, "no JSON schema: $.type: "),
            pytest.param(
                {"type": "object", "properties": {"stars": {"type": "string", "pattern": "("}}},
                "$.properties.stars.pattern",
                marks=pytest.mark.latest,  # earlier releases of jsonschema-rs do not say where it is
            ),
            ({"$ref": "#/$defs/missing"}, "no JSON schema"),
            ({"$ref": "https://example.test/schema.json"}, "must have everything in itself"),
            ({"$ref": "file:///etc/passwd"}, "must have everything in itself"),
            ({"type": "object", "default": {1, 2, object()}}, "no JSON schema"),
            ({"type": "string", "enum": ["x" * 100_000]}, "bytes, and 100,000 are the most"),
        ],
    )
    def test_is_a_schema_that_is_none(self, schema: dict[str, Any], why: str) -> None:
        assert why in refusal_of(schema)

    def test_is_a_type_without_a_schema(self) -> None:
        assert "has no JSON schema" in refusal_of(kinds.Opaque)


class TestACheck:
    def test_is_stored_by_its_path(self) -> None:
        assert describe(kinds.Review, kinds.check_stars)["check"] == f"{HERE}.check_stars"
        assert describe(kinds.Review, f"{HERE}.check_stars")["check"] == f"{HERE}.check_stars"

    @pytest.mark.parametrize(
        ("check", "why"),
        [
            (lambda review: None, "local to a function"),
            (f"{HERE}.nothing", "cannot be imported"),
            (f"{HERE}.SCHEMA", "must be a function"),
            (7, "must be a function"),
            (kinds.check_later, "not a coroutine function"),
        ],
    )
    def test_that_workers_cannot_call_is_refused(self, check: Any, why: str) -> None:
        assert why in refusal_of(kinds.Review, check)

    def test_needs_a_type(self) -> None:
        assert "needs output=" in refusal_of(None, kinds.check_stars)


def test_options_are_named_for_messages() -> None:
    named = outputs.name_options({"output": kinds.Review, "check": kinds.check_stars, "retries": 1})
    assert named == {"output": f"{HERE}.Review", "check": f"{HERE}.check_stars", "retries": 1}
    assert outputs.name_options({"output": kinds.SCHEMA}) == {"output": kinds.SCHEMA}
    assert json.loads(json.dumps(named)) == named
