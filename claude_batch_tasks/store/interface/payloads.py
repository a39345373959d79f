"""The requests of a job: prompts and custom_ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from claude_batch_tasks.wire.batch_requests import Piece


class Payloads(Protocol):
    """The requests of each batch, in chunks, and the index of a job's custom_ids.

    Requests are staged before there is a job. What no job is made of expires.
    """

    def stage_requests(self, job_id: str, nonce: str, pieces: Iterable[Piece]) -> None:
        """Stage chunks of requests; each nonce has a place of its own."""

    def stage_index(self, job_id: str, nonce: str, parts: Iterable[tuple[int, bytes]]) -> None:
        """Stage the job's custom_ids, as ``custom_ids`` encodes them, in parts that are read by number."""

    def discard_staged(self, job_id: str, nonce: str, batches: int) -> None:
        """Remove what was staged under a nonce."""

    def read_bodies(self, job_id: str, batch: int) -> Iterator[bytes]:
        """Yield the batch's requests, as they are sent, chunk by chunk."""

    def read_custom_ids(self, job_id: str, batch: int) -> Iterator[list[str]]:
        """Yield the batch's custom_ids, chunk by chunk."""

    def read_index(self, job_id: str, part: int, *, batch: int | None = None, attempt: int | None = None) -> bytes:
        """Return a part of the job's index, or of the one stored with an attempt of a batch; empty: there is none."""

    def find_custom_id(self, job_id: str, batch: int, position: int) -> str:
        """Return the custom_id of the request at a position of the batch."""

    def find_chunk(self, job_id: str, batch: int, position: int) -> tuple[int, bytes]:
        """Return the chunk of requests that holds a position, after the position at which the chunk begins."""
