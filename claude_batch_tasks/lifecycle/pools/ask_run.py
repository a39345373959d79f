"""The run of an ask where its outcome becomes final: by Celery's own tracer, so that it ends as any task does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from celery import Celery
from celery.app.task import Context
from celery.app.trace import trace_task
from celery.exceptions import Ignore
from celery.states import FAILURE, SUCCESS

from claude_batch_tasks import errors
from claude_batch_tasks.pool_records import AskPlace
from claude_batch_tasks.steps import message_chain, message_headers, publishing

#: The name of the task.
ASK = message_chain.NAME + "ask"


class AskRun:
    """One run of an ask.

    Args:
        ask_id: its task id.
        place: where it is.
        end: its answer, or the error that it fails with.
        is_lasting: returns whether it was tried so often to send what follows it that it counts as impossible.
        delivery: where the message came from that ends it.
    """

    def __init__(
        self,
        ask_id: str,
        place: AskPlace,
        end: Any,
        *,
        is_lasting: Callable[[], bool] = lambda: False,
        delivery: Mapping[str, Any] | None = None,
    ) -> None:
        self._place, self._end, self._is_lasting, self._delivery = place, end, is_lasting, delivery
        self._ask_id = ask_id
        self._request: Any = None
        self._outage: str | None = None

    def trace(self, app: Celery, hostname: str | None) -> str:
        """Run the ask, as a worker runs a task; return the state in which it has ended.

        Args:
            hostname: the name of the worker.

        Raises:
            TransientError: the broker, or the result back end, does not answer. It is to be run again.
        """
        task: Any = app.tasks[ASK]
        token = _running.set(self)
        try:
            request = dict(vars(make_request(self._ask_id, self._place, hostname, self._delivery)))
            traced = trace_task(task, self._ask_id, (), {}, request, app=app)
        finally:
            _running.reset(token)
        if self._outage is not None:
            raise errors.TransientError(f"the tasks that follow an ask were not sent: {self._outage}")
        if getattr(self._request, "unsaved", False):
            raise errors.TransientError("the result back end did not accept the end of an ask")
        if traced.info is None:
            return SUCCESS
        state = str(traced.info.state)
        return state if state in (SUCCESS, FAILURE) else (FAILURE if isinstance(self._end, Exception) else SUCCESS)

    def belongs_to(self, task: Any) -> bool:
        """Return whether a task is run here as this ask."""
        return str(task.request.id) == self._ask_id

    def end_inside(self, task: Any) -> Any:
        """Return the ask's answer as the return value of its task, after sending what follows it.

        Celery would send that after the task, where an outage of the broker makes a success a failure.

        Raises:
            RequestFailed: it has no answer.
            Exception: what follows it cannot be sent, however often that is tried.
            Ignore: what follows it was not sent: the broker does not answer.
        """
        request = self._request = task.request
        if isinstance(self._end, Exception):
            raise self._end
        try:
            headers = message_headers.headers_of(self._place)
            publishing.send_what_follows(task.app, request, self._end, headers)
        except Exception as exc:  # noqa: BLE001 - whatever keeps it from being sent
            outage = publishing.is_outage(task.app, exc)
            if outage or (outage is None and not self._is_lasting()):
                self._outage = type(exc).__name__
                raise Ignore("what follows it was not sent") from None
            raise publishing.explain_unsent(
                exc,
                f"Ask {self._ask_id} has its answer, which is stored. The tasks that follow it were not sent: send "
                "them yourself. Do not ask again",
            ) from None
        request.callbacks = request.chain = None
        return self._end


_running: ContextVar[AskRun | None] = ContextVar("ask_run", default=None)


def run_of(task: Any) -> AskRun | None:
    """Return the run of an ask that calls this task in this process; None: a message of a broker, or a user, does."""
    run = _running.get()
    return run if run is not None and run.belongs_to(task) else None


def make_request(
    ask_id: str, place: AskPlace, hostname: str | None, delivery: Mapping[str, Any] | None = None
) -> Context:
    """Return the request of an ask as its task sees it, made of what the caller gave.

    Args:
        hostname: the name of the worker.
        delivery: where the message came from that ends it.
    """
    headers, stamps = message_headers.headers_of(place), message_chain.stamp_options(place)
    request = message_chain.request_of(place, ask_id, ASK)
    own = {
        "stamped_headers": stamps.pop("stamped_headers", None),
        "stamps": stamps or None,
        "headers": headers or None,
        "hostname": hostname,
        "correlation_id": ask_id,
        "delivery_info": dict(delivery or {}),
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "ignore_result": bool(request.ignore_result),
    }
    request.update({**headers, **own})
    message_headers.hand_on_headers(request)
    request.update(args=(), kwargs={}, called_directly=False)
    return request
