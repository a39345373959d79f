"""The requests of a job that go through the Messages API, one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from claude_batch_tasks.records import Need, Taken, Unit


class MessageQueue(Protocol):
    """Requests that wait for a sender, and the calls in flight.

    Calls for one model on one account have a rate limit in common, which is named by ``pace``.
    """

    def add_requests(self, job_id: str, batch: int, positions: Iterable[int]) -> None:
        """Add requests of a batch, except those that were sent or have an outcome."""

    def list_due(self, job_id: str, batch: int, limit: int) -> tuple[list[int], float | None]:
        """Return some requests that are due; if none is, the seconds until one is, None: none waits."""

    def count_unfinished(self, job_id: str, batch: int) -> int:
        """Return how many requests of the batch wait, or were sent and have no outcome."""

    def take_request(
        self,
        unit: Unit,
        owner: str,
        position: int,
        pace: str,
        need: Need,
        ttl: float,
        *,
        cap: int,
        limit: int | None,
        total: int | None,
    ) -> Taken:
        """Take a request for a sender, if its job, the rate limit and the budget let it be sent now; all in one.

        Args:
            owner: who must still have the sender's lease.
            ttl: seconds after which it no longer counts as a call in flight, unless ``renew_calls`` is called.
            cap: calls of one rate limit in flight at a time.
            limit: what the job's Messages calls may cost; None: any amount.
            total: what the job may cost; None: any amount.
        """

    def confirm_request(self, unit: Unit, owner: str, position: int, ttl: float) -> bool:
        """Renew a sender's lease if the request that it has taken is still its own.

        Return False if the owner has lost the lease, or the request was dealt with.
        """

    def renew_calls(self, unit: Unit, paces: Mapping[int, str], ttl: float) -> None:
        """Record that these requests of a sender are still being sent, by position."""

    def list_abandoned(self, unit: Unit) -> list[int]:
        """Return the requests that a sender has sent, and for whose answers nobody waits when it begins."""

    def record_answer(
        self,
        unit: Unit,
        position: int,
        pace: str,
        mark: str,
        *,
        limits: Mapping[str, tuple[int, int]],
        refused: bool,
        hold: float | None,
        cap: int,
        output: int | None = None,
    ) -> None:
        """Record what an answer says of the rate limits.

        Args:
            limits: as ``rules.rate_limits`` reads them.
            refused: it was a temporary refusal, which halves the calls in flight.
            hold: seconds in which no call of the rate limit is to be made.
            output: tokens of the answer.
        """

    def count_refusals(self, unit: Unit, position: int) -> int:
        """Return how often a request was refused."""

    def put_back(self, unit: Unit, position: int, seconds: float, limit: int) -> int:
        """Put back a request that was refused and not charged for, to be sent again after so many seconds.

        Return how often it was refused. From ``limit`` times on it is not sent again, and waits for its outcome.
        """

    def save_outcome(
        self, unit: Unit, position: int, outcome: bytes, *, spent: int | None = None, given_up: bool = False
    ) -> bool:
        """Store a request's final outcome, and record its cost; return False if it has an outcome already.

        Args:
            spent: nano-dollars; None: not known, and all that was reserved counts as spent.
            given_up: its answer counts as lost. One that comes after all replaces this outcome, as long as the batch is
                not final.
        """

    def list_known(self, job_id: str, batch: int) -> set[int]:
        """Return the positions of the requests that wait, were sent, or have an outcome."""

    def drop_waiting(self, job_id: str, batch: int) -> int:
        """Let no waiting request of the batch be sent any more; return how many waited."""
