"""The reading of requests: what is refused at once, what becomes an errored line, and what identifies a prompt."""

from __future__ import annotations

import re
import sys
from collections import Counter
from hashlib import blake2b
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from .faults import draw_chance
from .journal import Tokens
from .script import MESSAGE_OF, STATUS_OF, Behaviour, ErrorType, Outcome

CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
#: How every answer begins.
BEGINNING = "Echo: "
#: From this API version on, sampling parameters are refused.
NO_SAMPLING_SINCE = "2026-10-21"


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


class Prefix(Struct, gc=False):
    """The part of a request that goes to the prompt cache: everything up to its last block with `cache_control`."""

    digest: bytes
    tokens: int
    ttl: Literal["5m", "1h"]
    #: Whether it is read from the cache, rather than written to it.
    cached: bool = False


class Prompt(Struct, gc=False):
    """The part of one request that is stored. It refers to no other, so the garbage collector need not track it."""

    custom_id: str
    #: Hash of the canonical params, the same in a batch and through the Messages API, streamed or not.
    digest: bytes
    model: str
    #: The beginning of the last user message, as much as the answer will repeat.
    echo: str
    #: A token for every four characters; for the answer at most `max_tokens`, at least one.
    input_tokens: int
    output_tokens: int
    #: The part of the input tokens that concerns the prompt cache.
    prefix: Prefix | None = None
    #: "succeeded", "expired", "canceled", or the type of an error.
    outcome: str = "succeeded"
    message: str = ""

    def count_tokens(self) -> Tokens:
        """Return the tokens that are charged for an answer."""
        tokens = Tokens(self.input_tokens, self.output_tokens)
        if (prefix := self.prefix) is not None:
            tokens.input -= prefix.tokens
            if prefix.cached:
                tokens.cache_read = prefix.tokens
            elif prefix.ttl == "1h":
                tokens.cache_write_1h = prefix.tokens
            else:
                tokens.cache_write_5m = prefix.tokens
        return tokens


class _Item(Struct, gc=False):
    custom_id: Any = UNSET
    params: Raw | UnsetType = UNSET


class _CreateBody(Struct):
    requests: list[_Item] | UnsetType = UNSET


class Judge:
    """The judge that decides the outcomes of one call's requests by the rules of `behaviour.outcomes`.

    `attempts` says how often each prompt was sent this way before, by digest.
    """

    def __init__(self, behaviour: Behaviour, via: Literal["batch", "messages"], attempts: Counter[bytes]) -> None:
        self.behaviour = behaviour
        self.attempts = attempts
        self.used: Counter[int] = Counter()
        self.rules = [
            (number, rule, re.compile(rule.custom_id).search)
            for number, rule in enumerate(behaviour.outcomes)
            if rule.via in (via, "both")
        ]

    def decide_outcome(self, custom_id: str, digest: bytes, text: str) -> tuple[str, str]:
        """Return the outcome ("succeeded", "expired", "canceled" or an error type) and an error's message."""
        attempt = self.attempts[digest]
        for number, rule, search in self.rules:
            if (
                not (rule.count and self.used[number] >= rule.count)
                and not (rule.attempts and attempt >= rule.attempts)
                and rule.prompt in text
                and search(custom_id)
                and draw_chance(rule.probability, self.behaviour.seed, "outcome", number, digest.hex(), attempt)
            ):
                self.used[number] += 1
                return _outcome_of(rule)
        return "succeeded", ""


def _outcome_of(rule: Outcome) -> tuple[str, str]:
    if rule.type != "errored":
        return rule.type, ""
    return rule.error, rule.message or MESSAGE_OF[rule.error]


_read_create = msgspec.json.Decoder(_CreateBody).decode
_read_params = msgspec.json.Decoder(dict[str, Any]).decode
# "sorted" orders the keys at every level: the same params give the same bytes whatever the client's order.
_canonical = msgspec.json.Encoder(order="sorted").encode


def read_batch(body: bytes | bytearray, judge: Judge, version: str) -> list[Prompt]:
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
        prompts.append(read_prompt(params, custom_id, judge, version))
    return prompts


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


def read_message(body: bytes | bytearray, judge: Judge, version: str) -> tuple[Prompt, bool]:
    """Return the prompt of a Messages call, and whether it asks for a stream."""
    try:
        params = _read_params(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ApiError("invalid_request_error", "The request body is not valid JSON.") from None
    stream = params.get("stream") is True
    return read_prompt(params, None, judge, version), stream


def read_prompt(params: dict[str, Any], custom_id: str | None, judge: Judge, version: str) -> Prompt:
    """Return what is stored of one request, which is a batch's if it has a custom_id.

    `stream` is removed from `params`.
    """
    problem = find_problem(params, version, in_batch=custom_id is not None)
    params.pop("stream", None)
    canonical = _canonical(params)
    text = "" if problem else last_user_text(params["messages"])
    digest = blake2b(canonical, digest_size=16).digest()
    echo = text[: judge.behaviour.echo_chars]
    length = max(len(BEGINNING) + len(echo), judge.behaviour.answer_chars)
    max_tokens = 0 if problem else params["max_tokens"]
    outcome, message = problem or judge.decide_outcome(custom_id or "", digest, text)
    return Prompt(
        custom_id=custom_id or "",
        digest=digest,
        # Interned: one string for all requests.
        model=sys.intern(str(params.get("model", ""))),
        echo=echo,
        input_tokens=max(1, len(canonical) // 4),
        output_tokens=max(1, min(length // 4, max_tokens)),
        # Only a key is written like this: in a text, its quotes would be escaped.
        prefix=find_prefix(params) if b'"cache_control":' in canonical and not problem else None,
        outcome=outcome,
        message=message,
    )


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


def find_problem(params: dict[str, Any], version: str, in_batch: bool) -> tuple[ErrorType, str] | None:
    """Return what Anthropic would refuse about `params`: error type and message; None if they are valid."""
    model = params.get("model", UNSET)
    if not isinstance(model, str):
        return "invalid_request_error", f"model: {_missing_text(model, 'string')}"
    if not model.startswith("claude"):
        return "not_found_error", f"model: {model}"
    if problem := _find_length_problem(params.get("max_tokens", UNSET), least=int(in_batch)):
        return "invalid_request_error", f"max_tokens: {problem}"
    if problem := _find_message_problem(params.get("messages", UNSET)):
        return "invalid_request_error", problem
    if in_batch and params.get("stream"):
        return "invalid_request_error", "stream: Streaming is not supported in Message Batches"
    refused = ("temperature", "top_p", "top_k") if version >= NO_SAMPLING_SINCE else ()
    for name in refused:
        if params.get(name) is not None:
            return "invalid_request_error", f"{name}: Extra inputs are not permitted"
    return None


def _find_length_problem(max_tokens: Any, least: int) -> str | None:
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool):
        return _missing_text(max_tokens, "integer")
    return f"Input should be greater than or equal to {least}" if max_tokens < least else None


def _find_message_problem(messages: Any) -> str | None:
    if not isinstance(messages, list):
        return f"messages: {_missing_text(messages, 'list')}"
    if not messages:
        return "messages: at least one message is required"
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("content"), (str, list)):
            return f"messages.{index}.content: Field required"
        if message.get("role") not in ("user", "assistant", "system"):
            return f"messages.{index}.role: Input should be 'user' or 'assistant'"
        if not message["content"] and message["role"] == "user":
            return f"messages.{index}: user messages must have non-empty content"
    return None


def _missing_text(value: object, expected: str) -> str:
    return "Field required" if value is UNSET else f"Input should be a valid {expected}"


def last_user_text(messages: list[dict[str, Any]]) -> str:
    """Return the text of the last user message."""
    content = next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")
    if isinstance(content, str):
        return content
    texts = [block for block in content if isinstance(block, dict) and block.get("type") == "text"]
    return "\n".join(str(block.get("text", "")) for block in texts)
