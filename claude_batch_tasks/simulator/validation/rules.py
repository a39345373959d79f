"""The rules that join several parameters, and those of the model and of batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from ..models import Model
from .conversation import Messages, blocks_of, list_turns
from .schemas import find_schema_problem
from .terms import Terms

MAX_CACHE_MARKS = 4
LONG_OUTPUT = "output-300k-2026-03-24"
INTERLEAVED = "interleaved-thinking-2025-05-14"
STRUCTURED = "structured-outputs-2025-11-13"
_DOCS = "https://docs.claude.com/en/docs/build-with-claude"


Params = dict[str, Any]
Rule = Callable[[Params, Model, Terms], str]


def find_rule_problem(params: Params, model: Model, terms: Terms) -> str:
    """Return the first rule that a request breaks, of those about the parameters that it has."""
    for name, rules in RULES.items():
        if name in params:
            for rule in rules:
                if problem := rule(params, model, terms):
                    return problem
    return ""


def _find_too_many_tokens(params: Params, model: Model, terms: Terms) -> str:
    if terms.in_batch and params["max_tokens"] == 0:
        return "max_tokens: must be greater than or equal to 1"
    most = model.max_batch_tokens if terms.in_batch and LONG_OUTPUT in terms.betas else model.max_tokens
    if params["max_tokens"] <= most:
        return ""
    return (
        f"max_tokens: {params['max_tokens']} > {most}, which is the maximum allowed number of output tokens for"
        f" {model.id}"
    )


def find_missing_file(params: Params, terms: Terms) -> str | None:
    """Return the id of a file that a request names and that is not there."""
    files = terms.files
    if files is None:
        return None
    sources = (block.get("source") for message in params["messages"] for block in blocks_of(message))
    named = (source["file_id"] for source in sources if type(source) is dict and "file_id" in source)
    return next((file_id for file_id in named if file_id not in files), None)


def _find_prefill(params: Params, model: Model, _: Terms) -> str:
    """Return what is wrong with a last turn that begins the answer.

    A turn that was paused in a server's tool is none: it is continued.
    """
    messages: Messages = params["messages"]
    last = messages[-1]
    if last["role"] != "assistant" or any(block["type"] not in _SAID for block in blocks_of(last)):
        return ""
    return _find_wrong_beginning(params, last) if model.prefill else _NO_PREFILL


_NO_PREFILL = "This model does not support assistant message prefill. The conversation must end with a user message."


def _find_wrong_beginning(params: Params, last: dict[str, Any]) -> str:
    text = last["content"] if type(last["content"]) is str else (blocks_of(last) or [{}])[-1].get("text", "")
    if text and text != text.rstrip():
        return "messages: final assistant content cannot end with trailing whitespace"
    if (params.get("output_config") or {}).get("format"):
        return "output_config.format: Prefilling the assistant's message is not supported with structured outputs."
    return ""


_SAID = ("text", "thinking", "redacted_thinking")


def _find_removed_block(params: Params, _: Model, terms: Terms) -> str:
    """Return the place of a block that the newer API version takes no longer."""
    if terms.version < "2026-10-21":
        return ""
    for index, message in enumerate(params["messages"]):
        for number, block in enumerate(blocks_of(message)):
            if block["type"] == "document" and message["role"] == "assistant":
                return f"messages.{index}.content.{number}: `document` blocks can only be in `user` messages"
            if block.get("citations") and block["type"] == "text" and message["role"] == "user":
                return f"messages.{index}.content.{number}.text.citations: Extra inputs are not permitted"
    return ""


def _find_too_many_marks(params: Params, _: Model, __: Terms) -> str:
    marks = list(_cache_marks(params))
    if len(marks) > MAX_CACHE_MARKS:
        return f"A maximum of {MAX_CACHE_MARKS} blocks with cache_control may be provided. Found {len(marks)}."
    short = False
    for path, mark in marks:
        if mark.get("ttl") == "1h" and short:
            return (
                f"{path}.cache_control.ttl: a ttl='1h' cache_control block must not come after a ttl='5m'"
                " cache_control block. Note that blocks are processed in the following order: `tools`, `system`,"
                " `messages`."
            )
        short = short or mark.get("ttl") != "1h"
    return ""


def _cache_marks(params: Params) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the path and value of each `cache_control`, in the order of the prompt."""
    for name in ("tools", "system"):
        blocks = params.get(name)
        yield from _marks_of(name, blocks if type(blocks) is list else [])
    for index, message in enumerate(params["messages"]):
        yield from _marks_of(f"messages.{index}.content", blocks_of(message))


def _marks_of(path: str, blocks: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, block in enumerate(blocks):
        inner = block.get("content")
        if type(inner) is list and block.get("type") == "tool_result":
            yield from _marks_of(f"{path}.{number}.content", inner)
        if mark := block.get("cache_control"):
            yield f"{path}.{number}", mark


def _find_blank_system(params: Params, _: Model, __: Terms) -> str:
    blank = type(params["system"]) is list and any(not block["text"] for block in params["system"])
    return "system: text content blocks must be non-empty" if blank else ""


def _find_wrong_tools(params: Params, _: Model, __: Terms) -> str:
    names = [tool["name"] for tool in params["tools"] if "name" in tool]
    if len(set(names)) < len(names):
        return "tools: Tool names must be unique."
    for index, tool in enumerate(params["tools"]):
        if tool.get("strict") and (problem := find_schema_problem(tool.get("input_schema"))):
            return f"tools.{index}.custom: {problem}"
    return ""


def _find_wrong_choice(params: Params, model: Model, _: Terms) -> str:
    choice = params["tool_choice"]
    if choice["type"] not in ("any", "tool"):
        return ""
    if not model.forced_tools:
        return 'tool_choice: type "tool" and "any" are not supported for this model.'
    if problem := _find_missing_tool(choice, params.get("tools") or []):
        return problem
    thinks = (params.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    return "Thinking may not be enabled when tool_choice forces tool use." if thinks else ""


def _find_missing_tool(choice: dict[str, Any], tools: list[dict[str, Any]]) -> str:
    if choice["type"] == "any":
        return "" if tools else "tool_choice.any may only be specified while providing tools"
    known = any(tool.get("name") == choice["name"] for tool in tools)
    return "" if known else f"Tool '{choice['name']}' not found in provided tools"


def _find_wrong_thinking(params: Params, model: Model, _: Terms) -> str:
    kind = params["thinking"]["type"]
    if kind in model.thinking:
        return ""
    if kind == "adaptive":
        return "adaptive thinking is not supported on this model"
    instead = ' Use "thinking.type.adaptive" and "output_config.effort" to control thinking behavior.'
    return f'"thinking.type.{kind}" is not supported for this model.' + (
        instead if "adaptive" in model.thinking else ""
    )


def _find_wrong_budget(params: Params, _: Model, terms: Terms) -> str:
    thinking = params["thinking"]
    if thinking["type"] != "enabled":
        return ""
    # With interleaved thinking, the budget is for all thinking of a turn.
    interleaved = INTERLEAVED in terms.betas and params.get("tools")
    if thinking["budget_tokens"] >= params.get("max_tokens", math.inf) and not interleaved:
        return (
            "`max_tokens` must be greater than `thinking.budget_tokens`. Please consult our documentation at"
            f" {_DOCS}/extended-thinking#max-tokens-and-context-window-size"
        )
    if params.get("temperature", 1) != 1:
        return (
            "`temperature` may only be set to 1 when thinking is enabled. Please consult our documentation at"
            f" {_DOCS}/extended-thinking#important-considerations-when-using-extended-thinking"
        )
    return _find_missing_thought(params["messages"])


def _find_missing_thought(messages: Messages) -> str:
    """Return what is wrong with a last turn of the assistant that used tools, and does not begin with its thinking."""
    turns = list_turns(messages)
    # The last turn is the user's, with results of the tools that the assistant used before.
    if len(turns) < 2 or turns[-1][0] != "user" or "tool_result" not in _types_of(messages, turns[-1][1]):
        return ""
    begin, types = turns[-2][1][0], _types_of(messages, turns[-2][1])
    if types[0] in _SAID[1:]:
        return ""
    return (
        f"messages.{begin}.content.0.type: Expected `thinking` or `redacted_thinking`, but found"
        f" `{types[0]}`. When `thinking` is enabled, a final `assistant` message must start with a thinking"
        " block (preceeding the lastmost set of `tool_use` and `tool_result` blocks). We recommend you include"
        " thinking blocks from previous turns. To avoid this requirement, disable `thinking`. Please consult our"
        f" documentation at {_DOCS}/extended-thinking"
    )


def _types_of(messages: Messages, indexes: list[int]) -> list[str]:
    return [block["type"] for index in indexes for block in blocks_of(messages[index])]


def _find_wrong_effort(params: Params, model: Model, _: Terms) -> str:
    effort = params["output_config"].get("effort")
    if not effort or effort in model.effort:
        return ""
    if not model.effort:
        return "This model does not support the effort parameter."
    levels = ", ".join(sorted(model.effort))
    return f"This model does not support effort level '{effort}'. Supported levels: {levels}."


def _find_wrong_format(params: Params, model: Model, _: Terms) -> str:
    format_ = params["output_config"].get("format")
    if not format_:
        return ""
    if not model.structured_outputs:
        return f"'{model.id}' does not support output format."
    if problem := find_schema_problem(format_["schema"]):
        return f"output_config.format.schema: {problem}"
    cited = any(_is_cited(block) for message in params["messages"] for block in blocks_of(message))
    return "output_config.format: Citations are not supported with structured outputs." if cited else ""


def _is_cited(block: dict[str, Any]) -> bool:
    return block["type"] in ("document", "search_result") and bool((block.get("citations") or {}).get("enabled"))


def _find_deprecated_format(_: Params, __: Model, terms: Terms) -> str:
    if STRUCTURED in terms.betas or terms.has_new_beta:
        return ""
    return (
        "output_format: This field is deprecated. Use 'output_config.format' instead. See"
        " https://platform.claude.com/docs/en/build-with-claude/structured-outputs for more information."
    )


def _find_wrong_sampling(params: Params, model: Model, _: Terms) -> str:
    # The values that mean no more than leaving them out.
    defaults: dict[str, tuple[Any, ...]] = {"temperature": (1,), "top_p": (0.99, 1), "top_k": ()}
    if not model.sampling:
        for name, usual in defaults.items():
            if name in params and params[name] not in usual:
                return f"`{name}` is deprecated for this model."
    if "temperature" in params and "top_p" in params:
        return "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
    return ""


def _refuse_in_batches(name: str, told: str) -> Rule:
    def find_problem(params: Params, _: Model, terms: Terms) -> str:
        return f"{name}: {told}" if terms.in_batch and params[name] else ""

    return find_problem


#: The rules by the parameter that they are about, in the order in which they are checked.
RULES: dict[str, tuple[Rule, ...]] = {
    "stream": (_refuse_in_batches("stream", "Streaming is not supported in Message Batches"),),
    "speed": (_refuse_in_batches("speed", "Speed is not supported in Message Batches"),),
    "fallbacks": (_refuse_in_batches("fallbacks", "Fallbacks are not supported in Message Batches"),),
    "thread": (_refuse_in_batches("thread", "Threads are not supported in Message Batches"),),
    "max_tokens": (_find_too_many_tokens,),
    "tools": (_find_wrong_tools,),
    "tool_choice": (_find_wrong_choice,),
    "thinking": (_find_wrong_thinking, _find_wrong_budget),
    "output_config": (_find_wrong_effort, _find_wrong_format),
    "output_format": (_find_deprecated_format,),
    "system": (_find_blank_system,),
    "temperature": (_find_wrong_sampling,),
    "top_p": (_find_wrong_sampling,),
    "top_k": (_find_wrong_sampling,),
    "messages": (_find_prefill, _find_removed_block, _find_too_many_marks),
}
