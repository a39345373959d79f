"""The results of a job in an object store: the ledger has references in the place of rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from claude_batch_tasks.errors import JobNotFound, StoreUnavailable
from claude_batch_tasks.formatting import describe_missing_job
from claude_batch_tasks.records import Unit
from claude_batch_tasks.store.interface import Store
from claude_batch_tasks.store.objects.bucket import Bucket, ObjectGone
from claude_batch_tasks.store.objects.frames import write_frames
from claude_batch_tasks.store.objects.names import Reference, attempt_path, make_token, quote_name, read_reference
from claude_batch_tasks.store.objects.places import Places
from claude_batch_tasks.store.objects.remembered import Remembered
from claude_batch_tasks.wire.completeness import MISSING

#: The objects of an attempt: its rows, which positions there are, and an adopted job's index.
ROWS, PLACES, INDEX = "rows", "places", "index"

#: The frames of the object with positions.
_CHUNKS, _ELIGIBLE, _AGAIN = range(3)

#: Lists of positions that are remembered, of 400 kB each for 100,000 requests.
_LISTS = 8


class ObjectResults:
    """``interface.Results`` in an object store; outcomes of single requests are in the ledger.

    The rows of an attempt in the ledger are its rows, or a chunk that is the reference to the folder of its objects.
    What a process publishes are the rows that it wrote itself, though another one may have written the same attempt.
    """

    def __init__(self, ledger: Store, places: Places) -> None:
        self._ledger, self._places = ledger, places
        self._written: dict[tuple[str, int], tuple[int, Reference]] = {}
        self._positions: Remembered[bytes] = Remembered(_LISTS)

    def write_rows(self, job_id: str, batch: int, attempt: int, pieces: Iterable[bytes], *, copy: str = "") -> None:
        if (own := self._places.own) is None:
            self._ledger.results.write_rows(job_id, batch, attempt, pieces, copy=copy)
            return
        if (folder := self._places.find_folder(job_id)) is None:
            raise JobNotFound(describe_missing_job(job_id))
        reference = _name_attempt(own, folder, batch, attempt, copy)
        write_frames(own, f"{reference.path}/{ROWS}", self._places.packer, ((piece, 0) for piece in pieces))
        self._ledger.results.write_rows(job_id, batch, attempt, [reference.encode()], copy=copy)
        if not copy:
            self._written[job_id, batch] = attempt, reference

    def discard_rows(self, job_id: str, batch: int, attempt: int, *, copy: str = "") -> None:
        reference = None
        if not copy:
            reference = self._take_written(job_id, batch, attempt)
        elif self._places.own is not None and (folder := self._places.find_folder(job_id)) is not None:
            reference = _name_attempt(self._places.own, folder, batch, attempt, copy)
        self._ledger.results.discard_rows(job_id, batch, attempt, copy=copy)
        if reference is not None:
            self._places.find_bucket(reference.url).remove_folder(reference.path)

    def restore_rows(
        self,
        job_id: str,
        batch: int,
        attempt: int,
        copy: str,
        *,
        pieces: bytes,
        eligible_places: bytes,
        again_places: bytes | None = None,
        index: Iterable[tuple[int, bytes]] = (),
    ) -> bool:
        positions = _Positions(pieces, eligible_places, again_places, index)
        if (own := self._places.own) is None:
            return self._ledger.results.restore_rows(job_id, batch, attempt, copy, **positions.as_arguments())
        if (folder := self._places.find_folder(job_id)) is None:
            return False
        reference = _name_attempt(own, folder, batch, attempt, copy)
        try:
            own.size(f"{reference.path}/{ROWS}")
        except ObjectGone:
            return False
        self._write_positions(own, reference, positions)
        kept = positions.replace_by(reference)
        restored = self._ledger.results.restore_rows(job_id, batch, attempt, copy, **kept.as_arguments())
        if restored:
            _remove_others(own, reference, keep=range(attempt))
        return restored

    def publish_rows(
        self,
        unit: Unit,
        owner: str,
        attempt: int,
        /,
        *,
        pieces: bytes,
        eligible_places: bytes,
        again_places: bytes | None = None,
        index: Iterable[tuple[int, bytes]] = (),
        keep: Iterable[int] = (),
        **changes: Any,
    ) -> bool:
        ledger, keep = self._ledger.results, list(keep)
        positions = _Positions(pieces, eligible_places, again_places, index)
        if (own := self._places.own) is None:
            return ledger.publish_rows(unit, owner, attempt, keep=keep, **positions.as_arguments(), **changes)
        job_id, batch = unit.job_id, unit.batch or 0
        if (reference := self._take_written(job_id, batch, attempt)) is None:  # there are no rows
            self.write_rows(job_id, batch, attempt, ())
            _, reference = self._written.pop((job_id, batch))
        self._write_positions(own, reference, positions)
        if self.find_attempt(job_id, batch, attempt) != reference or ledger.read_chunk(job_id, batch, attempt, 1):
            ledger.discard_rows(job_id, batch, attempt)
            ledger.write_rows(job_id, batch, attempt, [reference.encode()])
        kept = positions.replace_by(reference)
        published = ledger.publish_rows(unit, owner, attempt, keep=keep, **kept.as_arguments(), **changes)
        if not published:
            with suppress(StoreUnavailable):  # then they go with the job
                own.remove_folder(reference.path)
        elif attempt > 1:
            _remove_others(own, reference, keep=keep)
        return published

    def read_rows(self, job_id: str, batch: int, attempt: int) -> Iterator[bytes]:
        for chunk in self._ledger.results.read_rows(job_id, batch, attempt):
            if (reference := read_reference(chunk)) is None:
                yield chunk
            else:
                yield from self._places.read_frames(job_id, reference, ROWS)

    def find_chunks(self, job_id: str, batch: int, attempt: int, positions: Iterable[int]) -> dict[int, int]:
        wanted = list(positions)
        found = self._ledger.results.find_chunks(job_id, batch, attempt, wanted)
        if found or (reference := self.find_attempt(job_id, batch, attempt)) is None:
            return found
        whole = memoryview(self._read_positions(job_id, reference, _CHUNKS)).cast("I")
        return {each: whole[each] for each in wanted if each < len(whole) and whole[each] != MISSING}

    def read_chunk(self, job_id: str, batch: int, attempt: int, number: int) -> bytes:
        found = self._ledger.results.read_chunk(job_id, batch, attempt, number)
        reference = read_reference(found) if found else self.find_attempt(job_id, batch, attempt)
        if reference is None:
            return found
        if number >= len(self._places.open_frames(job_id, reference, ROWS).counts):
            return b""
        return self._places.read_frame(job_id, reference, ROWS, number)

    def find_request(self, job_id: str, batch: int, attempt: int, position: int) -> tuple[bytes | None, bytes]:
        outcome, chunk = self._ledger.results.find_request(job_id, batch, attempt, position)
        if not chunk:
            for number in self.find_chunks(job_id, batch, attempt, [position]).values():
                chunk = self.read_chunk(job_id, batch, attempt, number)
        return outcome, chunk

    def read_eligible(self, job_id: str, batch: int, attempt: int) -> bytes:
        return self._follow(job_id, self._ledger.results.read_eligible(job_id, batch, attempt), _ELIGIBLE)

    def read_again(self, job_id: str, batch: int, attempt: int) -> bytes:
        return self._follow(job_id, self._ledger.results.read_again(job_id, batch, attempt), _AGAIN)

    def read_outcomes(self, job_id: str, batch: int) -> Iterator[tuple[int, bytes]]:
        return self._ledger.results.read_outcomes(job_id, batch)

    def find_outcomes(self, job_id: str, batch: int, positions: Sequence[int]) -> dict[int, bytes]:
        return self._ledger.results.find_outcomes(job_id, batch, positions)

    def count_outcomes(self, job_id: str, batch: int) -> int:
        return self._ledger.results.count_outcomes(job_id, batch)

    def read_announced(self, job_id: str, batch: int) -> bytes:
        return self._ledger.results.read_announced(job_id, batch)

    def mark_announced(self, job_id: str, batch: int, positions: Iterable[int]) -> None:
        self._ledger.results.mark_announced(job_id, batch, positions)

    def find_attempt(self, job_id: str, batch: int, attempt: int) -> Reference | None:
        """Return where the objects of an attempt are; None: its rows are in the ledger itself, or there are none."""
        return read_reference(self._ledger.results.read_chunk(job_id, batch, attempt, 0))

    def _take_written(self, job_id: str, batch: int, attempt: int) -> Reference | None:
        """Return where an attempt was written, by this process if it did."""
        if self._written.get((job_id, batch), (0, None))[0] == attempt:
            return self._written.pop((job_id, batch))[1]
        return self.find_attempt(job_id, batch, attempt)

    def _follow(self, job_id: str, kept: bytes, frame: int) -> bytes:
        reference = read_reference(kept)
        return kept if reference is None else self._read_positions(job_id, reference, frame)

    def _read_positions(self, job_id: str, reference: Reference, frame: int) -> bytes:
        key = reference, frame
        return self._positions.recall(key, lambda: self._places.read_frame(job_id, reference, PLACES, frame))

    def _write_positions(self, own: Bucket, reference: Reference, positions: _Positions) -> None:
        lists = (positions.pieces, positions.eligible_places, positions.again_places or b"")
        packer = self._places.packer
        write_frames(own, f"{reference.path}/{PLACES}", packer, ((each, 0) for each in lists))
        if parts := list(positions.index):
            write_frames(own, f"{reference.path}/{INDEX}", packer, ((part, number) for number, part in parts))


@dataclass(frozen=True)
class _Positions:
    """What is published with the rows of an attempt."""

    pieces: bytes
    eligible_places: bytes
    again_places: bytes | None
    index: Iterable[tuple[int, bytes]]

    def as_arguments(self) -> dict[str, Any]:
        """Return it as arguments of ``publish_rows`` and ``restore_rows``."""
        return dict(vars(self))

    def replace_by(self, reference: Reference) -> _Positions:
        """Return what the ledger has in its place; what is empty is so there too."""
        kept = reference.encode()
        return _Positions(
            pieces=b"",
            eligible_places=kept if self.eligible_places else b"",
            again_places=kept if self.again_places else self.again_places,
            index=(),
        )


def _name_attempt(own: Bucket, folder: str, batch: int, attempt: int, copy: str) -> Reference:
    """Return where the objects of an attempt are to be written: a place of their own, or that of a copy."""
    token = quote_name(copy) if copy else make_token()
    return Reference(own.url, attempt_path(folder, batch, attempt, token))


def _remove_others(own: Bucket, reference: Reference, *, keep: Collection[int]) -> None:
    """Remove the objects of what else was downloaded of a batch until this attempt, but for the attempts in ``keep``.

    Those that are not removed now go with the job.
    """
    folder, attempt, _ = reference.path.rsplit("/", 2)
    with suppress(StoreUnavailable):
        others = []
        for found in own.list(folder):
            name = found.path[len(folder) + 1 :].split("/")[0]
            if name == attempt:
                if not found.path.startswith(f"{reference.path}/"):
                    others.append(found.path)
            elif name.isdigit() and int(name) < int(attempt) and int(name) not in keep:
                others.append(found.path)
        own.remove(others)
