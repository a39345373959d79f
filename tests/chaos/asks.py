"""Single requests in a run: what is asked and when, drawn by a Random of their own: jobs are as if nobody asked."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal
from uuid import NAMESPACE_OID, uuid5

import redis
from celery import Celery, chain, signature
from kombu.exceptions import OperationalError

from claude_batch_tasks.errors import BatchTasksError, StoreUnavailable
from claude_batch_tasks.simulator import Refusal

#: The name of the task.
ASK = "claude_batch_tasks.ask"

#: What the API says to a create that has a poisonous request.
POISONOUS = "It is poisonous"

#: Of a seed's options, what is not for asks: each of these pools is one batch.
_OF_JOBS = ("max_requests_per_batch", "max_batches_in_flight")

#: Who passes points only because of asks, and what is passed only then.
_PASSED_BY = ("ask", "pools", "revokes", "seal_pool")
_PASSED = ("store.asks.", "store.pools.", "seal_pool", "storage.delete_job", "find_outcomes", "REVOKED")


@dataclass(frozen=True)
class Asked:
    """One ``ask.delay``."""

    number: int
    at: float
    options: dict[str, Any]
    #: How a task follows: ``link``, ``chain`` or not at all. Where one does, another follows a failure.
    follow: Literal["", "link", "chain"] = ""
    #: A create that has it is refused.
    poisonous: bool = False
    #: Options of ``apply_async``.
    sending: dict[str, float] = field(default_factory=dict)
    revoke_at: float | None = None
    #: ``cancel``, by the caller, who learns what came of it, or ``revoke``, by the workers.
    revoke_by: Literal["cancel", "revoke"] = "cancel"

    def id(self, seed: int) -> str:
        """Return the id of its task: asked again under it, it is asked once."""
        return str(uuid5(NAMESPACE_OID, f"seed {seed} ask {self.number}"))

    def prompt(self, seed: int) -> str:
        """Return a text of its own, as that of each request of a job."""
        return f"seed {seed} ask {self.number}{' poison' * self.poisonous}"


def is_about_asks(point: str) -> bool:
    """Return whether a crash point is passed only where somebody asks."""
    who, _, what = point.partition(": ")
    return who in _PASSED_BY or any(name in what for name in _PASSED)


def draw_asks(random: Random, options: Mapping[str, Any], *, few: bool, all_kinds: bool) -> tuple[Asked, ...]:
    """Draw the asks of a run.

    Args:
        options: those of its jobs that the weather brings.
        few: the workers are slow.
        all_kinds: whether none of what asks may meet is left to chance.
    """
    own = {name: value for name, value in options.items() if name not in _OF_JOBS}
    kinds = [_draw_options(random, number, own) for number in range(1 if few else random.randint(1, 3))]
    asks = [_draw_ask(random, number, random.choice(kinds)) for number in range(random.randint(2, 4 if few else 9))]
    if all_kinds:
        asks = [*asks, *_one_of_each(len(asks), kinds[0])]
    elif few:
        asks = [each for each in asks if not each.poisonous]
    return tuple(sorted(asks, key=lambda each: each.at))


def draw_refusals(random: Random, asks: tuple[Asked, ...]) -> dict[str, Any]:
    """Return what a simulator does about poisonous asks: its error may say which it is."""
    if not any(each.poisonous for each in asks):
        return {}
    return {"refusals": (Refusal("poison$", message=POISONOUS, named=random.random() < 0.3),)}


def _draw_options(random: Random, number: int, own: Mapping[str, Any]) -> dict[str, Any]:
    options = {
        **own,
        "pool": f"pool {number}",
        "ask_max_requests": random.randint(2, 6),
        "ask_max_wait": round(random.uniform(0.1, 0.5), 2),
    }
    if random.random() < 0.5:
        options["retries"] = random.randint(0, 2)
    if random.random() < 0.15:
        options["fallback"] = "off"
    if random.random() < 0.25:
        options["ask_max_cost"] = 1.0
    if random.random() < 0.1:
        options["ask_mode"] = "messages"
    return options


def _draw_ask(random: Random, number: int, options: dict[str, Any]) -> Asked:
    deadline = random.choice([*[None] * 6, 0.4, 3.0, 7200.0])
    at = 0.0 if random.random() < 0.5 else round(random.uniform(0, 1.2), 2)
    return Asked(
        number,
        at,
        options if deadline is None else {**options, "deadline": deadline},
        random.choice(["", "", "link", "chain"]),  # type: ignore[arg-type]
        poisonous=random.random() < 0.1,
        sending=random.choice([*[{}] * 8, {"expires": 0.2}, {"countdown": 0.5}]),
        revoke_at=round(at + random.uniform(0.02, 1.0), 2) if random.random() < 0.2 else None,
        revoke_by=random.choice(["cancel", "revoke"]),  # type: ignore[arg-type]
    )


def _one_of_each(first: int, options: dict[str, Any]) -> list[Asked]:
    plain = {name: value for name, value in options.items() if name not in ("fallback", "ask_mode")}
    plain |= {"ask_max_requests": 6, "ask_max_wait": 0.4}
    return [
        Asked(first, 0.0, plain, "link"),
        Asked(first + 1, 0.0, plain, "chain"),
        Asked(first + 2, 0.0, plain, "link", poisonous=True),
        Asked(first + 3, 0.0, {**plain, "pool": "dear", "ask_max_cost": 1.0}),
        Asked(first + 4, 0.0, plain, revoke_at=0.15),
        Asked(first + 5, 0.0, plain, revoke_at=0.2, revoke_by="revoke"),
        Asked(first + 6, 0.0, plain, revoke_at=1.2, revoke_by="revoke"),
        Asked(first + 7, 0.0, plain, sending={"expires": 0.2}),
        Asked(first + 8, 0.2, {**plain, "deadline": 2.0}, "link"),
    ]


def submit_ask(app: Celery, each: Asked, seed: int, params: dict[str, Any]) -> None:
    """Ask, and ask again while Redis is away."""
    heard = signature("tests.chaos.heard", (str(each.number),), queue="notes", app=app)
    failed = signature("tests.chaos.failed", (str(each.number),), immutable=True, queue="notes", app=app)
    sending: dict[str, Any] = {"task_id": each.id(seed), **each.sending}
    if each.follow:
        sending["link_error"] = failed
    if each.follow == "link":
        sending["link"] = heard
    asking = app.tasks[ASK].s(params, **each.options).set(**sending)
    for attempt in range(40):
        try:
            (chain(asking, heard) if each.follow == "chain" else asking).apply_async()
        except (StoreUnavailable, OperationalError, redis.RedisError):
            if attempt == 39:
                raise
            time.sleep(0.25)
        else:
            return


def revoke_ask(app: Celery, each: Asked, seed: int) -> bool | None:
    """Revoke an ask; return whether it will never be sent, None if that is not known."""
    ask_id = each.id(seed)
    with suppress(BatchTasksError, OperationalError, redis.RedisError):
        if each.revoke_by == "cancel":
            return bool(app.tasks[ASK].AsyncResult(ask_id).cancel())
        app.control.revoke(ask_id)
    return None
