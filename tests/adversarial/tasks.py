"""Tasks of an application around ``run_batch``, and the app of workers that forget their messages quickly."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from tests.factories import make_params


def params(text: str) -> dict[str, Any]:
    return make_params(text, model="claude-x", max_tokens=64)


@shared_task(name="unfriendly.make_requests")
def make_requests(name: str, count: int) -> dict[str, Any]:
    return {f"made {i}": params(f"{name} {i}") for i in range(count)}


@shared_task(name="unfriendly.note", bind=True)
def note(self: Any, value: Any, key: str) -> Any:
    """Write down what a callback was called with."""
    self.app.backend.client.rpush(f"noted:{key}", repr(value))
    return value


@shared_task(name="unfriendly.states")
def states(values: list[dict[str, Any]]) -> list[str]:
    return [value["state"] for value in values]
