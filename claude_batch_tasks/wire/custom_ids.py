"""Which request of a job has which custom_id: duplicates while it is handed over, and the way back afterwards.

Twelve bytes per request instead of the text: the first eight of its digest, and the index. Two of a million different
ids share those eight bytes in one job of thirty million.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from itertools import groupby

_DIGEST = 8
_ENTRY = _DIGEST + 4


class Index:
    """The index of every custom_id of a job that is being handed over."""

    def __init__(self) -> None:
        # Searched from end to end, so they must be short: at a million ids about 240 entries each.
        self._buckets: dict[int, bytearray] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, custom_id: str, index: int) -> bool:
        """Remember an id; False if it is there already."""
        digest = _digest(custom_id)
        bucket = self._buckets.setdefault(_bucket(digest), bytearray())
        if _find(bucket, digest) is not None:
            return False
        bucket += digest
        bucket += index.to_bytes(4, "little")
        self._count += 1
        return True

    def find(self, custom_id: str) -> int | None:
        """The index of an id, if it is there."""
        digest = _digest(custom_id)
        return _find(self._buckets.get(_bucket(digest), b""), digest)

    def parts(self) -> Iterator[tuple[int, bytes]]:
        """What is to be stored: up to 256 parts under their numbers."""
        for number, keys in groupby(sorted(self._buckets), key=lambda key: key >> 4):
            yield number, b"".join(self._buckets[key] for key in keys)


def part(custom_id: str) -> int:
    """The number of the part that holds an id."""
    return _digest(custom_id)[0]


def find(entries: bytes, custom_id: str) -> int | None:
    """The index of an id in its part; that it is the very id remains to be seen."""
    return _find(entries, _digest(custom_id))


def _bucket(digest: bytes) -> int:
    return digest[0] << 4 | digest[1] >> 4


def _digest(custom_id: str) -> bytes:
    return blake2b(custom_id.encode(errors="surrogatepass"), digest_size=_DIGEST).digest()


def _find(entries: bytes | bytearray, digest: bytes) -> int | None:
    at = entries.find(digest)
    while at >= 0 and at % _ENTRY:  # across two entries
        at = entries.find(digest, at + 1)
    return None if at < 0 else int.from_bytes(entries[at + _DIGEST : at + _ENTRY], "little")
