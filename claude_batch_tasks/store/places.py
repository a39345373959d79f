"""What all stores call what they keep: an encrypted chunk is bound to its name, also where it moves to another store.

In Redis these are the keys.
"""

from __future__ import annotations

from typing import Final

#: What all names begin with.
PREFIX: Final = "claude_batch"

#: What the names of asks begin with.
ASK_PREFIX: Final = f"{PREFIX}:ask:"


def of_job(job_id: str, *parts: object) -> str:
    """Return one of the keys of a job."""
    return ":".join([f"{PREFIX}:{{{job_id}}}", *map(str, parts)])


def index_key(job_id: str) -> str:
    """Return the hash of a job's custom_ids."""
    return of_job(job_id, "index")


def batch_key(job_id: str, batch: int | None, *parts: object) -> str:
    """Return the hash of a batch's record, or another of the batch's keys."""
    return of_job(job_id, "batch", batch, *parts)


def attempt_key(job_id: str, batch: int | None, name: str, attempt: int | None) -> str:
    """Return one of the keys that a download of a batch leaves."""
    return batch_key(job_id, batch, f"{name}:{attempt}")


def ask_key(ask_id: str) -> str:
    """Return the hash that says where an ask is."""
    return ASK_PREFIX + ask_id
