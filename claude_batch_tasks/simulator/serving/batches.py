"""The work of the endpoints of batches."""

from __future__ import annotations

from starlette.requests import Request

from ..batch import Batch
from ..prompts import ApiError
from ..world import World
from .replies import Reply, end_lines, json_reply


async def retrieve_batch(request: Request, world: World, batch: Batch) -> Reply:
    return json_reply(batch.as_json(world.now(), str(request.base_url)))


async def cancel_batch(request: Request, world: World, batch: Batch) -> Reply:
    now = world.now()
    if batch.has_ended(now):
        raise ApiError("invalid_request_error", f"Batch {batch.id} has already ended and cannot be canceled.")
    if batch.cancel_asked is None:
        batch.cancel_asked = now
    return json_reply(batch.as_json(now, str(request.base_url)))


async def delete_batch(request: Request, world: World, batch: Batch) -> Reply:
    if not batch.has_ended(world.now()):
        raise ApiError("invalid_request_error", f"Batch {batch.id} is still in progress: cancel it first.")
    batch.gone = True
    return json_reply({"id": batch.id, "type": "message_batch_deleted"})


async def send_results(request: Request, world: World, batch: Batch) -> Reply:
    now = world.now()
    if not batch.has_ended(now):
        raise ApiError("invalid_request_error", f"Batch {batch.id} has not ended: there are no results yet.")
    if batch.is_archived(now):
        raise ApiError("not_found_error", f"The results of batch {batch.id} are no longer available.")
    count, lines = batch.result_lines(now)
    style = batch.behaviour.results
    return Reply(end_lines(lines, count, style), count, media_type="application/x-jsonl", style=style)


async def list_batches(request: Request, world: World, account: str) -> Reply:
    query = request.query_params
    limit = query.get("limit", "20")
    if not limit.lstrip("-").isdigit():
        raise ApiError("invalid_request_error", "limit: Input should be a valid integer")
    if not 1 <= int(limit) <= 1000:
        bound = "greater than or equal to 1" if int(limit) < 1 else "less than or equal to 1000"
        raise ApiError("invalid_request_error", f"limit: Input should be {bound}")
    page, more = world.list_page(account, query.get("after_id"), query.get("before_id"), int(limit))
    now, base = world.now(), str(request.base_url)
    return json_reply(
        {
            "data": [batch.as_json(now, base) for batch in page],
            "has_more": more,
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
        }
    )
