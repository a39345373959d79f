"""The bits of single tasks of ``on_result``: in Redis those of the second task are behind those of the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def split_bits(bits: bytes, requests: int) -> Iterator[bytes]:
    """Yield the bits of each task, without zero bytes at their end.

    Args:
        requests: how many bits each task has.
    """
    whole, count = int.from_bytes(bits, "big"), 8 * len(bits)
    for first in range(0, count, requests):
        size = min(requests, count - first)
        own = whole >> (count - first - size) & ((1 << size) - 1)
        padding = -size % 8
        yield (own << padding).to_bytes((size + padding) // 8, "big").rstrip(b"\0")


def join_bits(tasks: Mapping[int, bytes], requests: int) -> bytes:
    """Return the bits of all tasks, by their numbers, one behind the other."""
    size = (max(tasks) + 1) * requests
    padding = -size % 8
    whole = 0
    for task, bits in tasks.items():
        last = size - (task * requests + 8 * len(bits))
        own = int.from_bytes(bits, "big")
        whole |= own << last if last >= 0 else own >> -last
    return (whole << padding).to_bytes((size + padding) // 8, "big")
