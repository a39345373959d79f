"""Checks that a result file is complete: every request has exactly one row."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate, compress
from typing import Any, cast

from claude_batch_tasks import rules
from claude_batch_tasks.errors import ResultsIncomplete
from claude_batch_tasks.formatting import shorten_text
from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.pricing.spending import Meter
from claude_batch_tasks.wire import batch_requests
from claude_batch_tasks.wire.custom_ids import Index
from claude_batch_tasks.wire.judgement import Judgement
from claude_batch_tasks.wire.result_rows import (
    LONGEST_MESSAGE,
    LONGEST_NAME,
    OUTCOMES,
    EndlessLine,
    Row,
    count_answers,
    decode_row,
    decode_rows,
    not_blank,
    read_blocks,
    salvage_row,
)
from claude_batch_tasks.wire.token_usage import USAGE, Usage

#: Rows are decoded this many bytes at a time, about.
_BLOCK = 1_000_000

#: Rows are stored in chunks of at most this many bytes, unless a single row has more: to read one row, all of its chunk
#: is unpacked.
CHUNK_BYTES = 65_536

#: Stands in place of a chunk's number where there is none.
MISSING = 2**32 - 1


class Completeness:
    """What was seen of a batch's result file: which requests have a result, counts, and rows that did not belong.

    It takes five bytes per request.

    Args:
        nonce: the job's nonce in this round; with it the job's wire ids are recognized.
        first: index in the job of the first request.
        count: how many requests from there on may be in the batch.
        places: positions of the requests that are in the batch; default: all.
        prices: what models cost.
        at: when the batch was created, epoch seconds.
        judgement: judges the rows that are stored.
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
        judgement: Judgement | None = None,
    ) -> None:
        self.nonce, self.first, self.count = nonce, first, count
        self.expected = count if places is None else len(places)
        self.tallies: Counter[str] = Counter()
        self.usage: Counter[str] = Counter()
        self.distinct = self.duplicates = self.foreign = self.broken = self.unknown = 0
        #: Results of the batch that are not JSON; they count as results.
        self.unreadable = 0
        #: For each request, the number of the chunk that holds its result, or MISSING.
        self.pieces = array("I", [MISSING]) * count
        #: What became of the requests: it counts rows as they are stored, not as they came.
        self.judged = judgement or Judgement()
        #: The message of an error that the account gets for everything it sends.
        self.stopped: str | None = None
        self._said: str | None = None
        self.meter = Meter(prices or Prices(), batch=True, at=at)
        self._held: bytearray | None = None
        if places is not None:
            self._held = bytearray(count)
            for place in places:
                self._held[place] = True

    def position_of(self, custom_id: str) -> int | None:
        """Return the position of the request that a row is for; None: the request is not in this batch."""
        index = batch_requests.index_of(self.nonce, custom_id)
        place = -1 if index is None else index - self.first
        return place if 0 <= place < self.count and (self._held is None or self._held[place]) else None

    def keep_rows(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the rows to store, in chunks: those that belong to this batch, once each."""
        number = 0
        try:
            for block in read_blocks(chunks, _BLOCK):
                for piece in self._keep_block(block, number):
                    yield piece
                    number += 1
                if self._surplus > rules.SURPLUS_LINES:
                    return
        except EndlessLine:
            self.broken += 1

    @property
    def _surplus(self) -> int:
        """Number of lines that are no results of this batch; reading stops when there are too many of them."""
        return self.duplicates + self.foreign + self.broken

    def _keep_block(self, block: bytes, number: int) -> list[bytes]:
        """Return the chunks of rows to store of a block.

        Args:
            number: that of the first of them.
        """
        # Split at LF only: a text may hold raw U+2028 or U+0085, at which ``str`` methods would cut it apart.
        raw = block.rstrip(b"\n").split(b"\n")
        found: Sequence[Row | None] | None = decode_rows(block, raw)
        if odd := found is None:
            # A last line without a line end may have been cut off.
            cut = None if block.endswith(b"\n") else raw[-1]
            raw = not_blank(raw)
            found = self._read_singly(raw, cut)
        added = [None if row is None else self._add_row(row, number) for row in found]
        belongs = [place is not None for place in added]
        kept, places = (
            cast("list[Row]", list(compress(found, belongs))),
            cast("list[int]", list(compress(added, belongs))),
        )
        self._count_rows(kept)
        if odd:
            self.unreadable += sum(row.unreadable for row in kept)
        return self._divide_rows(places, self.judged.judge_rows(places, kept, list(compress(raw, belongs))), number)

    def _divide_rows(self, places: list[int], lines: list[bytes], number: int) -> list[bytes]:
        """Return lines in chunks; record in which of them each request's is."""
        pieces: list[bytes] = []
        ends, start = list(accumulate(len(line) + 1 for line in lines)), 0
        while start < len(lines):
            begins = ends[start - 1] if start else 0
            end = max(bisect_right(ends, begins + CHUNK_BYTES + 1), start + 1)
            for place in places[start:end]:
                self.pieces[place] = number + len(pieces)
            pieces.append(b"\n".join(lines[start:end]))
            start = end
        return pieces

    def _read_singly(self, lines: list[bytes], cut: bytes | None) -> list[Row | None]:
        return [self._read_line(line, whole=line is not cut) for line in lines]

    def _read_line(self, line: bytes, *, whole: bool) -> Row | None:
        with suppress(ValueError):
            return decode_row(line)
        # A second ``custom_id`` may belong to a second result in the same line.
        found = salvage_row(line) if whole and line.count(b'"custom_id"') == 1 else None
        if found is not None and self.position_of(found.custom_id) is not None:
            return found
        self.broken += 1
        return None

    def _add_row(self, row: Row, number: int) -> int | None:
        """Record a row; return its position if it belongs to this batch and is the first for its request."""
        place = self.position_of(row.custom_id)
        if place is None:
            self.foreign += 1
            return None
        if self.pieces[place] != MISSING:
            self.duplicates += 1
            return None
        self.pieces[place] = number
        if row.result.type != "succeeded":
            self._find_stop(row)
        return place

    def _find_stop(self, row: Row) -> None:
        """Record an error that the account gets for everything it sends."""
        if self.stopped is None and row.type == "errored":
            said = row.error_message
            if rules.concerns_account(row.error_type, said):
                # One bad request may quote somebody's words; if two errors say exactly the same, it is no accident.
                if said == self._said or rules.concerns_account(row.error_type, None):
                    kind = shorten_text(row.error_type or "", LONGEST_NAME)
                    self.stopped = f"{kind}: {shorten_text(said, LONGEST_MESSAGE) if said else said}"
                self._said = said

    def sort_tallies(self) -> dict[str, int]:
        """Return the number of each outcome that came, in the order in which outcomes are always named."""
        return {str(name): self.tallies[name] for name in OUTCOMES if self.tallies[name]}

    def _count_rows(self, kept: list[Row]) -> None:
        self.distinct += len(kept)
        for kind, count in Counter([each.result.type for each in kept]).items():
            known = kind in OUTCOMES
            self.tallies[kind if known else "errored"] += count
            self.unknown += 0 if known else count
        self._count_tokens([row.result.message.usage for row in kept if row.result.message is not None])
        count_answers(self.meter, [row.result.message for row in kept if row.result.type == "succeeded"])

    def _count_tokens(self, usages: list[Usage | None]) -> None:
        for name in USAGE:
            if total := sum(count for usage in usages if usage is not None and (count := getattr(usage, name))):
                self.usage[name] += total

    @property
    def complete(self) -> bool:
        """Whether every request has exactly one result."""
        return self.distinct == self.expected

    @property
    def all_foreign(self) -> bool:
        """Whether there are results and none of them is this job's: the batch belongs to somebody else."""
        return self.foreign > 0 and not self.distinct

    def check_counts(self, request_counts: dict[str, int]) -> None:
        """Compare the rows with the batch's own ``request_counts``.

        Raises:
            ResultsIncomplete: rows are missing or broken, or the counts differ.
        """
        if not self.complete or self.broken or self.unreadable:
            raise ResultsIncomplete(
                f"the result file has {self.distinct:,} of {self.expected:,} results ({self.duplicates} repeated,"
                f" {self.foreign} foreign, {self.broken + self.unreadable} unreadable lines)"
            )
        counted = {name: request_counts.get(name, 0) for name in OUTCOMES}
        # The batch counts an outcome that this version does not know under a name it does not know, so nothing can be
        # compared.
        if not self.unknown and any(counted.values()) and counted != {n: self.tallies[n] for n in OUTCOMES}:
            raise ResultsIncomplete(f"the result file counts {dict(self.tallies)}, the batch says {counted}")


class AdoptedCompleteness(Completeness):
    """The completeness of a batch that was created elsewhere: its custom_ids are not known before, each occurs once.

    It takes sixteen bytes per request.
    """

    def __init__(self, nonce: str, first: int, count: int, **options: Any) -> None:
        super().__init__(nonce, first, count, **options)
        #: The custom_ids so far, in the order in which they came.
        self.index = Index()

    def position_of(self, custom_id: str) -> int | None:
        """Return the next free position for a new custom_id, and its own position for one that came before."""
        new = len(self.index)
        if new < self.count and self.index.add_id(custom_id, new):
            return new
        return self.index.find_id(custom_id)
