"""Calls as applications write them. Neither checker finds fault with any line, and each sees the types that are named.

It is checked, and never run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

import msgspec
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from anthropic.types.messages.batch_create_params import Request
from celery import chain, group
from celery.canvas import Signature
from celery.result import AsyncResult, EagerResult
from pydantic import BaseModel
from typing_extensions import TypedDict, Unpack, assert_type

from claude_batch_tasks import (
    Answer,
    AskOptions,
    AskResult,
    Attempt,
    BatchJob,
    BatchStatus,
    HistoryEvent,
    JobOptions,
    JobStatus,
    RequestResult,
    Summary,
    adopt,
    ask,
    errors,
    estimate,
    list_jobs,
    run_batch,
    tasks,
)

PARAMS: dict[str, Any] = {"model": "m", "max_tokens": 1, "messages": []}
REQUESTS = [{"custom_id": "a", "params": PARAMS}]


def stream() -> Iterator[dict[str, Any]]:
    yield from REQUESTS


def kinds_of_requests(of_the_sdk: list[Request], objects: list[dict[str, object]]) -> None:
    run_batch.delay(REQUESTS)
    run_batch.delay(requests=REQUESTS)
    run_batch.delay(stream())
    run_batch.delay({"custom_id": "a", "params": PARAMS} for _ in range(3))
    run_batch.delay({"a": PARAMS, "b": {"model": "m"}})
    run_batch.delay({text: {"model": "m", "messages": [{"role": "user", "content": text}]} for text in "ab"})
    run_batch.delay([{"custom_id": "a", "params": {"model": "m"}}], retries=1)
    run_batch.delay(of_the_sdk)
    run_batch.delay(objects)


class Review(BaseModel):
    stars: int


class Place(TypedDict):
    name: str


class Packet(msgspec.Struct):
    size: int


@dataclass
class Point:
    x: int


def check_review(review: Review) -> str | None:
    return None if review.stars else "it has no stars"


def kinds_of_answers(requests: list[dict[str, Any]]) -> None:
    run_batch.delay(requests, output=Review, check=check_review, reask=2)
    run_batch.delay(requests, output=Place, check="shop.checks.check_place")
    run_batch.delay(requests, output=Packet)
    run_batch.delay(requests, output=Point)
    run_batch.delay(requests, output={"type": "object"})
    run_batch.delay(requests, output="shop.types.Review")
    run_batch.apply_async((requests,), {"output": Review, "check": check_review})
    assert_type(run_batch.s(output=Review), Signature[Summary])
    adopt("msgbatch_1", output=Review, check=check_review)
    estimate(requests, output=Review)


def kinds_of_options(on_result: Signature[Any], loose: dict[str, Any]) -> None:
    run_batch.delay(
        REQUESTS,
        client="other",
        on_result=on_result,
        fallback="off",
        max_wait=7200,
        max_cost=12.5,
        max_fallback_cost=None,
        listings=2,
        on_unresolved_create="fail",
        betas=["some-beta"],
        workspace_id="wrkspc_1",
    )
    run_batch.delay(REQUESTS, label="nightly", metadata={"team": "search", "run": 7, "share": 0.5, "new": True})
    run_batch.delay(REQUESTS, deadline=3600)
    run_batch.delay(REQUESTS, deadline=timedelta(hours=8))
    run_batch.delay(REQUESTS, deadline=datetime.now(timezone.utc))
    run_batch.delay(REQUESTS, deadline="2030-01-01T00:00:00Z")
    run_batch.delay(REQUESTS, betas=("one", "two"))
    run_batch.delay(REQUESTS, on_result={"task": "shop.save", "args": [], "kwargs": {}})
    options: JobOptions = {"fallback": "off", "retries": 1}
    run_batch.delay(REQUESTS, **options)
    run_batch.delay(REQUESTS, **loose)
    run_batch.apply_async((REQUESTS,), options)
    run_batch.signature((REQUESTS,), options)


def passed_on(requests: list[dict[str, Any]], **options: Unpack[JobOptions]) -> AsyncResult[Summary]:
    return run_batch.delay(requests, **options)


def apply_async() -> None:
    assert_type(run_batch.apply_async((REQUESTS,)), AsyncResult[Summary])
    run_batch.apply_async([REQUESTS])
    run_batch.apply_async(kwargs={"requests": REQUESTS, "fallback": "off"})
    run_batch.apply_async((REQUESTS,), {"fallback": "off", "deadline": timedelta(hours=8)}, "an-id")
    run_batch.apply_async(
        (stream(),),
        task_id="an-id",
        queue="nightly",
        countdown=5,
        expires=datetime.now(timezone.utc),
        priority=3,
        headers={"x-tenant": "a"},
        link=run_batch.s(),
        link_error=[run_batch.s()],
        ignore_result=True,
    )
    assert_type(run_batch.apply((REQUESTS,), {"retries": 0}), EagerResult[Summary])
    run_batch.delay_on_commit(REQUESTS, fallback="off")
    assert_type(run_batch.using(object()).delay(REQUESTS, fallback="off"), AsyncResult[Summary])
    run_batch.apply_async_on_commit((REQUESTS,), {"fallback": "off"}, task_id="an-id", queue="nightly")


def canvas() -> None:
    assert_type(run_batch.s(), Signature[Summary])
    assert_type(run_batch.s(REQUESTS, fallback="off"), Signature[Summary])
    assert_type(run_batch.si(REQUESTS, retries=0), Signature[Summary])
    assert_type(run_batch.signature((REQUESTS,), {"retries": 0}, queue="nightly"), Signature[Summary])
    assert_type(run_batch.s(REQUESTS).apply_async(queue="nightly"), AsyncResult[Summary])
    chain(run_batch.s(REQUESTS), run_batch.s(max_wait=60))
    group(run_batch.s(each) for each in [REQUESTS])


def summary() -> None:
    result = run_batch.delay(REQUESTS)
    assert_type(result, AsyncResult[Summary])
    assert_type(result.id, str)
    found = result.get(timeout=90_000)
    assert_type(found, Summary)
    assert_type(found["job_id"], str)
    assert_type(found["state"], Literal["completed", "canceled", "failed"])
    assert_type(found["requests"] + found["succeeded"] + found["errored"] + found["expired"] + found["canceled"], int)
    assert_type(found["resubmitted"] + found["fallback"] + found["fallback_skipped"], int)
    assert_type(found["limited"], str | None)
    assert_type(found["incomplete"], dict[str, int])
    assert_type(found["repairs"], dict[str, int])
    assert_type(found["stopped"], str | None)
    assert_type(found["batch_ids"], list[str])
    assert_type(found["usage"]["input_tokens"] + found["usage"]["output_tokens"], int)
    assert_type(found["usage"]["cache_creation_input_tokens"] + found["usage"]["cache_read_input_tokens"], int)
    assert_type(found["cost"], float | None)
    assert_type(found["cost_by_model"], dict[str, float | None])
    assert_type(found["cost_unknown"], dict[str, int | None])
    assert_type(found["started_at"], str | None)
    assert_type(found["ended_at"], str)


def jobs() -> None:
    job = BatchJob("an-id")
    assert_type(job.get(timeout=5), Summary)
    assert_type(job.resume(max_wait=86_400, deadline=timedelta(hours=1)).get(), Summary)
    assert_type(adopt("msgbatch_1", client="other", queue="nightly", max_wait=86_400), BatchJob)
    assert_type(job.history(), list[HistoryEvent])
    status = job.status()
    assert_type(status, JobStatus)
    assert_type(status.state, Literal["staged", "running", "completed", "canceled", "failed", "revoked"])
    assert status.phase in ("queued", "saving results", "delivering", status.state)
    assert_type(status.batches, tuple[BatchStatus, ...])
    assert_type(status.incomplete, dict[str, int])
    assert_type(status.repairs, dict[str, int])
    assert_type(status.cost, float | None)
    assert_type(status.next_poll_at, datetime | None)
    assert_type(status.polls + status.polls_404 + status.batches[0].number, int)
    assert_type(status.looks + status.not_found, int)  # the old names, until 1.0
    assert_type(status.next_look, datetime | None)
    assert_type(status.summary, Summary | None)
    assert_type(status.done, int)
    assert_type(list_jobs(states=["running"]), Iterator[JobStatus])
    list_jobs(states=["queued", "staged", "saving results"])
    list_jobs(label="nightly", metadata={"team": "search"})
    adopt("msgbatch_1", label="nightly", metadata={"team": "search"})
    assert_type(status.label, str | None)
    assert_type(status.metadata, dict[str, str])
    if status.batches[0].state == "missing":
        raise errors.JobNotFound("gone")


def results() -> None:
    for result in BatchJob("an-id").results(type="succeeded", order="request"):
        assert_type(result, RequestResult)
        assert_type(result.complete, bool)
        assert_type(result.incomplete, str | None)
        assert_type(result.stop_reason, str | None)
        assert_type(result.attempts, tuple[Attempt, ...])
        assert_type(result.parse_error, str | None)
        print(result.parsed.stars)
        assert_type(result.custom_id, str)
        assert_type(result.type, Literal["succeeded", "errored", "expired", "canceled"])
        assert_type(result.source, Literal["batch", "resubmitted", "messages"])
        assert_type(result.message, dict[str, Any] | None)
        assert_type(result.error, dict[str, Any] | None)
        assert_type(result.usage, dict[str, Any] | None)
        assert_type(result.text, str)
        assert_type(result.note, str | None)
        assert_type(result.raw, bytes | None)


def asks(of_the_sdk: MessageCreateParamsNonStreaming, loose: dict[str, Any]) -> None:
    result = ask.delay(PARAMS)
    assert_type(result, AskResult)
    assert_type(result.get(timeout=90_000), RequestResult)
    assert_type(result.job, BatchJob)
    assert_type(result.custom_id, str)
    assert_type(result.cancel(), bool)
    ask.delay(of_the_sdk)
    ask.delay({"model": "m", "messages": [{"role": "user", "content": "a"}]}, pool="reviews", ask_max_wait=5)
    ask.delay(PARAMS, output=Review, check=check_review, reask=2, deadline=timedelta(hours=8), ask_mode="messages")
    ask.delay(params=PARAMS, fallback="off", client="other", label="nightly", ask_max_cost=5)
    options: AskOptions = {"pool": "reviews", "retries": 1}
    ask.delay(PARAMS, **options)
    ask.delay(PARAMS, **loose)
    assert_type(ask.apply_async((PARAMS,), options, queue="nightly", countdown=5, link=run_batch.s()), AskResult)
    ask.apply_async(kwargs={"params": PARAMS, "pool": "reviews"})
    assert_type(ask.apply((PARAMS,)).get(), RequestResult)
    ask.delay_on_commit(PARAMS, pool="reviews")
    assert_type(ask.using(object()).delay(PARAMS, pool="reviews"), AskResult)
    ask.apply_async_on_commit((PARAMS,), {"pool": "reviews"}, queue="nightly")


def canvas_of_asks() -> None:
    assert_type(ask.s(), Signature[Answer])
    assert_type(ask.s(PARAMS, pool="reviews"), Signature[Answer])
    assert_type(ask.si(PARAMS), Signature[Answer])
    assert_type(ask.signature((PARAMS,), {"pool": "reviews"}), Signature[Answer])
    chain(ask.s(PARAMS), run_batch.s())
    group(ask.s(each) for each in [PARAMS])


async def asks_in_an_event_loop() -> None:
    result = await ask.adelay(PARAMS, pool="reviews")
    assert_type(await result.aget(timeout=90_000), RequestResult)


def follows_an_ask(answer: Answer) -> str:
    assert_type(answer.result, RequestResult)
    assert_type(answer.job_id, str)
    assert_type(answer.custom_id, str)
    assert_type(answer.complete, bool)
    takes_a_result(answer)
    return answer.text


def takes_a_result(result: RequestResult) -> None:
    print(result.stop_reason)


def by_its_module() -> None:
    assert_type(tasks.run_batch.delay(REQUESTS).get(), Summary)
