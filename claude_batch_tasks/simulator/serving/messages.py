"""The work of the Messages API."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec.structs import replace

from ..answers import Message, make_message
from ..batch import new_id
from ..prompts import ApiError, Prompt
from ..script import ErrorType
from ..world import World
from .replies import Reply, json_reply


async def answer_prompt(world: World, account: str, prompt: Prompt, stream: bool) -> Reply:
    world.admit_call(account, prompt)
    await asyncio.sleep(world.behaviour.messages_seconds)
    world.send_prompt(account, prompt)
    headers = world.limit_headers(account)
    if prompt.outcome != "succeeded":
        kind = "api_error" if prompt.outcome in ("expired", "canceled") else prompt.outcome
        raise ApiError(msgspec.convert(kind, ErrorType), prompt.message, headers=headers)
    answer = make_message(prompt, new_id("msg_"), "standard", world.behaviour)
    if stream:
        events = list(message_events(answer))
        return Reply(events, len(events), media_type="text/event-stream; charset=utf-8", headers=headers)
    reply = json_reply(answer)
    reply.headers = headers
    return reply


def message_events(answer: Message) -> Iterator[bytes]:
    """Yield a message as server-sent events."""

    def encode_event(kind: str, **data: Any) -> bytes:
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **data}))

    text = answer.content[0].text
    first = replace(answer.usage, output_tokens=1)
    start = replace(answer, content=[], stop_reason=None, usage=first)
    yield encode_event("message_start", message=start)
    yield encode_event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield encode_event("ping")
    for at in range(0, len(text), 40):
        yield encode_event("content_block_delta", index=0, delta={"type": "text_delta", "text": text[at : at + 40]})
    yield encode_event("content_block_stop", index=0)
    stop = {"stop_reason": answer.stop_reason, "stop_sequence": None}
    yield encode_event("message_delta", delta=stop, usage={"output_tokens": answer.usage.output_tokens})
    yield encode_event("message_stop")
