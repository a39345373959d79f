"""What applications do with jobs in a run: submit and cancel them.

``released`` runs this file with an earlier release's package too, so it names nothing that one of them lacks.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import redis
from celery import Celery, chain, signature
from kombu.exceptions import OperationalError

import claude_batch_tasks
from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.errors import BatchTasksError, StoreUnavailable


def make_app(url: str, prices: dict[str, Any], store_url: str | None = None) -> Celery:
    """Make the app of a caller whose broker and results are one Redis, and its store, if that has no other URL."""
    app = Celery("chaos", broker=url, backend=url, set_as_current=False)
    # A result that is let go after its Redis was restarted must not look for it for twenty seconds.
    once = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
    app.conf.update(result_backend_transport_options={"retry_policy": once}, result_expires=3600)
    app.conf.claude_batch_prices = prices
    if store_url is not None:
        app.conf.claude_batch_store_url = store_url
    app.loader.import_task_module("claude_batch_tasks.tasks")
    return app


class Caller:
    """An application that submits and cancels jobs."""

    def __init__(self, app: Celery) -> None:
        self.app = app

    def submit_job(
        self, number: int, requests: dict[str, Any], options: dict[str, Any], follow: str, told: bool
    ) -> str:
        """Submit a job, and try again while Redis is away.

        Args:
            follow: how a task follows the job: ``link``, ``chain`` or not at all.
            told: whether a task is called with the requests whose outcomes are final.

        Returns:
            the job's id.
        """
        note = signature("tests.chaos.note", (str(number),), immutable=True, queue="notes", app=self.app)
        if told:
            tell = signature("tests.chaos.told", (str(number),), queue="notes", app=self.app)
            options = {**options, "on_result": tell}
        for attempt in range(40):
            try:
                if follow == "chain":
                    line = chain(run_batch.s(requests, **options), note).apply_async()
                    assert line.parent is not None
                    return str(line.parent.id)
                link = {"link": note} if follow == "link" else {}
                return str(run_batch.apply_async((requests,), options, **link).id)
            except (StoreUnavailable, OperationalError, redis.RedisError):
                # Nothing was handed over: the caller has the error, and tries again when Redis is back.
                if attempt == 39:
                    raise
                time.sleep(0.25)
        raise AssertionError("unreachable")

    def cancel_job(self, job_id: str) -> bool:
        """Cancel a job, and return whether that was handed over."""
        try:
            BatchJob(job_id, self.app).cancel()
        except (BatchTasksError, OperationalError):
            return False
        return True

    def close(self) -> None:
        """Close the app's connections."""
        self.app.close()


def serve_calls(url: str, prices: dict[str, Any]) -> None:
    """Make calls as the lines of stdin say, ``[method, arguments]``, and write what came of each: a line of JSON."""
    app = make_app(url, prices)
    app.set_current()
    caller = Caller(app)
    print(json.dumps(claude_batch_tasks.__file__), flush=True)
    for line in sys.stdin:
        method, arguments = json.loads(line)
        try:
            answer = {"value": getattr(caller, method)(*arguments)}
        except Exception as exc:  # noqa: BLE001 - whatever it is, the run that asked has to know
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve_calls(sys.argv[1], json.loads(sys.argv[2]))
