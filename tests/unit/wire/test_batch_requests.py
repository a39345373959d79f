from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import Enum
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from claude_batch_tasks.errors import InvalidRequests
from claude_batch_tasks.wire import batch_requests
from claude_batch_tasks.wire.custom_ids import Index

NONCE = "0123456789abcdef"
ENVELOPE_BYTES = sum(map(len, batch_requests.ENVELOPE))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)
custom_ids = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable() or "\n" in text)
jobs = st.lists(st.tuples(custom_ids, json_values), min_size=1, max_size=25, unique_by=lambda pair: pair[0]).map(
    lambda pairs: [
        {"custom_id": i, "params": {"model": "m", "max_tokens": 1, "messages": [value or "x"]}} for i, value in pairs
    ]
)


def cut(requests: Any, *, max_requests: int = 100_000, max_bytes: int = 256_000_000) -> list[batch_requests.Piece]:
    return list(
        batch_requests.cut_batches(requests, nonce=NONCE, index=Index(), max_requests=max_requests, max_bytes=max_bytes)
    )


def problems_of(requests: Any, **limits: int) -> InvalidRequests:
    with pytest.raises(InvalidRequests) as caught:
        cut(requests, **limits)
    return caught.value


def bodies(pieces: list[batch_requests.Piece]) -> list[bytes]:
    """The body of each batch's create."""
    batches: dict[int, list[bytes]] = {}
    for piece in pieces:
        batches.setdefault(piece.batch, []).append(piece.body)
    assert list(batches) == list(range(len(batches)))
    return [batch_requests.ENVELOPE[0] + b",".join(parts) + batch_requests.ENVELOPE[1] for parts in batches.values()]


class TestCutting:
    @settings(max_examples=15)
    @given(job=jobs, max_requests=st.integers(1, 8), room=st.integers(0, 600))
    def test_keeps_order_ids_and_limits(self, job: list[dict[str, Any]], max_requests: int, room: int) -> None:
        # The longest request just fits, with the room that is left.
        longest = max(len(body) for body in bodies(cut(job, max_requests=1)))
        limit = longest + room
        pieces = cut(job, max_requests=max_requests, max_bytes=limit)
        sent = []
        for body in bodies(pieces):
            assert len(body) <= limit
            requests = json.loads(body)["requests"]
            assert 1 <= len(requests) <= max_requests
            sent += requests
        assert [request["custom_id"] for request in sent] == [batch_requests.wire_id(NONCE, n) for n in range(len(job))]
        assert [request["params"] for request in sent] == [request["params"] for request in job]
        assert [custom_id for piece in pieces for custom_id in piece.custom_ids] == [r["custom_id"] for r in job]

    @settings(max_examples=15)
    @given(job=jobs, max_requests=st.integers(1, 8), room=st.integers(0, 600))
    def test_wastes_no_room(self, job: list[dict[str, Any]], max_requests: int, room: int) -> None:
        limit = max(len(body) for body in bodies(cut(job, max_requests=1))) + room
        cut_up = bodies(cut(job, max_requests=max_requests, max_bytes=limit))
        for body, following in pairwise(cut_up):
            request = json.loads(following)["requests"][0]
            first = len(json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode())
            assert len(json.loads(body)["requests"]) == max_requests or len(body) + 1 + first > limit

    def test_fills_a_batch_to_the_very_byte(self, make_request: Any) -> None:
        job = [make_request(str(n)) for n in range(3)]
        exact = len(bodies(cut(job))[0])
        assert len(bodies(cut(job, max_bytes=exact))) == 1
        assert [len(json.loads(body)["requests"]) for body in bodies(cut(job, max_bytes=exact - 1))] == [2, 1]

    @pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (3, [3]), (4, [3, 1]), (9, [3, 3, 3]), (10, [3, 3, 3, 1])])
    def test_fills_a_batch_to_the_last_request(self, make_request: Any, count: int, sizes: list[int]) -> None:
        job = [make_request(str(n)) for n in range(count)]
        assert [len(json.loads(body)["requests"]) for body in bodies(cut(job, max_requests=3))] == sizes

    def test_makes_pieces_of_about_a_megabyte(self, make_request: Any) -> None:
        job = (make_request(str(n), text="x" * 300_000) for n in range(10))
        pieces = cut(job)
        assert [len(piece.custom_ids) for piece in pieces] == [3, 3, 3, 1]
        assert {piece.batch for piece in pieces} == {0}
        assert all(len(piece.body) <= 1_000_000 for piece in pieces)

    def test_puts_a_request_larger_than_a_piece_into_one_of_its_own(self, make_request: Any) -> None:
        job = [make_request("a"), make_request("b", text="x" * 2_000_000), make_request("c")]
        assert [piece.custom_ids for piece in cut(job)] == [["a"], ["b"], ["c"]]

    def test_holds_no_more_than_a_piece(self, make_request: Any) -> None:
        taken = 0

        def endless() -> Iterator[dict[str, Any]]:
            nonlocal taken
            while True:
                taken += 1
                yield make_request(str(taken), text="x" * 400_000)

        pieces = batch_requests.cut_batches(
            endless(), nonce=NONCE, index=Index(), max_requests=100_000, max_bytes=256_000_000
        )
        next(pieces)
        assert taken == 3

    def test_takes_a_mapping_of_custom_id_to_params(self, make_request: Any) -> None:
        request = make_request("a")
        assert cut({"a": request["params"]}) == cut([request])

    def test_takes_the_sdks_own_objects_in_params(self, make_request: Any) -> None:
        from anthropic.types import TextBlock

        block = TextBlock(type="text", text="earlier", citations=None)
        [body] = bodies(cut([make_request(messages=[{"role": "assistant", "content": [block]}])]))
        content = json.loads(body)["requests"][0]["params"]["messages"][0]["content"]
        assert content == [{"type": "text", "text": "earlier", "citations": None}]

    @pytest.mark.parametrize("text", ["\u2028\u2029\x85", "\x00\x1f\x7f", "😀 ü ß", '"\\', "</script>"])
    def test_carries_any_text(self, make_request: Any, text: str) -> None:
        pieces = cut([make_request(text, text=text)])
        assert pieces[0].custom_ids == [text]
        assert json.loads(bodies(pieces)[0])["requests"][0]["params"]["messages"][0]["content"] == text

    @settings(max_examples=15)
    @given(job=jobs, data=st.data())
    def test_lets_single_params_be_picked_out_again(self, job: list[dict[str, Any]], data: st.DataObject) -> None:
        [piece] = cut(job)
        places = data.draw(st.lists(st.integers(0, len(job) - 1), max_size=5))
        assert [json.loads(params) for params in batch_requests.pick_requests(piece.body, places)] == [
            job[n]["params"] for n in places
        ]


class TestTextsOfOtherClasses:
    def test_are_custom_ids_too(self, make_request: Any) -> None:
        class SafeString(str):
            __slots__ = ()

            def __str__(self) -> str:
                return "something else"

        class Named(str, Enum):
            A = "a"

        [piece] = cut([make_request(SafeString("safe")), make_request(Named.A)])
        assert [(custom_id, type(custom_id)) for custom_id in piece.custom_ids] == [("safe", str), ("a", str)]

    def test_are_no_reason_to_take_an_array_for_messages(self, make_request: Any) -> None:
        class Array:
            def __bool__(self) -> bool:
                raise ValueError("the truth value of an array is ambiguous")

        with pytest.raises(InvalidRequests, match=r"params.messages \(custom_id 'a'\) is an Array, which has no"):
            cut([make_request(messages=Array())])


class TestWhatIsWrong:
    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"model": ...}, "params.model"),
            ({"model": ""}, "params.model"),
            ({"max_tokens": ...}, "params.max_tokens"),
            ({"max_tokens": 0}, "params.max_tokens"),
            ({"max_tokens": -1}, "params.max_tokens"),
            ({"max_tokens": True}, "params.max_tokens"),
            ({"max_tokens": 1.5}, "params.max_tokens"),
            ({"max_tokens": "16"}, "params.max_tokens"),
            ({"messages": ...}, "params.messages"),
            ({"messages": []}, "params.messages"),
            ({"stream": True}, "params.stream"),
            ({"temperature": float("nan")}, "params.temperature"),
            ({"temperature": float("inf")}, "params.temperature"),
            ({"system": b"bytes"}, "params.system"),
            ({"system": object()}, "params.system"),
            ({"system": "\ud800"}, "params.system"),
            ({"model": 5}, "params.model"),
            ({"messages": "hello"}, "params.messages"),
            ({"messages": {"role": "user", "content": "hello"}}, "params.messages"),
            ({"custom_id": None}, "custom_id"),
            ({"custom_id": ""}, "custom_id"),
            ({"custom_id": 17}, "custom_id"),
            ({"custom_id": "x" * 513}, "custom_id"),
            ({"custom_id": "\udcff"}, "custom_id"),
        ],
    )
    def test_is_named_by_its_field(self, make_request: Any, change: dict[str, Any], field: str) -> None:
        error = problems_of([make_request("fine"), make_request(**{"custom_id": "bad", **change})])
        assert [(index, name) for index, _, name, _ in error.problems] == [(1, field)]
        assert error.more == 0

    @pytest.mark.parametrize("change", [{"stream": False}, {"custom_id": "x" * 512}, {"max_tokens": 10**9}])
    def test_is_not_what_the_api_takes(self, make_request: Any, change: dict[str, Any]) -> None:
        assert cut([make_request(**{"custom_id": "a", **change})])

    def test_is_a_value_that_contains_itself(self, make_request: Any) -> None:
        loop: list[Any] = []
        loop.append(loop)
        assert problems_of([make_request(messages=loop)]).problems[0][2] == "params.messages[0]"

    def test_is_a_value_that_is_nested_too_deeply(self, make_request: Any) -> None:
        deep: Any = "x"
        for _ in range(20_000):
            deep = [deep]
        assert problems_of([make_request(messages=deep)]).problems == [[0, "a", "params", "is nested too deeply"]]

    @pytest.mark.parametrize("request_", ["text", 17, None, ["custom_id", "params"]])
    def test_is_a_request_that_is_no_object(self, request_: Any) -> None:
        assert problems_of([request_]).problems[0][:3] == [0, None, "request"]

    def test_is_a_field_the_api_does_not_know(self, make_request: Any) -> None:
        assert problems_of([{**make_request(), "metadata": {}}]).problems[0][2] == "metadata"

    @pytest.mark.parametrize(("params", "text"), [(None, "is missing"), ("x", "must be an object, not str")])
    def test_is_a_request_without_params(self, params: Any, text: str) -> None:
        assert problems_of([{"custom_id": "a", "params": params}]).problems == [[0, "a", "params", text]]

    @pytest.mark.parametrize("empty", [[], {}, (), iter(())])
    def test_is_an_empty_job(self, empty: Any) -> None:
        assert "the job is empty" in str(problems_of(empty))

    @pytest.mark.parametrize("requests", [None, 17, "text", b"bytes", object()])
    def test_is_something_that_holds_no_requests(self, requests: Any) -> None:
        assert type(requests).__name__ in str(problems_of(requests))

    def test_is_a_custom_id_that_occurs_twice(self, make_request: Any) -> None:
        error = problems_of([make_request("a"), make_request("b"), make_request("a")])
        assert error.problems == [[2, "a", "custom_id", "occurs more than once"]]

    def test_is_one_request_over_the_byte_limit(self, make_request: Any) -> None:
        fine = make_request("a")
        limit = len(bodies(cut([fine]))[0])
        error = problems_of([fine, make_request("b", text="hello!")], max_bytes=limit)
        assert [problem[:3] for problem in error.problems] == [[1, "b", "params"]]
        assert f"at most {limit - ENVELOPE_BYTES:,}" in str(error)

    def test_is_reported_all_at_once_the_first_twenty_in_full(self, make_request: Any) -> None:
        job = [make_request(str(n), max_tokens=0 if n % 2 else 1) for n in range(100)]
        error = problems_of(job)
        assert [problem[0] for problem in error.problems] == list(range(1, 41, 2))
        assert error.more == 30
        assert str(error).startswith("50 problem(s) in the requests; nothing was stored or sent:")
        assert str(error).endswith("and 30 more")
        assert "requests[1].params.max_tokens (custom_id '1') must be" in str(error)

    def test_is_reported_several_times_for_one_request(self) -> None:
        fields = {problem[2] for problem in problems_of([{"custom_id": "a", "params": {"stream": True}}]).problems}
        assert fields == {"params.model", "params.max_tokens", "params.messages", "params.stream"}

    def test_does_not_repeat_a_prompt(self, make_request: Any) -> None:
        error = problems_of([make_request(text="SECRET", system="SECRET\ud800", max_tokens=0, stop=b"SECRET")])
        assert "SECRET" not in str(error) + repr(error.args)

    def test_is_not_a_duplicate_if_only_the_beginning_is_the_same(self, make_request: Any) -> None:
        error = problems_of([make_request("x" * 600 + "1"), make_request("x" * 600 + "2")])
        assert "more than once" not in str(error)

    def test_can_always_be_printed(self, make_request: Any) -> None:
        assert str(problems_of([make_request("\ud800" * 600)])).encode()


class TestWireIds:
    nonces = st.from_regex(r"[0-9a-f]{16}", fullmatch=True)

    @given(nonce=nonces, index=st.integers(0, 10**12))
    def test_come_back_as_the_index(self, nonce: str, index: int) -> None:
        assert batch_requests.index_of(nonce, batch_requests.wire_id(nonce, index)) == index

    @given(nonce=nonces, index=st.integers(0, 10**12))
    def test_are_what_anthropic_takes(self, nonce: str, index: int) -> None:
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", batch_requests.wire_id(nonce, index))

    @given(mine=nonces, other=nonces, index=st.integers(0, 10**6))
    def test_of_another_job_are_not_ours(self, mine: str, other: str, index: int) -> None:
        assert mine == other or batch_requests.index_of(mine, batch_requests.wire_id(other, index)) is None

    @given(text=st.text(max_size=40) | st.text(max_size=6).map(lambda tail: f"cbt-{NONCE}-{tail}"))
    def test_of_ours_have_one_spelling_only(self, text: str) -> None:
        index = batch_requests.index_of(NONCE, text)
        assert index is None or batch_requests.wire_id(NONCE, index) == text

    @pytest.mark.parametrize(
        "tail", ["", "-1", "+1", "01", "1 ", " 1", "1_0", "1.0", "\u0661", "\uff11", "1\n", "x", "\u00b2", "0x1"]
    )
    def test_that_are_nearly_ours_are_foreign(self, tail: str) -> None:
        assert batch_requests.index_of(NONCE, f"cbt-{NONCE}-{tail}") is None

    @pytest.mark.parametrize("text", ["", "cbt", f"cbt-{NONCE}", f"CBT-{NONCE}-1", f"xcbt-{NONCE}-1", "review-17"])
    def test_of_somebody_else_are_foreign(self, text: str) -> None:
        assert batch_requests.index_of(NONCE, text) is None
