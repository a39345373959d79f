"""Which request of a job has which custom_id: finds duplicates at submission, and requests by custom_id afterwards.

A request takes twelve bytes instead of its text: the first eight bytes of its digest, and the index. In a job of a
million ids, the chance that two of them share those eight bytes is one in thirty million.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from itertools import groupby

_DIGEST = 8
_ENTRY = _DIGEST + 4


class Index:
    """The index of every custom_id of a job that is being submitted."""

    def __init__(self) -> None:
        # Each bucket is searched from end to end, so it must be short: a million ids give about 240 entries per bucket.
        self._buckets: dict[int, bytearray] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add_id(self, custom_id: str, index: int) -> bool:
        """Remember an id; return False if it is already there."""
        digest = _digest_id(custom_id)
        bucket = self._buckets.get(number := _bucket_of(digest))
        if bucket is None:
            bucket = self._buckets[number] = bytearray()
        elif digest in bucket and _search_entries(bucket, digest) is not None:
            return False
        bucket += digest + index.to_bytes(4, "little")
        self._count += 1
        return True

    def find_id(self, custom_id: str) -> int | None:
        """Return the index of an id, or None if it is not there."""
        digest = _digest_id(custom_id)
        return _search_entries(self._buckets.get(_bucket_of(digest), b""), digest)

    def list_parts(self) -> Iterator[tuple[int, bytes]]:
        """Yield what is to be stored: up to 256 parts, each with its number."""
        for number, keys in groupby(sorted(self._buckets), key=lambda key: key >> 4):
            yield number, b"".join(self._buckets[key] for key in keys)


def part_number(custom_id: str) -> int:
    """Return the number of the part that holds an id."""
    return _digest_id(custom_id)[0]


def find_index(entries: bytes, custom_id: str) -> int | None:
    """Return the index of an id in its part; the caller must check that it is really this id."""
    return _search_entries(entries, _digest_id(custom_id))


def _bucket_of(digest: bytes) -> int:
    return digest[0] << 4 | digest[1] >> 4


def _digest_id(custom_id: str) -> bytes:
    return blake2b(custom_id.encode(errors="surrogatepass"), digest_size=_DIGEST).digest()


def _search_entries(entries: bytes | bytearray, digest: bytes) -> int | None:
    at = entries.find(digest)
    while at >= 0 and at % _ENTRY:  # found across two entries
        at = entries.find(digest, at + 1)
    return None if at < 0 else int.from_bytes(entries[at + _DIGEST : at + _ENTRY], "little")
