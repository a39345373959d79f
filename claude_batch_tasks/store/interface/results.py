"""The results of a job: rows of result files, outcomes of single requests, and to whom they were handed over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from claude_batch_tasks.records import DeliveryCounts, Unit


class Rows(Protocol):
    """Rows of downloaded result files, which nobody sees until they are published.

    An attempt is one download of a batch's results; its number is in the batch's record.
    """

    def write_rows(self, job_id: str, batch: int, attempt: int, pieces: Iterable[bytes], *, copy: str = "") -> None:
        """Store an attempt's rows; if that fails or the chunks end early, nothing of the attempt stays.

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
        again_places: bytes | None = None,
        index: Iterable[tuple[int, bytes]] = (),
    ) -> bool:
        """Put a copy in the place of an attempt's rows; return False if the job or the copy is gone.

        Args:
            pieces, eligible_places, again_places, index: as for ``publish_rows``.
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
        again_places: bytes | None = None,
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
            eligible_places: positions of the requests that may go to the Messages API (unsigned 32-bit integers).
            again_places: positions of the requests that are in the next smaller batch, if there is one (likewise);
                None: they are not known.
            index: of the batch's custom_ids, as ``custom_ids`` encodes them, where the job has none.
        """

    def read_rows(self, job_id: str, batch: int, attempt: int) -> Iterator[bytes]:
        """Yield an attempt's rows, chunk by chunk."""

    def find_chunks(self, job_id: str, batch: int, attempt: int, positions: Iterable[int]) -> dict[int, int]:
        """Return, for each position that has a row, the number of the chunk that holds it."""

    def read_chunk(self, job_id: str, batch: int, attempt: int, number: int) -> bytes:
        """Return a chunk of an attempt's rows; empty: it does not exist."""

    def read_eligible(self, job_id: str, batch: int, attempt: int) -> bytes:
        """Return the positions of the requests that may go to the Messages API, as they were published."""

    def read_again(self, job_id: str, batch: int, attempt: int) -> bytes:
        """Return the positions of the requests that are in the next smaller batch, as they were published."""


class Results(Rows, Protocol):
    """Rows, outcomes of single requests, and of which requests ``on_result`` knows."""

    def find_request(self, job_id: str, batch: int, attempt: int, position: int) -> tuple[bytes | None, bytes]:
        """Return the outcome that the Messages API gave to one request, and the chunk with its row.

        None: there is no outcome; empty: no row.
        """

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


#: Positions of requests in their job, as runs: the first of each, and how many follow one another.
Runs = Iterable[tuple[int, int]]


class Recorded(NamedTuple):
    """What a recorded confirmation or failure has changed."""

    changed: int
    """Number of requests of which it was not known before."""
    complete: bool = False
    """Whether these were the last: every request of the job is delivered now."""
    new_reason: bool = False
    """Whether no call has failed for this reason before."""


class Deliveries(Protocol):
    """Which requests ``on_result`` was called with successfully, and of which its call failed permanently.

    Requests are known by their position in the job. Recording the same thing twice changes nothing, and nothing is
    recorded of a job that is gone.
    """

    def record_delivered(self, job_id: str, runs: Runs, part: int = 0, parts: int = 1) -> Recorded | None:
        """Record that a call with these requests ended well; return None if the job is gone.

        Args:
            part, parts: which of the tasks of a call it was that ended, and how many of them must; a request is
                delivered when all have ended well.
        """

    def record_failed(self, job_id: str, runs: Runs, reason: str) -> Recorded | None:
        """Record that a call with these requests failed permanently; return None if the job is gone.

        A request that is delivered already stays so.
        """

    def record_call(self, job_id: str, runs: Runs, parts: int = 1) -> None:
        """Record that ``on_result`` is called with these requests: what earlier calls with them ended in is void."""

    def note_activity(self, job_id: str) -> None:
        """Record that the job's ``on_result`` is called now, or that a call is tried again later."""

    def read_delivered(self, job_id: str) -> bytes:
        """Return a bit for each request of the job that is delivered; the first of a byte is its highest."""

    def count_deliveries(self, job_id: str, batches: int) -> DeliveryCounts:
        """Return how many requests ``on_result`` was called with, and how many of these calls ended, and how."""
