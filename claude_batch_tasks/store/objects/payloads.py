"""The requests of a job in an object store: the ledger has references in their place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import groupby
from operator import attrgetter

import msgspec

from claude_batch_tasks.errors import ResultsMissing
from claude_batch_tasks.records import batch_number
from claude_batch_tasks.store.interface import Store
from claude_batch_tasks.store.objects import names
from claude_batch_tasks.store.objects.bucket import Bucket
from claude_batch_tasks.store.objects.frames import FramesWriter, write_frames
from claude_batch_tasks.store.objects.names import Reference, read_ids_reference, read_reference
from claude_batch_tasks.store.objects.places import Places
from claude_batch_tasks.store.packing import map_one_ahead
from claude_batch_tasks.wire.batch_requests import Piece

#: The part of a job's index as which the ledger has the reference to the index; parts are numbered from 0 to 255.
INDEX = 256

_encode = msgspec.json.encode
_decode_ids = msgspec.json.Decoder(list[str]).decode


class ObjectPayloads:
    """``interface.Payloads`` in an object store.

    Each chunk in the ledger is a chunk, of a job that began without an object store, or the reference to an object
    that has all chunks of the batch.
    """

    def __init__(self, ledger: Store, places: Places) -> None:
        self._ledger, self._places = ledger, places

    def stage_requests(self, job_id: str, nonce: str, pieces: Iterable[Piece]) -> None:
        if (own := self._places.own) is not None:
            pieces = self._write_batches(own, self._places.name_folder(job_id, nonce), pieces)
        self._ledger.payloads.stage_requests(job_id, nonce, pieces)

    def stage_index(self, job_id: str, nonce: str, parts: Iterable[tuple[int, bytes]]) -> None:
        if (own := self._places.own) is not None:
            reference = Reference(own.url, names.index_path(self._places.name_folder(job_id, nonce)))
            write_frames(own, reference.path, self._places.packer, ((part, number) for number, part in parts))
            parts = [(INDEX, reference.encode())]
        self._ledger.payloads.stage_index(job_id, nonce, parts)

    def discard_staged(self, job_id: str, nonce: str, batches: int) -> None:
        self._ledger.payloads.discard_staged(job_id, nonce, batches)
        if (own := self._places.own) is None:
            return
        # After that nobody makes a job of it. If somebody had, it is the job's.
        made = self._ledger.jobs.read_job(job_id)
        if made is None or made.nonce != nonce:
            own.remove_folder(self._places.name_folder(job_id, nonce))

    def read_bodies(self, job_id: str, batch: int) -> Iterator[bytes]:
        for chunk in self._ledger.payloads.read_bodies(job_id, batch):
            if (reference := read_reference(chunk)) is None:
                yield chunk
            else:
                yield from self._places.read_frames(job_id, reference, "bodies")

    def read_custom_ids(self, job_id: str, batch: int) -> Iterator[list[str]]:
        for ids in self._ledger.payloads.read_custom_ids(job_id, batch):
            if (reference := read_ids_reference(ids)) is None:
                yield ids
            else:
                yield from map(_decode_ids, self._places.read_frames(job_id, reference, "ids"))

    def read_index(self, job_id: str, part: int, *, batch: int | None = None, attempt: int | None = None) -> bytes:
        found = self._ledger.payloads.read_index(job_id, part, batch=batch, attempt=attempt)
        if found or (reference := self._find_index(job_id, batch, attempt)) is None:
            return found
        numbers = self._places.open_frames(job_id, reference, "").counts
        return self._places.read_frame(job_id, reference, "", numbers.index(part)) if part in numbers else b""

    def find_custom_id(self, job_id: str, batch: int, position: int) -> str:
        if self.find_index(job_id) is None:
            return self._ledger.payloads.find_custom_id(job_id, batch, position)
        first, chunk = self._find(job_id, batch, position, "ids")
        return _decode_ids(chunk)[position - first]

    def find_chunk(self, job_id: str, batch: int, position: int) -> tuple[int, bytes]:
        if self.find_index(job_id) is None:
            return self._ledger.payloads.find_chunk(job_id, batch, position)
        return self._find(job_id, batch, position, "bodies")

    def list_references(self, job_id: str, batch: int) -> Iterator[Reference]:
        """Yield where the requests of a batch are that are not in the ledger itself."""
        for chunk in self._ledger.payloads.read_bodies(job_id, batch):
            if (reference := read_reference(chunk)) is None:
                return
            yield reference

    def find_index(self, job_id: str) -> Reference | None:
        """Return where the index of a job's custom_ids is; None: in the ledger itself, or there is none."""
        return read_reference(self._ledger.payloads.read_index(job_id, INDEX))

    def _find_index(self, job_id: str, batch: int | None, attempt: int | None) -> Reference | None:
        if batch is None or attempt is None:
            return self.find_index(job_id)
        reference = read_reference(self._ledger.results.read_chunk(job_id, batch, attempt, 0))
        return None if reference is None else Reference(reference.url, f"{reference.path}/index")

    def _find(self, job_id: str, batch: int, position: int, name: str) -> tuple[int, bytes]:
        """Return the frame that has a request, after the position of the frame's first."""
        before = 0
        for reference in self.list_references(job_id, batch):
            frames = self._places.open_frames(job_id, reference, name)
            if position < before + frames.items:
                number, first = frames.find(position - before)
                return before + first, self._places.read_frame(job_id, reference, name, number)
            before += frames.items
        raise ResultsMissing(f"job {job_id}, batch {batch_number(batch)}: there is no request {position}")

    def _write_batches(self, own: Bucket, folder: str, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """Write the objects of each batch, and yield what the ledger has in their place."""
        for batch, some in groupby(pieces, attrgetter("batch")):
            reference = Reference(own.url, names.requests_path(folder, batch))
            self._write_batch(own, reference.path, some)
            yield Piece(batch, names.as_ids(reference), reference.encode())

    def _write_batch(self, own: Bucket, path: str, pieces: Iterable[Piece]) -> None:
        with ExitStack() as stack:
            bodies, ids = (
                FramesWriter(stack.enter_context(own.open_writer(each)), each, self._places.packer)
                for each in (f"{path}/bodies", f"{path}/ids")
            )
            for (number, piece), frame in map_one_ahead(
                lambda each: bodies.pack(each[0], each[1].body), enumerate(pieces)
            ):
                bodies.add(frame, len(piece.custom_ids))
                ids.add(ids.pack(number, _encode(piece.custom_ids)), len(piece.custom_ids))
            bodies.finish()
            ids.finish()
