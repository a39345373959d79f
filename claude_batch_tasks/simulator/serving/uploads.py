"""The work of the Files API: enough for documents that requests name by id."""

from __future__ import annotations

from ..batch import format_time
from ..files import MAX_FILE_BYTES, StoredFile, read_upload
from ..prompts import ApiError
from .effects import Work
from .pages import cut_page
from .received import Received
from .replies import Reply, json_reply


async def upload_file(received: Received) -> Work:
    body = await received.read_body(MAX_FILE_BYTES)
    world = received.world
    now = format_time(world.clock.show(world.now()))
    stored = read_upload(body, received.request.headers.get("content-type", ""), now)

    async def answer() -> Reply:
        world.files[received.account.name][stored.id] = stored
        return json_reply(stored.as_json())

    return Work(answer)


async def list_files(received: Received) -> Work:
    async def answer() -> Reply:
        newest = [stored.as_json() for stored in reversed(received.world.files[received.account.name].values())]
        query = received.request.query_params
        if wanted := query.getlist("ids[]") or query.getlist("ids"):
            newest = [entry for entry in newest if entry["id"] in wanted]
        if cursor := query.get("page"):
            ids = [entry["id"] for entry in newest]
            newest = newest[ids.index(cursor.removeprefix("page_")) + 1 :] if cursor[5:] in ids else []
        page = cut_page(received, newest)
        return json_reply({**page, "next_page": f"page_{page['last_id']}" if page["has_more"] else None})

    return Work(answer)


async def retrieve_file(received: Received) -> Work:
    async def answer() -> Reply:
        return json_reply(_find_file(received).as_json())

    return Work(answer)


async def download_file(received: Received) -> Work:
    async def answer() -> Reply:
        raise ApiError("invalid_request_error", f"File {_find_file(received).id} is not downloadable")

    return Work(answer)


async def delete_file(received: Received) -> Work:
    async def answer() -> Reply:
        stored = _find_file(received)
        del received.world.files[received.account.name][stored.id]
        return json_reply({"id": stored.id, "type": "file_deleted"})

    return Work(answer)


def _find_file(received: Received) -> StoredFile:
    file_id = received.request.path_params["file_id"]
    try:
        return received.world.files[received.account.name][file_id]
    except KeyError:
        raise ApiError("not_found_error", f"File not found: {file_id}") from None
