"""Which failed requests are sent again: those whose outcome is final, and that no retry has taken.

A request is taken once from each job that has it. One that failed in a retry too is taken from that retry the next
time, so one that has succeeded, or may still be running, is never sent again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple, Protocol

from claude_batch_tasks.formatting import format_count
from claude_batch_tasks.jobs.job_status import ENDED
from claude_batch_tasks.lifecycle import resubmission
from claude_batch_tasks.records import BatchRecord, Claim, JobRecord, RetrySource, batch_number
from claude_batch_tasks.results import failures
from claude_batch_tasks.results.stored import Reader, decode_unchanged
from claude_batch_tasks.results.taken_requests import read_taken
from claude_batch_tasks.steps import job_summary
from claude_batch_tasks.store import HasRetries, ReadableStore
from claude_batch_tasks.wire import failure_types, result_rows
from claude_batch_tasks.wire.positions import Positions


class RetryableStore(ReadableStore, HasRetries, Protocol):
    """What it takes to choose what is sent again."""


class Chosen(NamedTuple):
    """The chosen requests of one batch."""

    job_id: str
    job: JobRecord
    number: int
    batch: BatchRecord
    places: Positions


class Choice:
    """The requests of a job, and of its retries, that are sent again.

    Args:
        types: only these failure types; None: all.

    Raises:
        ValueError: these are no failure types.
    """

    def __init__(self, store: RetryableStore, types: Collection[str] | None) -> None:
        self._store, self._wanted = store, failures.make_retry_filter(types)
        self.chosen: list[Chosen] = []
        #: The jobs that were searched, and how many retries each had.
        self._seen: dict[str, JobRecord | None] = {}
        #: Why others are not sent again, with their number.
        self.left: Counter[str] = Counter()
        #: The failed requests by failure type, whether they are wanted or not.
        self.types: Counter[str] = Counter()
        #: How many a retry has sent again already.
        self.retried = 0
        #: The chosen requests by failure type.
        self.chosen_types: Counter[str] = Counter()

    def choose_from(self, job_id: str, job: JobRecord) -> None:
        """Choose from a job that has ended, then from its retries."""
        self._seen[job_id] = job
        for number, batch in enumerate(self._store.records.find_batches(job_id)):
            if batch is None:
                self.left[f"in job {job_id}, batch {batch_number(number)}, whose record is gone from the store"] += 1
            else:
                self._choose_from_batch(job_id, job, number, batch)
        for retry in job.retries:
            if retry.job_id not in self._seen:
                self._choose_from_retry(retry.job_id, sum(retry.taken.values()))

    def _choose_from_retry(self, job_id: str, taken: int) -> None:
        self._seen[job_id] = job = self._store.jobs.read_job(job_id)
        if job is None:
            self.left[f"in its retry {job_id}, which is gone from the store, so their outcome is not known"] += taken
        elif job.state not in ENDED:
            self.left[f"in its retry {job_id}, which has not ended"] += job.requests
        elif job.state == "revoked":
            self.left[f"in its retry {job_id}, which was revoked, so what was sent of it is not known"] += job.requests
        else:
            self.choose_from(job_id, job)

    def _choose_from_batch(self, job_id: str, job: JobRecord, number: int, batch: BatchRecord) -> None:
        if not is_settled(batch):
            self.left[f"without a final outcome; to continue with them: BatchJob({job_id!r}).resume()"] += batch.count
            return
        for tally in failure_types.read_tallies(batch):
            self.types[failure_types.name_type(tally.outcome, tally.error_type)] += tally.count
        if batch.read_only:
            why = f"in batch {batch_number(number)}, whose record the store had lost, and with it what was sent again"
            self.left[why] += sum(tally.count for tally in failure_types.read_tallies(batch))
        elif self._wanted.may_be_in(batch):
            places = self._find_places(job_id, job, number, batch)
            if len(places):
                self.chosen.append(Chosen(job_id, job, number, batch, places))

    def _find_places(self, job_id: str, job: JobRecord, number: int, batch: BatchRecord) -> Positions:
        """Return the requests of a batch that are sent again."""
        places, taken, paid = Positions(), Positions(), self._find_paid(job_id, number, batch)
        for each in read_taken(self._store, job_id, job, number):
            taken.unite(each)
        for outcome in Reader(self._store, job_id, job, number, batch).read_outcomes():
            wanted = self._wanted.accepts(outcome.type, outcome.row.error_type)
            if wanted and (outcome.place in paid or outcome.row.error_type in result_rows.MAY_BE_BILLED):
                self.left["that may have been billed, though no answer came: they are not sent again"] += 1
            elif wanted and outcome.place in taken:
                self.retried += 1
            elif wanted:
                places.add(outcome.place)
                self.chosen_types[failure_types.name_type(outcome.type, outcome.row.error_type)] += 1
        return places

    def _find_paid(self, job_id: str, number: int, batch: BatchRecord) -> Positions:
        """Return the requests of a batch that may have been billed although they have no answer."""
        paid = Positions()
        if batch.state == "lost":
            # What Anthropic had processed of a batch that it does not show any more is billed.
            paid.add_all(resubmission.positions_in_batch(self._store, job_id, number, batch))
        if batch.stored or batch.granted:
            for place, stored in self._store.results.read_outcomes(job_id, number):
                unchanged = decode_unchanged(stored)
                if unchanged is not None and unchanged.may_be_billed:
                    paid.add(place)
        return paid

    @property
    def count(self) -> int:
        """The number of chosen requests."""
        return sum(len(each.places) for each in self.chosen)

    @property
    def sources(self) -> list[RetrySource]:
        """Where the requests come from, in the order in which they are sent again."""
        return [RetrySource(job_id=each.job_id, batch=each.number, count=len(each.places)) for each in self.chosen]

    @property
    def jobs(self) -> list[str]:
        """The ids of the jobs that were read for the choice, and that the store has."""
        return [job_id for job_id, job in self._seen.items() if job is not None]

    def list_claims(self, parent: str) -> list[Claim]:
        """Return what is taken from which job; the parent is among them also if nothing is taken from it."""
        taken: dict[str, dict[int, bytes]] = {parent: {}}
        for each in self.chosen:
            taken.setdefault(each.job_id, {})[each.number] = each.places.to_bytes()
        retries = {job_id: len(job.retries) for job_id, job in self._seen.items() if job is not None}
        return [Claim(job_id, retries[job_id], batches) for job_id, batches in taken.items()]

    def explain(self, job_id: str) -> str:
        """Say why nothing is left to be sent again."""
        if not self.types and not self.left:
            return f"job {job_id} has no failed request: all succeeded"
        parts = [f"{format_count(count, 'request')} {why}" for why, count in self.left.most_common()]
        if self.retried and not self.left:
            parts.append(f"a retry has already sent again {format_count(self.retried, 'request')}")
        if self.types:
            kinds = ", ".join(f"{name} ({count:,})" for name, count in self.types.most_common())
            parts.append(f"failed by type, in it and its retries: {kinds}")
        return f"job {job_id} has no failed request of these types that can be sent again; {'; '.join(parts)}"


def is_settled(batch: BatchRecord) -> bool:
    """Return whether all requests of a batch have their final outcome, which nothing changes any more."""
    return batch.done and batch.final and batch.error is None and not job_summary.count_unaccounted(batch)
