"""Paid answers that wait on disk until the store takes them.

If ``spool_dir`` is set, a worker writes those answers of the Messages API there that its store has not taken for some
seconds. Any worker with that directory brings them into the store as soon as it answers, and deletes them. A file is
either complete or absent, is readable by its owner only, and is encrypted like the payloads in the store.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Protocol

import msgspec

from claude_batch_tasks import metrics
from claude_batch_tasks.errors import BatchTasksError, InvalidSettings
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.pricing import spending
from claude_batch_tasks.records import Unit
from claude_batch_tasks.results.stored.messages_outcomes import decode_unchanged
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import HasJobs, HasMessageQueue, HasResults, history
from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.packing import Packer

log = get_logger(__name__)

_ENDING = ".answer"


class Answer(msgspec.Struct, frozen=True):
    """An answer that waits for the store."""

    job_id: str
    batch: int
    lane: int
    place: int
    outcome: bytes
    spent: int | None


_decode = msgspec.msgpack.Decoder(Answer).decode


def check_folder(settings: Settings) -> None:
    """Check that answers can be written to disk.

    Raises:
        InvalidSettings: they cannot be written; the text says why.
    """
    if settings.spool_dir is None:
        return
    try:
        Path(settings.spool_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=settings.spool_dir, prefix=".check-"):
            pass
    except OSError as exc:
        raise InvalidSettings(f"claude_batch_spool_dir: {settings.spool_dir} cannot be written to: {exc}") from None


def write_answer(settings: Settings, answer: Answer) -> bool:
    """Write an answer to disk; return False if there is no directory for it, or it could not be written."""
    if settings.spool_dir is None:
        return False
    folder, name = Path(settings.spool_dir), _file_name(answer)
    data = _make_packer(settings).pack(msgspec.msgpack.encode(answer), name)
    temporary = ""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number, temporary = tempfile.mkstemp(dir=folder, prefix=".")  # for its owner only
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / name)
        _sync_folder(folder)
    except OSError as exc:
        unit = Unit(answer.job_id, answer.batch, answer.lane)
        log.error(
            "job %s: the answer to request %d, which is paid for, could not be written to %s: %s. It stays in memory",
            unit.name,
            answer.place,
            folder,
            exc,
            extra=history.fields(unit, "held"),
        )
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        return False
    return True


class _Outcomes(HasJobs, HasMessageQueue, HasResults, Protocol):
    """Where the outcomes of single requests are stored."""


def bring_in(settings: Settings, store: _Outcomes, limit: int | None = None) -> int:
    """Move answers from disk into the store; return how many it took.

    An answer whose batch was closed without it stays on disk with the suffix ``.late``.

    Args:
        limit: the number of files to read; default: all.

    Raises:
        StoreUnavailable: the store does not answer; what it did not take stays on disk.
    """
    taken = 0
    for path in islice(_list_waiting(settings), limit):
        try:
            answer = _decode(_make_packer(settings).unpack(path.read_bytes(), path.name))
        except FileNotFoundError:  # another worker was faster
            continue
        except (OSError, ValueError, msgspec.MsgspecError, BatchTasksError) as exc:
            log.error("an answer on disk cannot be read, and stays there: %s: %s", path, exc)
            continue
        unit = Unit(answer.job_id, answer.batch, answer.lane)
        if store.message_queue.save_outcome(unit, answer.place, answer.outcome, spent=answer.spent):
            job = store.jobs.read_job(answer.job_id) if metrics.reports_job_label() else None
            metrics.count("cost_dollars", spending.to_dollars(answer.spent or 0), job=job, source="messages")
            taken += 1
        elif _was_given_up(store, answer):
            late = path.with_suffix(".late")
            log.error(
                "job %s: request %d was closed without its answer, which is paid for: %s",
                unit.name,
                answer.place,
                late,
                extra=history.fields(unit, "late_answer"),
            )
            with contextlib.suppress(FileNotFoundError):
                path.rename(late)
            continue
        path.unlink(missing_ok=True)
    if taken:
        log.warning("%d paid answers were moved from disk into the store", taken)
    return taken


def _list_waiting(settings: Settings) -> Iterator[Path]:
    if settings.spool_dir is not None:
        with contextlib.suppress(OSError):
            yield from sorted(Path(settings.spool_dir).glob(f"*{_ENDING}"))


def _was_given_up(store: HasResults, answer: Answer) -> bool:
    """Return whether the request has an outcome without this answer, or its job is gone."""
    found = store.results.find_outcomes(answer.job_id, answer.batch, [answer.place]).get(answer.place)
    return found is None or decode_unchanged(found) is not None


def _file_name(answer: Answer) -> str:
    """Return the file name, the same for each copy of an answer; the caller's job id may hold any character."""
    job = blake2b(answer.job_id.encode(), digest_size=16).hexdigest()
    return f"{job}-{answer.batch}-{answer.place}{_ENDING}"


def _make_packer(settings: Settings) -> Packer:
    return Packer(Cipher(settings.encryption_key or ()))


def _sync_folder(folder: Path) -> None:
    """Ensure that the name of a new file is on disk as well."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
