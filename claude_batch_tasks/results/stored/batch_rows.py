"""The rows of a batch's result files, in the attempts that brought them."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import count

from claude_batch_tasks import rules
from claude_batch_tasks.errors import JobNotFound
from claude_batch_tasks.formatting import describe_missing_job
from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.records import Attempt, BatchRecord, JobRecord
from claude_batch_tasks.results.stored import row_heads
from claude_batch_tasks.results.stored.outcomes import Outcome, Source, make_outcome
from claude_batch_tasks.store import ReadableStore, lost_records
from claude_batch_tasks.wire import batch_requests, result_rows, stored_rows
from claude_batch_tasks.wire.stored_rows import Origin


class BatchRows:
    """The rows of one batch in the store.

    Args:
        prices: what models cost.
    """

    def __init__(
        self, store: ReadableStore, job_id: str, job: JobRecord, number: int, batch: BatchRecord, prices: Prices
    ) -> None:
        self._store, self._job_id, self._job, self._number, self._batch = store, job_id, job, number, batch
        own = Origin(batch.batch_id, prices, batch.created_at)
        #: The batch of each round.
        self.origins = [*(Origin(past.batch_id, prices, past.created_at) for past in batch.rounds), own]
        #: What stands for that in outcomes of the Messages API.
        self.messages_origin = Origin(None, prices, batch=False)

    def placed_rows(self, attempt: int, round_: int, arrival: Iterator[int]) -> Iterator[Outcome]:
        """Yield the rows of an attempt that belong to the batch; what is there instead of one counts as missing.

        Args:
            arrival: numbers the requests of an adopted batch, which are in the order of their rows.
        """
        first, count, adopted = self._batch.first, self._batch.count, self._job.adopted
        source, origin, nonce = _source_of(round_), self.origins[round_], self._nonce_of(round_)
        match = row_heads.match_ids() if adopted else row_heads.match_indexes(nonce)
        for piece in self._store.results.read_rows(self._job_id, self._number, attempt):
            for line in piece.split(b"\n"):
                # All of a job's rows go through here, so that no more of them is read than this.
                if (head := match(line)) is None:
                    yield from self._decode_row(line, round_, arrival)
                    continue
                custom_id, kind = head.groups()
                place = next(arrival) if adopted else int(custom_id) - first
                if 0 <= place < count:
                    known = custom_id.decode() if adopted else None
                    yield Outcome(place, source, row_heads.TYPES[kind], line, None, round_, origin, known)

    def _decode_row(self, line: bytes, round_: int, arrival: Iterator[int]) -> Iterator[Outcome]:
        """Yield the row in a line, if there is one that belongs to the batch."""
        try:
            row = result_rows.any_row(line)
        except ValueError:
            return
        adopted = self._job.adopted
        index = next(arrival) if adopted else batch_requests.index_of(self._nonce_of(round_), row.custom_id)
        place = -1 if index is None else index - self._batch.first
        if 0 <= place < self._batch.count:
            yield self._make_outcome(place, round_, row, line)

    def _make_outcome(self, place: int, round_: int, row: result_rows.Row, line: bytes) -> Outcome:
        return make_outcome(place, _source_of(round_), row, line, round_=round_, origin=self.origins[round_])

    def _nonce_of(self, round_: int) -> str:
        return batch_requests.round_nonce(self._job.nonce, round_)

    def read_last_rows(self, wanted: bytearray) -> Iterator[tuple[int, bytes, int]]:
        """Yield the rows of wanted requests in the last round that has one: their positions, lines and rounds.

        Args:
            wanted: whether each request is wanted, by position.
        """
        left = bytearray(wanted)
        for attempt, round_ in self._batch.layers:
            if not any(left):
                return
            for outcome in self.placed_rows(attempt, round_, count()):
                if left[outcome.place]:
                    left[outcome.place] = False
                    yield outcome.place, outcome.line, round_

    def wanted_rows(
        self, attempt: int, round_: int, wanted: Mapping[int, str], chunk: bytes | None = None
    ) -> Iterator[Outcome]:
        """Yield the rows of wanted requests in one attempt; only the chunks that have any are read."""
        for piece, places in self._chunks_of(attempt, wanted) if chunk is None else [(chunk, list(wanted))]:
            ids = {self._wire_id(place, round_, wanted[place]): place for place in places}
            for row, line in _rows_of(piece, ids):
                yield self._make_outcome(ids[row.custom_id], round_, row, line)

    def _chunks_of(self, attempt: int, places: Iterable[int]) -> Iterator[tuple[bytes, list[int]]]:
        """Yield the chunks that have rows of requests, each with the positions of these."""
        by_chunk: dict[int, list[int]] = {}
        for place, number in self._store.results.find_chunks(self._job_id, self._number, attempt, places).items():
            by_chunk.setdefault(number, []).append(place)
        for number in sorted(by_chunk):
            yield self._store.results.read_chunk(self._job_id, self._number, attempt, number), by_chunk[number]

    def _wire_id(self, place: int, round_: int, custom_id: str) -> str:
        if self._job.adopted:
            return custom_id
        return batch_requests.wire_id(self._nonce_of(round_), self._batch.first + place)

    def find_attempts(self, place: int) -> list[Attempt]:
        """Return each time that a request was sent in a batch, as far as its rows are there."""
        for attempt, round_ in self._batch.layers:
            for found in self.wanted_rows(attempt, round_, {place: ""}):
                return stored_rows.StoredRow(found.row, found.line, round_, found.origin).attempts
        return []

    def count_expected(self, attempt: int, round_: int) -> int:
        """Return how many rows an attempt has by the record, else by the map of its chunks; 0 if that is gone."""
        expected = lost_records.rows_expected(self._batch, attempt, round_)
        if expected is not None:
            return expected
        return len(self._store.results.find_chunks(self._job_id, self._number, attempt, range(self._batch.count)))

    def are_missing(self) -> bool:
        """Return whether rows of the batch are gone, or where they are."""
        names = lost_records.layer_names(self._batch, "rows", "pieces")
        return bool(self._store.storage.missing_keys(self._job_id, self._number, names))

    def check_job(self) -> None:
        """Raise an error if the job is gone.

        A job that is deleted meanwhile looks like one without outcomes of the Messages API.
        """
        if self._store.jobs.read_job(self._job_id) is None:
            raise JobNotFound(describe_missing_job(self._job_id))

    def is_open(self, outcome: Outcome) -> bool:
        """Return whether a request with such an outcome is eligible for resubmission or fallback."""
        return outcome.type != "succeeded" and rules.may_fall_back(
            outcome.type, outcome.row.error_type, cut_short=self._batch.cut_short
        )

    def read_again(self, attempt: int, round_: int) -> tuple[array[int], array[int]]:
        """Return the positions of the requests in the batch after a round, and of those for which it had no room."""
        rounds = self._batch.rounds
        again = (rounds[round_] if round_ < len(rounds) else self._batch).again
        if again is None:
            return array("I"), array("I")
        packed = self._store.results.read_again(self._job_id, self._number, attempt)
        found = array("I", packed[: len(packed) // 4 * 4])
        return found[: again.count], found[again.count :]

    def sent_places(self, attempt: int, round_: int) -> bytearray:
        """Return, by position, which requests are in the batch after a round; none if 0.2.0 made it."""
        sent = bytearray(self._batch.count)
        for place in self.read_again(attempt, round_)[0]:
            sent[place] = True
        return sent


def _rows_of(piece: bytes, wanted: Collection[str]) -> Iterator[tuple[result_rows.Row, bytes]]:
    """Yield the wanted rows of a chunk."""
    if len(wanted) == 1:
        # Almost nobody writes an id with escapes, so most lines need not be decoded.
        needle = f'"{next(iter(wanted))}"'.encode(errors="surrogatepass")
        for line in piece.split(b"\n"):
            for found in result_rows.read_rows(line, skip_others=True) if needle in line else ():
                if found[0].custom_id in wanted:
                    yield found
                    return
    if piece:
        yield from (found for found in result_rows.read_rows(piece, skip_others=True) if found[0].custom_id in wanted)


def _source_of(round_: int) -> Source:
    return "resubmitted" if round_ else "batch"
