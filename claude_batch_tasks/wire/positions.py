"""Sets of positions of requests in a batch, with a bit for each."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator


class Positions:
    """A set of positions of requests in a batch.

    Args:
        bits: what ``to_bytes`` returned.
    """

    def __init__(self, bits: bytes = b"") -> None:
        self._bits = bytearray(bits)

    @classmethod
    def first(cls, count: int) -> Positions:
        """Return the set of all positions below a number."""
        whole, rest = divmod(count, 8)
        return cls(b"\xff" * whole + (bytes([(1 << rest) - 1]) if rest else b""))

    def add(self, place: int) -> None:
        """Add a position."""
        if (at := place >> 3) >= len(self._bits):
            self._bits += bytes(at + 1 - len(self._bits))
        self._bits[at] |= 1 << (place & 7)

    def add_all(self, places: Iterable[int]) -> None:
        """Add positions."""
        for place in places:
            self.add(place)

    def unite(self, other: Positions) -> None:
        """Add the positions of another set."""
        self._bits += bytes(max(len(other._bits) - len(self._bits), 0))
        for at, byte in enumerate(other._bits):
            self._bits[at] |= byte

    def __contains__(self, place: int) -> bool:
        at = place >> 3
        return at < len(self._bits) and bool(self._bits[at] >> (place & 7) & 1)

    def __iter__(self) -> Iterator[int]:
        """Iterate over the positions, the lowest first."""
        for at, byte in enumerate(self._bits):
            while byte:
                lowest = byte & -byte
                yield (at << 3) + lowest.bit_length() - 1
                byte ^= lowest

    def __len__(self) -> int:
        return int.from_bytes(self._bits, "little").bit_count()

    def to_array(self) -> array[int]:
        """Return the positions, the lowest first, in four bytes each."""
        return array("I", self)

    def to_bytes(self) -> bytes:
        """Return what is stored: a bit for each position, the lowest first in each byte."""
        return bytes(self._bits)


def find_runs(positions: Iterable[int]) -> list[tuple[int, int]]:
    """Return ascending positions as runs: the first of each, and how many follow one another."""
    runs: list[tuple[int, int]] = []
    for position in positions:
        if runs and position == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((position, 1))
    return runs
