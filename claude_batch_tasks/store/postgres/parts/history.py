"""The history of each job in PostgreSQL."""

from __future__ import annotations

from claude_batch_tasks.records import HistoryEvent
from claude_batch_tasks.store.postgres.connection import Part, answering
from claude_batch_tasks.store.report_encoding import FIRST_EVENTS, LAST_EVENTS, encode_event, read_history


class PostgresHistory(Part):
    """``interface.History`` on a PostgreSQL server."""

    queries = "history"

    @answering
    def append_event(self, job_id: str, event: HistoryEvent) -> None:
        self._connection.call("append_event", job_id, encode_event(event).decode(), FIRST_EVENTS, LAST_EVENTS)

    @answering
    def read_events(self, job_id: str) -> list[HistoryEvent]:
        rows = self._fetch("read_events", job_id=job_id)
        begun = [event for number, event in rows if number < FIRST_EVENTS]
        went_on = [event for number, event in rows if number >= FIRST_EVENTS]
        return read_history(begun, went_on, rows[-1][0] + 1 - len(rows) if rows else 0)
