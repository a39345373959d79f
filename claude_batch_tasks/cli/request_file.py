"""Files of requests: JSON lines, a JSON array or ``{"requests": [...]}``, in UTF-8 or UTF-16, packed or not.

Only one request and some blocks of the file are in memory.
"""

from __future__ import annotations

import bz2
import codecs
import json
import lzma
import re
import shlex
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import IO, Any

import msgspec

from claude_batch_tasks.compression import zstd

#: The most bytes that a request may have; not even a whole batch may have more.
LONGEST = 256_000_000

_BLOCK = 65_536

#: How many bytes at the beginning of a file are read to recognize its form.
_HEAD = 256

#: How a packed file begins, what it is called, what unpacks it here, and the command that unpacks it.
_PACKED: tuple[tuple[bytes, str, Callable[[], Any], str], ...] = (
    (b"\x1f\x8b", "gzip", partial(zlib.decompressobj, wbits=31), "gzip -dc"),
    (b"\x28\xb5\x2f\xfd", "zstd", zstd.ZstdDecompressor, "zstd -dc --long=31"),
    (b"BZh", "bzip2", bz2.BZ2Decompressor, "bzip2 -dc"),
    (b"\xfd7zXZ\x00", "xz", lzma.LZMADecompressor, "xz -dc"),
)
_UNPACKING = (EOFError, zlib.error, zstd.ZstdError, OSError, lzma.LZMAError)

#: How text begins, and its encoding: longer marks first, then what ASCII looks like in two bytes.
_CODED = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"{\x00", "utf-16-le"),
    (b"[\x00", "utf-16-le"),
    (b"\x00{", "utf-16-be"),
    (b"\x00[", "utf-16-be"),
)

#: What may stand at the end of a line or a file: DOS ends files with Ctrl-Z.
_BLANK = b" \t\r\n\x1a"
_SPACE = re.compile(r"[ \t\r\n\x1a]*")

_ARRAY = re.compile(rb"\s*\[")
_BODY = re.compile(rb'\s*\{\s*"requests"\s*:\s*\[')


class Unreadable(Exception):
    """An input that cannot be read.

    Args:
        why: where and why, as the rest of a sentence.
        hint: what to do, as a sentence.
    """

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why, hint)
        self.why, self.hint = why, hint


class RequestFile:
    """The requests of a file, read one at a time; ``place_of`` says afterwards where each one stood.

    Args:
        name: what the file is called; ``None``: it is standard input.
        command: the command that reads it, without a file, such as ``claude-batch submit``.
    """

    def __init__(self, file: IO[bytes], name: str | None, command: str) -> None:
        self._file, self._name, self._command = file, name, command
        self._unpack = ""
        self._lines = True
        #: How many requests came before each blank line.
        self._blank: list[int] = []

    def __iter__(self) -> Iterator[Any]:
        blocks: Iterator[bytes] = iter(partial(self._file.read, _BLOCK), b"")
        head, blocks = _read_beginning(blocks)
        for magic, packing, make, command in _PACKED:
            if head.startswith(magic):
                self._unpack = command
                head, blocks = _read_beginning(self._unpack_blocks(blocks, packing, make))
                break
        if head.startswith(b"PK\x03\x04"):
            raise Unreadable("is a zip archive", self._hint_converting("unzip -p", "funzip"))
        encoding = next((encoding for mark, encoding in _CODED if head.startswith(mark)), None)
        if encoding is not None:
            head, blocks = _read_beginning(self._recode_blocks(blocks, encoding))
        if head.startswith(codecs.BOM_UTF8):
            next(blocks)
            head = head[len(codecs.BOM_UTF8) :]
            blocks = chain([head], blocks)
        if form := (_ARRAY.match(head) or _BODY.match(head)):
            self._lines = False
            yield from self._read_elements(blocks, form)
        else:
            yield from self._of_lines(blocks)

    def place_of(self, index: int) -> str:
        """Return the place in the file where the request with that index stood."""
        if not self._lines:
            return f"requests[{index}]"
        return f"line {index + 1 + bisect_right(self._blank, index)}"

    def _hint_converting(self, command: str, on_pipe: str) -> str:
        """Return a hint how to bring the file into a form that can be read."""
        if self._name is None:
            return f"To read it: ... | {on_pipe} | {self._command} -"
        name = shlex.quote(self._name)
        first = f"{self._unpack} {name} | {command}" if self._unpack else f"{command} {name}"
        return f"To read it: {first} | {self._command} -"

    def _unpack_blocks(self, blocks: Iterator[bytes], packing: str, make: Callable[[], Any]) -> Iterator[bytes]:
        """Yield the content of a packed file, which may consist of several packed files in a row."""
        unpacker = make()
        try:
            for block in blocks:
                while block:
                    if unpacker.eof:
                        unpacker = make()
                    yield unpacker.decompress(block)
                    block = unpacker.unused_data.lstrip(b"\0") if unpacker.eof else b""
        except _UNPACKING as exc:
            raise Unreadable(f"is a {packing} file that cannot be unpacked: {type(exc).__name__}") from None
        if not unpacker.eof:
            raise Unreadable(f"is a {packing} file that is cut off before its end; it is not whole")

    def _recode_blocks(self, blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
        """Yield a text in UTF-8."""
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            for block in blocks:
                yield decoder.decode(block).encode()
            yield decoder.decode(b"", True).encode()
        except UnicodeError as exc:
            raise Unreadable(f"is not the {encoding.upper()} that it begins as: {exc}") from None

    def _of_lines(self, blocks: Iterator[bytes]) -> Iterator[Any]:
        requests = 0
        for number, text in enumerate(_split_lines(blocks), 1):
            text = text.rstrip(_BLANK)
            if not text:
                self._blank.append(requests)
                continue
            if len(text) > LONGEST:
                raise Unreadable(f"line {number} is longer than a whole batch may be ({LONGEST:,} bytes)")
            try:
                if not text.isascii():
                    text.decode()
                value = msgspec.json.decode(text)
            except UnicodeDecodeError as exc:
                raise Unreadable(f"line {number} is not JSON: it is not UTF-8{_explain_decoding(exc)}") from None
            except (msgspec.DecodeError, RecursionError) as exc:
                hint = ""
                if not requests and text.lstrip()[:1] == b"{":
                    hint = f"Each request must be on one line. {self._hint_converting('jq -c .', 'jq -c .')}"
                raise Unreadable(f"line {number} is not JSON: {exc}", hint) from None
            requests += 1
            yield value

    def _read_elements(self, blocks: Iterator[bytes], form: re.Match[bytes]) -> Iterator[Any]:
        """Yield the elements of an array, which is the whole file or the only field of the file's object."""
        text = _Text(blocks, form.end())
        number = 0
        if text.next_character() != "]":
            while True:
                yield text.read_value(number)
                number += 1
                if (following := text.next_character()) == "]":
                    break
                if following != ",":
                    what = repr(following) if following else "the end of the file"
                    raise Unreadable(f"is not a JSON array: after requests[{number - 1}] comes {what}")
                text.skip_character()
        text.skip_character()
        if form[0].lstrip()[:1] == b"{":
            if text.next_character() == ",":
                raise Unreadable(
                    'has other fields beside "requests"',
                    "Take them out; options of the job are given with -s NAME=VALUE.",
                )
            if text.next_character() != "}":
                raise Unreadable('is not JSON: after the list of "requests" comes no }')
            text.skip_character()
        if text.next_character():
            raise Unreadable("is not JSON: there is more after the list of requests")


class _Text:
    """The rest of a text, which is read only as far as it is needed."""

    def __init__(self, blocks: Iterator[bytes], start: int) -> None:
        self._blocks, self._decode = blocks, codecs.getincrementaldecoder("utf-8")().decode
        self._text, self._at = "", 0
        # The skipped part is ASCII, with one byte for each character.
        self._read_more(start + 1)
        self._at = start

    def next_character(self) -> str:
        """Return the next character that is no space, and stay before it; at the end, return an empty text."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or not self._read_more(1):
                return self._text[self._at : self._at + 1]

    def skip_character(self) -> None:
        """Go past the next character."""
        self._at += 1

    def read_value(self, number: int) -> Any:
        """Return the next value, and go past it."""
        self.next_character()
        while True:
            try:
                value, end = _decode_value(self._text, self._at)
            except ValueError as exc:
                if len(self._text) - self._at > LONGEST:
                    text = f"requests[{number}] is longer than a whole batch may be ({LONGEST:,} bytes)"
                    raise Unreadable(text) from None
                if not self._read_more(len(self._text) - self._at):
                    raise Unreadable(f"requests[{number}] is not JSON: {getattr(exc, 'msg', exc)}") from None
            except RecursionError:
                raise Unreadable(f"requests[{number}] is not JSON: it is nested too deeply") from None
            else:
                self._at = end
                return value

    def _read_more(self, more: int) -> bool:
        """Read at least so many more characters; return False if there are none."""
        parts, size = [self._text[self._at :]], 0
        self._at = 0
        try:
            for block in self._blocks:
                parts.append(self._decode(block))
                size += len(parts[-1])
                if size >= more and size:
                    break
            else:
                self._decode(b"", True)
        except UnicodeDecodeError as exc:
            raise Unreadable(f"is not UTF-8{_explain_decoding(exc)}") from None
        self._text = "".join(parts)
        return size > 0


_decode_value = json.JSONDecoder().raw_decode


def _read_beginning(blocks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return the beginning of a file, and its blocks, of which that beginning is the first."""
    head = b""
    for block in blocks:
        head += block
        if len(head) >= _HEAD:
            break
    return head, chain([head], blocks)


def _split_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines; a line that is too long is the last, and only read until that shows."""
    begun: list[bytes] = []
    size = 0
    for block in blocks:
        first, *others = block.split(b"\n")
        begun.append(first)
        size += len(first)
        if others:
            yield b"".join(begun)
            yield from others[:-1]
            begun, size = [others[-1]], len(others[-1])
        if size > LONGEST:
            break
    if last := b"".join(begun):
        yield last


def _explain_decoding(exc: UnicodeDecodeError) -> str:
    return f" ({exc.reason} of byte 0x{exc.object[exc.start]:02x})"
