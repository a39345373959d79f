"""What faults do to the work of a call and to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from ..batch import Batch
from ..prompts import ApiError
from ..script import MESSAGE_OF, Fault, error_type
from .connections import HangUp, Stall
from .replies import Reply

#: The media type of a raw body, by its first character; others are plain text.
MEDIA_TYPE_OF = {"<": "text/html; charset=utf-8", "{": "application/json", "[": "application/json"}


@dataclass
class Work:
    """The work of a call. Faults count separately for each `subject`, a batch's number or a prompt's hash."""

    act: Callable[[], Awaitable[Reply]]
    subject: str = ""
    batch: Batch | None = None
    #: What the answer has several of, if it is not one piece.
    parts: Literal["", "events", "lines"] = ""


async def act_under(faults: list[Fault], work: Work) -> tuple[Reply, Fault | None]:
    """Run the work, and let the faults strike before, after or in the answer.

    Returns:
        The answer, and the fault that strikes its body, if there is one.
    """
    fault = next((f for f in faults if f.effect != "delay"), None)
    await asyncio.sleep(_delay_seconds(faults, commit=False))
    if fault is None or fault.effect in ("cut", "append", "splice"):
        reply, cut = await work.act(), fault
    else:
        if fault.commit:
            await work.act()
        reply, cut = _apply_fault(fault), None
    await asyncio.sleep(_delay_seconds(faults, commit=True))
    return reply, cut


def _delay_seconds(faults: list[Fault], *, commit: bool) -> float:
    return sum(fault.seconds for fault in faults if fault.effect == "delay" and fault.commit == commit)


def _apply_fault(fault: Fault) -> Reply:
    if fault.effect == "drop":
        raise HangUp
    if fault.effect == "stall":
        raise Stall
    if fault.body is not None:
        return Reply(
            [fault.body.encode()],
            status=fault.status,
            media_type=MEDIA_TYPE_OF.get(fault.body.lstrip()[:1], "text/plain; charset=utf-8"),
            headers=fault.headers,
            proxy=fault.proxy,
        )
    kind = fault.error or error_type(fault.status)
    raise ApiError(kind, fault.message or MESSAGE_OF[kind], fault.status, fault.headers)
