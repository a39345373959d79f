"""The ledger and the payloads behind one small Protocol.

The ledger says what was intended and what was confirmed; the payloads are prompts and answers. A store keeps, per
job, one job record, one record per batch, the batch's requests and ids as pieces in the order they were cut, the
published result file as pieces, and the outcomes that came through the Messages API.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

from claude_batch_tasks.records import (
    BatchGlance,
    BatchRecord,
    Flight,
    HistoryEvent,
    JobGlance,
    JobRecord,
    JobState,
    LaneRecord,
    Lease,
    Lost,
    Need,
    Taken,
    Unit,
)
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.wire.batch_requests import Piece


class Store(Protocol):
    """Raises ``errors.StoreUnavailable`` from every method when it cannot answer, and never guesses.

    Raises ``errors.StoreTooNew``, which is one, where a newer release has made it its own.
    """

    def check_schema(self) -> None:
        """See that the store is one for this release, and bring it up to date; else the first call of all does."""

    def now(self) -> float:
        """The time by the store's clock, epoch seconds, as far as this process knows it.

        It is the only clock by which anything in the store is written or compared. Once the store has told it, it can
        be had without an answer of the store.
        """

    # -- jobs
    def stage(self, job_id: str, nonce: str, pieces: Iterable[Piece]) -> None:
        """Stage the pieces of batches. Each nonce has a place of its own; what no job is made of expires."""

    def stage_index(self, job_id: str, nonce: str, parts: Iterable[tuple[int, bytes]]) -> None:
        """Stage the job's custom_ids, as ``index`` encodes them, in parts that are asked for by number."""

    def discard(self, job_id: str, nonce: str, batches: int) -> None:
        """Remove what was staged under a nonce."""

    def create_job(
        self, job_id: str, job: JobRecord, batches: Sequence[BatchRecord], ttl: float, *, staged: bool = True
    ) -> bool:
        """Make the job exist with what was staged under its nonce, all at once; False if there is a job of that id.

        It expires after ``ttl`` seconds unless it is kept. ``staged``: False if nothing was.
        """

    def job(self, job_id: str) -> JobRecord | None: ...

    def update_job(self, job_id: str, *, only: JobState | None = None, **changes: Any) -> bool:
        """Change the job's record, if there still is one (and it is in the state ``only``); whether it was done."""

    def resume(
        self, job_id: str, changes: Mapping[str, Any], batches: Mapping[int, tuple[bool, int, Mapping[str, Any]]]
    ) -> bool:
        """Change a failed job's record and those of batches of it, and let nothing of it expire, all at once.

        False if it is not a failed one.

        Args:
            batches: number to whether it is due now, the position it is at from now on, and what changes in its record.
        """

    def settle(self, job_id: str, field: str, value: Any) -> Any:
        """Give a field of the job a value if it has none; returns the value it has."""

    def keep(self, job_id: str) -> None:
        """Let nothing of the job expire while it runs."""

    def expire(self, job_id: str, ttl: float) -> None:
        """Let all of the job expire after ``ttl`` seconds."""

    def delete(self, job_id: str, *, remember: bool = False) -> None:
        """Remove all of the job. ``remember``: somebody meant it, so its late messages end quietly for a day."""

    def was_deleted(self, job_id: str) -> bool:
        """Whether somebody deleted the job within the last day."""

    def job_ids(self, before: float = ...) -> Iterator[str]:
        """All jobs that were submitted before that moment (epoch seconds), the newest first."""

    def forget_expired(self) -> None:
        """Take some of the jobs that have expired out of the list of all; to be called now and then."""

    def sample_jobs(self, limit: int) -> list[str]:
        """Some of all jobs, others each time."""

    def list_jobs_anew(self) -> None:
        """List all jobs again if their list is gone; to be called now and then."""

    def states(self, job_ids: Sequence[str]) -> list[JobState | None]:
        """The state of each job; None: it is gone."""

    def first(self, name: str, ttl: float) -> bool:
        """Whether the caller is the first of all who ask for that name within ``ttl`` seconds."""

    def ask_to_restore(self, job_id: str) -> None:
        """Have a worker fetch again what is missing of the job."""

    def to_restore(self, limit: int) -> list[str]:
        """Jobs for which that was asked, each given out once."""

    # -- what happened to a job
    def note(self, job_id: str, event: HistoryEvent) -> None:
        """Append to a job's history. Of a long one the beginning and the end are kept."""

    def history(self, job_id: str) -> list[HistoryEvent]:
        """What happened to a job, the oldest first; one entry, ``left_out``, stands for all that is not kept."""

    # -- all of them at a glance; each list is had in one go
    def glance_at_jobs(self) -> Iterator[list[tuple[str, JobGlance]]]:
        """All jobs, the oldest first; where some are deleted meanwhile, others may be missing."""

    def glance_at_batches(self, job_id: str, batches: int) -> Iterator[list[tuple[int, BatchGlance]]]:
        """The first so many batches of a job, each with its number."""

    def late(self, before: float) -> Iterator[list[tuple[Unit, float]]]:
        """Units whose message should have acted before that moment, and when (epoch seconds), the oldest first."""

    def begin_census(self, ttl: float) -> bool:
        """Whether the caller is to find out; of all who ask within ``ttl`` seconds one is."""

    def keep_census(self, found: bytes, ttl: float) -> None:
        """Keep what it found out for so many seconds."""

    def census(self) -> bytes | None:
        """What was found out last."""

    # -- batches, and the leases of their steps
    def batches(self, job_id: str) -> list[BatchRecord]:
        """The records of all its batches, by number.

        Raises:
            ResultsMissing: one of them is gone.
        """

    def batch_records(self, job_id: str) -> list[BatchRecord | None]:
        """Likewise; None: it is gone."""

    def replace_batch(self, job_id: str, batch: int, record: BatchRecord, batches: int) -> bool:
        """Put a record in the place of one that is gone; False if it is not.

        The job's batches, so many, that are done are counted anew.
        """

    def missing_keys(self, job_id: str, batch: int | None, names: Iterable[str]) -> list[str]:
        """Those keys of a batch (or of the job) that are not there, by their whole names.

        Args:
            names: such as ``body``, ``ids``, ``outcomes``, ``rows:1``.
        """

    def batch(self, job_id: str, batch: int) -> BatchRecord | None: ...

    def position(self, unit: Unit) -> int:
        """The position the unit is at; -1: nobody has begun it."""

    def acquire(self, unit: Unit, position: int, owner: str, ttl: float) -> Lease:
        """Take the lease of a unit for the message at ``position``; messages at older positions are stale."""

    def renew(self, unit: Unit, owner: str, ttl: float) -> bool:
        """Hold the lease for another ``ttl`` seconds; False if it is no longer the owner's."""

    def record(self, unit: Unit, owner: str, **changes: Any) -> bool:
        """Change the unit's record if ``owner`` still holds its lease; whether it did."""

    def end_batch(self, unit: Unit, owner: str, **changes: Any) -> int | None:
        """Record that nothing is left to be done for a batch, with more changes; None if the lease is another's.

        Returns how many batches of the job are through then: of those that end at the same moment, one is the last.
        0 if the job is gone.
        """

    def advance(self, unit: Unit, owner: str, position: int, *, through: bool = False, **changes: Any) -> bool:
        """Give the lease up and leave the unit at ``position``, in one; False if it is no longer the owner's.

        ``through``: nothing will come after it. A ``due_at`` among the changes says when its next message is due.
        """

    def wait(
        self,
        unit: Unit,
        owner: str,
        position: int,
        due_at: float,
        *,
        account: str = "",
        flight: Flight | None = None,
        **changes: Any,
    ) -> bool:
        """As ``advance``, but no message is on its way: when the unit is due, ``due`` hands it out.

        Args:
            account, flight: of a batch in flight, which is listed among those of its account while it waits.
        """

    def admit(self, job_id: str, batch: int) -> int | None:
        """The number of the job's next batch, which is due from now on, in the place of one that is through.

        None if there is none, or if it was asked for in the place of this one already.
        """

    def grant(self, job_id: str, batch: int, wanted: int, limit: int) -> int:
        """Reserve up to ``wanted`` of the job's ``limit`` fallback requests for a batch; the same answer each time."""

    # -- the index of what waits for a message
    def awaited(self, units: Sequence[Unit]) -> list[bool]:
        """Whether a message of each is to come, or somebody is at work on it."""

    def schedule(self, units: Iterable[Unit], at: float) -> None:
        """A message of each unit is to come at ``at`` (epoch seconds) or soon after; steps keep this up to date."""

    def unschedule(self, unit: Unit) -> None:
        """No message of the unit is to come."""

    def overdue(self, before: float, limit: int) -> list[Unit]:
        """Units whose message should have acted before that moment, the oldest first."""

    def lost(self, unit: Unit, after: float) -> Lost | None:
        """Whether the unit's message seems lost: nobody is at work on it, and it is ``after`` seconds overdue.

        Longer, by twice the lateness of the messages that come, so that a long queue is not filled with copies.

        Of callers at the same time one gets it. For the next ``after`` seconds, twice as long each time, the unit
        does not count as overdue. ``after=0``: whatever nobody is at work on, but within five seconds only once. What
        waits without a message has none to lose.
        """

    # -- what waits without a message
    def due(self, limit: int) -> tuple[list[Unit], float | None]:
        """Units whose wait is over, each handed out once; and the seconds until the next is due, None: nothing waits.

        Of many batches in flight on an account, which a listing may speak for, one is handed out at a time. Whoever
        gets them sends their messages. If it dies, they are overdue, and found lost.
        """

    def wake(self, units: Iterable[Unit]) -> None:
        """Those of the units that wait are due at once, and no listing speaks for them any more."""

    def wait_again(self, units: Iterable[Unit], seconds: float) -> None:
        """Units that were handed out, and whose messages could not be sent, wait for so long."""

    def postpone(self, due: Mapping[Unit, float], *, alone: bool = False, shown: float | None = None) -> None:
        """Change when batches are due (epoch seconds): those that wait, and that a listing may speak for.

        Args:
            alone: no listing speaks for them any more.
            shown: when a listing that shows them was begun, epoch seconds.
        """

    # -- an account's batches, in common to all jobs; an account is named by a text without colons
    def in_flight(self, account: str) -> int:
        """How many batches are in flight: their polls wait."""

    def flights(self, account: str) -> dict[Unit, tuple[Flight, float]]:
        """The batches in flight, and when each is due."""

    def hold_listing(self, account: str, owner: str, ttl: float) -> bool:
        """Have the account's listing to oneself for ``ttl`` seconds (again, if one has it); False: another has it."""

    def end_listing(self, account: str, owner: str) -> None:
        """Let others have it."""

    def note_listing(self, account: str, *, failed: bool) -> int:
        """Remember how a listing ended; returns how many in a row have failed."""

    def add_page(
        self, account: str, entries: Mapping[str, bytes], *, taken_at: float, since: float, first: bool
    ) -> None:
        """Keep a page of the listing: batch id to whatever is to be known of it.

        Args:
            taken_at: when the listing was begun, epoch seconds.
            since: every batch created from then on is in this page or in one before it.
            first: it begins a new listing; what was kept of the last one goes.
        """

    def listed(self, account: str, batch_id: str) -> tuple[bytes | None, float, float]:
        """What the listing says of a batch (None: nothing), ``taken_at`` and ``since``; 0 and infinity: no listing."""

    def hold_back(self, name: str, until: float) -> None:
        """No call of that name is to be made until then (epoch seconds)."""

    def held_back(self, *names: str) -> float:
        """Until when no call is to be made that has any of these names, epoch seconds."""

    def note_end(self, account: str, requests: int, seconds: float) -> None:
        """Remember that a batch of so many requests took so long."""

    def past(self, account: str) -> list[tuple[int, float]]:
        """Requests and seconds of the account's last batches."""

    # -- which batch id is whose
    def claim(
        self,
        unit: Unit,
        owner: str,
        batch_id: str,
        /,
        *,
        instead_of: Unit | None = None,
        force: bool = False,
        **changes: Any,
    ) -> Unit | None:
        """Make a batch id this batch's, in one with changes to its record, unless it is another's already.

        Args:
            instead_of: who may have it, and holds nothing.
            force: whoever has it is wrong.

        Returns:
            Whose it is; None if the lease is somebody else's.
        """

    def release(self, unit: Unit, owner: str, batch_id: str, /, **changes: Any) -> bool:
        """The batch id is not this batch's any more, in one with changes to its record; False if the lease is lost."""

    def holder(self, batch_id: str) -> Unit | None:
        """Whose a batch id is."""

    # -- payloads
    def bodies(self, job_id: str, batch: int) -> Iterator[bytes]: ...

    def custom_ids(self, job_id: str, batch: int) -> Iterator[list[str]]: ...

    def index_part(self, job_id: str, part: int, *, batch: int | None = None, attempt: int | None = None) -> bytes:
        """A part of the job's index, or of the one an attempt of a batch was published with; empty if there is none."""

    def custom_id(self, job_id: str, batch: int, place: int) -> str:
        """The custom_id of the batch's request of that position."""

    def piece_of(self, job_id: str, batch: int, place: int) -> tuple[int, bytes]:
        """The piece of the batch's requests that holds that position, and the position it begins with."""

    def write_results(self, job_id: str, batch: int, attempt: int, pieces: Iterable[bytes], *, copy: str = "") -> None:
        """Store an attempt's rows; nobody sees them before ``published`` in the record names the attempt.

        If that fails, or the pieces break off, nothing of the attempt is kept.

        Args:
            copy: they are fetched again, and stored under this name until ``restore_results``.
        """

    def discard_results(self, job_id: str, batch: int, attempt: int, *, copy: str = "") -> None:
        """Remove the rows of an attempt that will not be published, or a copy of them."""

    def restore_results(
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
        """Put a copy in the place of an attempt's rows, with what ``publish`` stores beside them.

        False if the job or the copy is gone.
        """

    def publish(
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
        """Make an attempt's rows the batch's results, in one with changes to its record, if the lease is still held.

        Other attempts' rows are removed.

        Args:
            keep: attempts whose rows are those of earlier rounds.
            pieces: for each position in the batch, the number of the piece that holds its row (unsigned 32-bit
                integers, the greatest of them: none does).
            eligible_places: positions of what deserves another chance (unsigned 32-bit integers).
            index: of its custom_ids, as ``index`` encodes them, where the job has none.
        """

    def results(self, job_id: str, batch: int, attempt: int) -> Iterator[bytes]: ...

    def pieces(self, job_id: str, batch: int, attempt: int, places: Iterable[int]) -> dict[int, int]:
        """For each position that has a row in an attempt's, the number of the piece that holds it."""

    def piece_of_results(self, job_id: str, batch: int, attempt: int, number: int) -> bytes:
        """A piece of an attempt's rows; empty if it is not there."""

    def eligible(self, job_id: str, batch: int, attempt: int) -> bytes: ...

    # -- money, nano-dollars; what is reserved may be spent, and counts as spent until it is settled
    def reserve(self, unit: Unit, turn: int, least: int, most: int, limit: int) -> Literal["yes", "wait", "no", "lost"]:
        """Reserve what a batch costs at most, of what its job may spend; the same turn reserves it once.

        If that is not left: ``yes`` all the same if the rest of it covers the least, and nothing else is reserved;
        ``wait`` if something is, which may cost less. ``lost``: what the job has spent is gone from the store.
        """

    def settle_cost(self, unit: Unit, turn: int, spent: int) -> None:
        """What a batch has cost, as far as is known; it may be said again. Nothing if it was never reserved."""

    # -- the Messages API; a pace is what calls have in common that are limited together (an account's for a model)
    def lane(self, unit: Unit) -> LaneRecord: ...

    def enter(self, job_id: str, batch: int, places: Iterable[int]) -> None:
        """Requests of the batch are to be sent, unless they are on their way or have an outcome already."""

    def to_send(self, job_id: str, batch: int, limit: int) -> tuple[list[int], float | None]:
        """Some of the requests that are due to be sent; if none is, the seconds until one is, None: none waits."""

    def under_way(self, job_id: str, batch: int) -> int:
        """How many requests of the batch wait to be sent, or were sent and have no outcome."""

    def take(
        self,
        unit: Unit,
        owner: str,
        place: int,
        pace: str,
        need: Need,
        ttl: float,
        *,
        cap: int,
        limit: int | None,
        total: int | None,
    ) -> Taken:
        """Have a request to send in a lane, if its job, the pace and the budget let it be sent now; all in one step.

        Args:
            owner: who must still have the lane's lease.
            ttl: seconds after which it no longer counts as a call in flight, unless ``sending`` says so.
            cap: calls of one pace in flight at a time.
            limit: what the job's Messages calls may cost; None: whatever they do.
            total: what the job may cost.
        """

    def confirm(self, unit: Unit, owner: str, place: int, ttl: float) -> bool:
        """Hold a lane's lease for another ``ttl`` seconds, if the request it has taken is still its own to send.

        False if the lane is no longer the owner's, or somebody has dealt with the request.
        """

    def sending(self, unit: Unit, paces: Mapping[int, str], ttl: float) -> None:
        """These requests of a lane are still on their way."""

    def left_behind(self, unit: Unit) -> list[int]:
        """Requests a lane has sent, and whose answers nobody waits for when it begins."""

    def answered(
        self,
        unit: Unit,
        place: int,
        pace: str,
        mark: str,
        *,
        limits: Mapping[str, tuple[int, int]],
        refused: bool,
        hold: float | None,
        cap: int,
        output: int | None = None,
    ) -> None:
        """An answer came: it says how much more may be sent, or that it was too much.

        Args:
            limits: as ``policy.limits`` reads them.
            refused: it was a refusal for a passing reason, which halves the calls in flight.
            hold: seconds in which no call of the pace is to be made.
            output: tokens of the answer.
        """

    def refusals(self, unit: Unit, place: int) -> int:
        """How often a request was refused."""

    def put_back(self, unit: Unit, place: int, seconds: float, limit: int) -> int:
        """A request was refused, and not charged for: it is to be sent again after so many seconds.

        Returns how often it was refused. From ``limit`` times on it is not to be, and waits for its outcome.
        """

    def save_outcome(
        self, unit: Unit, place: int, outcome: bytes, *, spent: int | None = None, given_up: bool = False
    ) -> bool:
        """Store a request's final outcome, and settle what it cost; False if it has one already.

        Args:
            spent: nano-dollars; None: it is not known, and all that was reserved counts as spent.
            given_up: its answer counts as lost. One that comes after all replaces this outcome, as long as the batch is
                not final.
        """

    def outcomes(self, job_id: str, batch: int) -> Iterator[tuple[int, bytes]]: ...

    def count_outcomes(self, job_id: str, batch: int) -> int:
        """How many requests of the batch have one."""

    def accounted(self, job_id: str, batch: int) -> set[int]:
        """Positions of the requests of the batch that wait to be sent, were sent, or have an outcome."""

    def outcomes_of(self, job_id: str, batch: int, places: Sequence[int]) -> dict[int, bytes]: ...

    def drop(self, job_id: str, batch: int) -> int:
        """No request of the batch that waits is to be sent any more; how many waited."""

    # -- which outcomes were announced
    def announced(self, job_id: str, batch: int) -> bytes:
        """A bit for each request of the batch, the first of a byte being its highest."""

    def announce(self, job_id: str, batch: int, places: Iterable[int]) -> None:
        """These were."""


def open_store(settings: Settings) -> Store:
    """Return the store that settings name; they come from an app, which gives them an URL."""
    assert settings.store_url is not None
    return open_store_at(settings.store_url, settings.encryption_key or (), settings.store_prefix or "")


def open_store_at(url: str, keys: Sequence[str] = (), prefix: str = "") -> Store:
    """Return the store behind a URL, cached per process; only Redis URLs are known.

    Args:
        keys: what it encrypts payloads with, as the setting spells them.
        prefix: what all its keys begin with.
    """
    from claude_batch_tasks.store import redis

    return redis.open_store_at(url, tuple(keys), prefix)
