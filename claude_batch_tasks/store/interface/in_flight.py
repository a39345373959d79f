"""What is known of an account at Anthropic, in common to all jobs: batches in flight, list calls, pauses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from claude_batch_tasks.records import Flight, Unit


class InFlight(Protocol):
    """An account's batches in flight and the list calls that poll them; an account is a text without colons."""

    def count_batches(self, account: str, most: int) -> int:
        """Return how many batches are in flight, ``most`` at most: their polls wait."""

    def list_batches(self, account: str) -> dict[Unit, tuple[Flight, float]]:
        """Return the batches in flight, and when each is due."""

    def lock_list_call(self, account: str, owner: str, ttl: float) -> bool:
        """Reserve the account's list call for ``ttl`` seconds (again, if the owner has it); False: another has it."""

    def unlock_list_call(self, account: str, owner: str) -> None:
        """Let others have it."""

    def record_list_call(self, account: str, *, failed: bool) -> int:
        """Record how a list call ended; return how many in a row have failed."""

    def add_page(
        self, account: str, entries: Mapping[str, bytes], *, taken_at: float, since: float, first: bool
    ) -> None:
        """Store a page of the list: batch id to what is to be known of the batch.

        Args:
            taken_at: when the list call was begun, epoch seconds.
            since: every batch created from then on is in this page or in one before it.
            first: it begins a new list; the last list is discarded.
        """

    def find_listed(self, account: str, batch_id: str) -> tuple[bytes | None, float, float]:
        """Return what the list says of a batch (None: nothing), ``taken_at`` and ``since``; 0 and infinity: no list."""

    def pause_calls(self, name: str, until: float) -> None:
        """Let no call of that name be made until then (epoch seconds)."""

    def paused_until(self, *names: str) -> float:
        """Return until when no call with any of these names is to be made, epoch seconds."""

    def add_duration(self, account: str, requests: int, seconds: float, *, kind: str | None = None) -> None:
        """Record how long a batch of so many requests took: of the account, and of its kind, if that is given."""

    def past_durations(self, account: str) -> list[tuple[int, float]]:
        """Return the requests and seconds of the account's last batches."""
