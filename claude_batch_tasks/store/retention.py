"""For how long stores have what nobody ends, in seconds, and what they say of what has expired."""

from __future__ import annotations

from typing import Final

from claude_batch_tasks.errors import JobNotFound

#: Payloads for which no job's record stands yet (the caller may have died), downloads that are not published, and which
#: jobs a user deleted.
UNFINISHED_TTL: Final = 86_400

#: The owner of a batch id: as long as Anthropic keeps the results, later a batch is of no use to anybody.
CLAIM_TTL: Final = 30 * 86_400

#: What is known of an account, if nothing more is said of it; and how many of its past batches.
ACCOUNT_TTL: Final = 30 * 86_400
PAST_BATCHES: Final = 100

#: The last list of an account's batches.
LIST_TTL: Final = 86_400


def describe_expired(job_id: str) -> JobNotFound:
    """Return the error for a job whose staged requests have expired."""
    return JobNotFound(
        f"what was staged for job {job_id} has expired: its requests took longer than "
        f"{UNFINISHED_TTL / 3600:g} hours to submit; nothing was sent"
    )
