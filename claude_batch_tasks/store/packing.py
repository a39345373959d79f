"""Packing of what a store keeps of prompts, answers and custom_ids: compressed, and encrypted if there is a key.

A chunk is one zstd frame that says its size, at any level, which is what all releases write and read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from claude_batch_tasks.compression import zstd
from claude_batch_tasks.errors import PayloadDamaged
from claude_batch_tasks.store.encryption import Cipher

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

#: Plain bytes that are packed, sent or read in one go, about.
TOGETHER = 1_000_000

#: The fastest level that is above none; higher ones save little of JSON and take several times as long.
_LEVEL = 1


class Packer:
    """Packs chunks, each for the one place that it can be read from. Threads may share it."""

    def __init__(self, cipher: Cipher) -> None:
        self.cipher = cipher

    def pack(self, data: bytes, place: str) -> bytes:
        """Return a chunk that can be read at this place only."""
        return self.cipher.encrypt(compress(data), place)

    def unpack(self, chunk: bytes, place: str) -> bytes:
        """Return what a chunk of this place holds.

        Raises:
            KeyMissing: its key is not among those of the cipher.
            PayloadDamaged: the chunk was changed, or comes from another place.
        """
        return decompress(self.cipher.decrypt(chunk, place), place)


def compress(data: bytes) -> bytes:
    """Return a frame of the data, which says their size."""
    return zstd.compress(data, _LEVEL)


def decompress(frame: bytes, place: str) -> bytes:
    """Return the data of a frame.

    Args:
        place: where the frame is from, for the error.

    Raises:
        PayloadDamaged: it is no whole frame.
    """
    try:
        return zstd.decompress(frame)
    except zstd.ZstdError:
        raise PayloadDamaged(f"the value of {place} in the store was changed") from None


def group_chunks(chunks: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield neighboring chunks together that have about a megabyte: as much as is packed and sent in one go."""
    group: list[bytes] = []
    size = 0
    for chunk in chunks:
        group.append(chunk)
        size += len(chunk)
        if size >= TOGETHER:
            yield group
            group, size = [], 0
    if group:
        yield group


def map_one_ahead(function: Callable[[_Item], _Made], items: Iterable[_Item]) -> Iterator[tuple[_Item, _Made]]:
    """Yield each item with what the function makes of it, in a thread, one item ahead of the caller.

    For what lets other threads run while it works: compressing and sending do. If it fails, or the items do, that is
    raised when what came before is done.
    """
    with ThreadPoolExecutor(1, "claude-batch-store") as pool:
        last: tuple[_Item, Future[_Made]] | None = None
        for item in items:
            this = item, pool.submit(function, item)
            if last is not None:
                yield last[0], last[1].result()
            last = this
        if last is not None:
            yield last[0], last[1].result()
