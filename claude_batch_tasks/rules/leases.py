"""Who may run a step, and when its message counts as lost. The store's scripts apply these."""

from __future__ import annotations

from typing import Literal

#: Seconds by which messages are late are remembered: of what was usual, this share is left with each message that
#: comes, and no more than this is believed.
LATENESS_LEFT = 0.95
MAX_LATENESS = 600

#: A message is sent again twice as long after the last time, this often; a person who asks, after so many seconds.
MAX_COPIES = 16
RESENT_JUST_NOW = 5


def lease_state(
    position: int, owner: str, *, current: int, holder: str | None, ends: float, now: float
) -> Literal["taken", "taken_over", "busy", "stale"]:
    """Return what asking for a lease comes to.

    Args:
        position: of the message that asks.
        owner: who asks.
        current: the position the unit is at; -1: nobody has begun it.
        holder: who has the lease; None: nobody.
        ends: when that ends, epoch seconds.
    """
    if position < current:
        return "stale"
    if holder is None or holder == owner or position != current:
        return "taken"
    return "busy" if ends > now else "taken_over"


def count_interruptions(position: int, *, current: int, taken_over: bool, before: int) -> int:
    """Return how often in a row the step was interrupted that takes a lease.

    A message at a later position is that of the next step: the one before has run, though it has not advanced the unit.

    Args:
        before: as the record has it.
    """
    return 0 if position > current else before + taken_over


def usual_lateness(late: float, usual: float) -> float:
    """Return by how many seconds messages are late, after one that was late by so many."""
    return min(max(late, usual * LATENESS_LEFT), MAX_LATENESS)


def seems_lost(after: float, *, due: float, ends: float, resent_at: float, lateness: float, now: float) -> bool:
    """Return whether the message of a unit seems to be lost.

    Args:
        after: seconds by which it must be overdue; 0: whether or not it is, unless it was just sent again.
        due: when it should have acted, epoch seconds.
        ends: when the lease of its present owner ends.
        resent_at: when it was last sent again; 0: never.
        lateness: seconds by which messages are late these days.
    """
    if ends > now:
        return False
    return now >= due + after + 2 * lateness if after > 0 else now >= resent_at + RESENT_JUST_NOW


def next_copy_after(after: float, times: int) -> float:
    """Return how many seconds later a message counts as lost again, that was sent again so often."""
    return after * (2.0 ** min(times, MAX_COPIES) - 1)
