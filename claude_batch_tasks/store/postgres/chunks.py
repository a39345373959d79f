"""Chunks of about a megabyte of plain bytes in PostgreSQL: written by COPY, some megabytes at a time, read by pages.

No transaction lasts while a caller makes the next chunk, or works with one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from claude_batch_tasks.errors import JobNotFound, ResultsMissing
from claude_batch_tasks.formatting import describe_missing_job
from claude_batch_tasks.store.postgres.sources import Connected

#: Bytes of chunks that are written in one transaction, and read in one go; at least one chunk.
_WRITTEN, READ = 4_000_000, 2_000_000

_Row = tuple[Any, ...]


def group_rows(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    """Yield rows in groups that are written together."""
    group: list[_Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(len(value) for value in row if isinstance(value, bytes))
        if size >= _WRITTEN:
            yield group
            group, size = [], 0
    if group:
        yield group


def copy_rows(connection: Connected, statement: Any, types: Sequence[str], rows: Iterable[_Row]) -> None:
    """Write rows by COPY in its binary format.

    Args:
        types: what PostgreSQL calls the types of the columns.
    """
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)


def read_pages(fetch: Callable[[int], Sequence[_Row]]) -> Iterator[bytes | None]:
    """Yield the chunks of all pages; None: one is not there.

    Args:
        fetch: returns the rows behind a place: the place of each, the chunk, and the last place that there is.
    """
    place, last = -1, 0
    while place < last:
        rows = fetch(place)
        if not rows:
            yield None
            return
        for place, chunk, last in rows:  # noqa: B007 (they say where to go on)
            yield chunk


def missing_error(job_there: bool, job_id: str, name: str) -> JobNotFound | ResultsMissing:
    """Return the error for what is not there and should be."""
    if not job_there:
        return JobNotFound(describe_missing_job(job_id))
    return ResultsMissing(f"{name} is gone from the store", None, [name])
