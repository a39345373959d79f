"""Messages put together from the events they are streamed as."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import DecodeError

from claude_batch_tasks.api import server_sent_events
from claude_batch_tasks.api.server_sent_events import Message, read_events
from claude_batch_tasks.wire import lenient_json
from tests import odd_answers
from tests.adversarial.server import Streaming
from tests.odd_answers import ODD, Odd

START: dict[str, Any] = {
    "type": "message_start",
    "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": {"input_tokens": 25, "output_tokens": 1, "service_tier": "standard"},
    },
}  # fmt: skip
END: list[dict[str, Any]] = [
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}},
    {"type": "message_stop"},
]
CITED = [{"type": "char_location", "cited_text": "a", "document_index": n} for n in range(3)]
WHOLE: dict[str, Any] = {
    **START["message"],
    "content": [
        {"type": "thinking", "thinking": "So, 😀 and on.", "signature": "EqQBCgIYAhIM"},
        {"type": "redacted_thinking", "data": "xxx"},
        {"type": "text", "text": "A long enough answer, ü\u2028.", "citations": CITED},
        {"type": "tool_use", "id": "t1", "name": "look", "input": {"deep": [1, {"ü": "\ud800"}], "n": 1e2}},
        {"type": "tool_use", "id": "t2", "name": "now", "input": {}},
        {"type": "a_block_of_next_year", "x": [1]},
        {"type": "text", "text": ""},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 25, "output_tokens": 70, "cache_read_input_tokens": 9, "service_tier": "standard"},
}


def block(index: int, kind: str, *deltas: dict[str, Any], **own: Any) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": {"type": kind, **own}},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def message(*events: Any) -> Message:
    made = Message()
    for event in events:
        made.add_event(event)
    return made


def whole(*events: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(message(*events).encode_message())
    return found


def content(*events: Any) -> Any:
    return whole(START, *events, *END)["content"]


class TestAMessage:
    @pytest.mark.parametrize(
        "streaming",
        [Streaming(), Streaming(piece=1), Streaming(piece=1000, pings=0), Streaming(unknown=True, deltas=3, pings=4)],
    )
    def test_is_what_it_would_have_been_in_one_piece(self, streaming: Streaming) -> None:
        assert whole(*streaming.events(WHOLE, {}, "")) == WHOLE

    def test_is_its_blocks_in_their_order_however_they_come(self) -> None:
        first, second = block(0, "text", text="a"), block(1, "text", {"type": "text_delta", "text": "c"}, text="b")
        mixed = [second[0], first[0], second[1], first[1], second[2]]
        assert content(*mixed) == [{"type": "text", "text": "a"}, {"type": "text", "text": "bc"}]
        assert content() == []

    def test_keeps_what_nobody_knows_yet(self) -> None:
        delta = {"type": "hologram_delta", "shape": "cube", "size": [1]}
        assert content(*block(0, "hologram", delta, id="h")) == [
            {"type": "hologram", "id": "h", "shape": "cube", "size": [1]}
        ]
        last = {
            "type": "message_delta",
            "delta": {"stop_reason": "x", "container": {"id": "c"}},
            "management": {"n": 1},
        }
        found = whole(START, last, END[-1])
        assert (found["stop_reason"], found["container"], found["management"]) == ("x", {"id": "c"}, {"n": 1})

    @pytest.mark.parametrize("odd", [{"type": "ping"}, {"type": "hologram", "index": 9}, {}, None, "text", 7, []])
    def test_is_not_made_of_other_events(self, odd: Any) -> None:
        assert whole(odd, START, odd, *END, odd) == whole(START, *END)

    def test_has_the_usage_of_its_last_event_over_that_of_its_first(self) -> None:
        deltas: list[Any] = [
            {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 5, "input_tokens": None}},
            {"type": "message_delta", "delta": None, "usage": None},
            {"type": "message_delta", "usage": {"output_tokens": 9, "cache_read_input_tokens": 0}},
        ]
        usage = whole(START, *deltas, END[-1])["usage"]
        assert usage == {
            "input_tokens": 25, "output_tokens": 9, "cache_read_input_tokens": 0, "service_tier": "standard",
        }  # fmt: skip
        assert whole({"type": "message_start", "message": {"id": "m"}}, *END)["usage"] == {"output_tokens": 15}

    def test_leaves_the_events_as_they_were(self) -> None:
        events = [START, *block(0, "text", {"type": "text_delta", "text": "a"}, text=""), *END]
        before = json.dumps(events)
        whole(*events)
        assert json.dumps(events) == before


class TestABlock:
    def test_has_texts_where_there_was_nothing(self) -> None:
        deltas = [{"type": "thinking_delta", "thinking": "a"}, {"type": "signature_delta", "signature": "s"}]
        [found] = content(*block(0, "thinking", *deltas, thinking=None))
        assert found == {"type": "thinking", "thinking": "a", "signature": "s"}

    @pytest.mark.parametrize(
        ("pieces", "value"), [(["", '{"a"', ':[1,"', 'x"]}'], {"a": [1, "x"]}), ([""], {}), (['{"a":1}'], {"a": 1})]
    )
    def test_of_a_tool_has_its_input_from_pieces_of_json(self, pieces: list[str], value: Any) -> None:
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        assert content(*block(0, "tool_use", *deltas, id="t", input={})) == [
            {"type": "tool_use", "id": "t", "input": value}
        ]

    def test_of_a_tool_keeps_what_there_is_of_its_input_where_max_tokens_cut_it_off(self) -> None:
        delta = {"type": "input_json_delta", "partial_json": '{"a":[1,{"b":2}],"c":"on'}
        assert content(*block(0, "tool_use", delta, input={}))[0]["input"]["a"] == [1, {"b": 2}]

    @pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
    @pytest.mark.parametrize("sent", [odd_answers.events, odd_answers.events_with_a_whole_block])
    def test_may_hold_whatever_json_may(self, odd: Odd, sent: Callable[[bytes], list[bytes]]) -> None:
        made = Message()
        for _, data in server_sent_events.read_events(sent(odd.json)):
            made.add_event(lenient_json.loads(data))
        found, note = lenient_json.read_json(made.encode_message())
        if odd.noted in ("UTF-8", "escape"):  # what it is given as is JSON
            odd = odd._replace(noted="")
        odd_answers.check(odd, found, note)
        if "digits" in odd.noted or "nested" in odd.noted:
            assert odd.json in made.encode_message()

    @pytest.mark.parametrize(
        "text", ['{"a" 1}', "{'a':1}", "not JSON", '{"a":1}}', '{"a":"x"} and more', '[1,"\ud83d"}', '{"a":"b}"c"']
    )
    def test_of_a_tool_keeps_an_input_that_is_not_json_as_text(self, text: str) -> None:
        delta = {"type": "input_json_delta", "partial_json": text}
        assert content(*block(0, "tool_use", delta, input={}))[0]["input"] == {"INVALID_JSON": text}

    def test_of_a_tool_keeps_what_there_is_of_an_input_that_nothing_holds(self) -> None:
        text = f'{{"a":1,"b":{odd_answers.DIGITS},"c":[1,'
        delta = {"type": "input_json_delta", "partial_json": text}
        found = content(*block(0, "tool_use", delta, input={}))[0]["input"]
        assert odd_answers.DIGITS in str(found)

    @pytest.mark.parametrize("deltas", [[], [{"type": "input_json_delta", "partial_json": ""}]])
    def test_of_a_tool_keeps_the_input_it_began_with(self, deltas: list[Any]) -> None:
        assert content(*block(0, "server_tool_use", *deltas, input={"query": "x"}))[0]["input"] == {"query": "x"}

    def test_has_citations_where_there_were_none(self) -> None:
        deltas = [{"type": "citations_delta", "citation": citation} for citation in CITED[:2]]
        assert content(*block(0, "text", *deltas, text="", citations=None))[0]["citations"] == CITED[:2]

    def test_of_a_tool_keeps_what_is_no_json_at_all(self) -> None:
        delta = {"type": "input_json_delta", "partial_json": "I would rather not"}
        assert content(*block(0, "tool_use", delta, input={}))[0]["input"] == {"INVALID_JSON": "I would rather not"}


def started(message_id: str | None, **own: Any) -> dict[str, Any]:
    return {**START, "message": {**START["message"], "id": message_id, **own}}


def text(index: int, *parts: str) -> list[dict[str, Any]]:
    return block(index, "text", *({"type": "text_delta", "text": part} for part in parts), text="")


def tool(index: int, *parts: str) -> list[dict[str, Any]]:
    deltas = ({"type": "input_json_delta", "partial_json": part} for part in parts)
    return block(index, "tool_use", *deltas, id="t", name="look", input={})


class TestAStreamOfTwoMessages:
    FIRST = (started("msg_a"), *text(0, "never ", "mixed"), *tool(1, '{"a":', "1")[:-1])
    SECOND = (started("msg_b", model="claude-y"), *text(0, "whole"), *END)

    def test_is_the_second(self) -> None:
        made = message(*self.FIRST, *self.SECOND)
        found = json.loads(made.encode_message())
        assert found["content"] == [{"type": "text", "text": "whole"}]
        assert (found["id"], found["model"], found["usage"]["output_tokens"]) == ("msg_b", "claude-y", 15)
        assert made.dropped == ("msg_a",)

    @pytest.mark.parametrize("events", [FIRST[:1], FIRST[:2], FIRST[:4], FIRST[:6], (*FIRST, END[0])])
    def test_is_the_second_wherever_it_begins(self, events: tuple[Any, ...]) -> None:
        assert whole(*events, *self.SECOND)["content"] == [{"type": "text", "text": "whole"}]

    def test_is_the_third_of_three(self) -> None:
        found = whole(*self.FIRST, *self.SECOND[:2], started("msg_c"), *text(0, "at last"), *END)
        assert (found["id"], found["content"]) == ("msg_c", [{"type": "text", "text": "at last"}])

    def test_is_over_with_the_first_that_is_whole(self) -> None:
        made = message(START, *text(0, "whole"), *END)
        assert made.over

    @pytest.mark.parametrize(
        "rest",
        [
            [*tool(1, "}")[1:], *SECOND[1:]],  # what is left of the first comes after the second's beginning
            [*text(0, "late")[1:2], *SECOND[1:]],
            [*text(0, "late")[2:], *SECOND[1:]],
            [*END],
            [*text(0, "half")[:2], *END],
            [*text(0, "a"), *text(0, "b"), *END],
            [*text(0, "a"), text(0)[-1], *END],
            [*text(1, "no first one"), *END],
        ],
    )
    def test_is_no_message_where_they_may_be_mixed(self, rest: list[Any]) -> None:
        with pytest.raises(DecodeError):
            message(*self.FIRST, self.SECOND[0], *rest).encode_message()

    def test_is_one_where_its_beginning_is_only_repeated(self) -> None:
        """A gateway's own beginning, then the API's, which says more."""
        again = started("msg_1", usage={"input_tokens": 25, "output_tokens": 2, "inference_geo": "us"}, container={})
        for at in (1, 4):
            parts = [START, *text(0, "a", "b"), *END]
            made = message(*parts[:at], again, *parts[at:])
            found = json.loads(made.encode_message())
            assert (found["content"], found["container"]) == ([{"type": "text", "text": "ab"}], {})
            assert found["usage"] == {**START["message"]["usage"], "output_tokens": 15, "inference_geo": "us"}
            assert made.dropped == ()

    def test_is_no_message_where_all_of_it_is_repeated(self) -> None:
        with pytest.raises(DecodeError):
            message(START, *text(0, "a"), START, *text(0, "a"), *END)


class TestABlockThatIsOver:
    def test_does_not_go_on(self) -> None:
        with pytest.raises(DecodeError):
            message(START, *text(0, "a"), text(0, "b")[1])

    def test_does_not_begin_again(self) -> None:
        with pytest.raises(DecodeError):
            message(START, *text(0, "a"), text(0)[0])

    def test_may_be_begun_twice_before_it_has_anything(self) -> None:
        assert content(text(0)[0], *text(0, "a")) == [{"type": "text", "text": "a"}]


class TestAMessageOfAnotherModelThanWasAsked:
    SWITCH = block(1, "fallback", **{"from": {"model": "claude-x"}, "to": {"model": "claude-y"}})

    def test_has_that_model(self) -> None:
        assert whole(START, *text(0, "I will not"), *self.SWITCH, *text(2, "I will"), *END)["model"] == "claude-y"

    def test_has_the_last_one(self) -> None:
        more = block(2, "fallback", **{"from": {"model": "claude-y"}, "to": {"model": "claude-z"}})
        assert whole(START, *text(0, "no"), *self.SWITCH, *more, *text(3, "yes"), *END)["model"] == "claude-z"

    def test_has_that_model_where_only_its_usage_says_so(self) -> None:
        iterations = [{"type": "message", "model": "claude-x"}, {"type": "fallback_message", "model": "claude-y"}]
        last = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 4, "iterations": iterations}}
        assert whole(START, *text(0, "I will"), last, END[1])["model"] == "claude-y"

    @pytest.mark.parametrize("iterations", [None, [], 7, [None], [{"type": "fallback_message"}], [{"type": "message"}]])
    def test_loses_nothing_for_what_cannot_be_read(self, iterations: Any) -> None:
        last = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 4, "iterations": iterations}}
        odd = block(0, "fallback", to="somewhere")
        assert whole(START, *odd, last, END[1])["model"] == "claude-x"


class TestTheEventsOfAStream:
    @pytest.mark.parametrize("size", [1, 3, 1000])
    def test_have_their_names_and_their_data(self, size: int) -> None:
        sent = (
            b": a comment\n\nevent: ping\n\nevent: a\ndata: 1\nid: 7\nretry: 3\n\n\r\ndata:2\r\ndata: 3\r\n\r\n"
            b"data\n\nevent:b\rdata: [DONE]\r\r"
        )
        chunks = [sent[at : at + size] for at in range(0, len(sent), size)]
        assert list(read_events(chunks)) == [("a", b"1"), ("", b"2\n3"), ("", b""), ("b", b"[DONE]")]

    @pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
    @pytest.mark.parametrize("failure", [None, OSError("reset")])
    def test_end_with_one_that_is_there_but_for_its_end(self, end: bytes, failure: Exception | None) -> None:
        def chunks() -> Any:
            yield b'data: {"type":"x"}\n\ndata: {"type":"message_stop"}' + end
            if failure is not None:
                raise failure

        found = []
        with contextlib.suppress(OSError):
            for event in read_events(chunks()):
                found.append(event)
        assert found == [("", b'{"type":"x"}'), ("", b'{"type":"message_stop"}')]

    def test_end_as_their_transport_does(self) -> None:
        def chunks() -> Any:
            yield b'data: {"type":"x"}\n\ndata: {"ty'
            raise OSError("reset")

        seen = read_events(chunks())
        assert next(seen) == ("", b'{"type":"x"}')
        with pytest.raises(OSError, match="reset"):
            next(seen)


class TestAStreamThatBreaks:
    def test_has_begun_with_its_first_event(self) -> None:
        assert not message({"type": "ping"}, *END).begun
        assert message(START).begun

    @pytest.mark.parametrize("how", ["early", "unstopped"])
    def test_off_is_no_message(self, how: str) -> None:
        with pytest.raises(DecodeError, match="ended before"):
            message(*Streaming().events(WHOLE, {}, how)).encode_message()
        with pytest.raises(DecodeError):
            message(*END).encode_message()

    @pytest.mark.parametrize(
        "events",
        [
            [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}],
            block(0, "text", {"type": "text_delta"}, text=""),
            block(0, "text", {"type": "text_delta", "text": None}, text="a"),
            [{"type": "content_block_start", "index": 0}],
            [{"type": "message_delta", "delta": 7}],
        ],
    )
    def test_its_own_rules_is_no_message(self, events: list[Any]) -> None:
        with pytest.raises((DecodeError, LookupError, TypeError, ValueError, AttributeError)):
            message(START, *events, *END).encode_message()
