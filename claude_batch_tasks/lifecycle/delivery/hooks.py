"""``on_result``, the application's own task: the form in which it is stored, and what is checked at submission."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from celery import Celery
from celery.canvas import Signature, _chain, chord, group, maybe_signature
from kombu.utils import json as kombu_json

from claude_batch_tasks.errors import InvalidSettings


def encode_hook(signature: Any) -> str | None:
    """Encode a signature in the form in which it is stored with the job; return None if there is none.

    Raises:
        InvalidSettings: the value is no signature, or has a value that JSON cannot carry.
    """
    if signature is None:
        return None
    if not isinstance(signature, Mapping) or not isinstance(signature.get("task"), str):
        raise InvalidSettings(
            "run_batch option on_result must be the signature of a task, such as save_answers.s(), "
            f"not {type(signature).__name__}"
        )
    try:
        text = kombu_json.dumps(dict(signature))
        json.loads(text)
    except (TypeError, ValueError) as exc:
        raise InvalidSettings(f"run_batch option on_result has a value that JSON cannot carry: {exc}") from None
    return text


def check_hook(app: Celery, signature: Any) -> None:
    """Check that a job's ``on_result`` can be called, if the app knows its task.

    Args:
        signature: a signature that ``encode_hook`` accepts.

    Raises:
        InvalidSettings: the task takes other arguments.
    """
    if signature is None:
        return
    for call in _first_tasks(Signature.from_dict(dict(signature), app=app)):
        task: Any = app.tasks.get(call.task)
        if not getattr(task, "typing", False) or not hasattr(task, "__header__"):
            continue
        args, kwargs, _ = call._merge(("job_id", ["custom_id"]), {}, {})
        try:
            task.__header__(*args, **kwargs)
        except TypeError as exc:
            own = ["job_id", "custom_ids", *map(_shorten_value, call.args), *(f"{name}=..." for name in call.kwargs)]
            way = "with its own arguments alone, as .si() has it" if call.immutable else f"as ({', '.join(own)})"
            raise InvalidSettings(
                f"run_batch option on_result: {call.task} is called {way}, and {exc}. Nothing was stored or sent"
            ) from None


def _first_tasks(signature: Any) -> Iterator[Any]:
    """Yield the tasks of a signature that receive the arguments of the call."""
    if isinstance(signature, (_chain, group, chord)):
        tasks = signature.tasks
        for task in list(tasks)[:1] if isinstance(signature, _chain) else tasks:
            yield from _first_tasks(maybe_signature(task, app=signature.app))
    else:
        yield signature


def _shorten_value(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 40 else "..."
