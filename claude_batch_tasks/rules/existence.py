"""What a 404 means, how long batches and results exist, and how far the two clocks differ."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Literal

#: Results can be downloaded for 29 days from *created_at* (not from the end), as Anthropic documents it.
RETENTION = 29 * 86_400.0

#: Anthropic ends a batch 24 hours after it was created.
BATCH_LIFETIME = 86_400.0

#: Seconds by which clocks that are set by NTP may differ, including the fractions that a ``Date`` leaves out and the
#: time an answer travels.
CLOCK_TOLERANCE = 2.0

#: Downloads of a result file that has every row but not the counts that the batch reports, before we trust the rows.
TALLY_DOWNLOADS = 3


def date_of_answer(headers: Mapping[str, str]) -> float | None:
    """Return the time by the answering server's clock: its ``Date``, plus the ``Age`` if a cache had stored the answer.

    Returns:
        Epoch seconds; ``None`` if the headers have no readable date.
    """
    try:
        return parsedate_to_datetime(headers["date"]).timestamp() + min(max(float(headers.get("age", 0)), 0.0), 86_400)
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def clock_offset(date: float | None, now: float) -> float:
    """Return by how many seconds the clock that showed ``date_of_answer`` is ahead of the one that shows ``now``.

    The result is 0 if they differ by no more than ``CLOCK_TOLERANCE``, or if ``date_of_answer`` is None.
    """
    found = 0.0 if date is None else date - now
    return found if abs(found) > CLOCK_TOLERANCE else 0.0


def judge_not_found(
    *, now: float, created_at: float, last_sighting: float, grace: float, absences: int, absences_limit: int
) -> Literal["propagation", "ask_list", "lost"]:
    """Decide what a 404 on retrieve or results means.

    Returns:
        ``propagation``: the batch was seen less than ``grace`` seconds ago. ``ask_list``: that is too long ago, and
        only a complete list call can show it. ``lost``: ``absences_limit`` complete list calls did not show it, or it
        is older than the retention.
    """
    if now - created_at > RETENTION:
        return "lost"
    if now - last_sighting < grace:
        return "propagation"
    return "lost" if absences >= absences_limit else "ask_list"
