"""The asks of the crowd: id, pool, prompt and fate of each follow from its number, so that nobody has to note them.

Also what workers run after an ask, and how they count its ends: they have this module as their ``--include``.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, uuid5

import redis
from celery import shared_task
from celery.signals import task_failure, task_success

from tests.factories import make_params
from tests.support import is_worker

ASK = "claude_batch_tasks.ask"

#: Where it is counted how often an ask ended, and how often the task after it ran, by id.
ENDED, FOLLOWED = "crowd:ended", "crowd:followed"

#: So many pools have an ask because of which a create is refused.
POISONED = 3

#: How many numbers apart are asks that a task follows.
EVERY = 10


class CrowdAsk(NamedTuple):
    """One ask of the crowd."""

    producer: int
    number: int

    @property
    def id(self) -> str:
        return str(uuid5(NAMESPACE_URL, f"{self.producer}/{self.number}"))

    @property
    def fate(self) -> str:
        """What becomes of it.

        ``poison``: a create that has it is refused. ``invalid``: it fails for good. ``late``, ``busy``: it expires, or
        is refused, the first time. ``good``: it is answered.
        """
        if self.producer < POISONED and self.number == 23:
            return "poison"
        return {3: "invalid", 11: "late", 19: "busy"}.get(self.number % 40, "good")

    @property
    def fails(self) -> bool:
        return self.fate in ("invalid", "poison")

    @property
    def prompt(self) -> str:
        return f"{self.fate} question {self.number} of producer {self.producer}"

    @property
    def params(self) -> dict[str, Any]:
        return make_params(self.prompt, max_tokens=64)

    @property
    def is_followed(self) -> bool:
        return self.number % EVERY == 0

    def pool(self, pools: int) -> str:
        return f"pool-{(self.producer + self.number) % pools}"


@shared_task(name="crowd.follow", ignore_result=True, acks_late=True)
def follow(answer: Any, prompt: str) -> None:
    """Count that the answer has come to the task after the ask, and is that of its prompt."""
    fits = answer.text.rstrip(".") == f"Echo: {prompt}"
    redis.Redis.from_url(os.environ["CELERY_BROKER_URL"]).hincrby(FOLLOWED, prompt if fits else answer.text, 1)


def _count_end(sender: Any = None, task_id: str | None = None, **_: Any) -> None:
    """Count the end of an ask, as a worker's handler of Celery's signals is told of it."""
    if sender is not None and sender.name == ASK:
        task_id = task_id or sender.request.id
        redis.Redis.from_url(os.environ["CELERY_BROKER_URL"]).hincrby(ENDED, str(task_id), 1)


if is_worker() and os.environ.get("CROWD_COUNTS"):
    task_success.connect(_count_end)
    task_failure.connect(_count_end)
