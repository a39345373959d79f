"""Configurations that are no JSON, each of the app of a caller and its worker."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

from celery import Celery, Task

PLAIN, BATCH = "conformance.plain", "claude_batch_tasks.run_batch"


def requests() -> dict[str, Any]:
    """Return what both tasks are called with: nobody else's prompt."""
    params = {"model": "claude-haiku-4-5", "max_tokens": 8, "messages": [{"role": "user", "content": uuid4().hex}]}
    return {"only": params}


def _write(hook: str, task: Any, task_id: Any) -> None:
    from tests.conformance import project

    project.write({"signal": hook, "task": task.name, "id": task_id})


class Base(Task):
    """A project's own base class."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Be called around the body."""
        _write("__call__", self, self.request.id)
        return super().__call__(*args, **kwargs)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Be called before."""
        _write("before_start", self, task_id)

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Be called at a good end."""
        _write("on_success", self, task_id)

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Be called at a bad end."""
        _write("on_failure", self, task_id)

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Be called before another attempt."""
        _write("on_retry", self, task_id)

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Be called at any end."""
        _write("after_return", self, task_id)

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Send it with a header."""
        options["headers"] = {**(options.get("headers") or {}), "x_base": "yes"}
        return super().apply_async(args, kwargs, **options)

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Send it later."""
        self.app.sent_on_commit = [*getattr(self.app, "sent_on_commit", ()), (self.name, args, kwargs)]

    def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str | None:
        """Return another name for logs."""
        return "summaries" if (options.get("headers") or {}).get("shadowed") else None


def hooks(app: Celery) -> None:
    """Have the hooks of tasks by annotations."""

    def before_start(self: Any, task_id: str, args: Any, kwargs: Any) -> None:
        _write("before_start", self, task_id)

    def on_success(self: Any, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        _write("on_success", self, task_id)

    def on_failure(self: Any, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        _write("on_failure", self, task_id)

    def after_return(self: Any, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        _write("after_return", self, task_id)

    found = {
        "before_start": before_start,
        "on_success": on_success,
        "on_failure": on_failure,
        "after_return": after_return,
    }
    app.conf.task_annotations = {PLAIN: found, BATCH: found}


def _other(app: Celery) -> dict[str, Any]:
    return {"queue": f"{app.conf.task_default_queue}-other", "priority": 4}


def routes(app: Celery) -> None:
    """Route by names."""
    app.conf.task_routes = {name: _other(app) for name in (PLAIN, BATCH)}


def pattern_routes(app: Celery) -> None:
    """Route by patterns."""
    app.conf.task_routes = {"conformance.pl*": _other(app), "claude_batch_tasks.*": _other(app)}


def route_list(app: Celery) -> None:
    """Route by a list, whose first match counts."""
    app.conf.task_routes = ([(PLAIN, _other(app)), (BATCH, _other(app)), ("*", app.conf.task_default_queue)],)


def router(app: Celery) -> None:
    """Route by a function."""

    def route(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any) -> Any:
        return _other(app) if name in (PLAIN, BATCH) else None

    app.conf.task_routes = (route,)


def quorum(app: Celery) -> None:
    """Have queues that are replicated, on topic exchanges."""
    from kombu import Exchange, Queue

    name = app.conf.task_default_queue
    arguments = {"x-queue-type": "quorum"}
    app.conf.task_default_queue_type = "quorum"
    app.conf.task_default_exchange_type = "topic"
    app.conf.task_queues = [
        Queue(each, Exchange(each, type="topic"), routing_key=each, queue_arguments=arguments)
        for each in (name, f"{name}-other")
    ]


def namespaced(app: Celery) -> None:
    """Read upper-case names with a namespace, as Django's settings have them."""

    class settings:
        CELERY_TASK_TRACK_STARTED = True
        CELERY_RESULT_EXPIRES = 3600
        CELERY_CLAUDE_BATCH_RESULTS_LIMIT = 4

    kept = dict(app.conf.changes)
    app.config_from_object(settings, namespace="CELERY", force=True)
    app.conf.update(kept)


def imports(app: Celery) -> None:
    """Have the tasks' modules imported another way."""
    app.conf.include = []
    app.conf.imports = ["tests.conformance.project"]
    app.autodiscover_tasks(["claude_batch_tasks"], force=True)


def two_urls(app: Celery) -> None:
    """Have one URL to read from, and one to write to."""
    app.conf.broker_read_url = app.conf.broker_write_url = app.conf.broker_url


def beat(app: Celery) -> None:
    """Send both tasks every few seconds."""
    app.conf.beat_schedule = {
        name: {
            "task": name,
            "schedule": 4.0,
            "args": (requests(),),
            "options": {"link": app.signature("conformance.after", kwargs={"token": f"beat-{name}"})},
        }
        for name in (PLAIN, BATCH)
    }


def security(app: Celery) -> None:
    """Sign messages."""
    from tests.integration.test_serializers import certify

    folder = Path(os.environ["CONFORMANCE_SECURITY"])
    if not (folder / "key").exists():
        folder.mkdir(exist_ok=True)
        certify(folder)
    app.conf.update(
        security_key=f"{folder}/key", security_certificate=f"{folder}/cert", security_cert_store=f"{folder}/cert"
    )
    app.conf.update(task_serializer="auth", accept_content=["auth"], result_accept_content=["json"])
    app.setup_security()
