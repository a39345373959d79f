"""The task ``ask``: it ends with a reference to its answer, where the code that knows its end runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from celery.exceptions import Ignore

from claude_batch_tasks import errors
from claude_batch_tasks.errors import BudgetSpent, InvalidRequests, InvalidSettings
from claude_batch_tasks.lifecycle.pools import ask_run
from claude_batch_tasks.steps import job_task, message_chain, routing
from claude_batch_tasks.tasks.asks import eager_asks
from claude_batch_tasks.tasks.asks.ask_calls import AskCalls
from claude_batch_tasks.tasks.asks.checking import check_ask
from claude_batch_tasks.tasks.asks.send_ask import store_ask


class Ask(AskCalls):
    """The task ``ask``. Its message, if it came by one, is put into a pool; the task runs when its answer is there."""

    abstract = True
    # An end as others are: no error in a worker's log.
    throws = (errors.RequestFailed,)
    _trace: Callable[..., Any] | None = None

    @property
    def __trace__(self) -> Callable[..., Any] | None:
        """The function with which Celery runs a message; as that of ``run_batch``."""
        return self._trace

    @__trace__.setter
    def __trace__(self, trace: Callable[..., Any] | None) -> None:
        self._trace = None if trace is None else partial(_run_message, trace)

    def take_message(self, params: Any, options: Mapping[str, Any]) -> Exception:
        """Put an ask into its pool that came by a message, from an app that does not know this task's class.

        Returns:
            What is to be raised: Ignore, since it runs again when it ends, or what is wrong with it.

        Raises:
            StoreUnavailable: nothing was stored.
        """
        request: Any = self.request
        args = () if params is None else (params,)
        sent = message_chain.options_of_request(request)
        route = routing.find_route_of_message(request.delivery_info)
        sent |= routing.merge_options(route) | {"expires": request.expires}
        try:
            store_ask(self.app, check_ask(self.app, str(request.id), args, options), sent, vars(request))
        except (BudgetSpent, InvalidRequests, InvalidSettings, TypeError) as exc:
            self._forget_params()
            return exc.with_traceback(None)
        return Ignore("it is in its pool")

    def _forget_params(self) -> None:
        """Remove the params from a message that fails: back ends and trackers show its arguments."""
        request: Any = self.request
        if isinstance(request.args, list):
            request.args[:] = ["(params)"] * bool(request.args)
        elif request.args:  # as from pickle
            request.update(args=("(params)",))
        if "params" in (request.kwargs or {}):
            request.kwargs["params"] = "(params)"
        request.update(argsrepr=None, kwargsrepr=None)  # they are made anew from the arguments


def _run_message(
    trace: Callable[..., Any], task_id: str, args: Any, kwargs: Any, request: Mapping[str, Any] | None = None
) -> Any:
    """Run the task, under an id of its own if it only takes a message: signals of its start are for its end."""
    return trace(f"{task_id}-begin" if args or kwargs else task_id, args, kwargs, request)


@job_task(base=Ask, name=routing.ASK)
def ask(self: Ask, params: Any = None, **options: Any) -> Any:
    """Ask for one answer, at the price of a batch: it is sent with others, and comes when their batch has ended.

    Args:
        params: the params of one request, as the Messages API takes them.
        options: ``pool``, a name; ``ask_max_wait`` and the other settings of pools; and all options of ``run_batch``.
            ``AskOptions`` has them, with their types.

    Returns:
        A reference to the answer; ``get()`` of its AsyncResult returns the ``RequestResult`` itself.

    Raises:
        RequestFailed: there is no answer; the text says why.
    """
    if (run := ask_run.run_of(self)) is not None:
        return run.end_inside(self)
    if self.request.is_eager:
        found = check_ask(self.app, str(self.request.id), () if params is None else (params,), options)
        return eager_asks.run_ask(self.app, found)
    raise self.take_message(params, options)
