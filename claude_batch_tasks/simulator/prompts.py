"""The reading of requests: what is refused at once, what becomes an errored line, and what identifies a prompt."""

from __future__ import annotations

import re
import sys
from hashlib import blake2b
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from .answers.content import count_calls, count_output, find_said, has_output, make_content
from .answers.judging import Asked, Judge
from .answers.prompt import SHOWN_CHARS, Prefix, Prompt
from .script import STATUS_OF, ErrorType, Refusal, error_type
from .validation import Terms, find_problem

CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class ApiError(Exception):
    """An error answer: its type and message, HTTP status and extra headers."""

    def __init__(
        self, kind: ErrorType, message: str, status: int | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status or STATUS_OF[kind]
        self.headers = headers or {}


class _Item(Struct, gc=False):
    custom_id: Any = UNSET
    params: Raw | UnsetType = UNSET


class _CreateBody(Struct):
    requests: list[_Item] | UnsetType = UNSET


_read_create = msgspec.json.Decoder(_CreateBody).decode
_read_params = msgspec.json.Decoder(dict[str, Any]).decode
# "sorted" orders the keys at every level: the same params give the same bytes whatever the client's order.
_canonical = msgspec.json.Encoder(order="sorted").encode


def read_batch(body: bytes | bytearray, judge: Judge, terms: Terms) -> list[Prompt]:
    """Return the requests of a create call, with their outcomes.

    Invalid `params` are not refused at once: such a request gets an errored outcome.

    Raises:
        ApiError: Anthropic refuses the call at once.
    """
    prompts: list[Prompt] = []
    seen: set[str] = set()
    for index, item in enumerate(_read_items(body, judge.behaviour.max_requests)):
        at = f"requests.{index}"
        custom_id = item.custom_id
        if problem := custom_id_problem(custom_id, seen):
            raise ApiError("invalid_request_error", f"{at}.custom_id: {problem}")
        seen.add(custom_id)
        if item.params is UNSET:
            raise ApiError("invalid_request_error", f"{at}.params: Field required")
        try:
            params = _read_params(item.params)
        except msgspec.ValidationError:
            raise ApiError("invalid_request_error", f"{at}.params: Input should be a valid dictionary") from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ApiError("invalid_request_error", "The request body is not valid JSON.") from None
        prompts.append(read_prompt(params, custom_id, judge, terms))
        if judge.behaviour.refusals:
            _check_refusals(params, at, judge.behaviour.refusals)
    return prompts


def _check_refusals(params: dict[str, Any], at: str, refusals: tuple[Refusal, ...]) -> None:
    """Refuse a whole create because of one of its requests, if the script says so.

    Raises:
        ApiError: the script says so.
    """
    messages = params.get("messages")
    text = last_user_text(messages) if isinstance(messages, list) else ""
    for refusal in refusals:
        if re.search(refusal.prompt, text):
            message = f"{at}.params: {refusal.message}" if refusal.named else refusal.message
            raise ApiError(error_type(refusal.status), message, refusal.status)


def _read_items(body: bytes | bytearray, limit: int) -> list[_Item]:
    """Return the requests in the body of a create call, which has at most `limit` of them."""
    try:
        items = _read_create(body).requests
    except msgspec.ValidationError as error:
        raise ApiError("invalid_request_error", f"requests: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ApiError("invalid_request_error", "The request body is not valid JSON.") from None
    if items is UNSET:
        raise ApiError("invalid_request_error", "requests: Field required")
    if not items:
        raise ApiError("invalid_request_error", "requests: List should have at least 1 item after validation, not 0")
    if len(items) > limit:
        raise ApiError(
            "invalid_request_error",
            f"requests: List should have at most {limit} items after validation, not {len(items)}",
        )
    return items


def custom_id_problem(custom_id: object, seen: set[str]) -> str:
    """Return what Anthropic would refuse about a custom_id; an empty text if it is valid."""
    if custom_id is UNSET:
        return "Field required"
    if not isinstance(custom_id, str):
        return "Input should be a valid string"
    if custom_id in seen:
        return f"Duplicate custom_id '{custom_id}'"
    if CUSTOM_ID.fullmatch(custom_id):
        return ""
    if not custom_id:
        return "String should have at least 1 character"
    if len(custom_id) > 64:
        return "String should have at most 64 characters"
    return f"String should match pattern '^{CUSTOM_ID.pattern}$'"


def _read_body(body: bytes | bytearray) -> dict[str, Any]:
    try:
        return _read_params(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ApiError("invalid_request_error", "The request body is not valid JSON.") from None


def count_input(body: bytes | bytearray, terms: Terms) -> int:
    """Return the input tokens of the params of a call that only counts them.

    Raises:
        ApiError: Anthropic refuses the call.
    """
    params = _read_body(body)
    if problem := find_problem(params, terms):
        raise ApiError(*problem)
    return max(1, len(_canonical(params)) // 4)


def read_message(body: bytes | bytearray, judge: Judge, terms: Terms) -> tuple[Prompt, bool]:
    """Return the prompt of a Messages call, and whether it asks for a stream."""
    params = _read_body(body)
    stream = params.get("stream") is True
    return read_prompt(params, None, judge, terms), stream


def read_prompt(params: dict[str, Any], custom_id: str | None, judge: Judge, terms: Terms) -> Prompt:
    """Return what is stored of one request, which is a batch's if it has a custom_id.

    `stream` is removed from `params`.
    """
    problem = find_problem(params, terms)
    params.pop("stream", None)
    canonical = _canonical(params)
    prompt = Prompt(
        custom_id=custom_id or "",
        digest=blake2b(canonical, digest_size=16).digest(),
        # Interned: one string for all requests.
        model=sys.intern(str(params.get("model", ""))),
        echo="",
        input_tokens=max(1, len(canonical) // 4),
        output_tokens=1,
    )
    if problem:
        prompt.outcome, prompt.message = problem
        return prompt
    # Only a key is written like this: in a text, its quotes would be escaped.
    if b'"cache_control":' in canonical:
        prompt.prefix = find_prefix(params)
    _judge_prompt(prompt, params, judge)
    return prompt


def _judge_prompt(prompt: Prompt, params: dict[str, Any], judge: Judge) -> None:
    """Decide what becomes of valid params, and count the tokens of the answer."""
    behaviour, messages = judge.behaviour, params["messages"]
    first, last = first_user_text(messages), last_user_text(messages)
    asked = Asked(prompt.custom_id, prompt.digest, prompt.model, first, last, _first_content(messages))
    prompt.outcome, prompt.message, prompt.answer = judge.decide_outcome(asked)
    prompt.echo = last[: behaviour.echo_chars]
    prompt.first = first[:SHOWN_CHARS] if first != last else ""
    prompt.max_tokens = params["max_tokens"]
    prompt.form = judge.forms.find_form(params)
    prompt.keys = judge.find_keys(asked)
    if messages[-1]["role"] == "assistant":
        prompt.said_chars, prompt.said_blocks = find_said(prompt, behaviour, messages[-1]["content"])
    content = make_content(prompt, behaviour)
    prompt.stop_reason = content.stop_reason
    prompt.searches = count_calls(content.blocks, "web_search")
    if prompt.max_tokens and (content.stop_reason != "refusal" or has_output(content.blocks)):
        prompt.output_tokens = max(1, count_output(content.blocks))
    else:
        prompt.output_tokens = 0


def find_prefix(params: dict[str, Any]) -> Prefix | None:
    """Return the part of valid params that the prompt cache keeps.

    That is tools, system and messages, in this order, up to the last block with `cache_control`. Marks before that one
    do not matter.
    """
    parts = [(name, params[name]) for name in ("tools", "system") if params.get(name)]
    parts += [(message["role"], message["content"]) for message in params["messages"]]
    for number in reversed(range(len(parts))):
        name, blocks = parts[number]
        if last := _last_mark(blocks):
            end, ttl = last
            kept = [*parts[:number], (name, blocks[:end])]
            canonical = _canonical([(name, _without_marks(blocks)) for name, blocks in kept])
            return Prefix(blake2b(canonical, digest_size=16).digest(), len(canonical) // 4, ttl)
    return None


def _last_mark(blocks: Any) -> tuple[int, Literal["5m", "1h"]] | None:
    """Return how many blocks there are up to the last one with `cache_control`, and for how long it is cached."""
    for end in range(len(blocks) if isinstance(blocks, list) else 0, 0, -1):
        mark = blocks[end - 1].get("cache_control") if isinstance(blocks[end - 1], dict) else None
        if isinstance(mark, dict):
            return end, "1h" if mark.get("ttl") == "1h" else "5m"
    return None


def _without_marks(blocks: Any) -> Any:
    """Return the same content without its marks: where it is marked, and for how long, makes no other prefix."""
    if not isinstance(blocks, list):
        return blocks
    unmarked = []
    for block in blocks:
        if isinstance(block, dict):
            block = {key: value for key, value in block.items() if key != "cache_control"}
        unmarked.append(block)
    return unmarked


def first_user_text(messages: list[dict[str, Any]]) -> str:
    """Return the text of the first user message."""
    return _text_of(_first_content(messages))


def _first_content(messages: list[dict[str, Any]]) -> Any:
    return next((message["content"] for message in messages if message["role"] == "user"), "")


def last_user_text(messages: list[dict[str, Any]]) -> str:
    """Return the text of the last user message."""
    return _text_of(next((m["content"] for m in reversed(messages) if m["role"] == "user"), ""))


def _text_of(content: str | list[Any]) -> str:
    if isinstance(content, str):
        return content
    texts = [block for block in content if isinstance(block, dict) and block.get("type") == "text"]
    return "\n".join(str(block.get("text", "")) for block in texts)
