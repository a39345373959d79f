"""One object of many frames, each of which can be read by itself.

::

    frame frame … frame  footer  length of the footer, 4 bytes  magic, 8 bytes

The footer says how long each frame is, and how many items are in it. All of these are compressed and encrypted as the
ledger's chunks are, and bound to the name of the object and their number in it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate

import msgspec

from claude_batch_tasks.errors import PayloadDamaged
from claude_batch_tasks.store.objects.bucket import Bucket, Writer
from claude_batch_tasks.store.packing import Packer, map_one_ahead

_MAGIC = b"cbframe1"
_END = 4 + len(_MAGIC)

#: Bytes at the end of an object that are read first: nearly always the whole footer, and often all of it.
_FIRST = 65_536

#: Bytes that are read in one go when all frames are, about.
_SPAN = 4_000_000


class _Footer(msgspec.Struct):
    lengths: list[int] = []
    counts: list[int] = []


_decode_footer = msgspec.json.Decoder(_Footer).decode


class FramesWriter:
    """Writes an object frame by frame.

    Args:
        writer: the object, which the caller closes.
    """

    def __init__(self, writer: Writer, path: str, packer: Packer) -> None:
        self._writer, self._path, self._packer = writer, path, packer
        self._footer = _Footer()

    def pack(self, number: int, data: bytes) -> bytes:
        """Return the frame of a number."""
        return self._packer.pack(data, _place(self._path, number))

    def add(self, frame: bytes, count: int = 0) -> None:
        """Append the next frame, in which there are so many items."""
        self._footer.lengths.append(len(frame))
        self._footer.counts.append(count)
        self._writer.write(frame)

    def finish(self) -> None:
        """Append the footer."""
        footer = self._packer.pack(msgspec.json.encode(self._footer), _place(self._path, -1))
        self._writer.write(footer + len(footer).to_bytes(4, "big") + _MAGIC)


def write_frames(bucket: Bucket, path: str, packer: Packer, items: Iterable[tuple[bytes, int]]) -> None:
    """Write an object of these frames, each with the number of items in it."""
    with bucket.open_writer(path) as writer:
        frames = FramesWriter(writer, path, packer)
        numbered = enumerate(items)
        for (_, (_, count)), frame in map_one_ahead(lambda each: frames.pack(each[0], each[1][0]), numbered):
            frames.add(frame, count)
        frames.finish()


class Frames:
    """An object of frames, for reading.

    Raises:
        ObjectGone: it is not there.
        PayloadDamaged: it is not such an object.
    """

    def __init__(self, bucket: Bucket, path: str, packer: Packer) -> None:
        self._bucket, self._path, self._packer = bucket, path, packer
        self._size, self._end = bucket.read_end(path, _FIRST)
        footer = self._read_footer()
        self.counts = footer.counts
        self._starts = [0, *accumulate(footer.lengths)]
        self._items = [0, *accumulate(footer.counts)]

    @property
    def items(self) -> int:
        """The number of items of its frames."""
        return self._items[-1]

    def read(self, number: int) -> bytes:
        """Return what is in a frame."""
        return self._unpack(number, self._read(*self._starts[number : number + 2]))

    def read_all(self) -> Iterator[bytes]:
        """Yield what is in each frame; some are read at a time, and the next ones meanwhile."""
        for (first, end), data in map_one_ahead(self._read_span, self._spans()):
            for number in range(first, end):
                start = self._starts[number] - self._starts[first]
                yield self._unpack(number, data[start : start + self._starts[number + 1] - self._starts[number]])

    def find(self, position: int) -> tuple[int, int]:
        """Return the number of the frame that has the item at a position, and the position of the frame's first."""
        number = bisect_right(self._items, position) - 1
        return number, self._items[number]

    def _spans(self) -> Iterator[tuple[int, int]]:
        """Yield the first of some frames that are read in one go, and the one after the last of them."""
        first = 0
        for number in range(len(self.counts)):
            if self._starts[number + 1] - self._starts[first] >= _SPAN or number + 1 == len(self.counts):
                yield first, number + 1
                first = number + 1

    def _read_span(self, span: tuple[int, int]) -> bytes:
        return self._read(self._starts[span[0]], self._starts[span[1]])

    def _read(self, start: int, end: int) -> bytes:
        """Return a range of the object, which is at hand if it is near the end."""
        before = self._size - len(self._end)
        return self._bucket.read(self._path, start, end) if start < before else self._end[start - before : end - before]

    def _unpack(self, number: int, frame: bytes) -> bytes:
        return self._packer.unpack(frame, _place(self._path, number))

    def _read_footer(self) -> _Footer:
        length = int.from_bytes(self._end[-_END : -len(_MAGIC)], "big")
        start, end = self._size - length - _END, self._size - _END
        if not self._end.endswith(_MAGIC) or start < 0:
            raise PayloadDamaged(f"the object {self._bucket.name(self._path)} was changed, or is not of this package")
        return _decode_footer(self._packer.unpack(self._read(start, end), _place(self._path, -1)))


def _place(path: str, number: int) -> str:
    return f"{path}:{number}"
