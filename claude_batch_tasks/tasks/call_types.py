"""How ``run_batch`` is called through Celery, as type checkers read it. Nothing of this is used when it runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from typing_extensions import TypedDict

from claude_batch_tasks.settings.job_options import JobOptions
from claude_batch_tasks.wire.batch_requests import Requests

if TYPE_CHECKING:
    from celery.canvas import Signature
    from kombu import Connection, Exchange, Producer, Queue

    Links: TypeAlias = "Signature[Any] | list[Signature[Any]] | None"

#: ``args`` of ``apply_async``: the requests alone; none where they come by name, or from the task before in a chain.
Arguments: TypeAlias = tuple[Requests] | list[Requests] | tuple[()]


class NamedArguments(JobOptions):
    """``kwargs`` of ``apply_async`` where ``args`` has none: the requests, and the job's options."""

    requests: Requests


class SendOptions(TypedDict, total=False):
    """Celery's options of ``apply_async``, but for ``time_limit`` and ``soft_time_limit``, which ``run_batch`` refuses.

    A job's own options are no options of Celery's: they go into ``kwargs``.
    """

    add_to_parent: bool
    app_id: str
    argsrepr: str
    compression: str | None
    confirm_timeout: float | None
    connection: Connection | None
    countdown: float | None
    delivery_mode: int | str | None
    eta: datetime | str | None
    exchange: str | Exchange | None
    expires: float | datetime | str | None
    group_id: str | None
    group_index: int | None
    headers: Mapping[str, Any] | None
    ignore_result: bool
    immediate: bool
    kwargsrepr: str
    link: Links
    link_error: Links
    mandatory: bool
    parent_id: str | None
    priority: int | None
    producer: Producer | None
    publisher: Producer | None
    queue: str | Queue | None
    reply_to: str | None
    retries: int
    retry: bool
    retry_policy: Mapping[str, Any] | None
    root_id: str | None
    route_name: str | None
    routing_key: str | None
    serializer: str | None
    shadow: str | None
    stamped_headers: list[str] | None
    timeout: float | None
