"""JSON read and written whatever it holds."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given, strategies as st

from claude_batch_tasks.wire import lenient_json
from tests.odd_answers import ODD, Odd, nested

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)

NOT_JSON = [
    "", " ", "[", "]", "{", "[1", "[1,", "[1,]", "[,]", "[1 2]", '{"a"', '{"a":', '{"a":}', '{"a" 1}', '{"a":1,}',
    "{1:2}", '{"a":1}}', "[[]", "[[]]]", "1 2", '"a', '"a\\"', "{a:1}", '["a', "[}", '{"a":[}]', "<html>", "\x0c1",
    "[1}", '{"a":1]', nested(200).decode() + "]", nested(200).decode()[:-1],
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
class TestAnOddValue:
    def test_is_read(self, odd: Odd) -> None:
        found, note = lenient_json.read_json(b'{"n":%s}' % odd.json)
        assert odd.is_right(found["n"])
        assert (odd.noted in (note or "")) if odd.noted else note is None

    def test_is_written_as_it_came(self, odd: Odd) -> None:
        data = b'{"n":%s}' % odd.json
        written = lenient_json.encode_json(lenient_json.loads(data))
        assert str(lenient_json.read_json(written)) == str(
            (lenient_json.read_json(data)[0], lenient_json.read_json(written)[1])
        )
        again = lenient_json.encode_json(lenient_json.loads(written))
        assert again == written

    def test_is_strict_json_in_an_export(self, odd: Odd) -> None:
        found, note = lenient_json.strict_member(b'{"x":01,"n":%s}' % odd.json, "n")
        assert b"\n" not in found
        found.decode()
        assert note is not None  # of x
        again, note = lenient_json.strict_member(b'{"n":%s}' % found, "n")
        assert (again, note) == (found, None)
        if odd.legal and "twice" not in odd.noted and len(odd.json) < 100:
            assert lenient_json.read_json(found)[0] == lenient_json.read_json(odd.json)[0]


class TestAText:
    @given(plain)
    def test_that_is_json_is_read_as_by_others(self, value: Any) -> None:
        for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
            assert lenient_json._parse_text(text, lambda kind, word: lenient_json._convert_number(word)) == value
            assert (
                json.loads(lenient_json.encode_json(lenient_json._parse_text(text, lenient_json._keep_unchanged)))
                == value
            )

    @pytest.mark.parametrize("text", NOT_JSON)
    def test_that_is_not_json_is_a_value_error(self, text: str) -> None:
        for function in (lenient_json.read_json, lenient_json.loads):
            for data in (text, text.encode()):
                with pytest.raises(ValueError):  # noqa: PT011 - the documented class
                    function(data)

    @given(st.text('[]{}",:\\x1 \n') | st.binary(max_size=30))
    def test_of_rubbish_is_a_value_or_a_value_error(self, data: Any) -> None:
        for function in (lenient_json.read_json, lenient_json.loads):
            try:
                function(data)
            except ValueError:
                continue

    def test_may_be_an_integer_of_more_digits_than_the_application_allows(self) -> None:
        before = sys.get_int_max_str_digits()
        sys.set_int_max_str_digits(700)
        try:
            found, _ = lenient_json.read_json(b'[NaN,%s,"x",%s]' % (b"7" * 701, b"7" * 700))
        finally:
            sys.set_int_max_str_digits(before)
        assert (found[1], found[3]) == ("7" * 701, int("7" * 700))

    def test_is_read_near_the_end_of_the_stack(self) -> None:
        def deep(levels: int) -> Any:
            return deep(levels - 1) if levels else lenient_json.read_json(b'{"n":%s}' % nested(900))

        found, _ = deep(sys.getrecursionlimit() - 200)
        assert set(found) == {"n"}

    def test_takes_the_last_of_names_that_are_there_twice_like_everybody(self) -> None:
        assert lenient_json.read_json(b'{"a":1,"b":NaN,"a":2}')[0]["a"] == 2

    def test_has_notes_of_bounded_length(self) -> None:
        many = b",".join(b"1" * (5_000 + n) for n in range(50))
        _, note = lenient_json.read_json(b"[%s]" % many)
        assert note is not None
        assert len(note) < 1_000


def test_a_member_that_is_not_there_is_a_value_error() -> None:
    for data in (b"[NaN]", b'{"a":1}', b"7"):
        with pytest.raises(ValueError, match="no JSON object with 'n'"):
            lenient_json.strict_member(data, "n")


def test_a_raw_part_with_half_a_surrogate_pair_is_escaped() -> None:
    assert lenient_json.encode_json({"a": lenient_json.Raw('"\ud83d"')}) == rb'{"a":"\ud83d"}'
