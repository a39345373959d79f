"""How an ask gets into a pool: what is checked at the caller, and which asks are in one pool."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from celery import Celery

from claude_batch_tasks import outputs
from claude_batch_tasks.errors import InvalidRequests, InvalidSettings
from claude_batch_tasks.lifecycle import delivery, submission
from claude_batch_tasks.pool_records import Ask, AskPlace, PoolLimits, PoolRecord
from claude_batch_tasks.pricing import request_bounds, spending
from claude_batch_tasks.rules import urgency
from claude_batch_tasks.settings import NAMES, Settings, check_label, check_metadata, spelling
from claude_batch_tasks.store import Store, open_store
from claude_batch_tasks.wire import batch_requests

#: The options of an ask that say how its pool is chosen and closed; all others are those of a job.
_OF_POOLS = frozenset(name for name in NAMES if name.startswith("ask_"))

#: What is not among the options of a pool's job.
_NOT_OF_JOB = ("client", "pool")

#: What the label of a pool's job begins with.
LABEL = "pool:"


class AskPlan(NamedTuple):
    """What asks with the same options have in common."""

    settings: Settings
    """Those of the job, with the options of pools."""
    name: str
    """The name of the pool."""
    client: str
    options: dict[str, Any]
    """The options of the job, as messages can carry them; without the deadline."""
    limits: PoolLimits
    prepare: batch_requests.Prepare | None
    hash: bytes
    """Of all that is above, as far as it makes a pool."""

    @property
    def mode(self) -> str:
        """How the asks are answered."""
        return self.settings.ask_mode


#: The plans of each app: what they were made of, and the plans themselves. To make one takes longer than to ask.
_plans: WeakKeyDictionary[Celery, dict[Any, AskPlan]] = WeakKeyDictionary()

#: The most plans of an app that are kept.
_MOST_PLANS = 256


def plan_asks(app: Celery, options: Mapping[str, Any]) -> AskPlan:
    """Check the options of an ask, and return what they mean.

    Args:
        options: those of ``AskOptions``.

    Raises:
        InvalidSettings: the text says what is wrong with them.
    """
    conf: Any = app.conf
    of_pool = {name: value for name, value in options.items() if name != "deadline"}
    hook = delivery.encode_hook(of_pool.get("on_result"))  # its repr leaves out where it is sent
    made_of = repr(of_pool), hook, repr(spelling.read_configured(app)), conf.result_backend, conf.broker_url
    plans = _plans.setdefault(app, {})
    if (found := plans.get(made_of)) is None:
        found = _make_plan(app, outputs.name_options(of_pool))
        if len(plans) >= _MOST_PLANS:
            plans.clear()
        plans[made_of] = found
    return found


def _make_plan(app: Celery, options: Mapping[str, Any]) -> AskPlan:
    own = {name: options[name] for name in _OF_POOLS & options.keys()}
    rest = {name: value for name, value in options.items() if name not in own and name not in _NOT_OF_JOB}
    name, client = _check_name(options.get("pool")), options.get("client", "default")
    settings = Settings.of(app)
    if own:
        settings = dataclasses.replace(settings, **own)
    job = dict(rest)
    check_label(job.pop("label", None))
    check_metadata(job.pop("metadata", None))
    output = outputs.describe_output(job.pop("output", None), job.pop("check", None))
    if (hook := delivery.encode_hook(called := job.pop("on_result", None))) is not None:
        delivery.check_hook(app, called)
        rest["on_result"] = json.loads(hook)
    settings = settings.override(job)
    settings.check_client(client)
    submission.check_reask(output, job)
    parts = [client, name, settings.ask_mode, rest, own]
    return AskPlan(
        settings=settings,
        name=name,
        client=client,
        options=rest,
        limits=_choose_limits(settings),
        prepare=outputs.make_preparation(output, settings.refusal_model or ()),
        hash=hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest(),
    )


def _check_name(name: Any) -> str:
    """Return the name of a pool; it is a part of its job's label.

    Raises:
        InvalidSettings: it is too long, or no text.
    """
    if name is None:
        return "default"
    if isinstance(name, str) and name:
        with suppress(InvalidSettings):
            check_label(LABEL + name)
            return name
    raise InvalidSettings(f"ask option pool must be a text of 1 to 95 printable characters, not {repr(name)[:80]}")


def _choose_limits(settings: Settings) -> PoolLimits:
    """Return what closes a pool: it is one batch."""
    envelope = sum(map(len, batch_requests.ENVELOPE))
    most = None if settings.ask_max_cost is None else int(settings.ask_max_cost * 1e9)
    return PoolLimits(
        max_requests=min(settings.ask_max_requests, settings.max_requests_per_batch),
        max_bytes=min(settings.ask_max_bytes, settings.max_bytes_per_batch) - envelope,
        # One that is to be answered at once waits for nobody: workers look for due pools every second.
        max_wait=urgency.pooling_wait(settings.ask_max_wait, None, settings.ask_mode),
        max_cost=most,
        window=settings.ask_cost_window,
    )


class CheckedParams(NamedTuple):
    """The params of one ask, checked."""

    body: bytes
    """As they are sent."""
    reserved: int
    """Nano-dollars that the answer may cost at most, if the pool's name has a cost limit."""


def check_params(plan: AskPlan, params: Any) -> CheckedParams:
    """Check the params of an ask as ``run_batch`` checks those of a request.

    Raises:
        InvalidRequests, InvalidSettings: the text says what is wrong; nothing was stored or sent.
    """
    settings = plan.settings
    most = settings.max_bytes_per_batch - sum(map(len, batch_requests.ENVELOPE))
    plain, body = batch_requests.check_params(params, most, plan.prepare)
    if settings.refusal_model and "refusal_model" in plan.options:
        submission.check_refusal_model(settings, plain["model"])
    if settings.max_cost is not None:
        _check_max_cost(settings.max_cost, settings, plain)
    return CheckedParams(body, 0 if settings.ask_max_cost is None else _bound_cost(settings, plain, "ask_max_cost"))


def _check_max_cost(max_cost: float, settings: Settings, params: dict[str, Any]) -> None:
    """Refuse an ask that would not even be sent as a job of its own, because of the option ``max_cost``."""
    _bound_cost(settings, params, "max_cost")
    found = request_bounds.budget_need(params, settings.price_list, batch=True)
    if not isinstance(found, request_bounds.Unbounded) and (least := float(found.input)) > max_cost:
        text = f"the input alone costs about ${least:,.4g}, more than max_cost (${max_cost:,.4g})"
        raise InvalidRequests(f"{text}. Nothing was stored or sent")


def _bound_cost(settings: Settings, params: dict[str, Any], limited: str) -> int:
    """Return the most that an answer may cost, in nano-dollars.

    Args:
        limited: the limit for which it must be known.
    """
    through_batches = settings.ask_mode == "batch" and settings.fallback == "off"
    found = request_bounds.budget_need(params, settings.price_list, batch=through_batches)
    if isinstance(found, request_bounds.Unbounded):
        text = f"{limited} cannot be guaranteed: {found.why}, or leave {limited} out ({found.field})"
        raise InvalidRequests(f"{text}. Nothing was stored or sent", [[None, None, found.field, found.why]])
    return spending.to_nano_dollars(found.most)


class AskTimes(NamedTuple):
    """When an ask is to be sent and answered, epoch seconds."""

    starts_at: float | None = None
    """Not before; None: at once."""
    expires_at: float | None = None
    """Not after."""
    deadline: float | None = None
    """When its answer is wanted."""

    def count_seconds(self, now: Callable[[], float]) -> float | None:
        """Return how many seconds there are for the answer; None: any number."""
        return None if self.deadline is None else self.deadline - (now() if self.starts_at is None else self.starts_at)


def put_into_pool(
    app: Celery,
    plan: AskPlan,
    checked: CheckedParams,
    ask_id: str,
    new_id: str,
    times: AskTimes,
    *,
    queue: str | None,
    route: str | None,
    canvas: str = "{}",
    headers: str | None = None,
) -> AskPlace:
    """Put an ask into the open pool of its kind, in one round trip to the store.

    Args:
        ask_id: the id of its task.
        new_id: the id of the pool, if it opens one.
        queue, route, canvas, headers: as for ``submission.submit_job``.

    Raises:
        BudgetSpent: the asks of this pool's name may cost no more for now.
        StoreUnavailable: the store does not answer.
    """
    store = open_store(plan.settings)
    due_at = _due_at(times, plan, store.now)
    record = PoolRecord(
        name=plan.name,
        client=plan.client,
        queue=queue,
        route=route,
        options=plan.options,
        mode="messages" if plan.mode == "messages" else "batch",
        deadline=times.deadline,
        starts_at=0.0 if times.starts_at is None else due_at,
        due_at=due_at,
    )
    ask = Ask(
        id=ask_id,
        params=checked.body,
        expires_at=times.expires_at,
        canvas=canvas,
        headers=headers,
        reserved=checked.reserved,
    )
    size = len(checked.body) + batch_requests.ITEM_BYTES
    key = _make_key(plan, route, times, store.now)
    return store.pools.add_ask(key, record, new_id, ask, size, plan.limits)


def _due_at(times: AskTimes, plan: AskPlan, now: Callable[[], float]) -> float:
    """Return when the pool of an ask is due; 0: when its first ask is old enough.

    A pool of asks that start at about the same time is due at the end of that time.
    """
    if times.starts_at is not None:
        width = _choose_width(plan, times, now)
        return (times.starts_at // width + 1) * width
    if times.deadline is None:
        return 0.0
    begun = now()
    return begun + urgency.pooling_wait(plan.limits.max_wait, times.deadline - begun, plan.mode)


def _choose_width(plan: AskPlan, times: AskTimes, now: Callable[[], float]) -> float:
    """Return by how many seconds the starts of asks in one pool differ at most, for one bucket of deadlines."""
    bucket = urgency.deadline_bucket(times.count_seconds(now))
    left = None if bucket is None else float(1 << bucket >> 1)
    return max(urgency.pooling_wait(plan.limits.max_wait, left, plan.mode), 1.0)


def _make_key(plan: AskPlan, route: str | None, times: AskTimes, now: Callable[[], float]) -> str:
    """Return what the asks of one pool have in common, as a hash."""
    made = hashlib.sha256(plan.hash)
    made.update((route or "").encode())
    if times.starts_at is not None:
        made.update(b"\0start %d" % (times.starts_at // _choose_width(plan, times, now)))
    if (bucket := urgency.deadline_bucket(times.count_seconds(now))) is not None:
        made.update(b"\0deadline %d" % bucket)
    return made.hexdigest()[:32]


def find_pool_id(store: Store, ask_id: str) -> str | None:
    """Return the job or pool that an ask is in; None: the store does not know it."""
    place = store.asks.read_places([ask_id])[0]
    return None if place is None else place.job_id
