"""A store whose ledger is any store, and whose payloads may be in an object store."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Sequence
from typing import Any, cast

from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.interface import Store
from claude_batch_tasks.store.objects.payloads import ObjectPayloads
from claude_batch_tasks.store.objects.places import Places
from claude_batch_tasks.store.objects.results import ObjectResults
from claude_batch_tasks.store.objects.storage import ObjectStorage
from claude_batch_tasks.store.packing import Packer


def with_objects(ledger: Store, url: str | None, keys: Sequence[str] = ()) -> Store:
    """Return a ledger with its payloads in the object store at a URL, one per process.

    Without a URL, too, payloads are read where they are: another process, or an earlier setting, had one, and what the
    ledger has in the place of a payload says where that is.

    Args:
        url: where new payloads go; None: to the ledger.
        keys: the encryption keys, as in the setting ``encryption_key``.
    """
    return _open(cast(Any, ledger), url, tuple(keys), os.getpid())


@functools.lru_cache(maxsize=32)
def _open(ledger: Store, url: str | None, keys: tuple[str, ...], pid: int) -> Store:
    places = Places(ledger, url, Packer(Cipher(keys)))
    store, payloads, results = copy.copy(ledger), ObjectPayloads(ledger, places), ObjectResults(ledger, places)
    store.payloads, store.results = payloads, results
    store.storage = ObjectStorage(ledger, places, payloads, results)
    return store
