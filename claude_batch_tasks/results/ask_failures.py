"""The error of an ask that has no answer."""

from __future__ import annotations

from claude_batch_tasks.errors import RequestFailed
from claude_batch_tasks.formatting import shorten_text
from claude_batch_tasks.results.reader import RequestResult

#: The most characters of the reason in it.
_LONGEST_REASON = 500


def make_error(
    job_id: str, ask_id: str, why: str, outcome: str | None = None, error_type: str | None = None
) -> RequestFailed:
    """Return the error of an ask that has no answer.

    Args:
        why: the reason.
        outcome: that of its request; None: its job failed.
        error_type: that of the API, if it named one.
    """
    text = f"ask {ask_id} {outcome or 'failed'}" + (f": {shorten_text(why, _LONGEST_REASON)}" if why else "")
    return RequestFailed(text, job_id, ask_id, outcome, error_type)


def explain_result(job_id: str, result: RequestResult) -> RequestFailed:
    """Return the error of an ask whose request did not succeed."""
    why = ": ".join(filter(None, (result.error_type, result.error_message, result.note)))
    return make_error(job_id, result.custom_id, why, result.type, result.error_type)
