"""Flat rows: a row that is made of the bytes of an answer is the one that is made of its values."""

from __future__ import annotations

import pytest

from claude_batch_tasks.results import flat_rows
from claude_batch_tasks.results.stored.outcomes import Outcome

TEXT = b'{"type":"text","text":"A \\u00e9 \xc3\xa9 \\"q\\""}'
USAGE = b'{"input_tokens":3,"output_tokens":0,"cache_read_input_tokens":null}'


@pytest.mark.parametrize("spaced", [b"", b" ", b"\r"])
@pytest.mark.parametrize(
    ("content", "usage"),
    [
        (TEXT, USAGE),
        (TEXT + b"," + TEXT, b"{}"),
        (b"", b"null"),
        (b'{"type":"tool_use","input":{"text":5}}', USAGE),
        (b'{"type":"text","text":"\\ud800"}', USAGE),
        (b'{"type":"text","text":5}', USAGE),
        (TEXT, b'{"input_tokens":-1}'),
    ],
)
def test_a_row_has_the_same_values_either_way(content: bytes, usage: bytes, spaced: bytes) -> None:
    message = b'{"model":"m",%s"stop_reason":"end_turn","content":[%s],"usage":%s}' % (spaced, content, usage)
    line = b'{"custom_id":"c","result":{"type":"succeeded","message":%s}}' % message
    outcome = Outcome(0, "batch", "succeeded", line)
    slowly, row = flat_rows._flatten_any("a", outcome), flat_rows.flatten_outcome("a", outcome)
    assert {name: row.get(name) for name in flat_rows.COLUMNS} == {name: slowly.get(name) for name in flat_rows.COLUMNS}


def test_a_table_has_what_its_rows_have() -> None:
    pytest.importorskip("pyarrow")
    rows = [dict.fromkeys(flat_rows.COLUMNS), {"custom_id": "\u00e9" * 3, "message": "", "attempts": 2}, {"text": "x"}]
    found = flat_rows.make_batch(rows, flat_rows.arrow_schema())
    found.validate(full=True)
    assert found.to_pylist() == [{name: row.get(name) for name in flat_rows.COLUMNS} for row in rows]
