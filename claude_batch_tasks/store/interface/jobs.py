"""Jobs: their records, the list of all of them, which requests retry jobs took from others, and their moves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from claude_batch_tasks.records import BatchRecord, Claim, JobLabels, JobRecord, JobState
from claude_batch_tasks.store.transfer.items import JobItem, Mark, SharedItem


class Jobs(Protocol):
    """The record of each job, how long the job is stored, and the list of all jobs."""

    def create_job(
        self, job_id: str, job: JobRecord, batches: Sequence[BatchRecord], ttl: float, *, staged: bool = True
    ) -> bool:
        """Create the job with what was staged under its nonce, all at once; return False if the id is taken.

        A pool's job is made once: its id stays taken for a day after it was deleted. The job expires after ``ttl``
        seconds unless it is persisted.

        Args:
            staged: False if nothing was staged.
        """

    def read_job(self, job_id: str) -> JobRecord | None:
        """Return the job's record; None: there is no such job."""

    def update_job(self, job_id: str, *, only: JobState | None = None, **changes: Any) -> bool:
        """Change the job's record; return False if it is gone, or is not in the state ``only``."""

    def resume_job(
        self, job_id: str, changes: Mapping[str, Any], batches: Mapping[int, tuple[bool, int, Mapping[str, Any]]]
    ) -> bool:
        """Change a failed job's record and those of its batches, and persist the job, all at once.

        Return False if the job is not a failed one.

        Args:
            batches: by number: whether the batch is due now, its position from now on, and what changes in its record.
        """

    def set_once(self, job_id: str, field: str, value: Any) -> Any:
        """Give a field of the job a value if it has none; return the value that it has."""

    def persist_job(self, job_id: str) -> None:
        """Let nothing of the job expire while it runs."""

    def expire_job(self, job_id: str, ttl: float) -> None:
        """Let all of the job expire after ``ttl`` seconds."""

    def was_deleted(self, job_id: str) -> bool:
        """Return whether a user deleted the job within the last day."""

    def job_ids(self, before: float = ...) -> Iterator[str]:
        """Yield all jobs that were submitted before a moment (epoch seconds), the newest first."""

    def sample_jobs(self, limit: int) -> list[str]:
        """Return some of all jobs, different ones each time."""

    def rebuild_list(self) -> None:
        """List all jobs again if their list is gone; call this now and then."""

    def read_states(self, job_ids: Sequence[str]) -> list[JobState | None]:
        """Return the state of each job; None: it is gone."""


class Storage(Protocol):
    """What is stored of a job beside its records: which of it is gone, and how all of it is removed."""

    def missing_keys(self, job_id: str, batch: int | None, names: Iterable[str]) -> list[str]:
        """Return the full names of those keys of a batch, or of the job, that do not exist.

        Args:
            names: such as ``body``, ``ids``, ``outcomes``, ``rows:1``.
        """

    def delete_job(self, job_id: str, *, remember: bool = False) -> None:
        """Remove all of the job.

        Args:
            remember: a user deleted it, so its late messages end quietly for a day.
        """

    def forget_expired(self) -> None:
        """Remove some of the jobs that have expired and what they have left; call this now and then."""


class Retries(Protocol):
    """The retry jobs, and the requests that each of them took from other jobs."""

    def create_retry(
        self, job_id: str, job: JobRecord, batches: Sequence[BatchRecord], claims: Sequence[Claim], due: Collection[int]
    ) -> bool:
        """Create a retry job with what was staged under its nonce, and take its requests from other jobs, all at once.

        Nothing of it expires. Each job that it takes from has it in its list of retries. Return False if one of those
        jobs is gone, runs, or has another retry since; then nothing was changed.

        Args:
            due: the numbers of its batches whose first step is due from now on.
        """

    def read_taken(self, job_id: str, batch: int, retries: int) -> list[bytes]:
        """Return which requests of a batch each of the job's first retries took, as ``Claim`` has them."""

    def extend_job(self, job_id: str, ttl: float) -> None:
        """Let a job that is to expire do so in ``ttl`` seconds at the earliest."""


class JobSearch(Protocol):
    """What finds jobs without reading their whole records."""

    def find_ids(self, beginning: str, limit: int) -> list[str]:
        """Return jobs in the store whose ids begin with this text, in no order; at most ``limit`` of them."""

    def read_labels(self, job_ids: Sequence[str]) -> list[JobLabels | None]:
        """Return by what each of these jobs is filtered; None: it is gone."""


class Transfer(Protocol):
    """All that a store has of its jobs, part by part. It may be read and written although the store is marked."""

    address: str
    """Where the store is, without a password: two stores of one address are one."""

    def open(self) -> None:
        """Have this process use the store although it is marked.

        Raises:
            StoreTooNew: a newer release has written it.
        """

    def read_mark(self) -> Mark | None:
        """Return what says that the store is not to be used; None: it may be."""

    def set_mark(self, mark: Mark | None) -> None:
        """Have no process begin to use the store; None: let all of them do so again."""

    def summarize_activity(self) -> str:
        """Return a text that is another one once a step has run, or a job or an ask was submitted."""

    def list_ids(self) -> Iterator[str]:
        """Yield all jobs, and pools that are no jobs yet, the oldest first."""

    def export_job(self, job_id: str) -> Iterator[JobItem]:
        """Yield the parts of a job, or of a pool that is none yet, first the ``Job`` or ``Pool``; nothing: it is gone.

        Raises:
            JobNotFound: it went in the middle of it.
        """

    def import_job(self, job_id: str, items: Iterable[JobItem]) -> None:
        """Write a job that is not there; it is there once all of it is written, and not before.

        Of one that was interrupted, nothing is in the way.
        """

    def export_shared(self) -> Iterator[SharedItem]:
        """Yield what all jobs share."""

    def import_shared(self, items: Iterable[SharedItem]) -> None:
        """Write what all jobs share on top of what is there."""
