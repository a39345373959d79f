"""The Celery app that is used if the caller names none."""

from __future__ import annotations

import celery
from celery import Celery, _state

from claude_batch_tasks.errors import InvalidSettings


def configured_app() -> Celery:
    """Return the program's current Celery app, else the only app it has, else the ready-made one.

    Each thread has its own current app in Celery. In a thread (or a program) without one it is an implicit app, which
    has no broker and no settings.

    Raises:
        InvalidSettings: this thread has no current app, and the program has several.
    """
    if celery.current_app.main == "default":
        active = _state._get_active_apps()  # type: ignore[attr-defined]
        apps = [app for app in active if app.main not in ("default", "claude_batch_tasks")]
        if len(apps) > 1:
            names = ", ".join(str(app.main) for app in apps)
            raise InvalidSettings(f"which Celery app is meant ({names})? Call set_default() on one at start")
        if apps:
            return apps[0]  # type: ignore[no-any-return]
        from claude_batch_tasks.app import app

        return app
    return celery.current_app._get_current_object()  # type: ignore[no-any-return, attr-defined]
