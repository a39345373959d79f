"""A store whose ledger is any store, and whose payloads may be in an object store."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any, cast

from claude_batch_tasks.store import interface
from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.objects.delegate import Delegate
from claude_batch_tasks.store.objects.jobs import ObjectJobs, ObjectRecords
from claude_batch_tasks.store.objects.payloads import ObjectPayloads
from claude_batch_tasks.store.objects.places import Places
from claude_batch_tasks.store.objects.results import ObjectResults
from claude_batch_tasks.store.packing import Packer


class StoreWithObjects(Delegate):
    """A ``store.Store`` that reads payloads where they are, and writes new ones where they are to go.

    Args:
        ledger: has all else.
        url: where new payloads go; None: to the ledger.
        cipher: encrypts objects; default: nothing is encrypted.
    """

    def __init__(self, ledger: interface.Store, url: str | None, cipher: Cipher | None = None) -> None:
        super().__init__(ledger)
        self.ledger, self.url = ledger, url
        self.places = Places(ledger, url, Packer(cipher or Cipher()))
        self.payloads = ObjectPayloads(ledger, self.places)
        self.results = ObjectResults(ledger, self.places)
        self.jobs = ObjectJobs(ledger, self.places, self.payloads)
        self.records = ObjectRecords(ledger, self.places, self.payloads, self.results)


@functools.lru_cache(maxsize=32)
def _open(ledger: Any, url: str | None, keys: tuple[str, ...], pid: int) -> StoreWithObjects:
    return StoreWithObjects(ledger, url, Cipher(keys))


def with_objects(ledger: interface.Store, url: str | None, keys: Sequence[str] = ()) -> interface.Store:
    """Return a ledger with its payloads in the object store at a URL, one per process.

    Args:
        url: where new payloads go; None: to the ledger. Those that are elsewhere are read there in any case.
        keys: the encryption keys, as in the setting ``encryption_key``.
    """
    return cast(interface.Store, _open(cast(Any, ledger), url, tuple(keys), os.getpid()))
