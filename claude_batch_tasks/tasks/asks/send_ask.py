"""How an ask gets into its pool: checked, then stored in one round trip. No message is sent for it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from celery import Celery
from celery.result import AsyncResult
from celery.signals import after_task_publish, before_task_publish
from celery.utils import uuid
from kombu.utils.functional import maybe_list

from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.lifecycle.pools import adding
from claude_batch_tasks.steps import by_name, message_chain, message_headers, routing
from claude_batch_tasks.steps.task_classes import InnerTask
from claude_batch_tasks.store import open_store
from claude_batch_tasks.tasks.asks import eager_asks
from claude_batch_tasks.tasks.asks.checking import CheckedAsk, check_ask, naming_ask, read_deadline
from claude_batch_tasks.tasks.call_options import read_delay, read_expiry

#: The ask that is being sent: the app's task class sends it, at once or later.
checked_ask: ContextVar[CheckedAsk | None] = ContextVar("checked", default=None)


class SendAsk(InnerTask):
    """The class that puts an ask into its pool when the app's task class lets it: after a commit, or never."""

    abstract = True

    def apply_async(
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None, *more: Any, **options: Any
    ) -> AsyncResult[Any]:
        """Put the ask into its pool, and return its AsyncResult."""
        options = {**options, **by_name(more)}
        if self.app.conf.task_always_eager:
            return super().apply_async(args, kwargs, task_id=task_id, **options)
        task: Any = self
        options = {**task._get_exec_options(), **options}
        found = checked_ask.get()
        if found is None or found.ask_id != task_id:
            found = check_ask(self.app, str(task_id or uuid()), tuple(args or ()), kwargs or {})
        result: Any = task.AsyncResult(found.ask_id)
        parent = self.app.current_worker_task
        if parent is not None:
            options = _follow_parent(self.app, parent, options)
        with _published_signals(self.name, found.ask_id, options) as headers:
            if found.simulated:
                result = eager_asks.end_ask(self.app, found, *encode_caller(self.app, options, headers))
            else:
                with _explained_outage(found.ask_id):
                    settings, place = found.plan.settings, store_ask(self.app, found, options, headers)
                    result.expect_place(place, settings, open_store(settings).transactions.current())
        result.ignored = bool(options.get("ignore_result", self.ignore_result))
        if parent is not None and options.get("add_to_parent", True):
            parent.add_trail(result)
        sent: AsyncResult[Any] = result
        return sent


@contextmanager
def _explained_outage(ask_id: str) -> Iterator[None]:
    """Have the error of a store that does not answer say how to ask again without paying twice."""
    try:
        yield
    except StoreUnavailable as exc:
        if type(exc) is not StoreUnavailable:
            raise
        what = str(exc).rstrip(".")
        text = (
            f"{what}. It is not known whether ask {ask_id} is in its pool. When the store answers, ask again under the "
            f"same id, which asks once: ask.apply_async((params,), options, task_id={ask_id!r})"
        )
        raise StoreUnavailable(text) from None


def store_ask(app: Celery, found: CheckedAsk, options: Mapping[str, Any], headers: Mapping[str, Any]) -> Any:
    """Put a checked ask into its pool, and return where it is.

    Args:
        options: those of ``apply_async``.
        headers: the headers of its message, if it had one.

    Raises:
        BudgetSpent, InvalidSettings, StoreUnavailable: nothing was stored.
    """
    with naming_ask():
        message_headers.encode_headers(options.get("headers"))  # refuses what cannot be carried
        route = routing.find_ask_route(app, options)
        canvas, carried = encode_caller(app, options, headers)
        times = _read_times(app, found, options)
    return adding.put_into_pool(
        app,
        found.plan,
        found.params,
        found.ask_id,
        uuid(),
        times,
        queue=routing.queue_name(route),
        route=routing.encode_route(route),
        canvas=canvas,
        headers=carried,
    )


def encode_caller(app: Celery, options: Mapping[str, Any], headers: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return an ask's place in the caller's canvas, and its headers, in the form in which they are stored."""
    canvas = {name: value for name, value in options.items() if name not in ("link", "link_error")}
    canvas |= {name: maybe_list(options.get(name)) for name in ("link", "link_error")}
    if str(app.conf.result_backend).startswith("rpc"):
        canvas.setdefault("reply_to", app.thread_oid)
    return message_chain.encode_canvas(canvas), message_headers.carry_headers(headers)


def _read_times(app: Celery, found: CheckedAsk, options: Mapping[str, Any]) -> adding.AskTimes:
    """Return when the ask is to be sent and answered."""
    store = open_store(found.plan.settings)
    delay, expires_at, deadline = read_delay(app, options), read_expiry(app, options), None
    if expires_at is not None:  # by the store's clock
        expires_at += store.now() - time.time()  # noqa: TID251 - Celery's options go by this machine's
    if (left := read_deadline(found.plan.settings, found.deadline)) is not None:
        deadline = store.now() + left
    return adding.AskTimes(store.now() + delay if delay > 0 else None, expires_at, deadline)


def _follow_parent(app: Celery, parent: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with what a task that is called in another has of it, as Celery's ``send_task`` does it."""
    request = parent.request
    found = {**options}
    found["root_id"] = options.get("root_id") or request.root_id or request.id
    found["parent_id"] = options.get("parent_id") or request.id
    if app.conf.task_inherit_parent_priority:
        found.setdefault("priority", (request.delivery_info or {}).get("priority"))
    return found


@contextmanager
def _published_signals(name: str, ask_id: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Send the signals of a message that is published, around the ask, and yield its headers.

    No message is sent, but handlers of these signals add headers (of a trace, of a tenant) that belong to the ask.
    """
    headers = dict(options.get("headers") or {})
    if not (before_task_publish.receivers or after_task_publish.receivers):
        yield headers
        return
    root = options.get("root_id") or ask_id
    headers |= {"lang": "py", "task": name, "id": ask_id, "root_id": root, "parent_id": options.get("parent_id")}
    headers |= {"argsrepr": "()", "kwargsrepr": "{}"}
    shown = {"sender": name, "exchange": "", "routing_key": options.get("queue") or ""}
    body: Any = ((), {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None})
    before_task_publish.send(**shown, body=body, headers=headers, properties={}, declare=[], retry_policy={})
    yield headers
    after_task_publish.send(**shown, body=body, headers=headers)
