"""The parameters of a request in the order in which the API checks them, and the shapes of their values."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from .blocks import CACHE_CONTROL, FORMAT, METADATA, SYSTEM, TEXT, make_message, make_thinking
from .kinds import (
    SHAPE,
    Check,
    Shape,
    accept_unknown,
    anything,
    check_flag,
    check_fraction,
    check_map,
    make_array,
    make_choice,
    make_integer,
    make_optional,
    make_text,
    make_text_or,
)
from .terms import Terms
from .tools import TOOL_CHOICE, make_tools

REQUIRED = ("model", "messages", "max_tokens")
#: The parameters that the API version of this date has no longer.
SAMPLING = ("temperature", "top_k", "top_p")
NO_SAMPLING_SINCE = "2026-10-21"
#: The parameters that need a beta header.
BETA_FIELDS = (
    "billing_policy",
    "compaction",
    "context_management",
    "fallback_credit_token",
    "fallbacks",
    "mcp_servers",
    "thread",
)
#: The parameters of a call that counts tokens.
COUNTED = frozenset(
    """
    model messages system thinking tool_choice tools output_config cache_control speed context_management mcp_servers
    output_format compaction
    """.split()  # noqa: SIM905 - shorter than a list
)
ROLES = ("user", "assistant", "system")


@lru_cache(maxsize=8)
def make_fields(sampling: bool, beta: bool, counting: bool = False) -> Shape:
    """Return the check of all parameters.

    Args:
        sampling: whether this API version has the sampling parameters.
        beta: whether there is a beta header.
        counting: whether the call only counts tokens.
    """
    effort = make_optional(make_choice("low", "medium", "high", "xhigh", "max"))
    output: dict[str, Check] = {"effort": effort, "format": FORMAT}
    if beta:
        output["task_budget"] = anything
    fields: dict[str, Check] = {
        "model": make_text(1),
        "tool_choice": TOOL_CHOICE,
        "tools": make_array(make_tools(beta)),
        "messages": _make_messages(beta),
        "system": SYSTEM,
        "thinking": make_thinking(beta),
        "output_config": Shape(output, wrong=SHAPE),
        "cache_control": CACHE_CONTROL,
        "max_tokens": make_integer(0, "must be greater than or equal to"),
        "metadata": METADATA,
        "stop_sequences": make_array(make_text(1)),
        "temperature": check_fraction,
        "service_tier": make_choice("auto", "standard_only"),
        "top_k": make_integer(0),
        "top_p": check_fraction,
        "stream": check_flag,
        "container": make_optional(make_text_or(check_map)),
        "inference_geo": make_optional(TEXT),
        "diagnostics": make_optional(check_map),
        "speed": make_optional(make_choice("standard", "fast")),
    }
    if not sampling:
        for name in SAMPLING:
            del fields[name]
    if beta:
        fields |= {**dict.fromkeys(BETA_FIELDS, anything), "output_format": FORMAT}
    return Shape({name: fields[name] for name in fields if name in COUNTED or not counting}, REQUIRED)


def _make_messages(beta: bool) -> Check:
    item = make_array(make_message(beta))

    def check(messages: Any) -> str:
        if problem := item(messages):
            return problem
        for message in messages:
            if message["role"] not in ROLES:
                return f': Unexpected role "{message["role"]}". Allowed roles are "user" or "assistant"'
        return "" if messages else ": at least one message is required"

    return check


def find_shape_problem(params: dict[str, Any], terms: Terms) -> str:
    """Return what is wrong with the fields of a request, each for itself; an empty text: nothing is."""
    fields = make_fields(terms.version < NO_SAMPLING_SINCE, bool(terms.betas), terms.counting)
    if terms.has_new_beta:
        with accept_unknown():
            return fields(params)[1:]
    return fields(params)[1:]
