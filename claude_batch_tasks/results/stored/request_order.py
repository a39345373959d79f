"""The order of the requests, for outcomes that are stored in another one."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable, Iterator

from claude_batch_tasks.results.stored.outcomes import Outcome, Source, Type
from claude_batch_tasks.wire.stored_rows import Origin


def in_order(outcomes: Iterable[Outcome], count: int) -> Iterator[Outcome]:
    """Order outcomes like the requests, by means of a temporary file; this needs 17 bytes of memory per request."""
    ends, sources = array("Q", bytes(8 * count)), bytearray(count)
    starts = array("Q", ends)
    notes: dict[int, str] = {}
    kinds: list[tuple[Source, Type, int, Origin]] = []
    with tempfile.TemporaryFile(prefix="claude-batch-") as file:
        at = 0
        for outcome in outcomes:
            if (kind := (outcome.source, outcome.type, outcome.round, outcome.origin)) not in kinds:
                kinds.append(kind)
            starts[outcome.place], sources[outcome.place] = at, kinds.index(kind)
            at += file.write(outcome.line)
            ends[outcome.place] = at
            if outcome.note is not None:
                notes[outcome.place] = outcome.note
        for place in range(count):
            if ends[place]:
                file.seek(starts[place])
                line = file.read(ends[place] - starts[place])
                source, type_, round_, origin = kinds[sources[place]]
                yield Outcome(place, source, type_, line, notes.get(place), round_, origin)
