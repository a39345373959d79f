"""Where payloads are: the bucket that new ones go to, and those of jobs that began before it was set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from claude_batch_tasks import steady
from claude_batch_tasks.errors import JobNotFound, ResultsMissing
from claude_batch_tasks.formatting import describe_missing_job
from claude_batch_tasks.store.interface import Store
from claude_batch_tasks.store.objects import names
from claude_batch_tasks.store.objects.bucket import Bucket, ObjectGone
from claude_batch_tasks.store.objects.frames import Frames
from claude_batch_tasks.store.objects.names import Reference
from claude_batch_tasks.store.objects.remembered import Remembered
from claude_batch_tasks.store.packing import Packer

#: Objects whose footers are remembered.
_OPEN = 64

#: Objects of which it is remembered that they are there, and for how many seconds.
_SEEN, _SEEN_SECONDS = 10_000, 60.0

_Value = TypeVar("_Value")


class Places:
    """The buckets of a ledger's payloads.

    Args:
        url: the setting ``payload_url``; None: new payloads go to the ledger.
    """

    def __init__(self, ledger: Store, url: str | None, packer: Packer) -> None:
        self._ledger, self.packer = ledger, packer
        self.own = Bucket(url) if url is not None else None
        self._buckets = {} if self.own is None else {self.own.url: self.own}
        self._identity: str | None = None
        self._frames: Remembered[Frames] = Remembered(_OPEN)
        self._seen: Remembered[float] = Remembered(_SEEN)

    def find_bucket(self, url: str) -> Bucket:
        """Return the bucket at a URL."""
        return self._buckets.setdefault(url, Bucket(url))

    def name_folder(self, job_id: str, nonce: str) -> str:
        """Return the folder of a job's new objects."""
        if self._identity is None:
            self._identity = self._ledger.read_identity()
        return names.job_folder(self._identity, job_id, nonce)

    def find_folder(self, job_id: str) -> str | None:
        """Return the folder of the new objects of a job; None: there is no such job."""
        job = self._ledger.jobs.read_job(job_id)
        return None if job is None else self.name_folder(job_id, job.nonce)

    def open_frames(self, job_id: str, reference: Reference, name: str = "") -> Frames:
        """Return an object of frames of a job.

        Args:
            name: its name in the folder that the reference is of.

        Raises:
            JobNotFound, ResultsMissing: it is gone.
        """
        bucket, path = self._locate(reference, name)
        key = bucket.url, path
        return self._reading(job_id, lambda: self._frames.recall(key, lambda: Frames(bucket, path, self.packer)))

    def read_frame(self, job_id: str, reference: Reference, name: str, number: int) -> bytes:
        """Return what is in a frame of an object; arguments and errors are as for ``open_frames``."""
        frames = self.open_frames(job_id, reference, name)
        return self._reading(job_id, lambda: frames.read(number))

    def read_frames(self, job_id: str, reference: Reference, name: str) -> Iterator[bytes]:
        """Yield what is in each frame of an object; arguments and errors are as for ``open_frames``."""
        try:
            yield from self.open_frames(job_id, reference, name).read_all()
        except ObjectGone as exc:
            raise self._describe_gone(job_id, exc) from None

    def is_there(self, reference: Reference, name: str) -> bool:
        """Return whether an object is there, or was a moment ago; arguments are as for ``open_frames``."""
        bucket, path = self._locate(reference, name)
        key, now = (bucket.url, path), steady.monotonic_now()
        if now < (self._seen.find(key) or 0.0) + _SEEN_SECONDS:
            return True
        try:
            self._frames.add(key, Frames(bucket, path, self.packer))
        except ObjectGone:
            return False
        self._seen.add(key, now)
        return True

    def locate(self, reference: Reference, name: str) -> str:
        """Return what people are shown for an object; arguments are as for ``open_frames``."""
        bucket, path = self._locate(reference, name)
        return bucket.name(path)

    def _locate(self, reference: Reference, name: str) -> tuple[Bucket, str]:
        path = f"{reference.path}/{name}" if name else reference.path
        return self.find_bucket(reference.url), path

    def _reading(self, job_id: str, read: Callable[[], _Value]) -> _Value:
        try:
            return read()
        except ObjectGone as exc:
            raise self._describe_gone(job_id, exc) from None

    def _describe_gone(self, job_id: str, gone: ObjectGone) -> JobNotFound | ResultsMissing:
        if self._ledger.jobs.read_job(job_id) is None:
            return JobNotFound(describe_missing_job(job_id))
        return ResultsMissing(f"{gone} is gone from the object store", None, [str(gone)])
