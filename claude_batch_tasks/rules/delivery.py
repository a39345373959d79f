"""Decisions about the delivery of answers: what the calls of a job's ``on_result`` came to."""

from __future__ import annotations

#: Reasons for failed calls that a job's record has, the last ones.
DELIVERY_REASONS = 10

#: How long a call that nothing is heard of counts as still to end, seconds: a worker without this package reports
#: nothing, and a message that was lost never ends.
DELIVERY_SILENCE = 3600.0


def is_delivering(called: int, delivered: int, failed: int, silent_for: float | None) -> bool:
    """Return whether calls of ``on_result`` are likely to be waiting, running or about to be retried.

    Args:
        called: requests with which it was called.
        delivered: requests of which a call ended well.
        failed: requests of which the last call failed permanently.
        silent_for: seconds since a call was made, retried or ended; None: nothing was ever recorded.
    """
    return called > delivered + failed and silent_for is not None and silent_for < DELIVERY_SILENCE
