"""What a 404 means, how long batches and results exist, and how the clocks of both sides compare."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Literal

#: Results can be downloaded for 29 days from *created_at* (not from the end), as Anthropic documents it.
RETENTION = 29 * 86_400.0

#: Anthropic ends a batch 24 hours after it was created.
BATCH_LIFETIME = 86_400.0

#: Seconds by which clocks that are set by NTP may differ, with what a ``Date`` leaves out and the way of an answer.
EXACT = 2.0

#: Downloads of a result file that has every row but not the tallies of the batch, before the rows are believed.
TALLY_DOWNLOADS = 3


def date(headers: Mapping[str, str]) -> float | None:
    """Return the time by the clock of whoever answered: its ``Date``, and the ``Age`` of what a cache had kept.

    ``None`` if it does not say so readably.
    """
    try:
        return parsedate_to_datetime(headers["date"]).timestamp() + min(max(float(headers.get("age", 0)), 0.0), 86_400)
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def ahead(date: float | None, now: float) -> float:
    """Return by how many seconds the clock that showed ``date`` is ahead of the one that shows ``now``.

    0 where they differ by no more than that comes to, or it is not known.
    """
    found = 0.0 if date is None else date - now
    return found if abs(found) > EXACT else 0.0


def not_found_means(
    *, now: float, created_at: float, last_sighting: float, grace: float, absences: int, absences_limit: int
) -> Literal["propagation", "ask_list", "lost"]:
    """What a 404 on retrieve or results means.

    ``propagation``: the batch was seen less than ``grace`` seconds ago. ``ask_list``: too long ago to assume it; only
    a complete listing may tell. ``lost``: missing from ``absences_limit`` complete listings, or older than retention.
    """
    if now - created_at > RETENTION:
        return "lost"
    if now - last_sighting < grace:
        return "propagation"
    return "lost" if absences >= absences_limit else "ask_list"
