"""How pools and asks lie in Redis."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from claude_batch_tasks.pool_records import Ask, AskPlace, PoolRecord
from claude_batch_tasks.store import packing
from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.redis.keys import FIELDS, ask_key

_encode = msgspec.json.encode
_PLACE, _POOL = FIELDS["PLACE"], FIELDS["POOL"]

#: Made here, where there is one thread: see ``encoding``.
_decode_pool = msgspec.json.Decoder(PoolRecord).decode
_decode_places = msgspec.json.Decoder(list[tuple[Any, ...]]).decode
_decode_head = msgspec.json.Decoder(list[Any]).decode

#: Params of fewer bytes are not compressed: little would be saved.
_WORTH_COMPRESSING = 1000

#: Begins what is compressed, and no JSON.
_FRAME_MAGIC = b"\x28\xb5\x2f\xfd"


def pack_ask(ask: Ask, size: int, cipher: Cipher) -> bytes:
    """Return an ask as the list of its pool has it: a line of JSON, and its params."""
    params = ask.params
    if len(params) >= _WORTH_COMPRESSING:
        params = packing.compress(params)
    head = _encode((ask.id, size, ask.expires_at))
    return b"\n".join((head, cipher.encrypt(params, ask_key(ask.id))))


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
    params = b"" if cipher is None else cipher.decrypt(params, ask_key(ask_id))
    if params.startswith(_FRAME_MAGIC):
        params = packing.decompress(params, ask_key(ask_id))
    return Ask(id=ask_id, params=params, expires_at=expires_at)


def place_args(ask: Ask, cipher: Cipher) -> list[Any]:
    """Return the fields of an ask's place that the ask says, one after the other; what is as usual is left out."""
    args: list[Any] = [_PLACE["reserved"], ask.reserved]
    if ask.canvas != "{}":
        args += [_PLACE["canvas"], _seal_canvas(ask.canvas, ask.id, cipher)]
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
            place.canvas = _open_canvas(place.canvas, ask_id, cipher)
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


def _seal_canvas(canvas: str, ask_id: str, cipher: Cipher) -> str:
    """Return a canvas as a place has it: encrypted if there is a key, since it may hold the params of a later ask."""
    sealed = cipher.encrypt(canvas.encode(), _canvas_place(ask_id))
    return canvas if cipher.key_name is None else b64encode(sealed).decode()


def _open_canvas(stored: str, ask_id: str, cipher: Cipher) -> str:
    if stored.startswith("{"):  # from before there was a key
        return stored
    return cipher.decrypt(b64decode(stored), _canvas_place(ask_id)).decode()


def _canvas_place(ask_id: str) -> str:
    """Return what binds an encrypted canvas to its ask, and keeps it apart from the params."""
    return f"{ask_key(ask_id)} canvas"


def read_pool(fields: Mapping[bytes, bytes]) -> PoolRecord | None:
    """Return the record of a pool from its hash; None: it is gone."""
    found = {name: fields.get(stored.encode()) for name, stored in _POOL.items()}
    if found["record"] is None or found["state"] is None:
        return None
    record = _decode_pool(found["record"])
    record.state = found["state"].decode()  # type: ignore[assignment]
    record.count, record.withdrawn, record.size = (int(found[name] or 0) for name in ("count", "withdrawn", "size"))
    record.opened_at, record.due_at = (float(found[name] or 0) for name in ("opened_at", "due_at"))
    record.deadline = float(found["deadline"]) if found["deadline"] else None
    return record


def deadline_text(deadline: float | None) -> str:
    """Return a deadline as a script takes it."""
    return "" if deadline is None else repr(deadline)


def window_text(seconds: float) -> str:
    """Return the length of a window of a cost limit as keys and scripts have it."""
    return f"{seconds:.15g}"
