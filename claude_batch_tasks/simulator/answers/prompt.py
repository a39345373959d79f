"""What is stored of a request."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from ..journal import Tokens
from ..script import Answer, ToolCall

#: So many characters of a prompt are in the journal.
SHOWN_CHARS = 80


class Form(Struct, frozen=True, gc=False):
    """What a request demands of the form of its answer. Requests that demand the same share one."""

    #: JSON that fits the schema of the request.
    instance: str = ""
    #: The tool that must be called, and an input that fits its schema.
    tool: ToolCall | None = None
    stop_sequences: tuple[str, ...] = ()


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
    #: The rule that says how it is answered, and what the request demands of the answer. Many prompts share them.
    answer: Answer | None = None
    form: Form | None = None
    max_tokens: int = 0
    #: How much of the answer is in the request already, as its last turn: characters of text, and other blocks.
    said_chars: int = 0
    said_blocks: int = 0
    stop_reason: str | None = None
    #: The web searches that are in the answer.
    searches: int = 0
    #: The beginning of the first user message, where it is not the last.
    first: str = ""
    #: The keys by which its attempts are counted.
    keys: tuple[bytes, ...] = ()

    @property
    def is_billed(self) -> bool:
        """Whether it is charged, if it is processed: it succeeds, and is not refused before any output."""
        if self.outcome != "succeeded":
            return False
        return not (self.answer is not None and self.answer.is_refusal and not self.output_tokens)

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
        if self.answer is not None and self.answer.usage:
            _use_script(tokens, self.answer.usage)
        return tokens

    def count_searches(self) -> int:
        """Return the web searches that are charged for an answer."""
        used = self.answer.usage.get("server_tool_use") if self.answer is not None else None
        return self.searches if used is None else int(used.get("web_search_requests") or 0)


def _use_script(tokens: Tokens, usage: dict[str, Any]) -> None:
    """Replace the tokens that a script says."""
    tokens.input = usage.get("input_tokens", tokens.input)
    tokens.output = usage.get("output_tokens", tokens.output)
    tokens.cache_read = usage.get("cache_read_input_tokens", tokens.cache_read)
    if (written := usage.get("cache_creation_input_tokens")) is not None:
        tokens.cache_write_1h = (usage.get("cache_creation") or {}).get("ephemeral_1h_input_tokens", 0)
        tokens.cache_write_5m = written - tokens.cache_write_1h
