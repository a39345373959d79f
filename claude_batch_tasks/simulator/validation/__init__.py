"""The checks of a request's parameters, with the messages of the API.

First the parameters one by one, in the API's order; then unknown ones; then the conversation; then the model, and what
it takes. What is not known for certain is accepted.
"""

from __future__ import annotations

from typing import Any

from ..models import Model
from ..script import ErrorType
from .conversation import find_conversation_problem
from .fields import find_shape_problem
from .rules import find_missing_file, find_rule_problem
from .terms import Terms

__all__ = ["Terms", "find_problem"]


#: The parameters of the requests of which a batch has 100,000, and which are checked first, for speed.
_PLAIN = frozenset(("model", "max_tokens", "messages", "system"))
_PLAIN_ROLES = frozenset(("user", "assistant"))


def find_problem(params: dict[str, Any], terms: Terms) -> tuple[ErrorType, str] | None:
    """Return what the API refuses about a request: error type and message; None: nothing."""
    if not terms.counting and _is_plain(params):
        model = terms.models.get(params["model"])
        if model is not None and _is_within(params, model):
            return None
    elif problem := find_shape_problem(params, terms) or find_conversation_problem(params["messages"]):
        return "invalid_request_error", problem
    return _find_model_problem(params, terms)


def _find_model_problem(params: dict[str, Any], terms: Terms) -> tuple[ErrorType, str] | None:
    """Return what is wrong with a request whose fields are valid each for itself."""
    model = terms.models.get(params["model"])
    if model is None or model.lifecycle == "retired":
        return "not_found_error", f"model: {params['model']}"
    if problem := find_rule_problem(params, model, terms):
        return "invalid_request_error", problem
    if missing := find_missing_file(params, terms):
        return "not_found_error", f"File not found: {missing}"
    return None


def _is_within(params: dict[str, Any], model: Model) -> bool:
    """Return whether a plain request breaks no rule of its model."""
    return (
        model.lifecycle != "retired"
        and 0 < params["max_tokens"] <= model.max_tokens
        and params["messages"][-1]["role"] == "user"
    )


def _is_plain(params: dict[str, Any]) -> bool:
    """Return whether a request is certainly valid but for its model: a few texts."""
    model, most, messages = params.get("model"), params.get("max_tokens"), params.get("messages")
    if not params.keys() <= _PLAIN or type(params.get("system", "")) is not str:
        return False
    if type(model) is not str or not model or type(most) is not int or most < 0:
        return False
    return type(messages) is list and len(messages) > 0 and all(map(_is_plain_message, messages))


def _is_plain_message(message: Any) -> bool:
    if type(message) is not dict or len(message) != 2:
        return False
    role, content = message.get("role"), message.get("content")
    if type(role) is not str or role not in _PLAIN_ROLES or type(content) is not str:
        return False
    return content != "" and not content.isspace()
