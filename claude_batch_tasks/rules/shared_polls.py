"""Which batches that are due are polled, and which wait for a list call that speaks for them.

The store's scripts apply it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from claude_batch_tasks.rules.polling import LIST_CALL_FROM, MAX_UNCLAIMED_MESSAGES, MAX_VAIN_POLLS, UNCLAIMED_SECONDS
from claude_batch_tasks.rules.retries import LONGEST_IN_BROKER


class Asked(NamedTuple):
    """The batch of an account and queue whose message was last sent so that its task makes a list call."""

    at: float = 0.0
    in_vain: int = 0
    """How many such batches in a row a worker has taken whose task made no list call."""
    taken: bool | None = None
    """Whether a worker has taken that one; None: none was sent."""


def asks_for_list_call(asked: Asked, now: float) -> tuple[bool, int]:
    """Return whether the next batch's message is sent so that its task makes a list call, and how many were in vain."""
    if asked.in_vain >= MAX_VAIN_POLLS:
        return True, asked.in_vain
    if now < asked.at + LONGEST_IN_BROKER:
        return False, asked.in_vain
    if asked.taken is False and now < asked.at + UNCLAIMED_SECONDS:
        return False, asked.in_vain
    return True, asked.in_vain + bool(asked.taken)


def spared_until(
    *,
    running: bool,
    deadline: float | None,
    paused_until: float,
    in_flight: int,
    list_paused_until: float,
    listing: bool,
    asked: Asked,
    now: float,
) -> float | None:
    """Return until when a batch that is due waits nevertheless; None: its message is sent.

    Args:
        running: its job is.
        deadline: when its job gives up waiting.
        paused_until: no call of the account is made until then.
        in_flight: batches of the account.
        list_paused_until: no list call is made until then.
        listing: somebody makes one now.
    """
    deadline = math.inf if deadline is None else deadline
    if deadline <= now or not running:
        return None
    if paused_until > now:
        return min(paused_until, deadline)
    if in_flight < LIST_CALL_FROM or list_paused_until > now:
        return None
    return now + LONGEST_IN_BROKER if listing or not asks_for_list_call(asked, now)[0] else None


def handed_out_at_most(limit: int, out: int) -> int:
    """Return for how many units messages may be sent, where no worker has taken so many yet; at least one."""
    return min(limit, max(MAX_UNCLAIMED_MESSAGES - out, 1))
