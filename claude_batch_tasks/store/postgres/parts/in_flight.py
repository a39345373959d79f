"""What is known of an account at Anthropic, in PostgreSQL. The API can be asked for it again."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from claude_batch_tasks.records import Flight, Unit
from claude_batch_tasks.store.postgres.connection import Part, answering
from claude_batch_tasks.store.postgres.encoding import unit_of
from claude_batch_tasks.store.retention import ACCOUNT_TTL, LIST_TTL, PAST_BATCHES

_decode_flight = msgspec.json.Decoder(Flight).decode


class PostgresInFlight(Part):
    """``interface.InFlight`` on a PostgreSQL server."""

    queries = "in_flight"

    @answering
    def count_batches(self, account: str, most: int) -> int:
        return int(self._fetch_value("count_batches", account=account, most=most))

    @answering
    def list_batches(self, account: str) -> dict[Unit, tuple[Flight, float]]:
        found = self._fetch("list_batches", account=account)
        return {unit_of(*key): (_decode_flight(flight), due) for *key, flight, due in found}

    @answering
    def lock_list_call(self, account: str, owner: str, ttl: float) -> bool:
        return bool(self._connection.call("lock_list_call", account, owner, ttl))

    @answering
    def unlock_list_call(self, account: str, owner: str) -> None:
        self._run("unlock_list_call", account=account, owner=owner.encode())

    @answering
    def record_list_call(self, account: str, *, failed: bool) -> int:
        if failed:
            return int(self._fetch_value("count_failure", account=account, ttl=ACCOUNT_TTL))
        self._run("forget_failures", account=account)
        return 0

    @answering
    def add_page(
        self, account: str, entries: Mapping[str, bytes], *, taken_at: float, since: float, first: bool
    ) -> None:
        page = [list(entries), list(entries.values())]
        self._connection.call("add_page", account, *page, taken_at, since, first, LIST_TTL)

    @answering
    def find_listed(self, account: str, batch_id: str) -> tuple[bytes | None, float, float]:
        return self._fetch_row("find_listed", account=account, batch_id=batch_id) or (None, 0.0, float("inf"))

    @answering
    def pause_calls(self, name: str, until: float) -> None:
        self._connection.call("pause_calls", name, until)

    @answering
    def paused_until(self, *names: str) -> float:
        return float(self._fetch_value("paused_until", names=list(names)) or 0)

    @answering
    def add_duration(self, account: str, requests: int, seconds: float, *, kind: str | None = None) -> None:
        names = [f"account:{account}", *([] if kind is None else [f"kind:{kind}"])]
        self._connection.call("add_duration", names, requests, round(seconds, 1), PAST_BATCHES, ACCOUNT_TTL)

    @answering
    def past_durations(self, account: str) -> list[tuple[int, float]]:
        requests, seconds = self._fetch_row("past_durations", name=f"account:{account}") or ([], [])
        return list(zip(requests, seconds, strict=True))
