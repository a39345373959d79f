"""Calls of the Messages API."""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from claude_batch_tasks import rules
from claude_batch_tasks.api.calls import LONG_TIMEOUT, error_from_answer, log, mapped_errors, send_request
from claude_batch_tasks.api.clients import Account, Client, hide_secrets, ignore_account
from claude_batch_tasks.api.server_sent_events import Message, is_needed, read_events
from claude_batch_tasks.errors import AmbiguousError, ApiError
from claude_batch_tasks.wire import lenient_json

#: Types that are not a message under a status of success: an error, and the beginning of a stream that was not
#: requested.
_NO_MESSAGES = ("error", "message_start")


class Answer(NamedTuple):
    """An answer of the Messages API."""

    message: bytes
    """The message as JSON."""
    limits: dict[str, tuple[int, int]]
    """What the answer says about the rate limits; see ``rules.read_rate_limits``."""


def create_message(
    client: Client, params: bytes, *, stream: bool = False, on_account: Callable[[Account], None] = ignore_account
) -> Answer:
    """Send one request through the Messages API.

    The params are sent unchanged: the SDK's ``messages.create`` refuses fields that it does not know, and large
    ``max_tokens``.

    Args:
        stream: whether the answer is streamed as it is written; it is put together here.
        on_account: called with the account that the answer (or the error) names, before the answer is read.
    """
    if stream:
        # At the end, because the last of two equal names counts, and "stream": false is allowed in a batch.
        return _streamed_answer(client, params.rstrip()[:-1] + b',"stream":true}', on_account)
    with mapped_errors("messages", client):
        response = send_request(
            client, "messages", "/v1/messages", LONG_TIMEOUT, post=(iter([params]), len(params)), on_account=on_account
        )
        return _complete_answer(client, response, bytes(response.content).removeprefix(codecs.BOM_UTF8))


def _complete_answer(client: Client, response: Any, body: bytes) -> Answer:
    """Return an answer that was not streamed.

    Raises:
        ApiError: it is an error under the status 200, as some gateways send it.
    """
    message = _parse_object(body)
    if message.get("error") and "content" not in message:
        raise error_from_answer("messages", response.status_code, body, response.headers, client)
    if message.get("type") in _NO_MESSAGES:
        raise msgspec.DecodeError("the answer is not the API's JSON of a message")
    return Answer(body, rules.read_rate_limits(response.headers))


def _streamed_answer(client: Client, body: bytes, on_account: Callable[[Account], None]) -> Answer:
    """Send one request, and return its answer from server-sent events."""
    message = Message()
    with mapped_errors("messages", client):
        # The status belongs to the beginning of the answer; if something fails after that, a part has been answered.
        post = iter([body]), len(body)
        response = send_request(
            client,
            "messages",
            "/v1/messages",
            LONG_TIMEOUT,
            stream=True,
            post=post,
            accept="text/event-stream",
            on_account=on_account,
        )
        limits = rules.read_rate_limits(response.headers)
    try:
        with mapped_errors("messages", client, begun=True):
            if response.headers.get("content-type", "").startswith("application/json"):
                # Some gateways do not stream.
                return _complete_answer(client, response, b"".join(response.iter_bytes()))
            # Chunks in the sizes in which they come: a connection that breaks must not take along what came before.
            for name, data in read_events(response.iter_bytes()):
                event = _read_event(name, data)
                if event.get("type", "error") == "error" and event.get("error"):
                    raise error_from_answer("messages", response.status_code, data, response.headers, client)
                message.add_event(event)
                if message.over:  # what comes after that, or does not come, is of no importance
                    break
            whole = message.encode_message()
            for dropped in message.dropped:
                log.warning(
                    "messages: a stream started again with another message; %s was dropped, and may be billed too",
                    hide_secrets(dropped, client),
                )
            return Answer(whole, limits)
    except ApiError as exc:
        if message.begun and not isinstance(exc, AmbiguousError):
            raise AmbiguousError(f"{exc}, after a part of the answer", *exc.args[1:]) from None
        raise
    finally:
        with contextlib.suppress(Exception):
            response.close()


def _read_event(name: str, data: bytes) -> dict[str, Any]:
    """Return an event of a stream; return an empty one for data that is no event, such as ``[DONE]``.

    Raises:
        DecodeError: the event cannot be read, and the message is incomplete without it.
    """
    if name == "message_stop":  # this event needs no data
        return {"type": name}
    try:
        event = _parse_object(data)
    except msgspec.DecodeError:
        if is_needed(name, data):
            raise
        return {}
    return event if "type" in event or not name else {"type": name, **event}


def _parse_object(data: bytes) -> dict[str, Any]:
    """Return an answer of the Messages API, or an event of one, as plain values.

    An answer that Python cannot hold is nevertheless paid for, so it is read without limits on numbers and nesting.
    """
    if sum(map(data.count, (b",", b"[", b"{"))) > rules.ANSWER_VALUES:
        raise msgspec.DecodeError("the answer has more parts than any answer of the API")
    try:
        value = lenient_json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise msgspec.DecodeError("the answer is not the API's JSON")
    return value
