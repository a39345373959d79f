"""The order in which all jobs are copied from one store to another, and what makes it safe.

Nothing is to run on either store. While its jobs are copied, no process can begin to use the target; when all are
there, none can begin to use the source: of two stores that are used, each would pay for the same requests. A copy that
was interrupted is begun again: a job that is there already is not copied a second time, unless it has changed since.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from claude_batch_tasks.errors import JobNotFound
from claude_batch_tasks.formatting import format_count
from claude_batch_tasks.records import WorkerPresence
from claude_batch_tasks.store.interface import Clock, HasJobs, HasPresence, HasStorage, HasTransfer
from claude_batch_tasks.store.transfer.items import Batch, Identity, Job, JobItem, Mark, RequestChunk
from claude_batch_tasks.store.transfer.tally import Tally, tally

#: What is not copied, for those who run the copy.
NOT_COPIED = {
    "submissions that had not ended": "what sends them gets an error, and sends them again",
    "downloads that had not ended": "workers make them again, at no cost",
    "leases": "nothing runs, so nobody has one",
    "rate limits of the Messages API, and list calls of accounts": "workers learn them again within minutes",
    "figures over all jobs, and the list of workers": "workers make them again within a minute",
}

#: Jobs whose presence in the target is asked for at a time.
_PAGE = 500

_ENDED = frozenset(("completed", "canceled", "failed", "revoked"))

#: Workers that a text names.
_NAMED = 5

#: Seconds by which the clocks of the stores may differ without a word about it.
_CLOCKS = 5.0


class Copied(HasTransfer, HasJobs, HasStorage, HasPresence, Clock, Protocol):
    """The parts of a store that a copy needs."""


class CopyRefused(Exception):
    """Raised if a copy cannot be made. The text says why, what was changed, and what to do."""


class CopyReport(msgspec.Struct, kw_only=True):
    """What a copy has done."""

    copied: int = 0
    """Jobs, and pools of asks that are none yet."""
    changed: int = 0
    """How many of them were there from an earlier copy, and had changed since."""
    unchanged: int = 0
    """Jobs that were there from an earlier copy."""
    removed: int = 0
    """Jobs that the target had of an earlier move, and that the source has no more."""
    gone: int = 0
    """Jobs that expired or were deleted before they were copied."""
    skipped: int = 0
    """Jobs that were not asked for, since they run."""
    shared: int = 0
    """Entries that all jobs share: owners of batches, places of asks, pauses, ..."""
    parts: dict[str, int] = {}
    """How many of each kind: ``Outcome``, ``RowChunk``, ..."""
    bytes: int = 0
    incomplete: dict[str, str] = {}
    """Jobs that were copied without what the source had lost before, and what that is."""
    seconds: float = 0.0
    clocks_differ: float = 0.0
    """Seconds by which the target's clock is ahead, if that matters."""


Show = Callable[[int], None]


class Copy:
    """A copy of all jobs of one store into another.

    Args:
        keep: leave the source as it is, so that it can be used further.
        only_ended: copy jobs that have ended only; workers may run on the source.
        show: is called with the number of jobs that were dealt with so far.
    """

    def __init__(
        self,
        source: Copied,
        target: Copied,
        *,
        keep: bool = False,
        only_ended: bool = False,
        show: Show = lambda _: None,
    ) -> None:
        self._source = source
        self._target = target
        self._keep = keep
        self._only_ended = only_ended
        self._show = show
        #: Whether the target has none of the jobs.
        self._first = False
        self.report = CopyReport()

    def check(self) -> None:
        """See that a copy may be made.

        Raises:
            CopyRefused: it may not; nothing was changed.
        """
        source, target = self._source.transfer, self._target.transfer
        source.open()
        target.open()
        if source.address == target.address:
            raise CopyRefused(_describe_same(source.address))
        self._check_marks(source.read_mark(), target.read_mark())
        for store in (self._target,) if self._only_ended else (self._source, self._target):
            if workers := store.presence.list_workers():
                raise CopyRefused(_describe_workers(workers, store.transfer.address))
        self._first = target.read_mark() is None
        if self._first:
            self._check_conflicts()

    def preview(self) -> CopyReport:
        """Read all that would be copied, and return what that is; nothing is changed."""
        for number, job_id in enumerate(self._source.transfer.list_ids(), 1):
            if self._is_wanted(job_id):
                found = self._read_source(job_id)
                self._count(job_id, found)
            self._show(number)
        if not self._only_ended:
            self.report.shared = sum(1 for _ in self._source.transfer.export_shared())
        return self.report

    def run(self) -> CopyReport:
        """Copy, compare what was written with what was read, and have the target used in the place of the source.

        Raises:
            CopyRefused: the source has changed meanwhile, or the target has something else than was written.
        """
        begun, source = time.monotonic(), self._source.transfer
        mark = self._mark_target()
        before = source.summarize_activity()
        for number, job_id in enumerate(source.list_ids(), 1):
            if self._is_wanted(job_id):
                self._copy_job(job_id)
            self._show(number)
        if not self._only_ended:
            if mark.replaces:
                self._remove_others()
            self._copy_shared()
            self._finish(before)
        ahead = self._target.now() - self._source.now()
        self.report.clocks_differ = ahead if abs(ahead) > _CLOCKS else 0.0
        self.report.seconds = time.monotonic() - begun
        return self.report

    def _mark_target(self) -> Mark:
        """Have no process begin to use the target, and return what says so."""
        target, address = self._target.transfer, self._source.transfer.address
        had = target.read_mark()
        replaces = had is not None and (had.state == "moved" or had.replaces)
        mark = Mark(state="filling", other=address, at=self._target.now(), replaces=replaces)
        target.set_mark(mark)
        if self._source.transfer.read_mark() == mark:
            target.set_mark(had)
            raise CopyRefused(_describe_same(address))
        return mark

    def _finish(self, before: str) -> None:
        """Have the target used, and the source no more, unless something ran on that."""
        source, target = self._source.transfer, self._target.transfer
        if not self._keep:
            source.set_mark(Mark(state="moved", other=target.address, at=self._source.now()))
        if source.summarize_activity() != before:
            source.set_mark(None)
            raise CopyRefused(
                f"something ran on the store at {source.address} during the copy, or sent a job to it. That store is "
                f"as it was; nothing can use the one at {target.address} yet. Stop all workers and callers, and run "
                "the command again: what has not changed is not copied again"
            )
        target.set_mark(None)

    def _check_marks(self, source: Mark | None, target: Mark | None) -> None:
        here, there = self._source.transfer.address, self._target.transfer.address
        if source is not None and source.state == "filling":
            raise CopyRefused(
                f"the store at {here} is being filled from {source.other}, and not all of that is there: finish that "
                "copy first. Nothing was changed"
            )
        if source is not None and source.other == there and (target is None or target.state == "moved"):
            raise CopyRefused(
                f"the jobs of the store at {here} have been moved to {there} already: nothing was changed"
            )
        if source is not None and source.other != there:
            raise CopyRefused(
                f"the jobs of the store at {here} have been moved to {source.other}: nothing was changed. Copy from "
                "there"
            )
        if target is not None and target.other != here:
            what = "is being filled from" if target.state == "filling" else "has jobs that were moved to"
            raise CopyRefused(f"the store at {there} {what} {target.other}: nothing was changed. Give another store")

    def _check_conflicts(self) -> None:
        """Refuse if the target has one of the jobs, and not of a copy: somebody may work on it there."""
        for some in _pages(self._source.transfer.list_ids()):
            states = self._target.jobs.read_states(some)
            there = [job_id for job_id, state in zip(some, states, strict=True) if state is not None]
            if there:
                raise CopyRefused(
                    f"the store at {self._target.transfer.address} has {len(there):,} of the jobs already ({there[0]}, "
                    "...), and they do not come from a copy that was interrupted: nothing was changed. Copy into an "
                    "empty store, or use another prefix"
                )

    def _is_wanted(self, job_id: str) -> bool:
        if not self._only_ended or self._source.jobs.read_states([job_id])[0] in _ENDED:
            return True
        self.report.skipped += 1
        return False

    def _copy_job(self, job_id: str) -> None:
        """Copy a job, unless it is there and the same, and compare what the target has then."""
        if not self._first and (there := tally(self._target.transfer.export_job(job_id))).counts:
            if self._read_source(job_id).tally == there:
                self.report.unchanged += 1
                return
            self._target.storage.delete_job(job_id)
            self.report.changed += 1
        found = _Found()
        try:
            parts = self._source.transfer.export_job(job_id)
            if (first := next(parts, None)) is not None:
                self._target.transfer.import_job(job_id, found.watch(first, parts))
        except JobNotFound:
            first = None
        if first is None:
            self.report.gone += 1
        elif self._has_arrived(job_id, found.tally):
            self._count(job_id, found)

    def _has_arrived(self, job_id: str, written: Tally) -> bool:
        """Return whether the target has what was written; False: the job has expired since."""
        there = tally(self._target.transfer.export_job(job_id))
        if there == written:
            return True
        if not there.counts and not self._read_source(job_id).tally.counts:
            self.report.gone += 1
            return False
        raise CopyRefused(
            f"the store at {self._target.transfer.address} does not have of job {job_id} what was written "
            f"({written.describe_difference(there)}). The store at {self._source.transfer.address} is as it was and "
            "can be used; the other cannot. Run the command again: the job is copied again"
        )

    def _read_source(self, job_id: str) -> _Found:
        found = _Found()
        try:
            parts = self._source.transfer.export_job(job_id)
            if (first := next(parts, None)) is not None:
                for _ in found.watch(first, parts):
                    pass
        except JobNotFound:
            return _Found()
        return found

    def _count(self, job_id: str, found: _Found) -> None:
        report = self.report
        if not found.tally.counts:
            report.gone += 1
            return
        report.copied += 1
        report.bytes += found.tally.bytes
        report.parts = {
            name: report.parts.get(name, 0) + found.tally.counts[name]
            for name in {**report.parts, **found.tally.counts}
        }
        if lost := found.describe_lost():
            report.incomplete[job_id] = lost

    def _remove_others(self) -> None:
        """Remove jobs that ended in the source since they were moved there: they would run a second time."""
        for some in _pages(self._target.transfer.list_ids()):
            for job_id in some:
                if next(self._source.transfer.export_job(job_id), None) is None:
                    self._target.storage.delete_job(job_id)
                    self.report.removed += 1

    def _copy_shared(self) -> None:
        found, shared = Tally(), self._source.transfer.export_shared()
        if self._keep:  # of two stores of one name, each would remove objects of jobs that only the other has
            shared = (item for item in shared if not isinstance(item, Identity))
        self._target.transfer.import_shared(found.counting(shared))
        self.report.shared = sum(found.counts.values())


class _Found:
    """What was read of a job, and what the store has lost of it."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._batches = 0
        self._records = 0
        self._chunks = 0

    def watch(self, first: JobItem, parts: Iterator[JobItem]) -> Iterator[JobItem]:
        """Yield all parts, and count them."""
        for part in self.tally.counting(itertools.chain((first,), parts)):
            if isinstance(part, Job):
                self._batches = int(part.record["batches"])
            elif isinstance(part, Batch):
                self._records += 1
            elif isinstance(part, RequestChunk) and (part.body is None or part.ids is None):
                self._chunks += 1
            yield part

    def describe_lost(self) -> str:
        """Return what the store has lost, for people; empty: nothing, as far as is seen."""
        lost = []
        if self._records < self._batches:
            lost.append(f"records of {self._batches - self._records:,} of {self._batches:,} batches")
        if self._chunks:
            lost.append(format_count(self._chunks, "chunk") + " of requests")
        return ", ".join(lost)


def release_store(store: Copied) -> Mark | None:
    """Have a store that is marked used again, and return what it was marked with; None: it was not."""
    store.transfer.open()
    mark = store.transfer.read_mark()
    store.transfer.set_mark(None)
    return mark


def _pages(job_ids: Iterator[str]) -> Iterator[list[str]]:
    while some := list(itertools.islice(job_ids, _PAGE)):
        yield some


def _describe_same(address: str) -> str:
    return f"both are the store at {address}: nothing was changed. Give two different stores"


def _describe_workers(workers: list[WorkerPresence], address: str) -> str:
    names = ", ".join(worker.hostname for worker in workers[:_NAMED]) + (", ..." if len(workers) > _NAMED else "")
    return (
        f"the store at {address} is used by {format_count(len(workers), 'worker')}: {names}. Nothing was copied or "
        "changed. Stop all workers (`celery -A APP control shutdown`, or as they are started) and wait until "
        "`claude-batch workers` lists none, which takes a minute after one was killed. Then run the command again"
    )
