"""The pools of asks: single requests of many processes that become one job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from claude_batch_tasks.pool_records import Ask, AskEnd, AskPlace, PoolLimits, PoolRecord


class Pools(Protocol):
    """The pools that take asks, those that become jobs, and where each ask is.

    A pool has the id of the job that it becomes. Its asks are stored until the batch of that job is created. An ask is
    known by its id until ``ttl`` seconds after its end.
    """

    def add_ask(self, key: str, pool: PoolRecord, new_id: str, ask: Ask, size: int, limits: PoolLimits) -> AskPlace:
        """Put an ask into the open pool of this key, in one round trip, and return where it is.

        Without an open pool, one is opened under ``new_id``, as ``pool`` describes it. If the ask fills the pool, that
        is closed, and due at once, but not before ``pool.starts_at``; an ask that has no room in it opens the next one.
        ``pool.due_at`` of 0 stands for ``limits.max_wait`` seconds from now. An earlier ``pool.due_at`` or
        ``pool.deadline`` than that of the open pool takes its place.

        An id that is known already changes nothing, and its place is returned; as ``read_places`` returns it.

        Args:
            key: what asks of one pool have in common.
            size: bytes of the ask in a create.

        Raises:
            BudgetSpent: ``ask.reserved`` does not fit into what is left of ``limits.max_cost`` in the present window;
                nothing was stored.
        """

    def take_due(self, limit: int, again: float) -> tuple[list[str], float | None]:
        """Close pools that are due, and return them, with the seconds until the next; None: nothing waits.

        Each goes to one caller, who sends the message that seals it. It is due again in ``again`` seconds, and
        then in twice as many, up to 64 times as many, unless ``finish_sealing`` is called before.
        """

    def wait_again(self, job_ids: Sequence[str], seconds: float) -> None:
        """Make pools that were taken, and whose messages could not be sent, due again in that many seconds."""

    def read_pool(self, job_id: str) -> PoolRecord | None:
        """Return the record of a pool; None: there is none, or it has expired."""

    def read_asks(self, job_id: str, *, params: bool = True) -> Iterator[list[Ask | None]]:
        """Yield the asks of a pool in their order, chunk by chunk; None: it was withdrawn.

        Args:
            params: False: without their params, which may be damaged.
        """

    def begin_sealing(self, job_id: str) -> PoolRecord | None:
        """Return the record of a closed pool, out of which nobody else can withdraw asks from now on.

        As ``read_pool`` if it is not closed.
        """

    def stop_sealing(self, job_id: str) -> int:
        """Record that no job could be made of a closed pool; return how often that was so, 0 if it is not closed.

        Its asks can be withdrawn again, unless somebody else is making a job of it.
        """

    def finish_sealing(self, job_id: str) -> None:
        """Record that the pool is a job now, and is due no more. Its asks stay stored until ``drop_asks``."""

    def drop_asks(self, job_id: str) -> None:
        """Remove the stored asks of a pool: the batch of its job was created. Their places stay."""

    def divide(self, job_id: str, parts: Mapping[str, tuple[PoolRecord, Sequence[int]]]) -> bool:
        """Replace a sealed pool by other ones, all at once; return False if it was replaced before.

        Args:
            parts: new id -> its record (state ``closed`` or ``parked``), and the positions of its asks in the old pool,
                ascending. Their positions in the new one are counted from 0. Asks at other positions stay in the old
                pool. A closed one is due at once; a parked one at its ``due_at``, if it has one.
        """

    def merge(self, job_id: str, others: Sequence[str]) -> None:
        """Move the asks of other parked pools into a parked one, behind its own."""

    def release(self, job_id: str, record: PoolRecord) -> None:
        """Make a parked pool due now, with this record; nothing if it is not parked."""

    def list_pools(self, name: str | None = None) -> Iterator[tuple[str, PoolRecord]]:
        """Yield the pools that are not sealed yet, the oldest first.

        Args:
            name: only those of this name.
        """


class Asks(Protocol):
    """Where each ask is, how it ended, and what all asks of a pool's name may cost."""

    def withdraw(
        self, ask_ids: Sequence[str], ttl: float, *, sealing: bool = False, terminate: bool = False
    ) -> list[bool]:
        """Take asks out of their pools, if no job is made of these yet; return of each whether it will never be sent.

        They end as revoked, and reserve nothing any more.

        Args:
            sealing: the caller is who makes a job of their pool, and has seen that there is none.
            terminate: those that are in a job end as revoked, too, although their requests are sent.
        """

    def read_places(self, ask_ids: Sequence[str], *, with_canvas: bool = False) -> list[AskPlace | None]:
        """Return where each ask is; None: it is not known (any more).

        Args:
            with_canvas: what it takes to end them, too: their canvas and headers. Otherwise these are left out.

        Raises:
            KeyMissing: a canvas is encrypted with a key that this store does not have.
        """

    def read_ended(self, job_id: str) -> bytes:
        """Return a bit for each request of the job, by its position, set if its ask has ended; highest bit first."""

    def end_asks(self, job_id: str, ends: Mapping[int, AskEnd], ttl: float, *, final: bool = True) -> None:
        """Record how asks ended, by the positions of their requests in the job, and send that to everybody who listens.

        Args:
            final: False: they failed because their job did; if it is resumed, they end again.
        """

    def settle_cost(self, spent: Mapping[str, int]) -> None:
        """Replace what asks have reserved of a cost limit by what was spent for them, in nano-dollars, by their ids.

        This happens once for each: what is called again, or of an ask that reserves nothing, changes nothing.
        """

    def read_cost(self, name: str, window: float) -> int:
        """Return what is reserved or spent of the cost limit of a pool's name in the present window, nano-dollars."""

    def listen(self) -> AbstractContextManager[AskListener]:
        """Open a subscription to the ends of asks. One serves all who wait in a process."""


class AskListener(Protocol):
    """A subscription to the ends of asks."""

    def wait(self, timeout: float) -> list[str]:
        """Return the ids of asks that have ended since the last call, waiting up to ``timeout`` seconds for the first.

        An end may be missed while the connection is made again: ask ``read_places`` now and then.
        """
