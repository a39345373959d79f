"""Encryption keys of a store: how settings spell them, and under which names records mention them."""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Collection, Sequence
from hashlib import blake2b

from claude_batch_tasks.errors import InvalidSettings, KeyMissing

SETTING = "claude_batch_encryption_key"

#: Number of bytes of a key's name.
NAME_SIZE = 4


def decode_key(text: str) -> bytes:
    """Return the 32 bytes of a key from its base64, in the standard or the URL-safe alphabet.

    Raises:
        ValueError: the text is not such a key.
    """
    raw = base64.b64decode(text.strip().translate(str.maketrans("-_", "+/")), validate=True)
    if len(raw) != 32:
        raise ValueError("a key has 32 bytes")
    return raw


def decode_keys(texts: Sequence[str]) -> dict[bytes, bytes]:
    """Return keys by their names, in the order given.

    Raises:
        ValueError: a text is not a key.
        InvalidSettings: there are keys, but the package ``cryptography`` is not installed.
    """
    if texts and importlib.util.find_spec("cryptography") is None:
        raise InvalidSettings(f"{SETTING} needs: pip install 'claude-batch-tasks[encryption]'")
    return {key_name(raw): raw for raw in map(decode_key, texts)}


def key_name(raw: bytes) -> bytes:
    """Return the name under which records mention a key; the key cannot be computed from it."""
    return blake2b(raw, digest_size=NAME_SIZE, person=b"claude_batch_key").digest()


def check_key_name(names: Collection[bytes], name: str | None) -> None:
    """Check that the key of that name is among ``names``; None: nothing was encrypted.

    Raises:
        KeyMissing: it is not among them.
    """
    if name is not None and bytes.fromhex(name) not in names:
        which = "has others" if names else "is not set"
        raise KeyMissing(
            f"it is encrypted with a key (its name is {name}) that this process does not have: {SETTING} {which} "
            "here. Nothing was deleted; give all callers and workers the same keys"
        )
