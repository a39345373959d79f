"""The work of the Messages API."""

from __future__ import annotations

import asyncio

import msgspec

from ..answers.messages import make_message
from ..answers.prompt import Prompt
from ..answers.streams import stream_events
from ..batch import new_id
from ..prompts import ApiError, count_input, read_message
from ..script import ErrorType
from .effects import Work
from .received import Received
from .replies import Reply, json_reply


async def send_message(received: Received) -> Work:
    world = received.world
    body = await received.read_body(world.behaviour.max_message_bytes)
    prompt, stream = read_message(body, world.make_judge("messages"), received.terms)
    return Work(
        lambda: _answer_prompt(received, prompt, stream),
        subject=prompt.digest.hex(),
        parts="events" if stream else "",
    )


async def _answer_prompt(received: Received, prompt: Prompt, stream: bool) -> Reply:
    world, account = received.world, received.account.name
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


async def count_tokens(received: Received) -> Work:
    body = await received.read_body(received.world.behaviour.max_message_bytes)
    tokens = count_input(body, received.terms)

    async def answer() -> Reply:
        return json_reply({"input_tokens": tokens})

    return Work(answer)
