"""``interface.Transfer`` on a PostgreSQL server."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import msgspec

from claude_batch_tasks.store.postgres.connection import Connection, Part, answering
from claude_batch_tasks.store.postgres.transfer.exporting import read_job
from claude_batch_tasks.store.postgres.transfer.importing import JobImport
from claude_batch_tasks.store.postgres.transfer.shared import read_shared, write_shared
from claude_batch_tasks.store.transfer.items import JobItem, Mark, SharedItem
from claude_batch_tasks.store.transfer.marks import CLOSED

#: Jobs that are listed in one go.
_PAGE = 1_000


class PostgresTransfer(Part):
    """``interface.Transfer`` on a PostgreSQL server."""

    queries = "transfer"

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.address = f"{connection.source.where} (schema {connection.schema})"

    def open(self) -> None:
        self._connection.open_marked()

    @answering
    def read_mark(self) -> Mark | None:
        found = self._fetch_value("read_mark")
        return None if found is None else msgspec.json.decode(found, type=Mark)

    @answering
    def set_mark(self, mark: Mark | None) -> None:
        self._connection.call("set_mark", None if mark is None else msgspec.json.encode(mark).decode(), CLOSED)

    @answering
    def summarize_activity(self) -> str:
        return str(self._fetch_value("summarize_activity"))

    @answering
    def list_ids(self) -> Iterator[str]:
        last: int | str
        after, last = -math.inf, 0
        while rows := self._fetch("list_jobs", after=after, last=last, limit=_PAGE):
            yield from (job_id for job_id, _, _ in rows)
            _, after, last = rows[-1]
        after, last = -math.inf, ""
        while pools := self._fetch("list_pools", after=after, last=last, limit=_PAGE):
            yield from (job_id for job_id, _ in pools)
            last, after = pools[-1]

    @answering
    def export_job(self, job_id: str) -> Iterator[JobItem]:
        yield from read_job(self._fetch, job_id)

    @answering
    def import_job(self, job_id: str, items: Iterable[JobItem]) -> None:
        JobImport(self._connection, self._sql, job_id).write(items)

    @answering
    def export_shared(self) -> Iterator[SharedItem]:
        yield from read_shared(self._fetch)

    @answering
    def import_shared(self, items: Iterable[SharedItem]) -> None:
        write_shared(self._connection, self._sql, items)
