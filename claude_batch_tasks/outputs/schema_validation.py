"""Answers that are checked by a JSON schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import jsonschema_rs

from claude_batch_tasks.outputs.problem_texts import join_problem


def make_validator(schema: dict[str, Any]) -> Callable[[Any], str | None]:
    """Return a function that says what is wrong with a value, as ``path: reason``.

    Raises:
        ValueError: this is no JSON schema, or it needs other documents.
    """
    try:
        validator: Any = jsonschema_rs.validator_for(schema, mask="it", retriever=_refuse_retrieval)
    except jsonschema_rs.ValidationError as exc:
        raise ValueError(join_problem(exc.instance_path, str(exc.message))) from None

    def find_problem(value: Any) -> str | None:
        try:
            if validator.is_valid(value):
                return None
            error = next(iter(validator.iter_errors(value)))
        except (ValueError, StopIteration) as exc:
            return join_problem((), f"it cannot be checked ({type(exc).__name__})")
        return join_problem(error.instance_path, str(error.message))

    return find_problem


def _refuse_retrieval(uri: str) -> NoReturn:
    raise ValueError(f"it refers to {uri[:200]}, and must have everything in itself")
