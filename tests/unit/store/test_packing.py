"""Chunks are readable by every release, whichever library made them, by many threads, and at their own place only."""

from __future__ import annotations

import base64
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import zstandard

from claude_batch_tasks.compression import zstd
from claude_batch_tasks.errors import PayloadDamaged
from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.packing import Packer, map_one_ahead

KEY = base64.b64encode(bytes(range(32))).decode()

#: Chunks that 0.2.0 wrote: of a few bytes, of a megabyte, of none, and one that is encrypted with ``KEY``.
STORED = msgspec.json.decode(Path(__file__).with_name("chunks_of_0_2_0.json").read_bytes(), type=dict[str, bytes])


def lines(count: int) -> bytes:
    return b"\n".join(b'{"custom_id":"review-%d","text":"%d"}' % (n, n * 7919 % 1000) for n in range(count))


PLAIN = {"short": lines(3), "megabyte": lines(24_000), "empty": b"", "encrypted": lines(3)}


@pytest.mark.parametrize("name", PLAIN)
def test_what_0_2_0_wrote_is_read(name: str) -> None:
    assert Packer(Cipher([KEY])).unpack(STORED[name], "here") == PLAIN[name]


@pytest.mark.parametrize("data", PLAIN.values(), ids=PLAIN)
def test_what_is_written_is_read_by_0_2_0(data: bytes) -> None:
    chunk = Packer(Cipher()).pack(data, "here")
    # Which calls just this, and that needs the size in the frame's header.
    assert zstandard.decompress(chunk) == data
    assert zstd.get_frame_info(chunk).decompressed_size == len(data)


@pytest.mark.parametrize("keys", [[], [KEY]], ids=["plain", "encrypted"])
@pytest.mark.parametrize("damage", [lambda chunk: chunk[:-2], lambda chunk: b"", lambda chunk: chunk[2:]])
def test_a_damaged_chunk_says_where_it_is(keys: list[str], damage: object) -> None:
    packer = Packer(Cipher(keys))
    assert callable(damage)
    with pytest.raises(PayloadDamaged, match="the value of its key in the store was changed"):
        packer.unpack(damage(packer.pack(lines(100), "its key")), "its key")


def test_threads_may_share_a_packer() -> None:
    packer, rng = Packer(Cipher([KEY])), random.Random(1)
    pieces = [rng.randbytes(rng.randrange(200_000)) for _ in range(100)]

    def there_and_back(number: int) -> bytes:
        return packer.unpack(packer.pack(pieces[number], f"{number}"), f"{number}")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(there_and_back, range(len(pieces)))) == pieces


def test_one_item_is_made_ahead_in_its_order() -> None:
    made: list[int] = []

    def make(item: int) -> bytes:
        made.append(item)
        return b"%d" % item

    for item, result in map_one_ahead(make, range(5)):
        assert result == b"%d" % item
        assert len(made) <= item + 2


def test_what_the_items_raise_is_raised_after_those_before_it() -> None:
    def items() -> object:
        yield 1
        raise OSError("gone")

    found = map_one_ahead(lambda item: os.urandom(item), items())  # type: ignore[arg-type]
    with pytest.raises(OSError, match="gone"):
        list(found)
