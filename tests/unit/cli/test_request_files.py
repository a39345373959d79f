"""Files of requests as other programs write them: read, or refused with a way that works."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
from typing import Any

import pytest

from claude_batch_tasks.cli import request_file
from claude_batch_tasks.cli.request_file import RequestFile, Unreadable
from claude_batch_tasks.compression import zstd

REQUESTS: list[dict[str, Any]] = [
    {"custom_id": f"r {n}", "params": {"messages": [{"content": 'ü 😀 \u2028 "\\ ]},{' * (n % 30)}]}}
    for n in range(100)
]
LINES = "".join(json.dumps(request, ensure_ascii=False) + "\n" for request in REQUESTS)


def read(data: bytes, name: str | None = "requests.jsonl") -> list[Any]:
    return list(RequestFile(io.BytesIO(data), name, "claude-batch submit"))


def refused(data: bytes, name: str | None = "requests.jsonl") -> Unreadable:
    with pytest.raises(Unreadable) as caught:
        read(data, name)
    return caught.value


FORMS = {
    "lines": LINES,
    "lines without a last end": LINES[:-1],
    "lines of DOS": LINES.replace("\n", "\r\n"),
    "lines with blank ones": LINES.replace("\n", "\n\n \n"),
    "lines and Ctrl-Z": LINES + "\x1a",
    "lines without a last end and Ctrl-Z": LINES[:-1] + "\x1a",
    "files of DOS, one after the other": LINES.replace("\n", "\r\n") + "\x1a\r\n",
    "an array": json.dumps(REQUESTS, ensure_ascii=False),
    "an array in ASCII": json.dumps(REQUESTS),
    "an array on many lines": "\n " + json.dumps(REQUESTS, indent=2) + "\n\x1a",
    "the body of a create": json.dumps({"requests": REQUESTS}, separators=(",", ":")),
    "the body of a create on many lines": json.dumps({"requests": REQUESTS}, indent=4) + "\r\n",
}
CODINGS = {
    "UTF-8": lambda text: text.encode(),
    "UTF-8 with a mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 BE": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "UTF-16 without a mark": lambda text: text.lstrip().encode("utf-16-le"),
    "UTF-32": lambda text: text.encode("utf-32"),
}
PACKINGS: dict[str, Any] = {
    "nothing": bytes,
    "gzip": gzip.compress,
    "zstd": zstd.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("form", FORMS)
def test_a_file_is_read_in_any_form_and_coding(form: str, coding: str, packing: str) -> None:
    assert read(PACKINGS[packing](CODINGS[coding](FORMS[form]))) == REQUESTS


@pytest.mark.parametrize("packing", sorted(set(PACKINGS) - {"nothing"}))
def test_a_file_of_several_packed_ones_is_read_to_its_end(packing: str) -> None:
    half = len(LINES) // 2
    pack = PACKINGS[packing]
    assert read(pack(LINES[:half].encode()) + pack(LINES[half:].encode())) == REQUESTS


@pytest.mark.parametrize("packing", sorted(set(PACKINGS) - {"nothing"}))
def test_a_packed_file_that_is_cut_off_is_refused(packing: str) -> None:
    packed = PACKINGS[packing](LINES.encode())
    assert "cut off before its end" in refused(packed[:-3]).why
    assert "cut off" in refused(packed[: len(packed) // 2]).why
    assert "cannot be unpacked" in refused(packed[:40] + b"\xff" * 400 + packed[440:]).why


def test_a_pipe_that_gives_little_at_a_time_is_read() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 7, 7))

    for text in (LINES, FORMS["an array on many lines"], FORMS["the body of a create"]):
        for data in (text.encode("utf-16"), gzip.compress(text.encode())):
            assert list(RequestFile(Slow(data), None, "x")) == REQUESTS


@pytest.mark.parametrize("text", ["", "\n", "\x1a", "[]", " [ \n] ", '{"requests": []}'])
def test_an_empty_file_has_no_requests(text: str) -> None:
    assert read(text.encode()) == []
    assert read(codecs.BOM_UTF8 + text.encode()) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[{"a": 1} {"a": 2}]', "after requests[0] comes '{'"),
        ('[{"a": 1}, {"a": }]', "requests[1] is not JSON"),
        ('[{"a": 1},', "requests[1] is not JSON"),
        ('[{"a": 1}', "after requests[0] comes the end of the file"),
        ('[{"a": 1}] [', "there is more after the list"),
        ('[{"a": 1}]\n{"a": 1}', "there is more after the list"),
        ("[" * 100_000, "nested too deeply"),
        ('{"requests": [{"a": 1}]', "comes no }"),
        ('{"requests": [{"a": 1}], "betas": ["x"]}', "has other fields"),
        ('{"requests": [{"a": 1}]}}', "there is more"),
        ('[{"a": "' + "x" * 200_000, "requests[0] is not JSON"),
    ],
)
def test_a_list_that_is_not_whole_is_refused(text: str, why: str) -> None:
    assert why in refused(text.encode()).why


def test_text_in_another_coding_is_refused() -> None:
    assert "line 1 is not JSON: it is not UTF-8" in refused('{"a": "ü"}'.encode("latin-1")).why
    assert "is not UTF-8" in refused('[{"a": "ü"}]'.encode("latin-1")).why
    assert "is not the UTF-16" in refused(LINES.encode("utf-16")[:-1]).why


def test_a_request_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_file, "LONGEST", 1000)
    for text in ("{}\n{" + "x" * 2000, "[{}, {" + '"a": "' + "x" * 200_000 + '"}]'):
        assert "is longer than a whole batch may be" in refused(text.encode()).why


def test_requests_are_known_by_where_they_stood() -> None:
    lines = RequestFile(io.BytesIO(b"\n{}\n \n\n{}\n{}\n"), None, "x")
    assert list(lines) == [{}, {}, {}]
    assert [lines.place_of(index) for index in range(3)] == ["line 2", "line 5", "line 6"]
    array = RequestFile(io.BytesIO(b"[{},\n{}]"), None, "x")
    assert list(array) == [{}, {}]
    assert array.place_of(1) == "requests[1]"


def test_a_large_array_is_never_whole_in_memory() -> None:
    import tracemalloc

    def blocks() -> Any:
        yield b"["
        one = json.dumps({"custom_id": "a", "params": {"x": "y" * 2000}}).encode()
        for _ in range(5_000):
            yield one + b","
        yield one + b"]"

    class Endless(io.RawIOBase):
        def __init__(self) -> None:
            self._blocks = blocks()

        def read(self, size: int = -1) -> bytes:
            return next(self._blocks, b"")

    tracemalloc.start()
    count = sum(1 for _ in RequestFile(Endless(), None, "x"))  # type: ignore[arg-type]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 5_001
    assert peak < 5_000_000
