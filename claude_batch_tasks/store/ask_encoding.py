"""How pools and asks lie in each store, and for how long; what is refused is described here, too."""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from typing import Final

import msgspec

from claude_batch_tasks.errors import BudgetSpent
from claude_batch_tasks.pool_records import Ask, PoolRecord
from claude_batch_tasks.store import packing
from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.places import ask_key

#: Seconds after which it is forgotten where an ask is that has not ended: a job was lost.
PLACE_TTL: Final = 90 * 86_400

#: How often the time is doubled after which a pool is due once more.
DOUBLINGS: Final = 6

#: Bytes of asks that are read in one go, about, and how many at most.
_PAGE_BYTES, _PAGE = 4_000_000, 500

#: Params of fewer bytes are not compressed: little would be saved.
_WORTH_COMPRESSING = 1000

#: Begins what is compressed, and no JSON.
_FRAME_MAGIC = b"\x28\xb5\x2f\xfd"

#: Made here, where there is one thread: see ``record_encoding``.
_decode_pool = msgspec.json.Decoder(PoolRecord).decode


def pack_params(ask: Ask, cipher: Cipher) -> bytes:
    """Return the params of an ask as stores have them."""
    params = ask.params
    if len(params) >= _WORTH_COMPRESSING:
        params = packing.compress(params)
    return cipher.encrypt(params, ask_key(ask.id))


def unpack_params(packed: bytes, ask_id: str, cipher: Cipher) -> bytes:
    """Return the params that a store has of an ask.

    Raises:
        KeyMissing: their key is not among those of the cipher.
        PayloadDamaged: they were changed.
    """
    params = cipher.decrypt(packed, ask_key(ask_id))
    return packing.decompress(params, ask_key(ask_id)) if params.startswith(_FRAME_MAGIC) else params


def encrypt_canvas(ask: Ask, cipher: Cipher) -> str | None:
    """Return the canvas of an ask as a place has it; None: it is empty.

    It is encrypted if there is a key, since it may hold the params of a later ask.
    """
    if ask.canvas == "{}" or cipher.key_name is None:
        return None if ask.canvas == "{}" else ask.canvas
    return b64encode(cipher.encrypt(ask.canvas.encode(), _canvas_place(ask.id))).decode()


def decrypt_canvas(stored: str | None, ask_id: str, cipher: Cipher) -> str:
    """Return the canvas that a place has.

    Raises:
        KeyMissing: its key is not among those of the cipher.
    """
    if stored is None or stored.startswith("{"):  # also from before there was a key
        return stored or "{}"
    return cipher.decrypt(b64decode(stored), _canvas_place(ask_id)).decode()


def _canvas_place(ask_id: str) -> str:
    """Return what binds an encrypted canvas to its ask, and keeps it apart from the params."""
    return f"{ask_key(ask_id)} canvas"


def make_pool(
    record: bytes | str,
    state: str,
    *,
    count: int,
    withdrawn: int,
    size: int,
    opened_at: float,
    due_at: float,
    deadline: float | None,
) -> PoolRecord:
    """Return the record of a pool: what it was opened with, and what has changed since."""
    found = _decode_pool(record)
    found.state = state  # type: ignore[assignment]
    found.count, found.withdrawn, found.size = count, withdrawn, size
    found.opened_at, found.due_at, found.deadline = opened_at, due_at, deadline
    return found


def choose_page(record: PoolRecord | None) -> int:
    """Return how many asks of a pool are read in one go."""
    mean = record.size // max(record.count, 1) if record else 0
    return min(max(_PAGE_BYTES // max(mean, 1), 1), _PAGE)


def describe_spent(name: str, reserved: int, left: int, seconds: float) -> BudgetSpent:
    """Return the error for an ask that costs more than the limit of its pool's name leaves."""
    return BudgetSpent(
        f"an ask of the pool {name!r} may cost up to {reserved / 1e9:.6f} USD, and {max(left, 0) / 1e9:.6f} USD of its "
        f"ask_max_cost are left until the next window begins in {math.ceil(seconds):,} s; nothing was stored or sent",
        seconds,
    )
