"""A batch's result file: reading JSON lines from bytes, decoding as little as needed, and checking completeness."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from itertools import product
from typing import Annotated, Any

import msgspec

from claude_batch_tasks import rules
from claude_batch_tasks.errors import ResultsIncomplete
from claude_batch_tasks.formatting import shortened
from claude_batch_tasks.pricing.prices import Prices, Used, geo_factor
from claude_batch_tasks.pricing.spending import Charge, Meter
from claude_batch_tasks.wire import batch_requests, lenient_json
from claude_batch_tasks.wire.custom_ids import Index

#: The outcomes of a request, in Anthropic's words.
OUTCOMES = ("succeeded", "errored", "expired", "canceled")

#: The counters of ``usage`` that are added up for a job's summary.
USAGE = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


#: More tokens than any answer has. Sums of such counts, and what they cost, stay within 64 bits.
_MOST_TOKENS = 10**9

#: Anything else is read as odd usage is.
_Count = Annotated[int, msgspec.Meta(ge=0, le=_MOST_TOKENS)]

#: The ``error.type`` of a result that is not JSON, so that not even its type is known.
UNREADABLE = "unreadable_result"

#: Characters of a model's name, an error's type and an error's message that go into records and logs.
LONGEST_NAME, LONGEST_MESSAGE = 200, 500


class _CacheCreation(msgspec.Struct, gc=False):
    ephemeral_1h_input_tokens: _Count | None = None


class _ServerToolUse(msgspec.Struct, gc=False):
    web_search_requests: _Count | None = None
    web_fetch_requests: _Count | None = None

    @property
    def runs(self) -> int:
        """How often tools ran."""
        return (self.web_search_requests or 0) + (self.web_fetch_requests or 0)


class _Counters(msgspec.Struct, gc=False):
    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    cache_creation_input_tokens: _Count | None = None
    cache_read_input_tokens: _Count | None = None
    cache_creation: _CacheCreation | None = None
    server_tool_use: _ServerToolUse | None = None

    @property
    def used(self) -> Used:
        """What of them costs something."""
        written, tools = self.cache_creation_input_tokens or 0, self.server_tool_use
        # Of what was written to the cache; the rest of it is the five-minute kind.
        longer = min((self.cache_creation.ephemeral_1h_input_tokens or 0) if self.cache_creation else 0, written)
        return Used(
            self.input_tokens or 0,
            self.output_tokens or 0,
            self.cache_read_input_tokens or 0,
            written - longer,
            longer,
            (tools.web_search_requests or 0) if tools else 0,
        )

    @property
    def tokens(self) -> Used:
        """What of them is tokens."""
        return self.used._replace(web_searches=0)


class _Iteration(_Counters, gc=False):
    """What one prompt within a request used: of the model itself, or of what works for it."""

    type: str | None = None
    model: str | None = None


class _Usage(_Counters, gc=False):
    iterations: list[_Iteration] | None = None
    inference_geo: str | None = None
    service_tier: str | None = None
    speed: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the listed prices of its model hold for its counters as they are."""
        tools = self.server_tool_use
        return (
            self.iterations is None
            and (tools is None or not tools.runs)
            and (self.service_tier, self.inference_geo, self.speed) in _USUAL
        )

    def charges(self, model: str, window: int | None) -> list[Charge]:
        """Return what it is charged for.

        Args:
            model: whose answer it belongs to.
            window: tokens of a prompt for that model at most.
        """
        odd = _odd_price(self.speed, self.service_tier, self.inference_geo)
        factor = geo_factor(self.inference_geo) or Decimal(1)
        tools = self.server_tool_use or _ServerToolUse()
        charges = _charges_of_iterations(self, model)
        if charges is None:
            # A loop of server tools sums up its prompts; none is longer than the window.
            prompt = self.tokens.total_input // (1 + tools.runs)
            largest = (prompt if window is None else min(prompt, window)) if tools.runs else None
            charges = [Charge(model, self.tokens, input_of_one=largest)]
        if odd is not None:
            charges = [charge._replace(unpriced=charge.unpriced or f"{charge.model} ({odd})") for charge in charges]
        if tools.web_search_requests:
            charges.append(Charge(model, Used(web_searches=tools.web_search_requests)))
        return [charge._replace(factor=factor) for charge in charges]


_USUAL_GEO = (None, "", "global", "not_available")
_USUAL_TIER = (None, "standard", "batch")
_USUAL_SPEED = (None, "standard")
_USUAL = frozenset(product(_USUAL_TIER, _USUAL_GEO, _USUAL_SPEED))


def _odd_price(speed: str | None, tier: str | None, geo: str | None) -> str | None:
    """What makes the price of an answer's tokens another than the listed one, and not a known one."""
    if speed not in _USUAL_SPEED:
        return f"speed {speed}"
    if tier not in _USUAL_TIER:
        return f"service tier {tier}"
    return f"inference in {geo}" if geo_factor(geo) is None else None


def _charges_of_iterations(usage: _Usage, model: str) -> list[Charge] | None:
    """The charges by the prompts that made up an answer; None: they are not listed.

    The counters beside the list leave out what compaction, an advisor and a fallback model used, and may sum up the
    prompts of a tool loop. An attempt that was declined before it had any output is not charged.
    """
    entries = usage.iterations or []
    fell_back = any(entry.type == "fallback_message" for entry in entries)
    charges = []
    for entry in entries:
        name = entry.model or model
        if fell_back and entry.type == "message" and (entry.output_tokens or 0) <= _NO_OUTPUT:
            continue
        known = entry.type in ("message", "compaction") or (entry.type in _OF_OTHERS and entry.model is not None)
        charges.append(Charge(name, entry.tokens, unpriced=None if known else f"{name} ({entry.type})"))
    if any(entry.type == "message" for entry in entries):
        return charges
    by_fallback = [entry.tokens for entry in entries if entry.type == "fallback_message"]
    if by_fallback and Used(*map(sum, zip(*by_fallback, strict=True))) == usage.tokens:
        return charges
    return [Charge(model, usage.tokens), *charges] if entries else None


#: Output tokens of what was declined before it said anything, at most: the first one is counted when it begins.
_NO_OUTPUT = 1

#: Entries that another model than the answer's is charged for.
_OF_OTHERS = ("advisor_message", "fallback_message")


def count_answers(meter: Meter, answers: Iterable[_Message | None]) -> None:
    """Add to a meter what answers used."""
    by_model: dict[str | None, list[_Usage | None]] = {}
    for answer in answers:
        model, usage = (answer.model or None, answer.usage) if answer is not None else (None, None)
        by_model.setdefault(model, []).append(usage)
    for model, usages in by_model.items():
        if model is None:
            meter.add(None, usages)
            continue
        name = shortened(model, LONGEST_NAME)
        odd = [usage for usage in usages if usage is not None and not usage.is_plain]
        meter.add(name, [usage for usage in usages if usage is None or usage.is_plain] if odd else usages)
        for usage in odd:
            for charge in usage.charges(name, meter.window(name)):
                meter.add_charge(charge)


class _Message(msgspec.Struct, gc=False):
    usage: _Usage | None = None
    model: str | None = None


class _Error(msgspec.Struct, gc=False):
    type: str | None = None
    message: str | None = None


class _ErrorResponse(msgspec.Struct, gc=False):
    error: _Error | None = None
    type: str | None = None


class _Result(msgspec.Struct, gc=False):
    type: str
    message: _Message | None = None
    error: _ErrorResponse | None = None


class Row(msgspec.Struct, gc=False):
    """One line of a result file, decoded no further than it is looked at."""

    custom_id: str
    result: _Result

    @property
    def known(self) -> bool:
        """Whether this version knows its type."""
        return self.result.type in OUTCOMES

    @property
    def type(self) -> str:
        """One of OUTCOMES; ``errored`` for a type nobody knows yet."""
        return self.result.type if self.known else "errored"

    @property
    def error_type(self) -> str | None:
        """Anthropic's ``error.type``, if it errored."""
        if not self.known:
            return "unknown_result_type"
        error = self.result.error
        if self.result.type != "errored" or error is None:
            return None
        return (error.error.type if error.error else None) or error.type

    @property
    def unreadable(self) -> bool:
        """Whether it was salvaged from a line that is not JSON."""
        error = self.result.error
        return error is not None and error.error is not None and error.error.type == UNREADABLE

    @property
    def error_message(self) -> str | None:
        """Anthropic's ``error.message``, if it errored and says so."""
        error = self.result.error
        return error.error.message if error is not None and error.error is not None else None

    @property
    def usage(self) -> dict[str, int]:
        """The counters of USAGE that it has."""
        usage = self.result.message.usage if self.result.message else None
        return {name: count for name in USAGE if (count := getattr(usage, name, None)) is not None}


_decoder = msgspec.json.Decoder(Row)

#: Rows are stored in pieces of about this many bytes.
_PIECE = 1_000_000

#: In place of a piece's number: there is none.
MISSING = 2**32 - 1


class EndlessLine(ValueError):
    """A line is longer than any of a result file."""


def blocks(chunks: Iterable[bytes], least: int = 1, longest: int = rules.ANSWER_BYTES) -> Iterator[bytes]:
    """A byte stream in runs of whole lines, each given out as soon as at least so many bytes have come.

    Raises:
        EndlessLine: one has more than ``longest`` bytes; what came before it was given out.
    """
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size >= least and (end := chunk.rfind(b"\n") + 1):
            held[-1] = chunk[:end]
            yield b"".join(held)
            held = [chunk[end:]]
            size = len(held[0])
        elif size > longest + least:
            before, _, _ = b"".join(held).rpartition(b"\n")
            if before:
                yield before
            raise EndlessLine(f"a line of a result file has more than {longest:,} bytes")
    if size:
        yield b"".join(held)


def rows(block: bytes, *, skip_others: bool = False) -> Iterator[tuple[Row, bytes]]:
    """Return the lines of a block, decoded and as they are.

    Args:
        skip_others: leave out lines that are no result of anybody's.

    Raises:
        ValueError: one of them is no result line; what came before it was given out.
    """
    raw = block.rstrip(b"\n").split(b"\n")
    decoded = _rows(block, raw)
    if decoded is not None:
        yield from zip(decoded, raw, strict=True)
        return
    for line in _not_blank(raw):
        try:
            found = any_row(line)
        except ValueError:
            if not skip_others:
                raise
        else:
            yield found, line


def _not_blank(lines: list[bytes]) -> list[bytes]:
    return [line for line in lines if line.strip()]


def _rows(block: bytes, raw: list[bytes]) -> list[Row] | None:
    """All lines of a block at once, as they are if none is blank or broken; None: look at them one by one."""
    try:
        decoded = _decoder.decode_lines(block)
    except lenient_json.REFUSED:
        return None
    if len(decoded) != len(raw):
        return None
    # The decoder looks for values, not for lines: two in one line make up for one that is broken over two.
    if not all(row.custom_id.encode() in line for row, line in zip(decoded, raw, strict=True)):
        return None
    return decoded


def read(line: bytes) -> tuple[dict[str, Any], str | None]:
    """Return a line as plain Python values, and a note about those that differ from what it says.

    Raises:
        ValueError: the line is not a JSON object.
    """
    value, note = lenient_json.read(line)
    if not isinstance(value, dict):
        raise ValueError("a result line is not a JSON object")
    return value, note


def row(line: bytes) -> Row:
    """Decode one line.

    Raises:
        ValueError: not a result line.
    """
    with suppress(*lenient_json.REFUSED):
        return _decoder.decode(line)
    value, _ = read(line)
    custom_id, result = value.get("custom_id"), value.get("result")
    if not isinstance(custom_id, str) or not isinstance(result, dict) or not result.get("type"):
        raise ValueError("a result line lacks custom_id or result.type")
    if "\ufffd" in custom_id:
        raise ValueError("the custom_id of a result line is not UTF-8")
    message = result.get("message")
    message = message if isinstance(message, dict) else {}
    usage, model = _read_usage(message.get("usage")), message.get("model")
    kind, said = (error_of(result).get(name) for name in ("type", "message"))
    error = _ErrorResponse(_Error(*(text if isinstance(text, str) else None for text in (kind, said))))
    model = model if isinstance(model, str) else None
    return Row(custom_id, _Result(str(result["type"]), _Message(usage, model), error))


def any_row(line: bytes) -> Row:
    """Decode one line, or what there is of it.

    Raises:
        ValueError: not a result line, and not even the beginning of one.
    """
    try:
        return row(line)
    except ValueError:
        if (found := salvage(line)) is not None:
            return found
        raise


_CUSTOM_ID = re.compile(rb'\s*\{\s*"custom_id"\s*:\s*"([^"\\]*)"')
_TYPE = re.compile(rb'"result"\s*:\s*\{\s*"type"\s*:\s*"(%s)"' % "|".join(OUTCOMES).encode())


def salvage(line: bytes) -> Row | None:
    """Tell whose result a line is that is no result line, and of which type, by how it begins; None: nobody's."""
    begins, kind = _CUSTOM_ID.match(line), _TYPE.search(line)
    if begins is None:
        return None
    custom_id = begins[1].decode(errors="replace")
    if "\ufffd" in custom_id:
        return None
    error = _ErrorResponse(_Error(UNREADABLE))
    return Row(custom_id, _Result(kind[1].decode() if kind else "errored", None, error))


def _read_usage(raw: Any) -> _Usage | None:
    """As much of an odd usage as can be read."""
    if not isinstance(raw, dict):
        return None
    usage = msgspec.convert(usage_of(raw), _Usage)
    for name in ("inference_geo", "service_tier", "speed"):
        value = raw.get(name)
        setattr(usage, name, value if value is None or isinstance(value, str) else "unreadable")
    entries = raw.get("iterations")
    if entries:
        usage.iterations = [_read_iteration(entry) for entry in (entries if isinstance(entries, list) else [entries])]
    with suppress(msgspec.ValidationError):
        usage.cache_creation = msgspec.convert(raw.get("cache_creation"), _CacheCreation | None)
    with suppress(msgspec.ValidationError):
        usage.server_tool_use = msgspec.convert(raw.get("server_tool_use"), _ServerToolUse | None)
    return usage


def _read_iteration(raw: Any) -> _Iteration:
    try:
        return msgspec.convert(raw, _Iteration)
    except msgspec.ValidationError:
        return _Iteration(type="unreadable")


def error_of(result: dict[str, Any]) -> dict[str, Any]:
    """The inner ``{"type", "message"}`` of a result's (or an error answer's) ``error``, with its request id."""
    outer = result.get("error")
    if not isinstance(outer, dict) or not outer:
        return {"type": None, "message": str(outer or "the result does not say why")}
    inner = outer["error"] if isinstance(outer.get("error"), dict) else outer
    request_id = outer.get("request_id") or result.get("request_id")
    return {**inner, "request_id": request_id} if request_id else dict(inner)


def errored(error_type: str, message: str, request_id: str | None) -> dict[str, Any]:
    """A result that errored, as Anthropic's result file spells it."""
    error = {"type": "error", "error": {"type": error_type, "message": message}, "request_id": request_id}
    return {"type": "errored", "error": error}


def usage_of(raw: Any) -> dict[str, int]:
    """The counters of USAGE in a message's ``usage``."""
    if not isinstance(raw, dict):
        return {}
    counts = {name: raw.get(name) for name in USAGE}
    return {name: n for name, n in counts.items() if type(n) is int and 0 <= n <= _MOST_TOKENS}


class Completeness:
    """What of a batch's result file has been seen: which requests have a result, tallies, and what did not belong.

    Five bytes per request.

    Args:
        nonce: the job's, in this round; recognises its wire ids.
        first: index in the job of the first request.
        count: requests from there on of which the batch may hold some.
        places: positions of those that it holds; default: all.
        prices: what they cost.
        at: when the batch was created, epoch seconds.
    """

    def __init__(
        self,
        nonce: str,
        first: int,
        count: int,
        *,
        places: Sequence[int] | None = None,
        prices: Prices | None = None,
        at: float | None = None,
    ) -> None:
        self.nonce, self.first, self.count = nonce, first, count
        self.expected = count if places is None else len(places)
        self.tallies: Counter[str] = Counter()
        self.usage: Counter[str] = Counter()
        self.distinct = self.duplicates = self.foreign = self.broken = self.unknown = 0
        #: Results of the batch that are not JSON; they count as its results.
        self.unreadable = 0
        #: For each request, the number of the piece that holds its result, or MISSING.
        self.pieces = array("I", [MISSING]) * count
        #: Positions of the requests that deserve another chance, and how they have ended.
        self.eligible = array("I")
        self.open: Counter[str] = Counter()
        #: What an error says that whatever the account sends meets.
        self.stopped: str | None = None
        self._said: str | None = None
        self.meter = Meter(prices or Prices(), batch=True, at=at)
        self._held: bytearray | None = None
        if places is not None:
            self._held = bytearray(count)
            for place in places:
                self._held[place] = True

    def place(self, custom_id: str) -> int | None:
        """The position of the request that a row is for; None: it is none of the batch's."""
        index = batch_requests.index_of(self.nonce, custom_id)
        place = -1 if index is None else index - self.first
        return place if 0 <= place < self.count and (self._held is None or self._held[place]) else None

    def keep(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """What of a result file is to be kept, in pieces: the rows that are this batch's, once each."""
        number = 0
        try:
            for block in blocks(chunks, _PIECE):
                if piece := self._keep(block, number):
                    yield piece
                    number += 1
                if self._surplus > rules.SURPLUS_LINES:
                    return
        except EndlessLine:
            self.broken += 1

    @property
    def _surplus(self) -> int:
        """Lines that are none of the batch's results; a file that goes on and on with them has no end."""
        return self.duplicates + self.foreign + self.broken

    def _keep(self, block: bytes, number: int) -> bytes:
        # At LF only: a text may hold raw U+2028 or U+0085, at which ``str`` methods would cut it apart.
        raw = block.rstrip(b"\n").split(b"\n")
        found: Iterable[Row | None] | None = _rows(block, raw)
        if odd := found is None:
            # A last line that does not end was perhaps cut off.
            cut = None if block.endswith(b"\n") else raw[-1]
            raw = _not_blank(raw)
            found = [self._readable(line, whole=line is not cut) for line in raw]
        chosen = [row if row is not None and self._add(row, number) else None for row in found]
        kept = [row for row in chosen if row is not None]
        self._count(kept)
        if odd:
            self.unreadable += sum(row.unreadable for row in kept)
        return b"\n".join(line for line, row in zip(raw, chosen, strict=True) if row is not None)

    def _readable(self, line: bytes, *, whole: bool) -> Row | None:
        with suppress(ValueError):
            return row(line)
        # A second name may be that of a second result in the same line.
        found = salvage(line) if whole and line.count(b'"custom_id"') == 1 else None
        if found is not None and self.place(found.custom_id) is not None:
            return found
        self.broken += 1
        return None

    def _add(self, row: Row, number: int) -> bool:
        """Whether a row is this batch's, and the first for its request."""
        place = self.place(row.custom_id)
        if place is None:
            self.foreign += 1
            return False
        if self.pieces[place] != MISSING:
            self.duplicates += 1
            return False
        self.pieces[place] = number
        if row.result.type != "succeeded":
            self._judge(row, place)
        return True

    def _judge(self, row: Row, place: int) -> None:
        """What becomes of a request that did not succeed."""
        if self.stopped is None and row.type == "errored":
            said = row.error_message
            if rules.concerns_account(row.error_type, said):
                # A bad request may quote somebody's words; that two say the very same is no accident.
                if said == self._said or rules.concerns_account(row.error_type, None):
                    kind = shortened(row.error_type or "", LONGEST_NAME)
                    self.stopped = f"{kind}: {shortened(said, LONGEST_MESSAGE) if said else said}"
                self._said = said
        if rules.second_chance(row.type, row.error_type):
            self.eligible.append(place)
            self.open[row.type] += 1

    def _count(self, kept: list[Row]) -> None:
        self.distinct += len(kept)
        for kind, count in Counter([row.result.type for row in kept]).items():
            known = kind in OUTCOMES
            self.tallies[kind if known else "errored"] += count
            self.unknown += 0 if known else count
        usages = [row.result.message.usage for row in kept if row.result.message is not None]
        for name in USAGE:
            if total := sum(count for usage in usages if usage is not None and (count := getattr(usage, name))):
                self.usage[name] += total
        count_answers(self.meter, [row.result.message for row in kept if row.result.type == "succeeded"])

    @property
    def complete(self) -> bool:
        """Every request has exactly one result."""
        return self.distinct == self.expected

    @property
    def all_foreign(self) -> bool:
        """There are results, and not one of them is this job's: it is somebody else's batch."""
        return self.foreign > 0 and not self.distinct

    def check(self, request_counts: dict[str, int]) -> None:
        """Compare with the batch's own ``request_counts``.

        Raises:
            ResultsIncomplete: rows are missing or broken, or the tallies differ.
        """
        if not self.complete or self.broken or self.unreadable:
            raise ResultsIncomplete(
                f"the result file has {self.distinct:,} of {self.expected:,} results ({self.duplicates} repeated,"
                f" {self.foreign} foreign, {self.broken + self.unreadable} unreadable lines)"
            )
        counted = {name: request_counts.get(name, 0) for name in OUTCOMES}
        # An outcome unknown to this version is counted under a name unknown to it, so there is nothing to compare.
        if not self.unknown and any(counted.values()) and counted != {n: self.tallies[n] for n in OUTCOMES}:
            raise ResultsIncomplete(f"the result file counts {dict(self.tallies)}, the batch says {counted}")


class AdoptedCompleteness(Completeness):
    """Of a batch that was created elsewhere: whose custom_ids come as they come, each of them once.

    Sixteen bytes per request.
    """

    def __init__(self, nonce: str, first: int, count: int, **options: Any) -> None:
        super().__init__(nonce, first, count, **options)
        #: The custom_ids so far, by the order in which they came.
        self.index = Index()

    def place(self, custom_id: str) -> int | None:
        """By order of arrival; of one that came before, its own."""
        new = len(self.index)
        if new < self.count and self.index.add(custom_id, new):
            return new
        return self.index.find(custom_id)
