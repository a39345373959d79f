"""What one job may be given, as type checkers read it: ``run_batch.delay(requests, max_wait=7200)``.

What each of them means stands beside the setting of its name, in ``settings.model``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

# That of `typing` is refused by pydantic, and so by FastAPI, before Python 3.12.
from typing_extensions import TypedDict


class JobSettings(TypedDict, total=False):
    """The settings of one job, which ``run_batch``, ``adopt`` and ``BatchJob.resume`` take by keyword."""

    poll_min: float
    poll_max: float
    retry_min: float
    retry_max: float
    not_found_grace: float
    listings: int
    create_not_found_limit: int
    create_settle: float
    on_unresolved_create: Literal["resubmit", "fail"]
    proxy_error_grace: float
    clock_skew: float
    results_limit: int
    fallback: Literal["messages", "off"]
    max_fallback_requests: int
    messages_limit: int
    retries: int
    refusal_model: str | list[str] | tuple[str, ...] | None
    """A model, or several; as a text with commas between them."""
    max_tokens_limit: int | None
    continue_paused: int
    reask: int
    deadline: float | datetime | timedelta | str | None
    """Seconds, or the moment itself: as a datetime with a time zone, or as ISO 8601 text, which JSON can carry."""
    max_fallback_cost: float | None
    max_cost: float | None
    max_messages_in_flight: int
    max_wait: float | None
    max_requests_per_batch: int
    max_bytes_per_batch: int
    max_batches_in_flight: int
    result_ttl: float
    timeout: float
    lease: float
    max_step_failures: int
    workspace_id: str | None
    user_profile_id: str | None
    betas: list[str] | tuple[str, ...] | str
    """Names; as a text with commas between them."""


class _CommonOptions(JobSettings, total=False):
    """The options that a job and its retries may be given."""

    client: str
    """The alias of an account, one of the setting ``client_factories``."""
    on_result: Mapping[str, Any] | None
    """The signature of a task, called as ``(job_id, custom_ids)`` with the ids of requests whose outcome is final."""
    label: str | None
    """The name by which people find the job: 1 to 100 printable characters, shown and logged in plain text."""
    metadata: Mapping[str, str | int | float | bool] | None
    """More about the job, shown in plain text: at most 16 pairs, keys of 64 and values of 500 characters."""


class JobOptions(_CommonOptions, total=False):
    """The keyword options of ``run_batch``: in ``.delay()``, ``.s()`` and ``.si()``.

    >>> options: JobOptions = {"fallback": "off", "max_cost": 25.0}
    >>> run_batch.delay(requests, **options)
    >>> run_batch.apply_async((requests,), options, queue="nightly")
    """

    output: type[Any] | Mapping[str, Any] | str | None
    """The type of the answers: a pydantic model, a dataclass, a TypedDict, a msgspec Struct, the import path of one, or
    a JSON schema."""
    check: Callable[[Any], str | None] | str | None
    """A function, or its import path, that workers call with each answer of that type: it returns what is wrong."""


class AskOptions(JobOptions, total=False):
    """The keyword options of ``ask``: those of a job, and how its pool is chosen and closed."""

    pool: str
    """The name of its pool; default: ``default``. Asks of different names are never in one job."""
    ask_max_requests: int
    ask_max_bytes: int
    ask_max_wait: float
    ask_max_cost: float | None
    ask_cost_window: float
    ask_mode: Literal["batch", "messages", "eager-simulator"]


class RetryOptions(_CommonOptions, total=False):
    """The keyword options of ``BatchJob.retry_failed``; what is not given is as in the job that is retried."""

    queue: str
    """The queue that the steps of the retry are to follow."""
