"""A process that asks: ``python -m tests.adversarial.asking URL PRODUCER COUNT POOLS MAX_REQUESTS MAX_WAIT FILE``.

The file has how many asks were taken. A process that was killed begins there again: the ask that may have been taken is
asked once more, under the same id.
"""

from __future__ import annotations

import os
import sys
import time

import redis
from celery import Celery

from claude_batch_tasks import ask
from claude_batch_tasks.errors import StoreUnavailable
from tests.adversarial.crowd_asks import CrowdAsk, follow
from tests.support import ASKED_ONCE


def make_app(url: str, max_requests: int, max_wait: float) -> Celery:
    """Make the app of a process that asks, or waits for what was asked."""
    app = Celery("crowd", broker=url, backend=url, set_as_current=False)
    app.conf.update(
        claude_batch_ask_max_requests=max_requests,
        claude_batch_ask_max_wait=max_wait,
        # A result that is let go after its Redis was restarted must not look for it for twenty seconds.
        result_backend_transport_options={"retry_policy": ASKED_ONCE},
        result_expires=86_400,
    )
    app.loader.import_task_module("claude_batch_tasks.tasks")
    return app


def ask_one(each: CrowdAsk, pools: int) -> None:
    """Ask, and ask again while Redis is away."""
    options = {"link": follow.s(each.prompt)} if each.is_followed else {}
    for attempt in range(300):
        try:
            ask.apply_async((each.params,), {"pool": each.pool(pools)}, task_id=each.id, **options)
        except (StoreUnavailable, redis.RedisError):
            if attempt == 299:
                raise
            time.sleep(0.2)
        else:
            return


def main() -> None:
    """Ask what is left to be asked."""
    url, producer, count, pools, max_requests, max_wait, path = sys.argv[1:]
    make_app(url, int(max_requests), float(max_wait)).set_default()
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    begun = int(os.read(file, 20) or 0)
    for number in range(begun, int(count)):
        ask_one(CrowdAsk(int(producer), number), int(pools))
        os.pwrite(file, b"%012d" % (number + 1), 0)


if __name__ == "__main__":
    main()
