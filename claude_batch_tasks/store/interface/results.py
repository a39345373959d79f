"""The results of a job: rows of result files, and outcomes of single requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from claude_batch_tasks.records import Unit


class Results(Protocol):
    """Rows of downloaded result files, which nobody sees until they are published, and outcomes of single requests.

    An attempt is one download of a batch's results; its number is in the batch's record.
    """

    def write_rows(self, job_id: str, batch: int, attempt: int, pieces: Iterable[bytes], *, copy: str = "") -> None:
        """Store an attempt's rows; if that fails or the chunks break off, nothing of the attempt is kept.

        Args:
            copy: the rows are downloaded again, and stored under this name until ``restore_rows``.
        """

    def discard_rows(self, job_id: str, batch: int, attempt: int, *, copy: str = "") -> None:
        """Remove the rows of an attempt that will not be published, or a copy of them."""

    def restore_rows(
        self,
        job_id: str,
        batch: int,
        attempt: int,
        copy: str,
        *,
        pieces: bytes,
        eligible_places: bytes,
        index: Iterable[tuple[int, bytes]] = (),
    ) -> bool:
        """Put a copy in the place of an attempt's rows; return False if the job or the copy is gone.

        Args:
            pieces, eligible_places, index: as for ``publish_rows``.
        """

    def publish_rows(
        self,
        unit: Unit,
        owner: str,
        attempt: int,
        /,
        *,
        pieces: bytes,
        eligible_places: bytes,
        index: Iterable[tuple[int, bytes]] = (),
        keep: Iterable[int] = (),
        **changes: Any,
    ) -> bool:
        """Make an attempt's rows the batch's results, in one with changes to its record.

        Remove the rows of other attempts. Return False if the owner has lost the lease.

        Args:
            keep: attempts whose rows are those of earlier rounds.
            pieces: for each position in the batch, the number of the chunk that holds its row (unsigned 32-bit
                integers, the greatest of them: none does).
            eligible_places: positions of the requests that may be sent again (unsigned 32-bit integers).
            index: of the batch's custom_ids, as ``custom_ids`` encodes them, where the job has none.
        """

    def read_rows(self, job_id: str, batch: int, attempt: int) -> Iterator[bytes]:
        """Yield an attempt's rows, chunk by chunk."""

    def find_chunks(self, job_id: str, batch: int, attempt: int, positions: Iterable[int]) -> dict[int, int]:
        """Return, for each position that has a row, the number of the chunk that holds it."""

    def read_chunk(self, job_id: str, batch: int, attempt: int, number: int) -> bytes:
        """Return a chunk of an attempt's rows; empty: it does not exist."""

    def read_eligible(self, job_id: str, batch: int, attempt: int) -> bytes:
        """Return the positions of the requests that may be sent again, as they were published."""

    def read_outcomes(self, job_id: str, batch: int) -> Iterator[tuple[int, bytes]]:
        """Yield the outcomes that the Messages API gave, each with the position of its request."""

    def find_outcomes(self, job_id: str, batch: int, positions: Sequence[int]) -> dict[int, bytes]:
        """Return those of the requests at these positions."""

    def count_outcomes(self, job_id: str, batch: int) -> int:
        """Return how many requests of the batch have one."""

    def read_announced(self, job_id: str, batch: int) -> bytes:
        """Return a bit for each request whose outcome ``on_result`` was given; the first of a byte is its highest."""

    def mark_announced(self, job_id: str, batch: int, positions: Iterable[int]) -> None:
        """Record that ``on_result`` was given the outcomes of these requests."""
