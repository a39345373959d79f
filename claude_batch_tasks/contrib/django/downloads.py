"""Files of results and failures that the admin sends, in constant memory."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import chain, islice
from typing import Any

from asgiref.sync import sync_to_async
from celery import Celery
from django.http import HttpRequest, StreamingHttpResponse

from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.results import export
from claude_batch_tasks.results.job_results import JobResults
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import open_store

#: What can be downloaded, and what is in it.
FILES: dict[str, Callable[[JobResults], Iterator[export.NamedOutcome]]] = {
    "results": lambda results: results.read_outcomes(None, "stored"),
    "failures": lambda results: results.find_failures(None),
}

#: The formats, and their types.
FORMATS = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}

#: Outcomes that are written in one go.
_GROUP = 200


def make_download(request: HttpRequest, job_id: str, file: str, format: str) -> StreamingHttpResponse:
    """Return a response with a file of a job's outcomes, of finished batches.

    Raises:
        BatchTasksError: the first of them cannot be read.
    """
    chunks = _write_chunks(configured_app(), job_id, file, format)
    begun = chain([next(chunks)], chunks)  # what is wrong at the beginning can still be said in a page
    # Under ASGI Django would collect all of a plain iterator in memory.
    streamed: Any = _iterate_async(begun) if hasattr(request, "scope") else begun
    name = f"{file}-{''.join(each if each.isalnum() else '-' for each in job_id[:8])}.{format}"
    return StreamingHttpResponse(
        streamed,
        content_type=FORMATS[format],
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        },
    )


def _write_chunks(app: Celery, job_id: str, file: str, format: str) -> Iterator[bytes]:
    settings = Settings.of(app)
    outcomes = FILES[file](JobResults(open_store(settings), job_id, settings.price_list))
    yield _write_group(list(islice(outcomes, _GROUP)), format)
    while group := list(islice(outcomes, _GROUP)):
        chunk = _write_group(group, format)
        yield chunk.partition(b"\r\n")[2] if format == "csv" else chunk  # without the header


def _write_group(outcomes: list[export.NamedOutcome], format: str) -> bytes:
    written = io.BytesIO()
    export.FORMATS[format](outcomes, written)
    return written.getvalue()


async def _iterate_async(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (chunk := await sync_to_async(_next_chunk)(chunks)) is not None:
        yield chunk


def _next_chunk(chunks: Iterator[bytes]) -> bytes | None:
    # A StopIteration cannot leave a coroutine.
    return next(chunks, None)
