"""The chunks in which rows are stored: small enough to read one row quickly, and the map says which one has it."""

from __future__ import annotations

import random

from claude_batch_tasks.wire import batch_requests
from claude_batch_tasks.wire.completeness import CHUNK_BYTES, Completeness


def line(place: int, size: int) -> bytes:
    """Return the row of a request, with so many bytes of text in it."""
    text = b"%d" % (place % 10) * size
    return b'{"custom_id":"%s","result":{"type":"succeeded","message":{"content":"%s"}}}' % (name(place), text)


def chunks_of(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def test_rows_are_stored_in_small_chunks_whatever_sizes_come() -> None:
    rng = random.Random(5)
    lines = [line(place, rng.choice([1, 900, 40_000, 200_000])) for place in rng.sample(range(200), 200)]
    for size in (700, 65_536, 3_000_000):
        seen = Completeness("n", 0, 200)
        pieces = list(seen.keep_rows(chunks_of(b"\n".join(lines) + b"\n", size)))
        assert b"\n".join(pieces) == b"\n".join(lines)
        assert seen.complete
        for place in range(200):
            found = [row for row in pieces[seen.pieces[place]].split(b"\n") if b'"%s"' % name(place) in row]
            assert len(found) == 1
        for piece in pieces:
            assert len(piece) <= CHUNK_BYTES or b"\n" not in piece
        # None is needlessly small: two neighbours of one block would not have fitted into one.
        assert len(pieces) < 2 * sum(map(len, lines)) / CHUNK_BYTES + len(lines) / 4 + 4


def test_a_row_that_just_fits_is_in_the_chunk() -> None:
    first = line(0, 100)
    for more, count in ((0, 1), (1, 2)):
        second = line(1, CHUNK_BYTES - len(first) - 1 - len(line(1, 0)) + more)
        seen = Completeness("n", 0, 2)
        pieces = list(seen.keep_rows([first + b"\n" + second + b"\n"]))
        assert len(pieces) == count
        assert list(seen.pieces) == [0, count - 1]


def name(place: int) -> bytes:
    return batch_requests.wire_id("n", place).encode()
