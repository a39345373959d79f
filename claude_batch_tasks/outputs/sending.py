"""How a request asks for a typed answer: by a structured output, or by one tool that the model must call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from claude_batch_tasks.outputs import schemas
from claude_batch_tasks.outputs.structured_models import has_structured_outputs, takes_forced_tool

#: The name of the tool by which models without structured outputs answer.
TOOL = "record_answer"

#: What is wrong with a request, as (field, text).
Problems = list[tuple[str, str]]


class OutputSender:
    """What is added to the requests of one job.

    Args:
        spec: what ``describe_output`` has returned.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        schema = spec["schema"]
        self._not_structured = self._no_tool = ""
        try:
            self._format = {"type": "json_schema", "schema": schemas.make_structured(schema)}
        except schemas.NotStructured as exc:
            self._not_structured = str(exc)
        root = schemas.inline_root(schema)
        if root.get("type") != "object":
            self._no_tool = "its schema is not of an object, as the input of a tool must be"
        self._tool = {"name": TOOL, "description": "Give the answer by calling this tool.", "input_schema": root}
        self._choice = {"type": "tool", "name": TOOL, "disable_parallel_tool_use": True}

    def add_output(self, params: dict[str, Any]) -> tuple[dict[str, Any], Problems]:
        """Return the params that ask for the answer, and what keeps them from that."""
        problems = list(_find_conflicts(params, _ALWAYS))
        if not self._not_structured and has_structured_outputs(str(params.get("model"))):
            problems += _find_conflicts(params, _WITH_FORMAT)
            config = params.get("output_config") or {}
            return params if problems else {**params, "output_config": {**config, "format": self._format}}, problems
        why = f"output= is sent as a tool that the model must call, {self._explain_tool(params)}"
        if no_tool := self._find_obstacle(str(params.get("model"))):
            problems.append(("params.model", f"does not go with output=: {why}, and {no_tool}"))
        problems += [(field, f"{text}: {why}") for field, text in _find_conflicts(params, _WITH_TOOL)]
        return params if problems else {**params, "tools": [self._tool], "tool_choice": self._choice}, problems

    def _find_obstacle(self, model: str) -> str:
        """Return why a model cannot answer by a tool at all; empty: it can."""
        return self._no_tool or ("" if takes_forced_tool(model) else "this model takes no forced tool")

    def _explain_tool(self, params: dict[str, Any]) -> str:
        if self._not_structured:
            return f"because structured outputs cannot express its schema ({self._not_structured})"
        return f"because {params.get('model')} has no structured outputs"


def add_output(params: dict[str, Any], spec: Mapping[str, Any]) -> tuple[dict[str, Any], Problems]:
    """Return params that ask for the answer, and what keeps them from that; ``OutputSender`` does it for many."""
    return OutputSender(spec).add_output(params)


def make_preparation(
    spec: Mapping[str, Any] | None, refusal_models: Sequence[str]
) -> Callable[[dict[str, Any]], tuple[dict[str, Any], Problems]] | None:
    """Return what makes the params of a job's requests as they are sent, and says what is wrong; None: they stay.

    Args:
        spec: the type of the answers; None: the job has none.
        refusal_models: models that are sent what was refused, in the form that the first model was sent.
    """
    add = None if spec is None else OutputSender(spec).add_output
    if all(has_structured_outputs(model) and takes_forced_tool(model) for model in refusal_models):
        return add

    def prepare(params: dict[str, Any]) -> tuple[dict[str, Any], Problems]:
        params, problems = (params, []) if add is None else add(params)
        return params, [*problems, *_find_unfit(params, refusal_models)]

    return prepare


def _find_unfit(params: dict[str, Any], refusal_models: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield why models cannot be sent params that another has refused."""
    for model in refusal_models:
        if _has_format(params) and not has_structured_outputs(model):
            field, why = "output_config.format", "has no structured outputs"
        elif _forces_tool(params) and not takes_forced_tool(model):
            field, why = "tool_choice", "takes no forced tool"
        else:
            continue
        yield (
            f"params.{field}",
            f"is not possible with refusal_model {model}, which {why}: name another one in the option refusal_model or "
            "the setting claude_batch_refusal_model",
        )


#: A field, how a request has it in a way that does not go, and why.
_Conflict = tuple[str, Callable[[dict[str, Any]], bool], str]


def _has_format(params: dict[str, Any]) -> bool:
    config = params.get("output_config")
    return isinstance(config, dict) and config.get("format") is not None


def _ends_with_assistant(params: dict[str, Any]) -> bool:
    last = (params.get("messages") or [None])[-1]
    return isinstance(last, dict) and last.get("role") == "assistant"


def _forces_tool(params: dict[str, Any]) -> bool:
    choice = params.get("tool_choice")
    return isinstance(choice, dict) and choice.get("type") in ("any", "tool")


def _thinks(params: dict[str, Any]) -> bool:
    thinking = params.get("thinking")
    return isinstance(thinking, dict) and thinking.get("type") != "disabled"


def _cites(params: dict[str, Any]) -> bool:
    return any(
        isinstance(citations := block.get("citations"), dict) and citations.get("enabled")
        for message in params.get("messages") or ()
        if isinstance(message, dict)
        for block in _list_blocks(message.get("content"))
    )


def _list_blocks(content: Any) -> Iterator[dict[str, Any]]:
    """Yield the content blocks of a message, also those in results of tools."""
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict):
            yield block
            if block.get("type") == "tool_result":
                yield from _list_blocks(block.get("content"))


_ALWAYS: tuple[_Conflict, ...] = (
    ("output_config.format", _has_format, "does not go with output=, which writes it: leave one of the two out"),
    (
        "output_config",
        lambda params: not isinstance(params.get("output_config") or {}, dict),
        "must be an object",
    ),
    ("messages", _ends_with_assistant, "end with a turn of the assistant, which does not go with output="),
)

_WITH_FORMAT: tuple[_Conflict, ...] = (
    ("tool_choice", _forces_tool, "forces a tool call, so that there is no answer for output="),
    ("messages", _cites, "have documents with citations, which do not go with output="),
)

_WITH_TOOL: tuple[_Conflict, ...] = (
    ("tools", lambda params: bool(params.get("tools")), "do not go with output= here"),
    ("tool_choice", lambda params: params.get("tool_choice") is not None, "does not go with output= here"),
    ("thinking", _thinks, "does not go with output= here"),
)


def _find_conflicts(params: dict[str, Any], table: tuple[_Conflict, ...]) -> Iterator[tuple[str, str]]:
    for field, applies, text in table:
        if applies(params):
            yield f"params.{field}", text
