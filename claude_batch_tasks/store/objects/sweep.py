"""The removal of objects that no job has any more: the job has expired, or its requests were never handed over."""

from __future__ import annotations

import random

from claude_batch_tasks.store.interface import Store
from claude_batch_tasks.store.objects.client import Found
from claude_batch_tasks.store.objects.names import SHARDS, Owner, find_owner, shard_folder
from claude_batch_tasks.store.objects.places import Places

#: Seconds in which a folder is checked once.
_ROUND = 86_400.0

#: Seconds for which an object stays that no job has: requests may be staged for a day before there is one.
GRACE = 2 * 86_400.0


class Sweep:
    """Checks the folders of a ledger, each of them once a day; of all workers, one does.

    An object goes if the ledger answers that it has no job of that id and nonce, and if it was so two days long at
    least. Nothing goes that another ledger has written, nor what this one has before it lost all that it had: its
    identity is lost then, too.
    """

    def __init__(self, ledger: Store, places: Places) -> None:
        self._ledger, self._places = ledger, places

    def run(self) -> None:
        """Check any of the folders, unless it was checked within the last day."""
        shard = random.randrange(SHARDS)
        if self._places.own is not None and self._ledger.statistics.is_first(f"objects:{shard}", _ROUND):
            self.sweep_shard(shard)

    def sweep_shard(self, shard: int) -> None:
        """Remove what no job has in one of the folders."""
        own, identity = self._places.own, self._ledger.read_identity()
        assert own is not None
        own.mark(again=True)
        old = self._ledger.now() - GRACE
        owners: dict[Owner, list[Found]] = {}
        for found in own.list(shard_folder(identity, shard)):
            if (owner := find_owner(found.path)) is not None:
                owners.setdefault(owner, []).append(found)
        gone = [
            found.path
            for owner, all_found in owners.items()
            if max(found.modified_at for found in all_found) < old and not self._is_there(owner)
            for found in all_found
        ]
        # A ledger that was emptied meanwhile has another identity.
        if gone and self._ledger.read_identity() == identity:
            own.remove(gone)

    def _is_there(self, owner: Owner) -> bool:
        job = self._ledger.jobs.read_job(owner.job_id)
        return job is not None and job.nonce == owner.nonce
