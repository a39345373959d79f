from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from claude_batch_tasks.errors import ResultsIncomplete
from claude_batch_tasks.pricing.prices import Prices, Used
from claude_batch_tasks.wire import completeness, result_rows
from claude_batch_tasks.wire.batch_requests import round_nonce, wire_id
from claude_batch_tasks.wire.completeness import Completeness
from tests.odd_answers import ODD, RESULTS, UNREADABLE, Odd, succeeded

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


def line_of(index: int, outcome: str = "succeeded", **result: Any) -> bytes:
    return line(wire_id(NONCE, index), type=outcome, **result)


class TestBlocks:
    @given(chunked(), st.integers(1, 40))
    def test_hold_every_byte_and_end_with_a_line(self, data_and_chunks: tuple[bytes, list[bytes]], least: int) -> None:
        data, chunks = data_and_chunks
        found = list(result_rows.read_blocks(chunks, least))
        assert b"".join(found) == data
        assert all(block.endswith(b"\n") for block in found[:-1])
        assert all(found)

    def test_are_given_out_as_soon_as_they_are_whole(self) -> None:
        def chunks() -> Iterator[bytes]:
            yield b"a\nb\nc"
            pytest.fail("two lines were whole already")

        assert next(result_rows.read_blocks(chunks())) == b"a\nb\n"

    def test_are_about_as_long_as_wished_however_long_their_lines(self) -> None:
        text = b"x" * 2_000_000
        chunks = [text[n : n + 500] for n in range(0, len(text), 500)] + [b"\n", b"a\n", b"b\n"]
        assert list(result_rows.read_blocks(chunks, 1_000)) == [text + b"\n", b"a\nb\n"]


class TestTheRowsOfABlock:
    @pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n", b"\n \r\n\n"])
    def test_come_with_their_lines(self, end: bytes) -> None:
        written = [line_of(n) for n in range(5)]
        for block in (end.join(written), end.join([*written, b""])):
            found = list(result_rows.read_rows(block))
            assert [raw.strip() for _, raw in found] == written
            assert [row.custom_id for row, _ in found] == [wire_id(NONCE, n) for n in range(5)]

    def test_do_so_when_one_of_them_needs_a_second_look(self) -> None:
        odd = rb'{"custom_id":"a","result":{"type":"succeeded","message":{"usage":{"input_tokens":"many"}}}}'
        found = list(result_rows.read_rows(b"\n".join([line_of(0), odd, line_of(1)])))
        assert [raw for _, raw in found] == [line_of(0), odd, line_of(1)]
        assert [row.custom_id for row, _ in found] == [wire_id(NONCE, 0), "a", wire_id(NONCE, 1)]

    def test_end_at_a_newline_and_at_nothing_else(self) -> None:
        raw = '{"custom_id":"a","result":{"type":"succeeded","message":{"content":"\u2028\x85"}}}'.encode()
        assert [found for _, found in result_rows.read_rows(raw + b"\n" + raw)] == [raw, raw]

    @pytest.mark.parametrize("blank", [b"", b" " * 60])
    def test_are_not_taken_for_their_neighbours(self, blank: bytes) -> None:
        """Two rows in one line make up for a row over two, or for a blank line, where values are counted."""
        first, second, third = (line_of(n) for n in range(3))
        seen = Completeness(NONCE, 0, 3)
        kept = b"".join(seen.keep_rows([first + second + b"\n" + blank + b"\n" + third]))
        assert (kept, seen.broken) == (third, 1)
        with pytest.raises(ValueError, match="Extra data"):
            list(result_rows.read_rows(first + second + b"\n" + third.replace(b'"result"', b'\n"result"')))

    def test_are_never_made_up(self) -> None:
        with pytest.raises(ValueError, match="lacks custom_id"):
            list(result_rows.read_rows(line_of(0) + b"\n{}\n"))


class TestARow:
    @pytest.mark.parametrize("outcome", ["succeeded", "errored", "expired", "canceled"])
    def test_has_an_id_and_an_outcome(self, outcome: str) -> None:
        row = result_rows.decode_row(line("a", type=outcome))
        assert (row.custom_id, row.type, row.known, row.usage) == ("a", outcome, True, {})

    def test_has_a_usage(self) -> None:
        usage = {
            "input_tokens": 3,
            "output_tokens": 5,
            "cache_creation_input_tokens": None,
            "cache_read_input_tokens": 7,
            "cache_creation": {"ephemeral_5m_input_tokens": 1},
            "service_tier": "batch",
        }
        found = result_rows.decode_row(line(type="succeeded", message={"usage": usage})).usage
        assert found == {"input_tokens": 3, "output_tokens": 5, "cache_read_input_tokens": 7}

    @pytest.mark.parametrize("message", [None, {}, {"usage": None}, "text", 17, {"usage": "none"}, {"usage": []}])
    def test_may_have_none(self, message: Any) -> None:
        assert result_rows.decode_row(line(type="succeeded", message=message)).usage == {}

    @pytest.mark.parametrize(
        ("usage", "used"),
        [
            ({}, Used()),
            (
                {
                    "input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 3,
                    "cache_creation_input_tokens": 9, "server_tool_use": {"web_search_requests": 7, "new": 1},
                    "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 5},
                },
                Used(1, 2, 3, 4, 5, 7),
            ),
            ({"cache_creation_input_tokens": 9}, Used(cache_write_5m=9)),
            ({"cache_creation_input_tokens": 9, "cache_creation": None, "server_tool_use": None}, Used(0, 0, 0, 9)),
            (
                {"cache_creation_input_tokens": 9, "cache_creation": {"ephemeral_1h_input_tokens": 10}},
                Used(cache_write_1h=9),
            ),
            ({"cache_creation": {"ephemeral_1h_input_tokens": 10}}, Used()),
            # What does not fit is left out, and the rest is read all the same.
            ({"input_tokens": "many", "output_tokens": 2}, Used(output_tokens=2)),
            ({"input_tokens": True, "output_tokens": 2}, Used(output_tokens=2)),
            ({"cache_creation": 7, "server_tool_use": {"web_search_requests": 3}}, Used(web_searches=3)),
            (
                {
                    "cache_creation_input_tokens": 9, "server_tool_use": [],
                    "cache_creation": {"ephemeral_1h_input_tokens": 9},
                },
                Used(cache_write_1h=9),
            ),
        ],
    )  # fmt: skip
    def test_says_what_costs_something(self, usage: dict[str, Any], used: Used) -> None:
        message = result_rows.decode_row(line(type="succeeded", message={"model": "m", "usage": usage})).result.message
        assert message is not None
        assert message.usage is not None
        assert (message.model, message.usage.used) == ("m", used)

    @pytest.mark.parametrize("impossible", [-5, 2**63])
    def test_leaves_out_numbers_that_cannot_be(self, impossible: int) -> None:
        row = result_rows.decode_row(
            line(type="succeeded", message={"usage": {"input_tokens": impossible, "output_tokens": 2}})
        )
        assert row.usage == {"output_tokens": 2}
        assert row.result.message is not None
        assert row.result.message.usage is not None
        assert row.result.message.usage.used == Used(output_tokens=2)

    @pytest.mark.parametrize("model", [None, 7, ["m"]])
    def test_may_have_no_model(self, model: Any) -> None:
        message = result_rows.decode_row(
            line(type="succeeded", message={"model": model, "usage": {"input_tokens": 3}})
        ).result.message
        assert message is not None
        assert message.usage is not None
        assert (message.model, message.usage.used.input_tokens) == (None, 3)

    @pytest.mark.parametrize(
        ("error", "error_type"),
        [
            ({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, "overloaded_error"),
            ({"type": "error", "error": {"type": "api_error"}, "request_id": "req_1", "new": [1]}, "api_error"),
            ({"type": "invalid_request_error", "message": "x"}, "invalid_request_error"),
            ({"type": "error", "error": None}, None),
            (None, None),
            ({}, None),
            ("text", None),
        ],
    )
    def test_of_a_failure_has_the_inner_errors_type(self, error: Any, error_type: str | None) -> None:
        assert result_rows.decode_row(line(type="errored", error=error)).error_type == error_type

    def test_of_a_success_has_no_error(self) -> None:
        assert result_rows.decode_row(line(type="succeeded", error={"type": "api_error"})).error_type is None

    @pytest.mark.parametrize("outcome", ["paused", "SUCCEEDED", "", 17])
    def test_of_a_type_nobody_knows_is_an_error_that_does_not_pass(self, outcome: Any) -> None:
        if outcome == "":
            outcome = " "
        row = result_rows.decode_row(line(type=outcome))
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
        row = result_rows.decode_row(raw)
        assert (row.custom_id, row.type) == ("a", "succeeded")
        assert result_rows.read_line(raw)[0]["custom_id"] == "a"

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
            result_rows.decode_row(raw)

    @given(st.binary(max_size=40) | file_bytes)
    def test_of_rubbish_is_a_value_error_and_nothing_worse(self, raw: bytes) -> None:
        with pytest.raises(ValueError):  # noqa: PT011 - the documented class
            result_rows.decode_row(raw)


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
    assert result_rows.error_of(result) == error


class TestCompleteness:
    def seen(self, *written: bytes, first: int = 10, count: int = 4) -> tuple[Completeness, list[bytes]]:
        """What a file of these lines comes to, and the lines that are kept of it."""
        seen = Completeness(NONCE, first, count)
        kept = b"\n".join(seen.keep_rows([b"".join(line + b"\n" for line in written)]))
        return seen, kept.split(b"\n") if kept else []

    def lines(self, *indexes: int, outcome: str = "succeeded") -> list[bytes]:
        return [line_of(index, outcome, message={"usage": {"input_tokens": 2}}) for index in indexes]

    def test_is_reached_in_any_order(self) -> None:
        written = self.lines(12, 10, 13, 11)
        seen, kept = self.seen(*written)
        assert kept == written
        assert seen.complete
        assert seen.tallies == {"succeeded": 4}
        assert seen.usage == {"input_tokens": 8}
        seen.check_counts({"succeeded": 4})

    def test_takes_the_first_row_of_several(self) -> None:
        written = [*self.lines(10), *self.lines(10, outcome="expired"), *self.lines(11, 12, 13)]
        seen, kept = self.seen(*written)
        assert kept == [written[0], *written[2:]]
        assert seen.tallies == {"succeeded": 4}
        assert seen.duplicates == 1
        seen.check_counts({"succeeded": 4})

    @pytest.mark.parametrize("index", [9, 14, 0, 10**9])
    def test_takes_no_row_of_the_jobs_other_batches(self, index: int) -> None:
        seen, kept = self.seen(*self.lines(index))
        assert kept == []
        assert seen.foreign == 1

    @pytest.mark.parametrize("custom_id", ["review-17", "", wire_id("f" * 16, 10), f"cbt-{NONCE}-010", f"cbt-{NONCE}-"])
    def test_takes_no_row_of_others(self, custom_id: str) -> None:
        seen, kept = self.seen(line(custom_id, type="succeeded"))
        assert kept == []
        assert seen.all_foreign

    def test_of_somebody_elses_batch_means_that_nothing_in_it_is_ours(self) -> None:
        assert not self.seen()[0].all_foreign
        assert not self.seen(line("x", type="expired"), *self.lines(10))[0].all_foreign
        assert self.seen(line("x", type="expired"), line("y", type="expired"))[0].all_foreign

    @pytest.mark.parametrize("indexes", [(), (10,), (10, 11, 12), (10, 10, 10, 10)])
    def test_is_missing_something(self, indexes: tuple[int, ...]) -> None:
        seen, _ = self.seen(*self.lines(*indexes))
        assert not seen.complete
        with pytest.raises(ResultsIncomplete, match=f"{len(set(indexes))} of 4 results"):
            seen.check_counts({"succeeded": 4})

    def test_is_in_doubt_after_an_unreadable_line(self) -> None:
        written = self.lines(10, 11, 12, 13)
        seen, kept = self.seen(*written[:2], b"<html>", *written[2:])
        assert kept == written
        with pytest.raises(ResultsIncomplete, match="1 unreadable"):
            seen.check_counts({"succeeded": 4})

    def test_is_in_doubt_when_the_batch_counts_otherwise(self) -> None:
        seen, _ = self.seen(*self.lines(10, 11, 12, 13))
        with pytest.raises(ResultsIncomplete, match="the batch says"):
            seen.check_counts({"succeeded": 3, "expired": 1})

    @pytest.mark.parametrize("counts", [{}, {"processing": 4}, {"succeeded": 0, "errored": 0}])
    def test_is_not_compared_with_counts_that_say_nothing(self, counts: dict[str, int]) -> None:
        self.seen(*self.lines(10, 11, 12, 13))[0].check_counts(counts)

    def test_is_not_compared_when_an_outcome_is_unknown(self) -> None:
        seen, kept = self.seen(*self.lines(10, 11, 12), line_of(13, "paused"))
        assert len(kept) == 4
        assert seen.tallies == {"succeeded": 3, "errored": 1}
        seen.check_counts({"succeeded": 3, "paused": 1})

    def test_knows_what_deserves_another_chance(self) -> None:
        overloaded, invalid = (
            {"error": {"type": "error", "error": {"type": kind}}}
            for kind in ("overloaded_error", "invalid_request_error")
        )
        seen, _ = self.seen(
            line_of(13, "expired"), line_of(11, "errored", **invalid), line_of(10, "errored", **overloaded), line_of(12)
        )
        assert list(seen.judged.eligible) == [3, 0]
        assert seen.judged.open == {"expired": 1, "errored": 1}
        assert seen.stopped is None

    def test_takes_one_that_only_sounds_like_it_for_somebodys_words(self) -> None:
        """A bad request may quote a prompt; that many do so in the same way is no accident."""
        error = {"type": "error", "error": {"type": "invalid_request_error", "message": "about my credit balance"}}
        assert self.seen(line_of(10, "errored", error=error), line_of(11))[0].stopped is None

    @pytest.mark.parametrize(
        ("error_type", "message", "stopped"),
        [
            ("invalid_request_error", "Your credit balance is too low to access the Anthropic API.", True),
            ("billing_error", "There is an issue with your organization's billing.", True),
            ("billing_error", None, True),
            ("authentication_error", "invalid x-api-key", True),
            ("invalid_request_error", "messages: the balance of your credits", False),
            ("overloaded_error", None, False),
        ],
    )
    def test_knows_what_stops_the_account(self, error_type: str, message: str | None, stopped: bool) -> None:
        error = {"type": "error", "error": {"type": error_type, **({"message": message} if message else {})}}
        later = {"type": "error", "error": {"type": "billing_error", "message": "the second"}}
        seen, kept = self.seen(line_of(13, error=error), *(line_of(n, "errored", error=error) for n in (10, 11)))
        assert seen.stopped == (f"{error_type}: {message}" if stopped else None)
        assert len(kept) == 3
        seen, _ = self.seen(
            *(line_of(n, "errored", error=error) for n in (10, 11)), line_of(12, "errored", error=later)
        )
        assert seen.stopped == (f"{error_type}: {message}" if stopped else "billing_error: the second")
        assert self.seen(line_of(9, "errored", error=later), line_of(10))[0].stopped is None, "of another batch"

    def test_knows_in_which_piece_a_row_is(self) -> None:
        seen = Completeness(NONCE, 10, 5)
        long = {"message": {"content": "x" * 600_000}}
        file = [line_of(index, **long) + b"\n" for index in (12, 10, 99, 13, 11)]
        pieces = list(seen.keep_rows(file))
        assert [wire_id(NONCE, 10 + place).encode() in pieces[seen.pieces[place]] for place in range(4)] == [True] * 4
        assert seen.pieces[4] == completeness.MISSING
        assert len(pieces) > 1

    def test_adds_up_what_the_answers_cost(self) -> None:
        haiku, cached = {"input_tokens": 1_000_000}, {"cache_creation_input_tokens": 1_000_000}
        messages = [
            {"model": "claude-haiku-4-5", "usage": haiku},
            {"model": "claude-haiku-4-5", "usage": {**cached, "cache_read_input_tokens": 1_000_000}},
            {"model": "mine", "usage": {"input_tokens": 1_000_000, "output_tokens": 0}},
            {"model": "claude-haiku-4-5", "usage": {**haiku, "cache_creation": "odd"}},
        ]
        lines = [line_of(10 + n, message=message) for n, message in enumerate(messages)]
        lines += [line_of(10, message=messages[0]), line_of(99, message=messages[0])]  # repeated, and another's
        seen = Completeness(NONCE, 10, 4, prices=Prices({"mine": {"input_mtok": 4, "output_mtok": 8}}))
        list(seen.keep_rows([b"\n".join(lines)]))
        found = {model: Decimal(cost or 0) for model, cost in seen.meter.sum_costs().items()}
        assert found == {"claude-haiku-4-5": (2 + Decimal("1.25") + Decimal("0.1")) / 2, "mine": 2}
        assert seen.usage == {
            "input_tokens": 3_000_000, "cache_creation_input_tokens": 1_000_000, "cache_read_input_tokens": 1_000_000,
        }  # fmt: skip

    @pytest.mark.parametrize(
        "message", [None, {}, {"model": "claude-haiku-4-5"}, {"usage": {"input_tokens": 1}}, "odd"]
    )
    def test_does_not_know_the_cost_of_what_does_not_say_enough(self, message: Any) -> None:
        seen, _ = self.seen(line_of(10, message=message), line_of(11, "expired"))
        assert seen.meter.sum_costs() == {"unknown": None}
        assert self.seen(line_of(11, "expired"), line_of(12, "errored"))[0].meter.sum_costs() == {}

    @given(st.lists(st.one_of(st.integers(0, 40), st.sampled_from([b"rubbish", b"", b" \r"])), max_size=80))
    def test_counts_every_row_once(self, written: list[Any]) -> None:
        indexes = [index for index in written if isinstance(index, int)]
        seen, kept = self.seen(*(w if isinstance(w, bytes) else line_of(w) for w in written), first=3, count=30)
        mine = {index for index in indexes if 3 <= index < 33}
        assert sorted(kept) == sorted(line_of(index) for index in mine)
        assert {place + 3 for place in range(30) if seen.pieces[place] == 0} == mine
        assert seen.distinct + seen.duplicates + seen.foreign == len(indexes)
        assert seen.broken == written.count(b"rubbish")
        assert seen.complete == (len(mine) == 30)


class TestOddRows:
    """Of a batch's own file: each is counted as what it is, and stops none of the others."""

    def seen(self, *written: bytes, count: int | None = None) -> tuple[Completeness, list[bytes]]:
        seen = Completeness(NONCE, 0, len(written) if count is None else count)
        kept = b"\n".join(seen.keep_rows([b"".join(line + b"\n" for line in written)]))
        return seen, kept.split(b"\n") if kept else []

    def raw(self, index: int, result: bytes) -> bytes:
        return b'{"custom_id":"%s","result":%s}' % (wire_id(NONCE, index).encode(), result)

    @pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
    def test_are_answers_with_their_usage_and_model(self, odd: Odd) -> None:
        written = [line_of(0), self.raw(1, succeeded(odd.json)), line_of(2)]
        seen, kept = self.seen(*written)
        assert kept == written
        seen.check_counts({"succeeded": 3})
        assert seen.usage == {"input_tokens": 10, "output_tokens": 5}
        assert set(seen.meter.sum_costs()) == {"claude-haiku-4-5", "unknown"}

    @pytest.mark.parametrize("name", RESULTS)
    def test_are_counted_by_their_type_and_by_their_errors(self, name: str) -> None:
        odd = RESULTS[name]
        seen, kept = self.seen(line_of(0), self.raw(1, odd.json), line_of(2))
        assert len(kept) == 3
        assert seen.tallies == Counter(succeeded=2) + Counter([odd.type])
        passing = odd.type == "expired" or odd.error_type == "overloaded_error"
        assert list(seen.judged.eligible) == ([1] if passing else [])
        assert (seen.unreadable, seen.broken) == (name in UNREADABLE, 0)
        for record in (dict(seen.usage), seen.meter.sum_costs(), seen.stopped):
            assert len(msgspec.json.encode(record)) < 1_000

    @pytest.mark.parametrize("name", UNREADABLE)
    def test_are_in_doubt_while_they_are_not_json(self, name: str) -> None:
        """The file is downloaded again; what is there every time is believed."""
        seen, _ = self.seen(line_of(0), self.raw(1, RESULTS[name].json), line_of(2))
        assert seen.complete
        with pytest.raises(ResultsIncomplete, match=r"3 of 3 results .* 1 unreadable lines"):
            seen.check_counts({"succeeded": 3})

    def test_are_not_made_of_lines_that_may_have_been_cut_off(self) -> None:
        whole = line_of(1, message={"content": [{"text": "{}"}]})
        for end in range(len(whole)):
            seen = Completeness(NONCE, 0, 2)
            list(seen.keep_rows([line_of(0) + b"\n" + whole[:end]]))
            assert (seen.distinct, seen.broken) == (1, bool(end))

    def test_are_not_made_of_lines_of_others(self) -> None:
        cut = b'{"custom_id":"another","result":{"x" 1}}'
        seen, kept = self.seen(line_of(0), cut, b'{"custom_id":"%s' % wire_id(NONCE, 1).encode(), count=2)
        assert (kept, seen.broken, seen.unreadable) == ([line_of(0)], 2, 0)

    def test_say_why_all_was_stopped_in_few_words(self) -> None:
        message = "Your credit balance is too low \ud83d" + "x" * 100_000
        error = {"type": "error", "error": {"type": "billing_error", "message": message}}
        seen, _ = self.seen(line_of(0, "errored", error=error))
        assert seen.stopped is not None
        assert seen.stopped.startswith("billing_error: Your credit balance is too low ?xxx")
        assert len(seen.stopped) < 600


class TestCompletenessOfALaterRound:
    """Of a smaller batch, which holds some of the requests."""

    FIRST = round_nonce(NONCE, 1)

    def seen(self, *written: bytes) -> Completeness:
        seen = Completeness(self.FIRST, 10, 6, places=[1, 4, 5])
        list(seen.keep_rows([b"\n".join(written)]))
        return seen

    def line_of(self, place: int, outcome: str = "succeeded", round_: int = 1) -> bytes:
        return line(wire_id(round_nonce(NONCE, round_), 10 + place), type=outcome)

    def test_is_reached_with_the_requests_that_it_holds(self) -> None:
        seen = self.seen(self.line_of(5), self.line_of(1, "expired"), self.line_of(4))
        assert seen.complete
        assert list(seen.pieces) == [completeness.MISSING, 0, completeness.MISSING, completeness.MISSING, 0, 0]
        assert list(seen.judged.eligible) == [1]
        seen.check_counts({"succeeded": 2, "expired": 1})

    @pytest.mark.parametrize(("place", "round_"), [(0, 1), (2, 1), (6, 1), (-1, 1), (1, 0), (1, 2), (1, 11)])
    def test_takes_no_row_of_another_request_or_round(self, place: int, round_: int) -> None:
        seen = self.seen(self.line_of(place, round_=round_))
        assert seen.all_foreign

    @pytest.mark.parametrize("places", [(), (1, 4)])
    def test_is_missing_something(self, places: tuple[int, ...]) -> None:
        seen = self.seen(*(self.line_of(place) for place in places))
        with pytest.raises(ResultsIncomplete, match=f"{len(places)} of 3 results"):
            seen.check_counts({"succeeded": 3})

    def test_is_not_that_of_the_first(self) -> None:
        assert round_nonce(NONCE, 0) == NONCE
        seen = Completeness(NONCE, 1, 10)
        list(seen.keep_rows([self.line_of(-9)]))  # cbt-...-1-1, which must not be read as request 1
        assert seen.all_foreign
