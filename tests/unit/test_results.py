from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_batch_tasks import results
from claude_batch_tasks.errors import ResultsIncomplete
from claude_batch_tasks.requests import wire_id
from claude_batch_tasks.results import Completeness, Row

NONCE = "0123456789abcdef"

file_bytes = st.lists(
    st.sampled_from([b"\n", b"\r\n", b"\r", b" ", b'{"a":1}', "\u2028\x85ü😀".encode(), b"x", b"\x0b\x0c"]), max_size=30
).map(b"".join)


@st.composite
def chunked(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    data = draw(file_bytes | st.binary(max_size=60))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=10)))
    edges = [0, *cuts, len(data)]
    return data, [data[start:end] for start, end in pairwise(edges)]


def line(custom_id: str = "a", **result: Any) -> bytes:
    return json.dumps({"custom_id": custom_id, "result": result}).encode()


class TestLines:
    @given(chunked())
    def test_are_the_same_however_the_bytes_arrive(self, data_and_chunks: tuple[bytes, list[bytes]]) -> None:
        data, chunks = data_and_chunks
        assert list(results.lines(chunks)) == list(results.lines([data]))
        assert list(results.lines(chunks)) == [part.strip() for part in data.split(b"\n") if part.strip()]

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"", []),
            (b"\n\n \r\n", []),
            (b"a\nb\n", [b"a", b"b"]),
            (b"a\nb", [b"a", b"b"]),
            (b"a\r\nb\r\n", [b"a", b"b"]),
            (b"\n\na\n\n\nb\n\n", [b"a", b"b"]),
            ("a\u2028b\u2029c\x85d\n".encode(), ["a\u2028b\u2029c\x85d".encode()]),
        ],
    )
    def test_end_with_a_newline_and_with_nothing_else(self, data: bytes, expected: list[bytes]) -> None:
        assert list(results.lines([data])) == expected
        assert list(results.lines([data[n : n + 1] for n in range(len(data))])) == expected

    def test_are_given_out_as_soon_as_they_are_whole(self) -> None:
        def chunks() -> Iterator[bytes]:
            yield b"a\nb"
            pytest.fail("the first line was whole already")

        assert next(results.lines(chunks())) == b"a"

    def test_may_be_megabytes_long_in_small_chunks(self) -> None:
        text = b"x" * 2_000_000
        chunks = [text[n : n + 500] for n in range(0, len(text), 500)] + [b"\n"]
        assert list(results.lines(chunks)) == [text]


class TestARow:
    @pytest.mark.parametrize("outcome", ["succeeded", "errored", "expired", "canceled"])
    def test_has_an_id_and_an_outcome(self, outcome: str) -> None:
        assert results.row(line("a", type=outcome)) == Row("a", outcome, usage={})

    def test_has_a_usage(self) -> None:
        usage = {
            "input_tokens": 3,
            "output_tokens": 5,
            "cache_creation_input_tokens": None,
            "cache_read_input_tokens": 7,
            "cache_creation": {"ephemeral_5m_input_tokens": 1},
            "service_tier": "batch",
        }
        found = results.row(line(type="succeeded", message={"usage": usage})).usage
        assert found == {"input_tokens": 3, "output_tokens": 5, "cache_read_input_tokens": 7}

    @pytest.mark.parametrize("message", [None, {}, {"usage": None}, "text", 17, {"usage": "none"}, {"usage": []}])
    def test_may_have_none(self, message: Any) -> None:
        assert results.row(line(type="succeeded", message=message)).usage == {}

    @pytest.mark.parametrize(
        ("error", "error_type"),
        [
            ({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, "overloaded_error"),
            ({"type": "error", "error": {"type": "api_error"}, "request_id": "req_1", "new": [1]}, "api_error"),
            ({"type": "invalid_request_error", "message": "x"}, "invalid_request_error"),
            ({"type": "error", "error": None}, "error"),
            (None, None),
            ({}, None),
            ("text", None),
        ],
    )
    def test_of_a_failure_has_the_inner_errors_type(self, error: Any, error_type: str | None) -> None:
        assert results.row(line(type="errored", error=error)).error_type == error_type

    def test_of_a_success_has_no_error(self) -> None:
        assert results.row(line(type="succeeded", error={"type": "api_error"})).error_type is None

    @pytest.mark.parametrize("outcome", ["paused", "SUCCEEDED", "", 17])
    def test_of_a_type_nobody_knows_is_an_error_that_does_not_pass(self, outcome: Any) -> None:
        if outcome == "":
            outcome = " "
        row = results.row(line(type=outcome))
        assert (row.type, row.error_type, row.known) == ("errored", "unknown_result_type", False)

    @pytest.mark.parametrize(
        "raw",
        [
            rb'{"custom_id":"a","result":{"type":"succeeded","message":{"content":"\ud800"}}}',
            b'{"custom_id":"a","result":{"type":"succeeded","message":{"score":NaN}}}',
            b'\xef\xbb\xbf{"custom_id":"a","result":{"type":"succeeded"}}',
            b'{"new":1,"custom_id":"a","result":{"new":{},"type":"succeeded","message":{"content":[{"type":"?"}]}}}',
            '{"custom_id":"a","result":{"type":"succeeded","message":{"content":"\u2028\x85"}}}'.encode(),
            rb'{ "custom_id" : "\u0061" , "result" : { "type" : "succe\u0065ded" } }',
        ],
    )
    def test_is_read_from_whatever_is_legal_somewhere(self, raw: bytes) -> None:
        row = results.row(raw)
        assert (row.custom_id, row.type) == ("a", "succeeded")
        assert results.parse(raw)["custom_id"] == "a"

    @pytest.mark.parametrize(
        "raw",
        [
            b"<html>",
            b"{",
            b"[]",
            b'"text"',
            b"null",
            b"{}",
            b'{"custom_id":"a"}',
            b'{"custom_id":"a","result":{}}',
            b'{"custom_id":"a","result":"succeeded"}',
            b'{"custom_id":7,"result":{"type":"expired"}}',
            b'{"custom_id":null,"result":{"type":"expired"}}',
            b'{"result":{"type":"expired"}}',
            b'{"custom_id":"\xff","result":{"type":"expired"}}',
            b'{"custom_id":"a","result":{"type":"expired"}}{"custom_id":"b","result":{"type":"expired"}}',
        ],
    )
    def test_is_not_made_from_anything_else(self, raw: bytes) -> None:
        with pytest.raises(ValueError):  # noqa: PT011 - the documented class
            results.row(raw)

    @given(st.binary(max_size=40) | file_bytes)
    def test_of_rubbish_is_a_value_error_and_nothing_worse(self, raw: bytes) -> None:
        with pytest.raises(ValueError):  # noqa: PT011 - the documented class
            results.row(raw)

    def test_nested_beyond_reading_is_a_value_error_too(self) -> None:
        deep = b"[" * 5000 + b"]" * 5000
        line = b'{"custom_id":"a","result":{"type":"succeeded","message":{"content":%s}}}' % deep
        with pytest.raises(ValueError):  # noqa: PT011 - the documented class
            results.row(line)


@pytest.mark.parametrize(
    ("result", "error"),
    [
        ({}, {"type": None, "message": "the result does not say why"}),
        ({"error": "text"}, {"type": None, "message": "text"}),
        ({"error": {"type": "api_error", "message": "m"}}, {"type": "api_error", "message": "m"}),
        (
            {"error": {"type": "error", "error": {"type": "api_error", "message": "m"}, "request_id": "req_1"}},
            {"type": "api_error", "message": "m", "request_id": "req_1"},
        ),
        (
            {"error": {"type": "error", "error": {"type": "api_error"}}, "request_id": "req_2"},
            {"type": "api_error", "request_id": "req_2"},
        ),
    ],
)
def test_the_error_of_a_result_is_the_inner_one_with_its_request_id(result: Any, error: Any) -> None:
    assert results.error_of(result) == error


class TestCompleteness:
    def rows(self, *indexes: int, outcome: str = "succeeded") -> list[Row]:
        return [Row(wire_id(NONCE, index), outcome, usage={"input_tokens": 2}) for index in indexes]

    def seen(self, *rows: Row, first: int = 10, count: int = 4) -> tuple[Completeness, list[int | None]]:
        seen = Completeness(NONCE, first, count)
        return seen, [seen.add(row) for row in rows]

    def test_is_reached_in_any_order(self) -> None:
        seen, kept = self.seen(*self.rows(12, 10, 13, 11))
        assert kept == [12, 10, 13, 11]
        assert seen.complete
        assert seen.tallies == {"succeeded": 4}
        assert seen.usage == {"input_tokens": 8}
        seen.check({"succeeded": 4})

    def test_takes_the_first_row_of_several(self) -> None:
        seen, kept = self.seen(*self.rows(10), *self.rows(10, outcome="expired"), *self.rows(11, 12, 13))
        assert kept == [10, None, 11, 12, 13]
        assert seen.tallies == {"succeeded": 4}
        assert seen.duplicates == 1
        seen.check({"succeeded": 4})

    @pytest.mark.parametrize("index", [9, 14, 0, 10**9])
    def test_takes_no_row_of_the_jobs_other_batches(self, index: int) -> None:
        seen, kept = self.seen(*self.rows(index))
        assert kept == [None]
        assert seen.foreign == 1

    @pytest.mark.parametrize("custom_id", ["review-17", "", wire_id("f" * 16, 10), f"cbt-{NONCE}-010"])
    def test_takes_no_row_of_others(self, custom_id: str) -> None:
        seen, kept = self.seen(Row(custom_id, "succeeded"))
        assert kept == [None]
        assert seen.all_foreign

    def test_of_somebody_elses_batch_means_that_nothing_in_it_is_ours(self) -> None:
        assert not self.seen()[0].all_foreign
        assert not self.seen(Row("x", "expired"), *self.rows(10))[0].all_foreign
        assert self.seen(Row("x", "expired"), Row("y", "expired"))[0].all_foreign

    @pytest.mark.parametrize("indexes", [(), (10,), (10, 11, 12), (10, 10, 10, 10)])
    def test_is_missing_something(self, indexes: tuple[int, ...]) -> None:
        seen, _ = self.seen(*self.rows(*indexes))
        assert not seen.complete
        with pytest.raises(ResultsIncomplete, match=f"{len(set(indexes))} of 4 results"):
            seen.check({"succeeded": 4})

    def test_is_in_doubt_after_an_unreadable_line(self) -> None:
        seen, _ = self.seen(*self.rows(10, 11, 12, 13))
        seen.broken = 1
        with pytest.raises(ResultsIncomplete, match="1 unreadable"):
            seen.check({"succeeded": 4})

    def test_is_in_doubt_when_the_batch_counts_otherwise(self) -> None:
        seen, _ = self.seen(*self.rows(10, 11, 12, 13))
        with pytest.raises(ResultsIncomplete, match="the batch says"):
            seen.check({"succeeded": 3, "expired": 1})

    @pytest.mark.parametrize("counts", [{}, {"processing": 4}, {"succeeded": 0, "errored": 0}])
    def test_is_not_compared_with_counts_that_say_nothing(self, counts: dict[str, int]) -> None:
        self.seen(*self.rows(10, 11, 12, 13))[0].check(counts)

    def test_is_not_compared_when_an_outcome_is_unknown(self) -> None:
        unknown = Row(wire_id(NONCE, 13), "errored", "unknown_result_type", known=False)
        self.seen(*self.rows(10, 11, 12), unknown)[0].check({"succeeded": 3, "paused": 1})

    @given(st.lists(st.integers(0, 40), max_size=80))
    def test_counts_every_row_once(self, indexes: list[int]) -> None:
        seen, kept = self.seen(*self.rows(*indexes), first=3, count=30)
        mine = {index for index in indexes if 3 <= index < 33}
        assert sorted(index for index in kept if index is not None) == sorted(mine)
        assert {place + 3 for place in range(30) if seen.has(place)} == mine
        assert seen.distinct + seen.duplicates + seen.foreign == len(indexes)
        assert seen.complete == (len(mine) == 30)
