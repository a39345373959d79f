"""What the package needs of a store: one small Protocol a concept, and ``Store``, which has one of each.

The ledger says what was intended and what was confirmed; the payloads are prompts and answers.

A function says in its signature which parts of a store it needs: ``store: HasResults``, or a Protocol that puts several
of these together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from claude_batch_tasks.store.interface.batch_ids import BatchIds as BatchIds
from claude_batch_tasks.store.interface.budget import Budget as Budget
from claude_batch_tasks.store.interface.in_flight import InFlight as InFlight
from claude_batch_tasks.store.interface.jobs import (
    Jobs as Jobs,
    JobSearch as JobSearch,
    Retries as Retries,
    Storage as Storage,
    Transfer as Transfer,
)
from claude_batch_tasks.store.interface.leases import Leases as Leases
from claude_batch_tasks.store.interface.message_queue import MessageQueue as MessageQueue
from claude_batch_tasks.store.interface.payloads import Payloads as Payloads
from claude_batch_tasks.store.interface.pools import AskListener as AskListener, Asks as Asks, Pools as Pools
from claude_batch_tasks.store.interface.records import History as History, Records as Records
from claude_batch_tasks.store.interface.results import Deliveries as Deliveries, Results as Results
from claude_batch_tasks.store.interface.schedule import (
    Schedule as Schedule,
    WakeupListener as WakeupListener,
    Wakeups as Wakeups,
)
from claude_batch_tasks.store.interface.statistics import (
    Inspection as Inspection,
    Presence as Presence,
    Statistics as Statistics,
)


class Clock(Protocol):
    """The clock of a store."""

    def now(self) -> float:
        """Return the time by the store's clock, epoch seconds, as far as this process knows it.

        It is the only clock by which anything in the store is written or compared. Once the store has reported the
        time, this needs no answer of the store.
        """


class Transactions(Protocol):
    """Whether what this thread writes takes effect at once, or when a transaction of the caller's commits.

    A store in a database of its own is never a part of one, and ``store.apart`` keeps any other out of it.
    """

    def current(self) -> str | None:
        """Return the name of the caller's transaction of which all calls are a part now; None: there is none.

        Nobody else sees what was written until it commits; after a rollback, nothing was written.
        """

    def join(self, connection: Any) -> AbstractContextManager[None]:
        """Make all calls meanwhile a part of the transaction of a connection to the store's database.

        Raises:
            InvalidSettings: it is not one of that database, or has no transaction.
        """


class Schema(Protocol):
    """The tables of a store. A store that needs none has nothing to migrate."""

    def is_current(self) -> bool:
        """Return whether nothing is left to do for this release."""

    def migrate(self) -> bool:
        """Create it, or bring it up to date; return whether anything was left to do.

        What a newer release has made is left as it is.
        """

    def list_statements(self) -> Iterator[str]:
        """Yield what is left to do, as statements that somebody may run by hand."""

    def drop(self) -> int:
        """Remove it, unless it holds jobs or asks; return how many it holds, 0 if it is removed, or was not there."""

    def describe_rights(self) -> str:
        """Return which rights the user of workers needs, as statements that grant them; empty if it needs none."""


class HasJobs(Protocol):
    jobs: Jobs


class HasJobSearch(Protocol):
    job_search: JobSearch


class HasStorage(Protocol):
    storage: Storage


class HasRecords(Protocol):
    records: Records


class HasHistory(Protocol):
    history: History


class HasLeases(Protocol):
    leases: Leases


class HasBatchIds(Protocol):
    batch_ids: BatchIds


class HasSchedule(Protocol):
    schedule: Schedule


class HasInFlight(Protocol):
    in_flight: InFlight


class HasPayloads(Protocol):
    payloads: Payloads


class HasResults(Protocol):
    results: Results


class HasDeliveries(Protocol):
    deliveries: Deliveries


class HasRetries(Protocol):
    retries: Retries


class HasBudget(Protocol):
    budget: Budget


class HasMessageQueue(Protocol):
    message_queue: MessageQueue


class HasPools(Protocol):
    pools: Pools


class HasAsks(Protocol):
    asks: Asks


class HasStatistics(Protocol):
    statistics: Statistics


class HasPresence(Protocol):
    presence: Presence


class HasInspection(Protocol):
    inspection: Inspection


class HasWakeups(Protocol):
    wakeups: Wakeups


class HasTransactions(Protocol):
    transactions: Transactions


class HasSchema(Protocol):
    schema: Schema


class HasTransfer(Protocol):
    transfer: Transfer


class Ledger(HasJobs, HasStorage, HasRecords, Clock, Protocol):
    """The records of jobs and batches, what is stored of them, and the time."""


class Journal(HasHistory, Clock, Protocol):
    """What it takes to record an event."""


class JobContents(HasPayloads, HasResults, Protocol):
    """Prompts and answers."""


class ReadableStore(Ledger, JobContents, HasPools, Protocol):
    """What it takes to read a job."""


class Store(
    HasJobs,
    HasStorage,
    HasJobSearch,
    HasRecords,
    HasHistory,
    HasLeases,
    HasBatchIds,
    HasSchedule,
    HasInFlight,
    HasPayloads,
    HasResults,
    HasDeliveries,
    HasRetries,
    HasBudget,
    HasMessageQueue,
    HasPools,
    HasAsks,
    HasStatistics,
    HasPresence,
    HasInspection,
    HasWakeups,
    HasTransactions,
    HasSchema,
    HasTransfer,
    Clock,
    Protocol,
):
    """A store: its parts, its clock, and its schema.

    Every method of it and of its parts raises ``errors.StoreUnavailable`` when the store cannot answer, and never
    guesses; ``errors.StoreTooNew``, which is one, where a newer release has changed the store, or
    ``errors.StoreMoved`` where its jobs are in another.
    """

    def check_schema(self) -> None:
        """Ensure that this release can use the store, and bring the store up to date; else the first call does."""

    def read_identity(self) -> str:
        """Return a name of this store that no other has; one that has lost all that it had has another."""
