"""Projects that give their tasks a class of their own, of one kind each: ``-A tests.frameworks.bases``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, ClassVar

import anthropic
from celery import Celery, Task, shared_task
from celery.signals import task_postrun, task_prerun
from celery.worker.request import Request

from claude_batch_tasks import run_batch, signals, transport
from claude_batch_tasks.settings import configuration

#: Where it is written down what was called: the kind of call, a task's name, and more.
TOLD = "bases:told"


def tell(app: Celery, *what: Any) -> None:
    """Write it down."""
    app.backend.client.rpush(TOLD, json.dumps(what))


class Context:
    """What the code of a project must run inside, as Flask's ``app_context()``."""

    depth: ClassVar[ContextVar[int]] = ContextVar("depth", default=0)

    @classmethod
    @contextmanager
    def entered(cls) -> Iterator[None]:
        """Enter it."""
        token = cls.depth.set(cls.depth.get() + 1)
        try:
            yield
        finally:
            cls.depth.reset(token)


class Runs(Task):
    """Calls ``run`` by itself, as Flask's documentation has it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with Context.entered():
            return self.run(*args, **kwargs)


class CallsSuper(Task):
    """Calls what Celery would."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with Context.entered():
            return super().__call__(*args, **kwargs)


class Hooked(Task):
    """Is told of what becomes of a task."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        tell(self.app, "before_start", self.name, task_id)

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        tell(self.app, "on_success", self.name, task_id)

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        tell(self.app, "on_failure", self.name, task_id, type(exc).__name__)

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        tell(self.app, "on_retry", self.name, task_id)

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        tell(self.app, "after_return", self.name, task_id, status)


class Reports(Task):
    """Tells a tracker of everything that is raised."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.run(*args, **kwargs)
        except BaseException as exc:
            tell(self.app, "raised", self.name, type(exc).__name__)
            raise


class Skips(Task):
    """Does not run a task the first time, without a word; fails after its end the second time."""

    calls: ClassVar[dict[str, int]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = self.calls[str(self.name)] = self.calls.get(str(self.name), 0) + 1
        if call == 1:
            return None
        value = self.run(*args, **kwargs)
        if call == 2:
            raise RuntimeError("the transaction could not be committed")
        return value


class Tenant(Task):
    """Has a task run for the tenant for whom it was sent, as tenant-schemas-celery has it."""

    current: ClassVar[str] = "public"

    @classmethod
    def known(cls, name: str) -> str:
        """Return a tenant, as only a task of this class can."""
        return name

    def apply_async(self, args: Any = None, kwargs: Any = None, *arg: Any, **kw: Any) -> Any:
        kw["headers"] = {"_schema_name": Tenant.current, **(kw.get("headers") or {})}
        return super().apply_async(args, kwargs, *arg, **kw)


def _enter(task: Any = None, **_: Any) -> None:
    Tenant.current = task.known(task.request.headers["_schema_name"])
    tell(task.app, "tenant", task.name, Tenant.current)


def _leave(task: Any = None, **_: Any) -> None:
    Tenant.current = task.known("public")


class Requested(Request):
    """Holds a message in a worker, as Celery's documentation has it."""

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        super().on_accepted(pid, time_accepted)
        tell(self.app, "request", self.name, pid)


class HasRequest(Task):
    """Has a class of its own for messages."""

    Request = "tests.frameworks.bases:Requested"


def note_failure(self: Any, exc: Any, task_id: str, *args: Any) -> None:
    """Be told of a failure, by ``task_annotations``."""
    tell(self.app, "annotated", self.name, task_id)


class Never(Task):
    """Does not run a task of some name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return None if str(self.name).endswith("poll_batch") else self.run(*args, **kwargs)


class PutsOff(Task):
    """Has a task come back later, while something that it needs is not there."""

    calls: ClassVar[dict[str, int]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = self.calls[str(self.name)] = self.calls.get(str(self.name), 0) + 1
        if call <= 2:
            return self.retry(exc=RuntimeError("not there yet"), countdown=0.3)
        return super().__call__(*args, **kwargs)


class OfUser(Task):
    """Marks messages with the user, whom a task must have."""

    user: ClassVar[str | None] = None

    def apply_async(self, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> Any:
        if OfUser.user:
            options["headers"] = {**(options.get("headers") or {}), "user": OfUser.user}
            options.setdefault("queue", OfUser.user)
        return super().apply_async(args, kwargs, *more, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tell(self.app, "user", self.name, (self.request.headers or {}).get("user"))
        return self.run(*args, **kwargs)


class AfterCommit(Task):
    """Sends messages when the transaction is committed, and returns nothing."""

    waiting: ClassVar[list[Callable[[], Any]] | None] = None

    def at_once(self, *args: Any, **options: Any) -> Any:
        """Send it now."""
        return super().apply_async(*args, **options)

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> None:
        send = partial(self.at_once, args=args, kwargs=kwargs, **options)
        if AfterCommit.waiting is None:
            send()
        else:
            AfterCommit.waiting.append(send)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with transaction(commits=False):  # as a view does, whatever is raised
            return self.run(*args, **kwargs)


@contextmanager
def transaction(*, commits: bool) -> Iterator[None]:
    """Have what is sent wait for its end."""
    AfterCommit.waiting = []
    try:
        yield
    finally:
        waiting, AfterCommit.waiting = AfterCommit.waiting, None
    for send in waiting if commits else ():
        send()


class Refuses(Task):
    """Takes no task from some callers."""

    def apply_async(self, *args: Any, **options: Any) -> Any:
        raise PermissionError("not for you")


class Clashes(Task):
    """Has something of a name that ours use."""

    store = "the shop's"


KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        Task,
        Runs,
        CallsSuper,
        Hooked,
        Reports,
        Skips,
        Never,
        PutsOff,
        Tenant,
        HasRequest,
        OfUser,
        AfterCommit,
        Refuses,
        Clashes,
    )
}


def make(kind: str, **config: Any) -> Celery:
    """Make the app of a project."""
    app = Celery("bases", task_cls=KINDS[kind], set_as_current=False)
    app.config_from_object({**configuration(), "broker_connection_retry_on_startup": True, **config})
    app.loader.import_task_module("claude_batch_tasks.tasks")
    return app


def client() -> anthropic.Anthropic:
    """Make the client."""
    tell(app, "client", "", Context.depth.get())
    if Context.depth.get() != 1:
        raise RuntimeError("outside of the context")
    return anthropic.Anthropic()


@shared_task(name="plain")
def plain(*args: Any) -> str:
    """Do what a plain task does."""
    return "plain"


@shared_task(name="fails")
def fails(*args: Any) -> None:
    """Fail."""
    raise ValueError("a plain task failed")


@shared_task(name="calls_job")
def calls_job(one: Any) -> Any:
    """Call ``run_batch`` as a function."""
    return run_batch(one)


@shared_task(name="save", bind=True)
def save(self: Task[Any, Any], job_id: str, custom_ids: list[str]) -> None:
    """Be called with results."""
    tell(self.app, "on_result", "save", Context.depth.get())


def _listen(name: str) -> None:
    def told(sender: Any, **_: Any) -> None:
        tell(sender.app, name, sender.name, Context.depth.get())

    getattr(signals, name).connect(told, weak=False)


if found := os.environ.get("BASES_KIND"):
    transport.install()
    app = make(found, **json.loads(os.environ.get("BASES_CONF", "{}")))
    app.set_default()
    if found == "Tenant":
        task_prerun.connect(_enter)
        task_postrun.connect(_leave)
    if os.environ.get("BASES_ANNOTATED"):
        app.conf.task_annotations = {"*": {"on_failure": note_failure, "expires": 0.01, "max_retries": 1}}
    for _name in ("batch_created", "batch_ended", "results_published", "not_found_seen", "job_finished"):
        _listen(_name)
