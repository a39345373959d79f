from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import anthropic
import pytest

from claude_batch_tasks.simulator import Behaviour, Control, Scenario, Simulator

#: Batches stay in progress until a test ends them.
SLOW = Scenario("slow", behaviour=Behaviour(processing_seconds=3600.0))


@pytest.fixture(scope="session")
def server() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def simulator(server: Simulator) -> Simulator:
    server.reset(SLOW)
    return server


@pytest.fixture
def client(simulator: Simulator) -> Iterator[anthropic.Anthropic]:
    with new_client(simulator) as client:
        yield client


def new_client(simulator: Simulator, key: str = "key-a") -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=simulator.url, api_key=key, max_retries=0, timeout=20)


def request(custom_id: str, text: str | None = None, **params: Any) -> Any:
    prompt = {"role": "user", "content": text or f"prompt of {custom_id}"}
    return {
        "custom_id": custom_id,
        "params": {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": [prompt], **params},
    }


def requests(count: int) -> list[Any]:
    return [request(f"r-{n}") for n in range(count)]


class Raw:
    """An answer as it came: `status`, `headers`, `body`."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str, str]:
        """Status, error type, message; the envelope is checked."""
        assert set(self.json) == {"type", "error", "request_id"}
        assert self.json["type"] == "error"
        assert self.json["request_id"] == self.headers["request-id"]
        return self.status, self.json["error"]["type"], self.json["error"]["message"]


def call(simulator: Control, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Raw:
    """One HTTP call without any SDK in between."""
    url = urlsplit(simulator.url)
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=20)
    if headers is None:
        headers = {"x-api-key": "key-a", "anthropic-version": "2023-06-01"}
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    try:
        connection.request(method, path, data, headers)
        return Raw(connection.getresponse())
    finally:
        connection.close()
