"""How pools and asks lie in Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from claude_batch_tasks.pool_records import Ask, AskPlace, PoolRecord
from claude_batch_tasks.store.ask_encoding import decrypt_canvas, encrypt_canvas, make_pool, pack_params, unpack_params
from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.redis.keys import FIELDS

_encode = msgspec.json.encode
_PLACE, _POOL = FIELDS["PLACE"], FIELDS["POOL"]

#: Made here, where there is one thread: see ``record_encoding``.
_decode_places = msgspec.json.Decoder(list[tuple[Any, ...]]).decode
_decode_head = msgspec.json.Decoder(list[Any]).decode


def pack_ask(ask: Ask, size: int, cipher: Cipher) -> bytes:
    """Return an ask as the list of its pool has it: a line of JSON, and its params."""
    head = _encode((ask.id, size, ask.expires_at))
    return b"\n".join((head, pack_params(ask, cipher)))


def unpack_ask(packed: bytes, cipher: Cipher | None) -> Ask | None:
    """Return the ask that a list has; None: it was withdrawn, or moved to another pool. Its place has the rest.

    Args:
        cipher: decrypts the params; None: without them.

    Raises:
        KeyMissing: the key of the params is not among those of the cipher.
        PayloadDamaged: the params were changed.
    """
    if not packed:
        return None
    head, params = packed.split(b"\n", 1)
    ask_id, _, expires_at, *_ = _decode_head(head)
    params = b"" if cipher is None else unpack_params(params, ask_id, cipher)
    return Ask(id=ask_id, params=params, expires_at=expires_at)


def place_args(ask: Ask, cipher: Cipher) -> list[Any]:
    """Return the fields of an ask's place that the ask says, one after the other; what is as usual is left out."""
    args: list[Any] = [_PLACE["reserved"], ask.reserved]
    if (canvas := encrypt_canvas(ask, cipher)) is not None:
        args += [_PLACE["canvas"], canvas]
    if ask.headers is not None:
        args += [_PLACE["headers"], ask.headers]
    return args


def read_place(values: Sequence[bytes | None]) -> AskPlace | None:
    """Return where an ask is, from the fields that scripts return; None: it is not known."""
    return _make_place(*(value.decode() if value is not None else None for value in values))


def read_places(encoded: bytes, ask_ids: Sequence[str], cipher: Cipher) -> list[AskPlace | None]:
    """Return where asks are, from what the script says; None: one is not known.

    Raises:
        KeyMissing: a canvas is encrypted with a key that is not among ours.
    """
    places = [_make_place(*values) for values in _decode_places(encoded)]
    for ask_id, place in zip(ask_ids, places, strict=True):
        if place is not None:
            place.canvas = decrypt_canvas(place.canvas, ask_id, cipher)
    return places


def _make_place(
    job_id: Any, position: Any, asked_at: Any, state: Any, reserved: Any, canvas: Any = None, headers: Any = None
) -> AskPlace | None:
    if not job_id or not position or not asked_at:
        return None
    return AskPlace(
        job_id=job_id,
        position=int(position),
        asked_at=float(asked_at),
        state=state or "waiting",
        canvas=canvas or "{}",
        headers=headers or None,
        reserved=int(reserved or 0),
    )


def read_pool(fields: Mapping[bytes, bytes]) -> PoolRecord | None:
    """Return the record of a pool from its hash; None: it is gone."""
    found = {name: fields.get(stored.encode()) for name, stored in _POOL.items()}
    if found["record"] is None or found["state"] is None:
        return None
    return make_pool(
        found["record"],
        found["state"].decode(),
        count=int(found["count"] or 0),
        withdrawn=int(found["withdrawn"] or 0),
        size=int(found["size"] or 0),
        opened_at=float(found["opened_at"] or 0),
        due_at=float(found["due_at"] or 0),
        deadline=float(found["deadline"]) if found["deadline"] else None,
    )


def deadline_text(deadline: float | None) -> str:
    """Return a deadline as a script takes it."""
    return "" if deadline is None else repr(deadline)


def window_text(seconds: float) -> str:
    """Return the length of a window of a cost limit as keys and scripts have it."""
    return f"{seconds:.15g}"
