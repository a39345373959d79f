"""Whether a result file is complete: every request has one row."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from claude_batch_tasks import rules
from claude_batch_tasks.errors import ResultsIncomplete
from claude_batch_tasks.formatting import shortened
from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.pricing.spending import Meter
from claude_batch_tasks.wire import batch_requests
from claude_batch_tasks.wire.custom_ids import Index
from claude_batch_tasks.wire.result_rows import (
    LONGEST_MESSAGE,
    LONGEST_NAME,
    OUTCOMES,
    EndlessLine,
    Row,
    blocks,
    count_answers,
    decode_rows,
    not_blank,
    row,
    salvage,
)
from claude_batch_tasks.wire.token_usage import USAGE

#: Rows are stored in pieces of about this many bytes.
_PIECE = 1_000_000

#: In place of a piece's number: there is none.
MISSING = 2**32 - 1


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
        found: Iterable[Row | None] | None = decode_rows(block, raw)
        if odd := found is None:
            # A last line that does not end was perhaps cut off.
            cut = None if block.endswith(b"\n") else raw[-1]
            raw = not_blank(raw)
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
        for kind, count in Counter([each.result.type for each in kept]).items():
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
