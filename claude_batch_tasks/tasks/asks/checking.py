"""What is checked of a call of ``ask`` before anything is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from celery import Celery

from claude_batch_tasks import errors
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.lifecycle.pools import adding
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import open_store
from claude_batch_tasks.tasks import call_options


class CheckedAsk(NamedTuple):
    """An ask that was checked and is not stored yet."""

    ask_id: str
    plan: adding.AskPlan
    params: adding.CheckedParams
    deadline: Any

    @property
    def simulated(self) -> bool:
        """Whether it is answered at once by a simulator."""
        return self.plan.mode == "eager-simulator"


def read_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the params and the options of a call of ``ask``.

    Raises:
        TypeError: there are no params, or more than them.
    """
    refusal = "ask takes the params of one request, and options by keyword"
    return call_options.read_argument("params", args, kwargs, refusal)


def refuse_limits(options: Mapping[str, Any]) -> None:
    """Refuse a limit for one run of a task: an ask only runs when its answer is there.

    Raises:
        InvalidSettings: such a limit was given.
    """
    advice = "and would not limit how long the answer takes. Use deadline, or max_wait"
    call_options.refuse_limits("ask", options, f"{advice} (ask.delay(params, max_wait=7200))")


def check_ask(app: Celery, ask_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CheckedAsk:
    """Check the arguments of ``ask``.

    Raises:
        TypeError, InvalidRequests, InvalidSettings: the text says what is wrong; nothing was stored or sent.
    """
    params, options = read_arguments(args, kwargs)
    with naming_ask():
        plan = adding.plan_asks(app, options)
        deadline = options.get("deadline", plan.settings.deadline)
        read_deadline(plan.settings, deadline)  # the ask may be stored later, after a commit
        return CheckedAsk(ask_id, plan, adding.check_params(plan, params), deadline)


@contextmanager
def naming_ask() -> Iterator[None]:
    """Have errors about options name the task that was called."""
    try:
        yield
    except errors.InvalidSettings as exc:
        raise errors.InvalidSettings(str(exc).replace("run_batch option", "ask option")) from None


def read_deadline(settings: Settings, deadline: Any) -> float | None:
    """Return the seconds until an answer is wanted; None: it may come at any time.

    Args:
        deadline: as the caller gave it.

    Raises:
        InvalidSettings: it is no deadline.
        StoreUnavailable: the store, whose clock counts, does not answer.
    """
    if deadline is None:
        return None
    left = submission.seconds_until(deadline, lambda: open_store(settings).now())
    return settings.override({"deadline": left}).deadline
