"""The schedule: when each unit's next message is due, which units wait without one, and what wakes workers early."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from claude_batch_tasks.records import Lost, Unit


class Schedule(Protocol):
    """The units for which a message is to come, and those that wait without one.

    A list call speaks for a batch in flight when it shows that the batch still runs: then nobody need poll it.
    """

    def are_scheduled(self, units: Sequence[Unit]) -> list[bool]:
        """Return of each unit whether a message is to come or a worker runs its step."""

    def due_times(self, units: Sequence[Unit]) -> list[float | None]:
        """Return of each unit when a message of it is or was due (epoch seconds); None: none is to come.

        Of a message that was sent again and that no worker has taken: when it was due at first.
        """

    def add_units(self, units: Iterable[Unit], at: float) -> None:
        """Record that a message of each unit is to come at ``at`` (epoch seconds) or soon after."""

    def remove_unit(self, unit: Unit) -> None:
        """Record that no message of the unit is to come."""

    def list_overdue(self, before: float, limit: int) -> list[Unit]:
        """Return units whose message should have acted before that moment (epoch seconds), the oldest first."""

    def scan_late(self, before: float) -> Iterator[list[tuple[Unit, float]]]:
        """Yield all such units with when each was due (epoch seconds), the oldest first, page by page."""

    def find_lost(self, unit: Unit, after: float) -> Lost | None:
        """Return the unit's lost message: no worker runs the step, and it is ``after`` seconds overdue.

        It must be overdue for longer, by twice the lateness of the messages that come, so that a long queue is not
        filled with copies. Of callers at the same time one gets it. For the next ``after`` seconds, twice as long each
        time, the unit does not count as overdue. A unit that waits without a message has none to lose.

        Args:
            after: 0: whatever no worker runs, but within five seconds only once.
        """

    def take_due(self, limit: int) -> tuple[list[Unit], float | None]:
        """Return units whose wait is over, each to one caller, and the seconds until the next; None: nothing waits.

        Of many batches in flight on an account, for which a list call may speak, one is returned at a time. The caller
        sends their messages. If it dies, they become overdue, and are found lost.
        """

    def wake_units(self, units: Iterable[Unit]) -> None:
        """Make those of the units that wait due at once; no list call speaks for them any more."""

    def wait_again(self, units: Iterable[Unit], seconds: float) -> None:
        """Let units wait whose messages could not be sent."""

    def postpone_units(self, due: Mapping[Unit, float], *, alone: bool = False, shown: float | None = None) -> None:
        """Change when batches are due (epoch seconds): those that wait, and for which a list call may speak.

        Args:
            alone: no list call speaks for them any more.
            shown: when a list call that shows them was begun, epoch seconds.
        """

    def start_next_batch(self, job_id: str, batch: int) -> int | None:
        """Return the number of the job's next batch, which is due from now on, in the place of one that has finished.

        None: there is none, or it was started in the place of this one already.
        """


class Wakeups(Protocol):
    """What wakes workers for units and pools that became due at once.

    Workers ask ``schedule.take_due`` and ``pools.take_due`` every second or so, whatever happens here: a lost wake-up
    costs one pause. What is due later needs none.
    """

    def listen(self) -> AbstractContextManager[WakeupListener | None]:
        """Open a subscription; one serves a process. None: this store, or this way to it, wakes nobody.

        Processes are forked in the middle of a ``wait``: only opening the subscription may take locks that others need
        (of a pool of connections, say), and a child leaves the connection of its parent alone.
        """


class WakeupListener(Protocol):
    """A subscription to what becomes due at once."""

    def wait(self, seconds: float) -> bool:
        """Wait up to that long; return at once, and True, if something has become due since the last call."""
