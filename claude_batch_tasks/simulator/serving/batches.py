"""The work of the endpoints of batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal, NoReturn

from ..batch import Batch
from ..prompts import ApiError, read_batch
from .effects import Work
from .received import Received
from .replies import Reply, end_lines, json_reply

#: Bodies over this size are read in a thread, so that other calls are answered meanwhile. Bytes.
LARGE_BODY = 1_000_000


async def create_batch(received: Received) -> Work:
    world, terms = received.world, received.terms
    body = await received.read_body(world.behaviour.max_bytes)
    judge = world.make_judge("batch")
    if len(body) > LARGE_BODY:
        prompts = await asyncio.to_thread(read_batch, body, judge, terms)
    else:
        prompts = read_batch(body, judge, terms)

    async def answer() -> Reply:
        batch = world.create_batch(received.account.name, prompts)
        received.call.batch_id = batch.id
        return _show_batch(received, batch)

    return Work(answer)


async def list_batches(received: Received) -> Work:
    async def answer() -> Reply:
        query, world = received.request.query_params, received.world
        limit = received.read_limit()
        page, more = world.list_page(received.account.name, query.get("after_id"), query.get("before_id"), limit)
        now, base = world.now(), str(received.request.base_url)
        return json_reply(
            {
                "data": [batch.as_json(now, base) for batch in page],
                "has_more": more,
                "first_id": page[0].id if page else None,
                "last_id": page[-1].id if page else None,
            }
        )

    return Work(answer)


def prepare_batch(act: Callable[[Received, Batch], Awaitable[Reply]]) -> Callable[[Received], Awaitable[Work]]:
    """Return the preparation of a call for one batch."""

    async def prepare(received: Received) -> Work:
        batch_id = received.request.path_params["batch_id"]
        batch = received.world.find_batch(received.account.name, batch_id)
        if batch is None:
            # Faults also see calls for batches that do not exist: a 500 comes before any lookup.
            return Work(lambda: _raise_error(ApiError("not_found_error", "Not found")), subject=batch_id)
        parts: Literal["", "lines"] = "lines" if act is send_results else ""
        return Work(lambda: act(received, batch), subject=str(batch.number), batch=batch, parts=parts)

    return prepare


async def _raise_error(error: ApiError) -> NoReturn:
    raise error


async def retrieve_batch(received: Received, batch: Batch) -> Reply:
    """Show the batch; while it runs, say when to ask again, but never later than it ends."""
    reply = _show_batch(received, batch)
    left = batch.clock.show(batch.end) - batch.clock.show(received.world.now())
    if wait := int(min(received.world.behaviour.retry_after_seconds, max(left, 0.0))):
        reply.headers["retry-after"] = str(wait)
    return reply


def _show_batch(received: Received, batch: Batch) -> Reply:
    return json_reply(batch.as_json(received.world.now(), str(received.request.base_url)))


async def cancel_batch(received: Received, batch: Batch) -> Reply:
    now = received.world.now()
    if batch.has_ended(now):
        raise ApiError("invalid_request_error", f"Batch {batch.id} has already ended and cannot be canceled.")
    if batch.cancel_asked is None:
        batch.cancel_asked = now
    return _show_batch(received, batch)


async def delete_batch(received: Received, batch: Batch) -> Reply:
    if not batch.has_ended(received.world.now()):
        raise ApiError("invalid_request_error", f"Batch {batch.id} is still in progress: cancel it first.")
    batch.gone = True
    return json_reply({"id": batch.id, "type": "message_batch_deleted"})


async def send_results(received: Received, batch: Batch) -> Reply:
    now = received.world.now()
    if not batch.has_ended(now) or batch.is_archived(now):
        raise ApiError("not_found_error", f"Message Batch {batch.id} has no available results.")
    count, lines = batch.result_lines(now)
    style = batch.behaviour.results
    headers = {"content-disposition": f'attachment; filename="{batch.id}_results.jsonl"'}
    return Reply(end_lines(lines, count, style), count, media_type="application/x-jsonl", headers=headers, style=style)
