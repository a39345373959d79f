"""The custom_ids of a batch by the positions of its requests."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

from claude_batch_tasks.errors import ResultsMissing
from claude_batch_tasks.records import BatchRecord, JobRecord
from claude_batch_tasks.store import ReadableStore, lost_records


def load_custom_ids(store: ReadableStore, job_id: str, job: JobRecord, number: int, batch: BatchRecord) -> Ids:
    """Return a batch's custom_ids by position.

    Raises:
        ResultsMissing: some custom_ids are gone.
    """
    try:
        found = Ids(store.payloads.read_custom_ids(job_id, number))
    except ResultsMissing:
        found = Ids([])
    if len(found) != batch.count:
        raise lost_records.of_names(store, job_id, job, number, batch)
    return found


class Ids:
    """A batch's custom_ids by position: the bytes of all of them and where each ends, not one object for each."""

    def __init__(self, pieces: Iterable[list[str]]) -> None:
        self._text = bytearray()
        self._ends = array("Q", [0])
        for ids in pieces:
            for custom_id in ids:
                self._text += custom_id.encode()
                self._ends.append(len(self._text))

    def __iter__(self) -> Iterator[str]:
        return (self[place] for place in range(len(self)))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: int) -> str:
        return self._text[self._ends[place] : self._ends[place + 1]].decode()
