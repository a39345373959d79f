"""How ``ask`` is called through Celery, as type checkers read it. Nothing of this is used when it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from claude_batch_tasks.settings.job_options import AskOptions

#: The params of one request, as the Messages API takes them.
Params: TypeAlias = Mapping[str, Any]

#: ``args`` of ``apply_async``: the params alone; none where they come by name, or from the task before in a chain.
AskArguments: TypeAlias = tuple[Params] | list[Params] | tuple[()]


class NamedAskArguments(AskOptions):
    """``kwargs`` of ``apply_async`` where ``args`` has none: the params, and the ask's options."""

    params: Params
