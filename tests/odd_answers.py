"""Answers that are hard to hold: one table for every reader."""

from __future__ import annotations

import json
import math
import sys
from typing import Any, NamedTuple

DIGITS = "9" * 5_000


class Odd(NamedTuple):
    """A value in the middle of an answer."""

    json: bytes
    read: Any
    """What Python has of it; or a function that says whether it is right."""
    noted: str = ""
    """What its note says; empty: it has none."""
    legal: bool = True
    """It is JSON, so an export has it as it came."""

    def is_right(self, found: Any) -> bool:
        """Whether this is what Python has of it."""
        return bool(self.read(found) if callable(self.read) else found == self.read)


def nested(levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * levels + b"0" * (opening != b"[") + closing * levels


def has_text_at_the_end(value: Any) -> bool:
    while not isinstance(value, str):
        (value,) = value.values() if isinstance(value, dict) else value
    return value[0] in "[{"


def deep(levels: int, *brackets: bytes) -> Odd:
    """A value that Python decodes from 3.14 on, and of which earlier releases have text at its end."""
    if sys.version_info >= (3, 14):
        return Odd(nested(levels, *brackets), lambda value: count_levels(value) == levels)
    return Odd(nested(levels, *brackets), has_text_at_the_end, "nested deeper")


def count_levels(value: Any) -> int:
    levels = 0
    while isinstance(value, (list, dict)):
        levels += 1
        value = next(iter(value.values() if isinstance(value, dict) else value), None)
    return levels


ODD: dict[str, Odd] = {
    "an integer of 5,000 digits": Odd(DIGITS.encode(), DIGITS, "5,000 digits"),
    "a negative one": Odd(f"-{DIGITS}".encode(), f"-{DIGITS}", "digits is given as text"),
    "an integer of 4,300 digits": Odd(b"9" * 4_300, 10**4_300 - 1),
    "an integer of 31 digits": Odd(b"1" + b"0" * 30, 10**30),
    "a fraction of 5,000 digits": Odd(b"1." + b"5" * 5_000, float("1." + "5" * 30)),
    "a number too large for a float": Odd(b"1e999999", math.inf, "infinite"),
    "a number too small for a float": Odd(b"-1e-999999", 0),
    "minus zero": Odd(b"[-0,-0.0,1E5]", [0, 0, 100_000]),
    "a list nested 1,000 levels": deep(1_000),
    "a list nested 200,000 levels": Odd(nested(200_000), has_text_at_the_end, "nested deeper"),
    "an object nested 20,000 levels": deep(20_000, b'{"]\\"":', b"}"),
    "half a surrogate pair": Odd(rb'"\ud83d"', "\ud83d", "surrogate"),
    "half a surrogate pair in a name": Odd(rb'{"\ud83d":1}', {"\ud83d": 1}, "surrogate"),
    "NaN": Odd(b"NaN", math.isnan, "NaN", legal=False),
    "infinities": Odd(b"[Infinity,-Infinity]", [math.inf, -math.inf], "Infinity", legal=False),
    "a name that is there twice": Odd(b'{"a":1,"a":2}', {"a": 2}),
    "a number with a leading zero": Odd(b"01", "01", "not JSON", legal=False),
    "a number that ends with its point": Odd(b"1.", "1.", "not JSON", legal=False),
    "an escape that there is not": Odd(rb'"\x\n\\"', "\\x\n\\", "escape", legal=False),
    "bytes that are not UTF-8": Odd(b'"\xff\xfe"', "\ufffd\ufffd", "UTF-8", legal=False),
    "a control character": Odd(b'"a\tb\x00c"', "a\tb\x00c", legal=False),
    "an escaped NUL": Odd(rb'"a\u0000b"', "a\x00b"),
    "a line separator": Odd('"\u2028\x85"'.encode(), "\u2028\x85"),
    "a megabyte": Odd(b'"%s"' % (b"x" * 1_000_000), "x" * 1_000_000),
}


def _error(more: bytes, kind: bytes = b"overloaded_error") -> bytes:
    return b'{"type":"errored","error":{"type":"error","error":{"type":"%s",%s},"request_id":"req_1"}}' % (kind, more)


class Result(NamedTuple):
    """A whole result that is odd."""

    json: bytes
    type: str = "succeeded"
    error_type: str | None = None
    noted: str = ""
    text: str = ""


RESULTS: dict[str, Result] = {
    "a type nobody knows": Result(b'{"type":"paused","until":null}', "errored", "unknown_result_type"),
    "a type that is a list": Result(b'{"type":[[1]]}', "errored", "unknown_result_type"),
    "an error nobody knows": Result(_error(b'"message":"m"', b"cosmic_ray_error"), "errored", "cosmic_ray_error"),
    "an error with a long integer": Result(
        _error(b'"message":"m","details":%s' % DIGITS.encode()), "errored", "overloaded_error", "digits"
    ),
    "an error that is deeply nested": Result(
        _error(b'"message":"m","details":%s' % nested(200_000)), "errored", "overloaded_error", "nested"
    ),
    "an error with half a surrogate pair": Result(
        _error(rb'"message":"\ud83d"'), "errored", "overloaded_error", "surrogate"
    ),
    "an error with bytes that are not UTF-8": Result(
        _error(b'"message":"\xff"'), "errored", "overloaded_error", "UTF-8"
    ),
    "an error whose message is a list": Result(_error(b'"message":[1]'), "errored", "overloaded_error"),
    "an error that is text": Result(b'{"type":"errored","error":"text"}', "errored"),
    "no error": Result(b'{"type":"errored"}', "errored"),
    "null for a message": Result(b'{"type":"succeeded","message":null}'),
    "no message": Result(b'{"type":"succeeded"}'),
    "a message that is text": Result(b'{"type":"succeeded","message":"text"}'),
    "a usage that is a list": Result(b'{"type":"succeeded","message":{"usage":[1],"content":"text"}}'),
    "a usage beyond all bounds": Result(
        b'{"type":"succeeded","message":{"model":"m","usage":{"input_tokens":9223372036854775807,'
        b'"output_tokens":%s}}}' % DIGITS.encode(),
        noted="digits",
    ),
    "a model that is a number": Result(b'{"type":"succeeded","message":{"model":5,"usage":{"input_tokens":1}}}'),
    "a model that is half a surrogate pair": Result(
        rb'{"type":"succeeded","message":{"model":"\ud83d","usage":{"input_tokens":1}}}', noted="surrogate"
    ),
    "a model with a name without end": Result(
        b'{"type":"succeeded","message":{"model":"%s","usage":{"input_tokens":1}}}' % (b"m" * 100_000)
    ),
    "blocks nobody knows": Result(
        b'{"type":"succeeded","message":{"content":[{"type":"hologram"},7,null,{"type":"text","text":"fine"},'
        b'{"type":"text","text":5}]}}',
        text="fine",
    ),
    "null for a result": Result(b"null", "errored", "unreadable_result", "cannot be read"),
    "a list for a result": Result(b"[1]", "errored", "unreadable_result", "cannot be read"),
    "a result without a type": Result(b'{"message":{}}', "errored", "unreadable_result", "cannot be read"),
    "an answer that is not JSON": Result(b'{"type":"succeeded","message":{"a" 1}}', noted="cannot be read"),
    "an expiry that does not end": Result(b'{"type":"expired","x":[{', "expired", noted="cannot be read"),
}

#: Those that the API does not count as Anthropic's documentation has it, and those that are downloaded several times.
UNREADABLE = [name for name, result in RESULTS.items() if result.noted == "cannot be read"]


def message(value: bytes) -> bytes:
    """A message with a value in the input of a tool."""
    return (
        b'{"id":"msg_1","type":"message","role":"assistant","model":"claude-haiku-4-5","content":'
        b'[{"type":"tool_use","id":"t","name":"f","input":{"n":%s}},{"type":"text","text":"fine"}],'
        b'"stop_reason":"end_turn","usage":{"input_tokens":10,"output_tokens":5}}' % value
    )


def succeeded(value: bytes) -> bytes:
    """A result with such a message."""
    return b'{"type":"succeeded","message":%s}' % message(value)


def events(value: bytes) -> list[bytes]:
    """The message as a stream, the tool's input in pieces; where the pieces are cut, a text may be."""
    text = b'{"n":%s}' % value
    # As the deltas are JSON themselves, they hold text.
    pieces = [json.dumps(part) for part in _cut(text.decode(errors="replace"), 7 if len(text) < 1_000 else 9_001)]
    data = [
        b'{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],'
        b'"model":"claude-haiku-4-5","usage":{"input_tokens":10,"output_tokens":1}}}',
        b'{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}',
        *(
            b'{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":%s}}'
            % piece.encode()
            for piece in pieces
        ),
        b'{"type":"content_block_stop","index":0}',
        b'{"type":"content_block_start","index":1,"content_block":{"type":"text","text":"fine"}}',
        b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}',
        b'{"type":"message_stop"}',
    ]
    return [b"data: %s\n\n" % each for each in data]


def events_with_a_whole_block(value: bytes) -> list[bytes]:
    """The message as a stream, its first block in one piece, as the results of server tools come."""
    begun, block, *_, text, delta, stop = events(b"1")
    return [begun, block.replace(b'"input":{}', b'"input":{"n":%s}' % value), text, delta, stop]


def _cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def check(odd: Odd, message: Any, note: str | None) -> None:
    """A message as it is read, and the note of its row, are right."""
    found = message["content"][0]["input"]["n"]
    assert odd.is_right(found)
    assert (odd.noted in (note or "")) if odd.noted else note is None
    assert message["content"][1]["text"] == "fine"
    assert message["usage"] == {"input_tokens": 10, "output_tokens": 5}
