"""What a worker does when tasks are revoked: an ask has no message, so it is taken out of its pool."""

from __future__ import annotations

import threading
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
_lock = threading.Lock()


def follow_revokes() -> None:
    """Learn the ids of all tasks that this worker is to revoke."""
    revoke = Panel.data["revoke"]
    if getattr(revoke, "follows_asks", False):
        return

    def revoke_and_remember(state: Any, task_id: Any, terminate: Any = False, *args: Any, **options: Any) -> Any:
        try:
            return revoke(state, task_id, terminate, *args, **options)
        finally:  # then it has stored that it is revoked
            with _lock:
                _revoked.update((str(one), bool(terminate)) for one in maybe_list(task_id) or ())

    revoke_and_remember.follows_asks = True  # type: ignore[attr-defined]
    Panel.data["revoke"] = revoke_and_remember


def withdraw_revoked(app: Celery, hostname: str | None) -> float:
    """Take revoked asks out of their pools; return the seconds until the next call of this function.

    Raises:
        StoreUnavailable: the store does not answer; it is tried again.
    """
    with _lock:
        found = sorted(_revoked)
    for terminate in (False, True):
        if ids := [task_id for task_id, harder in found if harder == terminate]:
            _revoke(app, ids, hostname, terminate)
    with _lock:
        _revoked.difference_update(found)
    return _EVERY


def _revoke(app: Celery, ids: list[str], hostname: str | None, terminate: bool) -> None:
    with dispatch.no_fork:
        try:
            gone = revoking.revoke_asks(app, ids, hostname=hostname, terminate=terminate)
            revoking.forget_late_revokes(app, [one for one, done in zip(ids, gone, strict=True) if not done])
        except errors.KeyMissing as exc:
            log.warning("what follows revoked asks is left to workers that have its key: %s", exc)
