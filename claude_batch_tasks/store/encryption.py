"""Encryption of what a store keeps of prompts, answers and custom_ids.

AES-256 in GCM, as ``cryptography`` makes it in one call: Fernet's recipe would make everything a third larger in
Redis, for its base64. A chunk names its key, so that several can be in use while they are changed, and is bound to the
place it lies in, so that it cannot be decrypted in another job.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from claude_batch_tasks.errors import PayloadDamaged
from claude_batch_tasks.settings.encryption_keys import NAME_SIZE, SETTING, check_key_name, decode_keys

#: Begins no zstd frame, and with it no chunk that was stored without a key; a part of an index begins so once in
#: 2^64.
_MAGIC = b"sealed:1"
#: Random: safe for 2^32 chunks under one key, which are four petabytes of prompts or four billion Messages answers.
_NONCE_SIZE = 12


class Cipher:
    """Encrypts with the first of some keys and decrypts with any.

    Args:
        keys: as the setting spells them; none: nothing is encrypted.

    Raises:
        InvalidSettings: there are keys, and the package ``cryptography`` is not installed.
    """

    def __init__(self, keys: Sequence[str] = ()) -> None:
        found = decode_keys(keys)
        if found:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._damaged = InvalidTag
            self._ciphers = {name: AESGCM(raw) for name, raw in found.items()}
        else:
            self._ciphers = {}

    @property
    def key_name(self) -> str | None:
        """The name of the key that encrypts; None: nothing is encrypted."""
        return next((name.hex() for name in self._ciphers), None)

    def encrypt(self, data: bytes, place: str) -> bytes:
        """Return a chunk that can be decrypted in this place only; without a key the data as it is."""
        for name, cipher in self._ciphers.items():
            nonce = os.urandom(_NONCE_SIZE)
            return b"".join((_MAGIC, name, nonce, cipher.encrypt(nonce, data, place.encode())))
        return data

    def decrypt(self, chunk: bytes, place: str) -> bytes:
        """Return what was encrypted, or was stored without a key.

        Raises:
            KeyMissing: its key is not among these.
            PayloadDamaged: the chunk was changed, or comes from another place.
        """
        if not chunk.startswith(_MAGIC):
            return chunk
        begin, end = len(_MAGIC) + NAME_SIZE, len(_MAGIC) + NAME_SIZE + _NONCE_SIZE
        name = chunk[len(_MAGIC) : begin]
        check_key_name(self._ciphers, name.hex())
        try:
            return self._ciphers[name].decrypt(chunk[begin:end], chunk[end:], place.encode())
        except (self._damaged, ValueError):
            raise PayloadDamaged(
                f"the value of {place} in the store was changed, or belongs to another job; see {SETTING}"
            ) from None
