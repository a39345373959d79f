"""Encryption of what a store keeps of prompts, answers and custom_ids.

AES-256 in GCM, as ``cryptography`` makes it in one call: Fernet's recipe would make everything a third larger in
Redis, for its base64. A piece names its key, so that several can be in use while they are changed, and is bound to the
place it lies in, so that it does not open in another job.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from hashlib import blake2b

from claude_batch_tasks.errors import InvalidSettings, KeyMissing, PayloadDamaged

SETTING = "claude_batch_encryption_key"

#: Begins no zstandard frame, and with it no piece that was stored without a key; a part of an index begins so once in
#: 2^64.
_MAGIC = b"sealed:1"
_NAME = 4
#: Random: safe for 2^32 pieces under one key, which are four petabytes of prompts or four billion Messages answers.
_NONCE = 12


class Sealer:
    """Seals with the first of some keys and opens with any.

    Args:
        keys: as ``key`` reads them; none: nothing is sealed.

    Raises:
        InvalidSettings: there are keys, and no ``cryptography``.
    """

    def __init__(self, keys: Sequence[str] = ()) -> None:
        if keys:
            try:
                from cryptography.exceptions import InvalidTag
                from cryptography.hazmat.primitives.ciphers.aead import AESGCM
            except ImportError:
                raise InvalidSettings(f"{SETTING} needs: pip install 'claude-batch-tasks[encryption]'") from None
            self._damaged = InvalidTag
            self._keys = {_name_of(raw): AESGCM(raw) for raw in map(key, keys)}
        else:
            self._keys = {}

    @property
    def name(self) -> str | None:
        """What pieces and jobs call the key that seals; it cannot be had from that. None: nothing is sealed."""
        return next((name.hex() for name in self._keys), None)

    def check(self, name: str | None) -> None:
        """There is the key of that name.

        Raises:
            KeyMissing: there is not.
        """
        if name is not None and bytes.fromhex(name) not in self._keys:
            which = "has others" if self._keys else "is not set"
            raise KeyMissing(
                f"it is encrypted with a key (its name is {name}) that this process does not have: {SETTING} {which} "
                "here. Everything is kept; give all callers and workers the same keys"
            )

    def seal(self, data: bytes, place: str) -> bytes:
        """A piece that opens in this place only; as it is, without a key."""
        for name, cipher in self._keys.items():
            nonce = os.urandom(_NONCE)
            return b"".join((_MAGIC, name, nonce, cipher.encrypt(nonce, data, place.encode())))
        return data

    def open(self, piece: bytes, place: str) -> bytes:
        """What was sealed, or was stored without a key.

        Raises:
            KeyMissing: its key is not among these.
            PayloadDamaged: it was changed, or comes from another place.
        """
        if not piece.startswith(_MAGIC):
            return piece
        begin, end = len(_MAGIC) + _NAME, len(_MAGIC) + _NAME + _NONCE
        name = piece[len(_MAGIC) : begin]
        self.check(name.hex())
        try:
            return self._keys[name].decrypt(piece[begin:end], piece[end:], place.encode())
        except (self._damaged, ValueError):
            raise PayloadDamaged(
                f"what the store has under {place} was changed, or is another's; see {SETTING}"
            ) from None


def key(text: str) -> bytes:
    """The 32 bytes of a key from its base64, of either alphabet.

    Raises:
        ValueError: it is none.
    """
    raw = base64.b64decode(text.strip().translate(str.maketrans("-_", "+/")), validate=True)
    if len(raw) != 32:
        raise ValueError("a key has 32 bytes")
    return raw


def _name_of(raw: bytes) -> bytes:
    return blake2b(raw, digest_size=_NAME, person=b"claude_batch_key").digest()
