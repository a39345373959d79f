"""Records: what a new round, and what resuming a job, does to each field, and how batches are numbered."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pytest

from claude_batch_tasks import records
from claude_batch_tasks.records import (
    Again,
    BatchRecord,
    Change,
    Event,
    Unit,
    batch_index,
    batch_number,
    reset_fields,
)

HINTS = get_type_hints(BatchRecord, include_extras=True)


@pytest.mark.parametrize("name", BatchRecord.__struct_fields__)
def test_a_field_declares_what_becomes_of_it(name: str) -> None:
    declared = [each for each in getattr(HINTS[name], "__metadata__", ()) if isinstance(each, Change)]
    assert len(declared) == 1, f"BatchRecord.{name} says neither Kept nor what resets it"


@pytest.mark.parametrize("event", get_args(Event))
def test_a_field_that_is_reset_has_a_default(event: Event) -> None:
    defaults = {each.name: each.required for each in msgspec.structs.fields(BatchRecord)}
    assert not [name for name in reset_fields(event) if defaults[name]]


def test_what_a_round_resets_is_what_0_2_0_reset() -> None:
    assert reset_fields("round") == {
        "state": "staged",
        **dict.fromkeys(("least", "most", "intent_at", "unanswered_at", "ambiguous_at", "refusal", "refused_since")),
        **dict.fromkeys(("batch_id", "created_at", "expires_at", "sighting", "not_before", "published")),
        **dict.fromkeys(("organization", "workspace")),
        **dict.fromkeys(("create_not_found", "create_looks", "absences", "unidentified"), 0),
        **dict.fromkeys(("provisional", "cancel_sent"), False),
        "told": {},
        "processed": 0,  # this and the following came after it
        "not_sent_again": None,
        "cut_short": False,
    }


def test_what_a_resume_resets_is_what_0_2_0_reset() -> None:
    assert reset_fields("resume") == {
        **dict.fromkeys(("ambiguous_at", "refusal", "refused_since", "due_at", "task_id", "outcome", "note", "error")),
        **dict.fromkeys(("create_not_found", "create_looks", "absences", "unidentified", "failures"), 0),
        **dict.fromkeys(("step_failures", "skipped"), 0),
        **dict.fromkeys(("cancel_sent", "messages_out", "final", "done", "made_room"), False),
        "step_failure": None,
        "not_sent_again": None,
        "told": {},
    }


def test_defaults_are_not_shared() -> None:
    reset_fields("round")["told"]["succeeded"] = 1
    assert reset_fields("round")["told"] == {}


class TestTheNumberOfABatch:
    def test_is_counted_from_one_and_its_index_from_zero(self) -> None:
        assert [batch_number(index) for index in range(3)] == [1, 2, 3]
        assert [batch_index(batch_number(index)) for index in range(3)] == [0, 1, 2]

    def test_is_in_the_name_of_what_logs_are_about(self) -> None:
        assert str(Unit("j")) == "job j"
        assert str(Unit("j", 0)) == "job j batch 1"
        assert str(Unit("j", 1, 4)) == "job j batch 2, sender 4"
        assert [unit.number for unit in (Unit("j"), Unit("j", 0), Unit("j", 1, 4))] == [None, 1, 2]

    def test_is_in_every_text_that_names_a_batch(self) -> None:
        """No index is shown: what an f-string has after "batch" is a number, an event's batch, or Anthropic's id."""
        wrong, fine = [], r"number|\.id$|batch_id$|^event\.batch$"
        for path in Path(records.__file__).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                parts = node.values if isinstance(node, ast.JoinedStr) else []
                for before, value in pairwise(parts):
                    if isinstance(before, ast.Constant) and isinstance(value, ast.FormattedValue):
                        shown = ast.unparse(value.value)
                        if re.search(r"(?<!-)\bbatch $", str(before.value)) and not re.search(fine, shown):
                            wrong.append((path.name, node.lineno, shown))
        assert wrong == []


def test_what_is_sent_again_is_forgotten_where_an_earlier_release_fetched_other_results() -> None:
    """0.2.0 neither empties nor sets the field: its positions would be looked for among those of another download."""
    again = Again(attempt=1, count=2)
    for published, expected in ((None, again), (1, again), (2, None)):
        assert BatchRecord(first=0, count=3, body_bytes=1, published=published, again=again).again == expected
