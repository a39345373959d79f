"""Mistakes, each of which is an error on its line for the checkers that the line names.

It is checked, and never run.
"""

# What pyright finds by default, and comparisons that are never true.
# pyright: basic, reportUnnecessaryComparison=true, reportUnusedExpression=false

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from claude_batch_tasks import (
    Answer,
    BatchJob,
    JobOptions,
    Summary,
    adopt,
    ask,
    run_batch,
)

PARAMS: dict[str, Any] = {"model": "m", "max_tokens": 1, "messages": []}
REQUESTS = [{"custom_id": "a", "params": PARAMS}]


def names() -> None:
    from claude_batch_tasks import run_bacth  # error: mypy, pyright


def delay() -> None:
    run_batch.delay(REQUESTS, fallbak="off")  # error: mypy, pyright
    run_batch.delay(REQUESTS, fallback="of")  # error: mypy, pyright
    run_batch.delay(REQUESTS, fallback=False)  # error: mypy, pyright
    run_batch.delay(REQUESTS, max_wait="2 hours")  # error: mypy, pyright
    run_batch.delay(REQUESTS, listings=2.5)  # error: mypy, pyright
    run_batch.delay(REQUESTS, on_result="save_answers")  # error: mypy, pyright
    run_batch.delay(REQUESTS, on_result=run_batch)  # error: mypy, pyright
    run_batch.delay(REQUESTS, client=None)  # error: mypy, pyright
    run_batch.delay(REQUESTS, betas=[1])  # error: mypy, pyright
    run_batch.delay(REQUESTS, label=7)  # error: mypy, pyright
    run_batch.delay(REQUESTS, metadata={"team": ["a"]})  # error: mypy, pyright
    run_batch.delay(REQUESTS, deadline=datetime)  # error: mypy, pyright
    run_batch.delay(REQUESTS, poll_min=None)  # error: mypy, pyright
    # Of the whole app, or Celery's.
    run_batch.delay(REQUESTS, store_url="redis://localhost")  # error: mypy, pyright
    run_batch.delay(REQUESTS, queue="nightly")  # error: mypy, pyright


def requests() -> None:
    run_batch.delay()  # error: mypy, pyright
    run_batch.delay(1)  # error: mypy, pyright
    run_batch.delay("a prompt")  # error: mypy, pyright
    run_batch.delay(REQUESTS, REQUESTS)  # error: mypy, pyright
    run_batch.delay(["a prompt"])  # error: mypy, pyright


def apply_async() -> None:
    run_batch.apply_async((REQUESTS,), {"fallbak": "off"})  # error: mypy, pyright
    run_batch.apply_async((REQUESTS,), {"fallback": "of"})  # error: mypy, pyright
    run_batch.apply_async((REQUESTS,), {"queue": "nightly"})  # error: mypy, pyright
    run_batch.apply_async((REQUESTS,), fallback="off")  # error: mypy, pyright
    run_batch.apply_async((REQUESTS,), cuntdown=5)  # error: mypy, pyright
    run_batch.apply_async((REQUESTS,), countdown="5")  # error: mypy, pyright
    run_batch.apply_async((REQUESTS,), time_limit=60)  # error: mypy, pyright
    run_batch.apply_async(kwargs={"requests": REQUESTS, "fallbak": "off"})  # error: mypy, pyright
    run_batch.apply_async((REQUESTS, REQUESTS))  # error: mypy, pyright
    run_batch.apply_async(REQUESTS)  # error: mypy, pyright
    run_batch.apply((REQUESTS,), {"fallbak": "off"})  # error: mypy, pyright
    run_batch.delay_on_commit(REQUESTS, fallbak="off")  # error: mypy, pyright
    run_batch.apply_async_on_commit((REQUESTS,), {"fallbak": "off"})  # error: mypy, pyright


def canvas() -> None:
    run_batch.s(fallbak="off")  # error: mypy, pyright
    run_batch.s(REQUESTS, fallback="of")  # error: mypy, pyright
    run_batch.s("a prompt")  # error: mypy, pyright
    run_batch.si()  # error: mypy, pyright
    run_batch.si(REQUESTS, fallbak="off")  # error: mypy, pyright
    run_batch.signature((REQUESTS,), {"fallbak": "off"})  # error: mypy, pyright


def options() -> None:
    misspelled: JobOptions = {"fallbak": "off"}  # error: mypy, pyright
    wrong: JobOptions = {"max_wait": "2 hours"}  # error: mypy, pyright
    run_batch.delay(REQUESTS, output=7)  # error: mypy, pyright
    run_batch.delay(REQUESTS, output=dict, check=len)  # error: mypy, pyright
    BatchJob("an-id").retry_failed(output=dict)  # error: mypy, pyright
    run_batch.delay(REQUESTS, **misspelled)
    run_batch.delay(REQUESTS, **wrong)


def asks(answer: Answer) -> None:
    ask.delay()  # error: mypy, pyright
    ask.delay("a prompt")  # error: mypy, pyright
    ask.delay([PARAMS])  # error: mypy, pyright
    ask.delay(PARAMS, PARAMS)  # error: mypy, pyright
    ask.delay(PARAMS, pol="reviews")  # error: mypy, pyright
    ask.delay(PARAMS, ask_mode="batches")  # error: mypy, pyright
    ask.delay(PARAMS, queue="nightly")  # error: mypy, pyright
    ask.delay(PARAMS, ask_max_wait="a minute")  # error: mypy, pyright
    ask.apply_async((PARAMS,), pool="reviews")  # error: mypy, pyright
    ask.apply_async((PARAMS, PARAMS))  # error: mypy, pyright
    ask.s(pol="reviews")  # error: mypy, pyright
    ask.delay_on_commit(PARAMS, pol="reviews")  # error: mypy, pyright
    print(ask.delay(PARAMS).get().txt)  # error: mypy, pyright
    print(answer.txt)  # error: mypy, pyright


def summary(found: Summary) -> None:
    found["suceeded"]  # error: mypy, pyright
    found["usage"]["tokens"]  # error: mypy, pyright
    found["state"] == "complete"  # error: mypy, pyright
    found["succeeded"] = "3"  # error: mypy, pyright
    print(found["cost"] + 1)  # error: mypy, pyright
    print(run_batch.delay(REQUESTS).get()["suceeded"])  # error: mypy, pyright
    print(run_batch.delay(REQUESTS).get().succeeded)  # error: mypy, pyright


def jobs() -> None:
    job = BatchJob("an-id")
    job.resume(max_wiat=1)  # error: mypy, pyright
    job.resume(client="other")  # error: mypy, pyright
    adopt("msgbatch_1", max_wiat=1)  # error: mypy, pyright
    adopt("msgbatch_1", on_result=run_batch.s())  # error: mypy, pyright
    job.get()["suceeded"]  # error: mypy, pyright
    job.status().sucess  # error: mypy, pyright
    job.status().summary["succeeded"]  # error: mypy, pyright
    job.status().next_poll_at > datetime.now(timezone.utc)  # error: mypy, pyright
    job.status().batches[0].state == "finished"  # error: mypy, pyright


def results() -> None:
    job = BatchJob("an-id")
    job.results(type="success")  # error: mypy, pyright
    job.results(order="request_order")  # error: mypy, pyright
    job.result("a").message["content"]  # error: mypy, pyright
    job.result("a").type == "success"  # error: mypy, pyright
    job.result("a").custom_ids  # error: mypy, pyright
