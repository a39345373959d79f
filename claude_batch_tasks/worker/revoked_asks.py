"""What a worker does when tasks are revoked: an ask has no message, so it is taken out of its pool."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery import Celery
from celery.utils.functional import maybe_list
from celery.worker.control import Panel

from claude_batch_tasks import errors
from claude_batch_tasks.lifecycle.pools import revoking
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.steps import dispatch

log = get_logger(__name__)

#: Seconds between two looks at what was revoked.
_EVERY = 0.5

#: The ids of a revoke, each with whether it terminates. They come in the worker's own thread, and wait for ours.
_revoked: set[tuple[str, bool]] = set()
#: Likewise the stamps of a revoke by stamps.
_stamps: list[tuple[Mapping[str, Any], bool]] = []
_lock = threading.Lock()


def follow_revokes() -> None:
    """Learn the ids and stamps of all tasks that this worker is to revoke."""
    _follow("revoke", "task_id", _remember_ids)
    _follow("revoke_by_stamped_headers", "headers", _remember_stamps)


def _follow(command: str, argument: str, remember: Callable[[Any, bool], None]) -> None:
    """Have the argument of a command, which says what is to be revoked, remembered when the worker has revoked it."""
    revoke = Panel.data[command]
    if getattr(revoke, "follows_asks", False):
        return

    def revoke_and_remember(state: Any, *args: Any, **options: Any) -> Any:
        try:
            return revoke(state, *args, **options)
        finally:
            given = {**dict(zip((argument, "terminate"), args, strict=False)), **options}
            with _lock:
                remember(given[argument], bool(given.get("terminate")))

    revoke_and_remember.follows_asks = True  # type: ignore[attr-defined]
    Panel.data[command] = revoke_and_remember


def _remember_ids(which: Any, terminate: bool) -> None:
    _revoked.update((str(one), terminate) for one in maybe_list(which) or ())


def _remember_stamps(which: Any, terminate: bool) -> None:
    stamps = which if isinstance(which, Mapping) else dict(one.split("=", 1) for one in which)
    _stamps.append((stamps, terminate))


def withdraw_revoked(app: Celery, hostname: str | None) -> float:
    """Take revoked asks out of their pools; return the seconds until the next call of this function.

    Raises:
        StoreUnavailable: the store does not answer; it is tried again.
    """
    with _lock:
        ids, stamps = sorted(_revoked), list(_stamps)
    if ids or stamps:
        with dispatch.no_fork:
            try:
                for terminate in (False, True):
                    found = [task_id for task_id, harder in ids if harder == terminate]
                    wanted = [each for each, harder in stamps if harder == terminate]
                    _revoke(app, [*found, *revoking.find_stamped(app, wanted)], hostname, terminate)
            except errors.KeyMissing as exc:
                log.warning("what follows revoked asks is left to workers that have its key: %s", exc)
        with _lock:
            _revoked.difference_update(ids)
            del _stamps[: len(stamps)]
    return _EVERY


def _revoke(app: Celery, ids: Sequence[str], hostname: str | None, terminate: bool) -> None:
    gone = revoking.revoke_asks(app, ids, hostname=hostname, terminate=terminate)
    revoking.forget_late_revokes(app, [one for one, done in zip(ids, gone, strict=True) if not done])
