"""The work of the Messages API."""

from __future__ import annotations

import asyncio

import msgspec

from ..answers.messages import make_message
from ..answers.prompt import Prompt
from ..answers.streams import stream_events
from ..batch import new_id
from ..prompts import ApiError
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
        events = list(stream_events(answer))
        return Reply(events, len(events), media_type="text/event-stream; charset=utf-8", headers=headers)
    reply = json_reply(answer)
    reply.headers = headers
    return reply
