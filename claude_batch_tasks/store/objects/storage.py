"""What the deletion and the expiry of jobs mean for their objects, and which of a job's objects are missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from claude_batch_tasks.errors import KeyMissing, PayloadDamaged, StoreUnavailable
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.store.interface import Store
from claude_batch_tasks.store.objects import helper, names, results
from claude_batch_tasks.store.objects.names import Reference
from claude_batch_tasks.store.objects.payloads import ObjectPayloads
from claude_batch_tasks.store.objects.places import Places
from claude_batch_tasks.store.objects.results import ObjectResults
from claude_batch_tasks.store.objects.sweep import Sweep

log = get_logger(__name__)

#: The objects in which what these keys of a ledger have is.
_OF_REQUESTS = {"body": "bodies", "ids": "ids"}
_OF_ATTEMPTS = {
    "rows": results.ROWS,
    "pieces": results.PLACES,
    "eligible": results.PLACES,
    "again": results.PLACES,
    "index": results.INDEX,
}
_IN_OBJECTS = {"index", *_OF_REQUESTS, *_OF_ATTEMPTS}


class ObjectStorage:
    """``interface.Storage`` where payloads are in an object store: what is deleted in the ledger is deleted there."""

    def __init__(self, ledger: Store, places: Places, payloads: ObjectPayloads, results_: ObjectResults) -> None:
        self._ledger, self._places, self._payloads, self._results = ledger, places, payloads, results_
        self._sweep = Sweep(ledger, places)

    def missing_keys(self, job_id: str, batch: int | None, names: Iterable[str]) -> list[str]:
        asked = list(names)
        missing = self._ledger.storage.missing_keys(job_id, batch, asked)
        in_objects = [name for name in asked if name.partition(":")[0] in _IN_OBJECTS]
        if not (in_objects and self._checks(job_id)):
            in_objects = [name for name in in_objects if name.startswith("index:")]
        for name in in_objects:
            with suppress(KeyMissing, PayloadDamaged):  # it is there, and its readers get that error
                self._correct(missing, job_id, batch, name)
        return missing

    def delete_job(self, job_id: str, *, remember: bool = False) -> None:
        folders = self._list_folders(job_id)
        self._ledger.storage.delete_job(job_id, remember=remember)
        for folder in folders:
            try:
                self._places.find_bucket(folder.url).remove_folder(folder.path)
            except StoreUnavailable as exc:
                raise StoreUnavailable(
                    f"job {job_id} was deleted, but for its objects in {folder.url}/{folder.path}: {exc}. Workers "
                    "remove them within a few days; nothing needs to be repeated"
                ) from None

    def forget_expired(self) -> None:
        self._ledger.storage.forget_expired()
        try:
            self._sweep.run()
        except StoreUnavailable as exc:  # the next one comes in a few minutes
            log.warning("objects that no job has any more were not removed: %s", exc)

    def _list_folders(self, job_id: str) -> set[Reference]:
        """Return the folders of a job's objects."""
        found = set()
        with suppress(KeyMissing, PayloadDamaged):
            if (index := self._payloads.find_index(job_id)) is not None:
                found.add(Reference(index.url, names.folder_of_index(index.path)))
        if (own := self._places.own) is not None and (folder := self._places.find_folder(job_id)) is not None:
            found.add(Reference(own.url, folder))
        return found

    def _checks(self, job_id: str) -> bool:
        """Return whether a job may have objects, and whether this process is to see that they are there."""
        # What an object store has, it does not lose: the workers' watch, which asks all the time, need not know.
        if helper.needs_helper():
            return False
        return self._places.own is not None or self._payloads.find_index(job_id) is not None

    def _correct(self, missing: list[str], job_id: str, batch: int | None, name: str) -> None:
        """Correct what the ledger says of a name, if objects have what that has."""
        for reference, part in self._list_objects(job_id, batch, name):
            if part == results.INDEX:  # the ledger never has it
                missing[:] = [each for each in missing if not each.endswith(name)]
            if not self._places.is_there(reference, part):
                missing.append(self._places.locate(reference, part))

    def _list_objects(self, job_id: str, batch: int | None, name: str) -> Iterator[tuple[Reference, str]]:
        """Yield the objects that have what a key of the ledger would have."""
        if name == "index" and (index := self._payloads.find_index(job_id)) is not None:
            yield index, ""
        elif name in _OF_REQUESTS and batch is not None:
            for reference in self._payloads.list_references(job_id, batch):
                yield reference, _OF_REQUESTS[name]
        elif (kind := name.partition(":")[0]) in _OF_ATTEMPTS and batch is not None:
            attempt = self._results.find_attempt(job_id, batch, int(name.partition(":")[2]))
            if attempt is not None:
                yield attempt, _OF_ATTEMPTS[kind]
