"""Counts and a digest of what was read of a store: two stores have the same if theirs are equal."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from claude_batch_tasks.store.transfer.items import JobItem, SharedItem

_Item = TypeVar("_Item", JobItem, SharedItem)

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_MODULUS = 1 << 256


class Tally:
    """What has passed: how many of each kind of item, bytes, and a digest that does not depend on their order."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.bytes = 0
        self._digest = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tally) and (self.counts, self._digest) == (other.counts, other._digest)

    __hash__ = None  # type: ignore[assignment]

    @property
    def digest(self) -> str:
        """The digest in hexadecimal digits."""
        return f"{self._digest:064x}"

    def add(self, item: JobItem | SharedItem) -> None:
        """Count an item. How long it is still stored does not belong to it: that passes."""
        if getattr(item, "remaining", None) is not None:
            item = msgspec.structs.replace(item, remaining=None)
        encoded = _encode(item)
        self.counts[type(item).__name__] += 1
        self.bytes += len(encoded)
        self._digest = (
            self._digest + int.from_bytes(hashlib.blake2b(encoded, digest_size=32).digest(), "big")
        ) % _MODULUS

    def counting(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Yield the items, and count each."""
        for item in items:
            self.add(item)
            yield item

    def describe_difference(self, other: Tally) -> str:
        """Return in what another tally differs, for people."""
        names = sorted(self.counts.keys() | other.counts.keys())
        found = [
            f"{name} {self.counts[name]:,} / {other.counts[name]:,}"
            for name in names
            if self.counts[name] != other.counts[name]
        ]
        return ", ".join(found) or f"equal counts, {self.bytes:,} / {other.bytes:,} bytes"


def tally(items: Iterable[JobItem] | Iterable[SharedItem]) -> Tally:
    """Return the tally of items."""
    found = Tally()
    for item in items:
        found.add(item)
    return found
