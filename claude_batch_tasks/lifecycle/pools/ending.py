"""The end of asks: each ends when the outcome of its own request is final, as any Celery task ends.

What ends an ask may happen twice: a worker may die after it. An ask whose end was recorded in the store is left alone,
and one that succeeded in the result back end already is only recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from celery import Celery
from celery.states import FAILURE, SUCCESS

from claude_batch_tasks import errors
from claude_batch_tasks.lifecycle.pools import ask_events, ask_outcomes, ask_run, plain_asks
from claude_batch_tasks.lifecycle.pools.ask_outcomes import AskOutcome
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.pool_records import AskEnd, AskPlace
from claude_batch_tasks.records import BatchRecord, JobRecord, Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import HasAsks, ReadableStore, history

if TYPE_CHECKING:  # it needs the SDK, which takes a second to import
    from claude_batch_tasks.steps.step import Step

log = get_logger(__name__)


class AskStore(ReadableStore, HasAsks, Protocol):
    """What it takes to end asks."""


@dataclass
class AskEnding:
    """The end of asks of one job."""

    app: Celery
    store: Any
    settings: Settings
    job_id: str
    job: JobRecord
    hold: Callable[[], None] = lambda: None
    """Raises an error if the asks are no longer this process's to end."""
    hostname: str | None = None
    """The name of the worker."""
    delivery: Mapping[str, Any] | None = None
    """Where the message came from that ends them."""
    is_lasting: Callable[[], bool] = lambda: False
    """Returns whether it was tried so often to send what follows an ask that it counts as impossible."""

    def end_by_outcome(self, number: int, batch: BatchRecord, places: Iterable[int], *, only: str | None = None) -> int:
        """End those of a batch's asks whose outcomes are final; return how many.

        Args:
            places: the positions of their requests in the batch.
            only: the type of outcome; others stay as they are.

        Raises:
            TransientError: the broker or the result back end does not answer; those that were ended are recorded.
            ResultsMissing: an outcome is gone.
        """
        wanted, ended = self._find_open(batch, places), 0
        if not any(wanted):
            return 0
        outcomes = ask_outcomes.read_chunks(
            self.store, self.job_id, self.job, number, batch, wanted, self.settings.price_list, only
        )
        for chunk in outcomes:
            self._end_chunk(batch, chunk)
            ended += len(chunk)
        return ended

    def fail_open(self, number: int, batch: BatchRecord, error: Exception, *, final: bool = False) -> int:
        """End all asks of a batch that have not ended, because their job has; return how many.

        Args:
            error: why.
            final: False: if the job is resumed, they end again.
        """
        wanted, ended = self._find_open(batch, range(batch.count)), 0
        if not any(wanted):
            return 0
        names = ask_outcomes.load_ids(self.store, self.job_id, self.job, number, batch)
        places = (place for place in range(batch.count) if wanted[place])
        while chunk := list(islice(places, ask_outcomes.CHUNK)):
            self.hold()
            ids = [names[place] for place in chunk]
            found = zip(chunk, ids, self._read_places(ids), strict=True)
            left = {batch.first + place: (ask_id, at) for place, ask_id, at in found if self._may_fail(at)}
            if batch.batch_id is None and batch.intent_at is None:  # nothing of it was sent
                self._settle({ask_id: 0 for ask_id, at in left.values() if at.reserved})
            self._fail(left, error, final=final)
            ended += len(left)
        return ended

    def fail_unmade(self, ask_ids: Sequence[str], error: Exception) -> int:
        """End asks of a pool of which no job can be made; return how many.

        Args:
            error: why.
        """
        found = enumerate(zip(ask_ids, self._read_places(ask_ids), strict=True))
        left = {position: (ask_id, at) for position, (ask_id, at) in found if at.state == "waiting"}
        self._settle({ask_id: 0 for ask_id, at in left.values() if at.reserved})
        self._fail(left, error, final=True)
        return len(left)

    def _may_fail(self, at: AskPlace) -> bool:
        """Return whether an ask has not ended: neither was it revoked, nor has it failed with its job before."""
        return at.state != "revoked" and (at.state != "failed" or self.job.resumed_at is not None)

    def _fail(self, asks: Mapping[int, tuple[str, AskPlace]], error: Exception, *, final: bool) -> None:
        """End asks with the error of their job; those that were ended are recorded, whatever comes between."""
        ends, kind = dict[int, AskEnd](), getattr(error, "error_type", None)
        try:
            for position, (ask_id, at) in asks.items():
                failed = ask_outcomes.make_error(self.job_id, ask_id, str(error), error_type=kind)
                ends[position] = self._run(ask_id, at, failed)
                if not plain_asks.is_plain(at):
                    self._record({position: ends.pop(position)}, final=final)
        finally:
            self._record(ends, final=final)

    def _find_open(self, batch: BatchRecord, places: Iterable[int]) -> bytearray:
        """Return which of these requests have an ask that has not ended, by position in the batch."""
        bits, wanted = self.store.asks.read_ended(self.job_id), bytearray(batch.count)
        for place in places:
            wanted[place] = not _is_set(bits, batch.first + place)
        return wanted

    def _read_places(self, ask_ids: Sequence[str]) -> list[AskPlace]:
        """Return where asks of this job are; one that the store has lost is in it, and nothing follows it."""
        return [
            AskPlace(job_id=self.job_id, position=0, asked_at=self.job.submitted_at) if at is None else at
            for at in self.store.asks.read_places(ask_ids, with_canvas=True)
        ]

    def _end_chunk(self, batch: BatchRecord, chunk: Mapping[int, AskOutcome]) -> None:
        self.hold()
        places = self._read_places([found.ask_id for found in chunk.values()])
        plain: dict[int, tuple[str, AskPlace, Any]] = {}
        others: dict[int, tuple[str, AskPlace, Any]] = {}
        at_once = plain_asks.can_store_at_once(self.app)
        spent: dict[str, int] = {}
        revoked: dict[int, AskEnd] = {}
        for (place, found), at in zip(chunk.items(), places, strict=True):
            position, end = batch.first + place, found.choose_end(self.job_id)
            if at.reserved and (cost := found.sum_cost()) is not None:
                spent[found.ask_id] = cost
            if at.state == "revoked":
                revoked[position] = AskEnd(found.ask_id, "revoked")
            elif not isinstance(end, Exception) and at_once and plain_asks.is_plain(at):
                plain[position] = found.ask_id, at, end
            else:
                others[position] = found.ask_id, at, end
        self._settle(spent)  # before its end is recorded: after that, nobody would
        self._record(revoked)
        if plain:
            plain_asks.store_answers(self.app, list(plain.values()), self.hostname)
            self._record({position: AskEnd(ask_id, "succeeded") for position, (ask_id, _, _) in plain.items()})
            ask_events.report_ends(self.app, list(plain.values()), self.hostname, self.store.now())
        for position, ask in others.items():
            self._record({position: self._run(*ask)})
        extra = history.fields(Unit(self.job_id), "asks_ended")
        log.info("job %s: asks ended: %d", self.job_id, len(chunk), extra=extra)

    def _run(self, ask_id: str, at: AskPlace, end: Any) -> AskEnd:
        """End one ask as Celery ends a task; one that has succeeded already is only recorded."""
        request = ask_run.make_request(ask_id, at, self.hostname)
        state = self._reported_state(ask_id, request)
        if state == SUCCESS and not isinstance(end, Exception):
            if request.chord:  # the worker may have died before it counted
                self.app.tasks[ask_run.ASK].backend.on_chord_part_return(request, SUCCESS, end)
        else:
            run = ask_run.AskRun(ask_id, at, end, is_lasting=self.is_lasting, delivery=self.delivery)
            state = run.trace(self.app, self.hostname)
            ask_events.report_ends(self.app, [(ask_id, at, end)], self.hostname, self.store.now())
        return AskEnd(ask_id, "failed" if state == FAILURE else "succeeded")

    def _reported_state(self, ask_id: str, request: Any) -> str | None:
        """Return the state of an ask in the result back end; None: it is not known there."""
        if request.ignore_result:
            return None
        try:
            return str(self.app.AsyncResult(ask_id).state)
        except Exception:  # noqa: BLE001 - there is no result back end, or it does not answer
            return None

    def _settle(self, spent: Mapping[str, int]) -> None:
        """Replace what asks have reserved of a cost limit by what they have cost, in nano-dollars."""
        if spent:
            self.store.asks.settle_cost(spent)

    def _record(self, ends: Mapping[int, AskEnd], *, final: bool = True) -> None:
        if ends:
            self.store.asks.end_asks(self.job_id, ends, self.settings.result_ttl, final=final)


def end_final_asks(step: Step, places: Iterable[int]) -> None:
    """End those of the batch's asks that have not ended; nothing if the job was not made of a pool.

    Args:
        places: the positions of requests whose outcome is final.
    """
    if step.job.pool is not None:
        _of_step(step).end_by_outcome(step.unit.batch or 0, step.batch, places)


def fail_open_asks(step: Step, error: Exception | None) -> None:
    """End the asks of a job that has failed; those with an answer succeed.

    Args:
        error: why the job has failed; None: it has not.
    """
    if step.job.pool is not None and error is not None:
        fail_asks_of_job(_of_step(step), error)


def fail_asks_of_job(ending: AskEnding, error: Exception, *, final: bool = False) -> None:
    """End all asks of a job that have not ended; those with an answer succeed.

    Args:
        final: False: if the job is resumed, they end again.
    """
    for number, batch in enumerate(ending.store.records.find_batches(ending.job_id)):
        if batch is None:
            continue
        if batch.layers or batch.stored or batch.answered:
            try:
                ending.end_by_outcome(number, batch, range(batch.count), only="succeeded")
            except errors.ResultsMissing as exc:
                extra = history.fields(Unit(ending.job_id, number), "asks_ended")
                log.warning("job %s: some of its asks end without their answers: %s", ending.job_id, exc, extra=extra)
        ending.fail_open(number, batch, error, final=final)


def _of_step(step: Step) -> AskEnding:
    return AskEnding(
        step.task.app,
        step.store,
        step.settings,
        step.unit.job_id,
        step.job,
        hold=step.confirm_lease,
        hostname=step.task.request.hostname,
        delivery=step.task.request.delivery_info,
        is_lasting=lambda: step.task.count_failures() >= step.settings.max_step_failures,
    )


def _is_set(bits: bytes, place: int) -> bool:
    return place // 8 < len(bits) and bool(bits[place // 8] >> (7 - place % 8) & 1)
