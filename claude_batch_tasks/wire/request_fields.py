"""Fields that do not belong into a request of a batch, and where they belong.

The API accepts a batch without checking ``params``: hours later each of its rows has errored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_OF_CALL = "belongs to a call, not to a request"
_OF_CLIENT = "belongs to the client: set it in the function that claude_batch_client_factories names"
_OF_LOOP = "belongs to the SDK's tool runner, which a batch does not have; leave it out"
_BETAS = 'goes into a header: leave it out, and write run_batch.delay(requests, betas=["..."])'
_HEADERS = (
    f"{_OF_CALL}: give run_batch the options betas=, workspace_id= or user_profile_id=, or the client of "
    "claude_batch_client_factories default_headers="
)
_FORMAT = (
    "is no field of the API; write output_config={'format': {'type': 'json_schema', 'schema': ...}}, with "
    "anthropic.transform_schema(Model) as the schema of a pydantic model"
)
_VERSION = "goes into a header that the SDK sends; leave it out"

#: Fields that are not allowed, whatever their value.
_NEVER = {
    "anthropic-beta": _BETAS,
    "anthropic-version": _VERSION,
    "anthropic_beta": _BETAS,
    "anthropic_version": _VERSION,
    "api_key": _OF_CLIENT,
    "auth_token": _OF_CLIENT,
    "base_url": _OF_CLIENT,
    "betas": _BETAS,
    "compaction_control": _OF_LOOP,
    "custom_id": "stands beside params, not in them",
    "default_headers": _OF_CLIENT,
    "extra_body": f"{_OF_CALL}: write its fields into params",
    "extra_headers": _HEADERS,
    "extra_query": f"{_OF_CALL}: give the client of claude_batch_client_factories default_query=",
    "headers": _HEADERS,
    "idempotency_key": f"{_OF_CALL}; leave it out: a create is never repeated blindly",
    "max_iterations": _OF_LOOP,
    "max_retries": f"{_OF_CALL}: leave it out, and write run_batch.delay(requests, retries=...) for another try in a "
    "smaller batch",
    "output_format": _FORMAT,
    "run_tools_eagerly": _OF_LOOP,
    "timeout": f"{_OF_CALL}: leave it out, and limit the job with run_batch.delay(requests, deadline=...) or "
    "max_wait=...",
    "workspace_id": "goes into a header: leave it out, and write run_batch.delay(requests, workspace_id=...)",
}

#: Fields of the Messages API that a batch accepts only without a value.
_NOT_IN_BATCHES = {
    "fallbacks": "is not for batches: leave it out, and submit what was refused again with another model",
    "speed": "is not for batches: leave it out",
    "stream": "a batch cannot stream: leave it out",
}

_BILLING = "billing_policy"

#: Names of fields that need a closer look.
SPECIAL = frozenset((*_NEVER, *_NOT_IN_BATCHES, _BILLING))


def find_misplaced(params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the fields of a request's params that would make it fail, each with the reason."""
    for name, value in params.items():
        if name in _NEVER:
            yield f"params.{name}" if name.isidentifier() else f'params["{name}"]', _NEVER[name]
        elif name in _NOT_IN_BATCHES and value is not None and value is not False:
            yield f"params.{name}", _NOT_IN_BATCHES[name]
        elif name == _BILLING and isinstance(value, Mapping) and value.get("bill_to") == "user_profile":
            yield f"params.{name}.bill_to", "is not for batches: leave it out, and your organization is billed"


def find_outside(name: Any) -> str:
    """Explain what to do with a field of a request beside ``custom_id`` and ``params``."""
    text = "is not a field of a batch request"
    if name in _NEVER and name != "custom_id":
        return f"{text}; it {_NEVER[name]}"
    return f"{text}, which has custom_id and params; fields of the Messages API go into params"
