"""A batch's result file: reading JSON lines from bytes, decoding as little as needed, and checking completeness."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from claude_batch_tasks import requests
from claude_batch_tasks.errors import ResultsIncomplete

#: The outcomes of a request, in Anthropic's words.
OUTCOMES = ("succeeded", "errored", "expired", "canceled")

#: The counters of ``usage`` that are added up for a job's summary.
USAGE = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class Row(msgspec.Struct):
    """One line of a result file. ``type`` is one of OUTCOMES, or ``errored`` for a type nobody knows yet."""

    custom_id: str
    type: str
    error_type: str | None = None
    usage: dict[str, int] | None = None
    known: bool = True
    """False: the line's own type is none of OUTCOMES."""


class _Error(msgspec.Struct):
    type: str | None = None


class _ErrorResponse(msgspec.Struct):
    error: _Error | None = None
    type: str | None = None


class _Message(msgspec.Struct):
    usage: dict[str, Any] | None = None


class _Result(msgspec.Struct):
    type: str
    message: _Message | None = None
    error: _ErrorResponse | None = None


class _Line(msgspec.Struct):
    custom_id: str
    result: _Result


_decode_line = msgspec.json.Decoder(_Line).decode


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The non-blank lines of a byte stream.

    Split on LF only: a text may hold raw U+2028 or U+0085, at which ``str`` methods would cut it apart.
    """
    rest: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        rest.append(first)
        if others:
            yield from filter(None, (b"".join(rest).strip(),))
            for line in others[:-1]:
                if line := line.strip():
                    yield line
            rest = [others[-1]]
    if line := b"".join(rest).strip():
        yield line


def parse(line: bytes) -> dict[str, Any]:
    """A line as plain Python values.

    Raises:
        ValueError: not a JSON object. (The standard library takes what stricter readers refuse: escaped lone
        surrogates, NaN.)
    """
    try:
        try:
            value = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            value = json.loads(line)
    except RecursionError:
        raise ValueError("a result line is nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("a result line is not a JSON object")
    return value


def row(line: bytes) -> Row:
    """What a line says, decoded no further than id, type, error type and usage.

    Raises:
        ValueError: not a result line.
    """
    try:
        decoded = _decode_line(line)
        custom_id, kind = decoded.custom_id, decoded.result.type
        error = decoded.result.error
        error_type = None
        if error is not None:
            error_type = (error.error.type if error.error else None) or error.type
        raw_usage: Any = decoded.result.message.usage if decoded.result.message else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = parse(line)
        result = value.get("result")
        if not isinstance(value.get("custom_id"), str) or not isinstance(result, dict) or not result.get("type"):
            raise ValueError("a result line lacks custom_id or result.type") from None
        custom_id, kind = value["custom_id"], str(result["type"])
        error_type = error_of(result).get("type")
        message = result.get("message")
        raw_usage = message.get("usage") if isinstance(message, dict) else None
    known = kind in OUTCOMES
    if not known:
        kind, error_type = "errored", "unknown_result_type"
    return Row(custom_id, kind, error_type if kind == "errored" else None, usage_of(raw_usage), known)


def error_of(result: dict[str, Any]) -> dict[str, Any]:
    """The inner ``{"type", "message"}`` of a result's (or an error answer's) ``error``, with its request id."""
    outer = result.get("error")
    if not isinstance(outer, dict) or not outer:
        return {"type": None, "message": str(outer or "the result does not say why")}
    inner = outer["error"] if isinstance(outer.get("error"), dict) else outer
    request_id = outer.get("request_id") or result.get("request_id")
    return {**inner, "request_id": request_id} if request_id else dict(inner)


def usage_of(raw: Any) -> dict[str, int]:
    """The counters of USAGE in a message's ``usage``."""
    if not isinstance(raw, dict):
        return {}
    return {name: raw[name] for name in USAGE if isinstance(raw.get(name), int)}


class Completeness:
    """Which of a batch's requests have a result: one bit per request, tallies, and what did not belong.

    Args:
        nonce: the job's; recognises its wire ids.
        first: index of the batch's first request in the job.
        count: requests in the batch.
    """

    def __init__(self, nonce: str, first: int, count: int) -> None:
        self.nonce, self.first, self.count = nonce, first, count
        self.tallies: Counter[str] = Counter()
        self.usage: Counter[str] = Counter()
        self.distinct = self.duplicates = self.foreign = self.broken = self.unknown = 0
        self._seen = bytearray((count + 7) // 8)

    def add(self, row: Row) -> int | None:
        """The index of a result that is to be kept; ``None`` for a duplicate or a foreign one."""
        index = requests.index_of(self.nonce, row.custom_id)
        place = -1 if index is None else index - self.first
        if not 0 <= place < self.count:
            self.foreign += 1
            return None
        if self.has(place):
            self.duplicates += 1
            return None
        self._seen[place >> 3] |= 1 << (place & 7)
        self.distinct += 1
        self.tallies[row.type] += 1
        self.unknown += not row.known
        self.usage.update(row.usage or {})
        return index

    def has(self, place: int) -> bool:
        """Whether the batch's request of that position has a result."""
        return bool(self._seen[place >> 3] & (1 << (place & 7)))

    @property
    def complete(self) -> bool:
        """Every request has exactly one result."""
        return self.distinct == self.count

    @property
    def all_foreign(self) -> bool:
        """There are results, and not one of them is this job's: it is somebody else's batch."""
        return self.foreign > 0 and not self.distinct

    def check(self, request_counts: dict[str, int]) -> None:
        """Compare with the batch's own ``request_counts``.

        Raises:
            ResultsIncomplete: rows are missing or broken, or the tallies differ.
        """
        if not self.complete or self.broken:
            raise ResultsIncomplete(
                f"the result file has {self.distinct:,} of {self.count:,} results"
                f" ({self.duplicates} repeated, {self.foreign} foreign, {self.broken} unreadable lines)"
            )
        counted = {name: request_counts.get(name, 0) for name in OUTCOMES}
        # An outcome unknown to this version is counted under a name unknown to it, so there is nothing to compare.
        if not self.unknown and any(counted.values()) and counted != {n: self.tallies[n] for n in OUTCOMES}:
            raise ResultsIncomplete(f"the result file counts {dict(self.tallies)}, the batch says {counted}")
