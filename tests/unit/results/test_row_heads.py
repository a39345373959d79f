"""The heads of rows: they say what decoding says, or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from claude_batch_tasks.results.stored import row_heads
from claude_batch_tasks.wire import result_rows

NONCE = "0a1b"
ROW: dict[str, Any] = {"custom_id": f"cbt-{NONCE}-17", "result": {"type": "expired"}}
PLAIN = json.dumps(ROW).encode()


@pytest.mark.parametrize("line", [PLAIN, json.dumps(ROW, separators=(",", ":")).encode(), b" " + PLAIN + b" "])
def test_are_read_however_json_is_spaced(line: bytes) -> None:
    by_index, by_id = row_heads.match_indexes(NONCE)(line), row_heads.match_ids()(line)
    assert by_index is not None
    assert by_id is not None
    assert (int(by_index[1]), row_heads.TYPES[by_index[2]]) == (17, "expired")
    assert by_id[1].decode() == result_rows.decode_row(line).custom_id


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b'{"result": {"type": "expired"}, "custom_id": "cbt-0a1b-17"}',
        b'{"custom_id": "cbt-0a1b-17", "result": {"id": 1, "type": "expired"}}',
        PLAIN.replace(b"expired", b"postponed"),
        PLAIN.replace(b"expired", b"expired "),
        PLAIN.replace(b"-17", b"-017"),
        PLAIN.replace(b"-17", b"-1-7"),
        PLAIN.replace(b"-17", "-\u0661\u0667".encode()),
        PLAIN.replace(b"0a1b", b"0a1c"),
        PLAIN.replace(b"0a1b", b"0a1b-1"),
        PLAIN.replace(b"cbt", b"\\u0063bt"),
    ],
)
def test_of_anything_else_are_left_to_the_decoder(line: bytes) -> None:
    assert row_heads.match_indexes(NONCE)(line) is None


def test_ids_with_escapes_or_other_letters_are_left_to_the_decoder() -> None:
    for custom_id in ('a"b', "a\\b", "ä", "a\nb"):
        for ascii_only in (True, False):
            line = json.dumps({**ROW, "custom_id": custom_id}, ensure_ascii=ascii_only).encode()
            assert row_heads.match_ids()(line) is None
