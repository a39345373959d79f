"""The Message Batches API and the Messages API in memory, behind the HTTP client of the SDK: no socket is opened."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from claude_batch_tasks.simulator.models import Model, read_catalog
from claude_batch_tasks.simulator.script import STATUS_OF
from claude_batch_tasks.simulator.validation import Terms, find_problem
from claude_batch_tasks.testing.answers import SentRequest, error_result

if TYPE_CHECKING:
    import anthropic

_BATCH = re.compile(r"/v1/messages/batches/(?P<id>[^/]+)(?P<rest>/results|/cancel)?")
_STATUSES: dict[str, int] = {name: status for name, status in STATUS_OF.items()}  # noqa: C416 - its keys are texts
_HEADERS = {"anthropic-organization-id": "org-test", "request-id": "req_test"}


class _Reply(NamedTuple):
    """An answer of the API: the status, and JSON or the bytes of another media type."""

    status: int
    body: Any
    media_type: str = "application/json"


class _Batch(NamedTuple):
    shown: dict[str, Any]
    lines: list[dict[str, Any]]


class MemoryAPI:
    """The API in memory. Every batch has ended when it is first retrieved.

    Args:
        find_request: returns the job and the caller's custom_id for a custom_id that was sent to Anthropic.
        decide: returns the result of a request.
    """

    def __init__(
        self, find_request: Callable[[str], tuple[str, str]], decide: Callable[[SentRequest], dict[str, Any]]
    ) -> None:
        self.requests: list[SentRequest] = []
        self._find_request, self._decide = find_request, decide
        self._batches: dict[str, _Batch] = {}
        self._ids_of: dict[str, tuple[str, str]] = {}
        """The job and custom_id of each request that came in a batch, by its params: a fallback call has none."""
        self._attempts: Counter[tuple[str, str]] = Counter()

    def open_client(self) -> anthropic.Anthropic:
        """Return a client of the SDK whose calls are answered here."""
        import anthropic

        # The SDK has its HTTP library as `httpx` before 2.0, and as `httpx2` since.
        (library,) = {
            base.__module__.partition(".")[0]
            for base in anthropic.DefaultHttpxClient.__mro__
            if base.__module__.startswith("httpx")
        }
        httpx: Any = sys.modules[library]

        def respond(request: Any) -> Any:
            reply = self.answer_call(request.method, request.url.path, request.read(), dict(request.headers))
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            headers = {**_HEADERS, "content-type": reply.media_type}
            return httpx.Response(reply.status, headers=headers, content=content)

        http_client = anthropic.DefaultHttpxClient(transport=httpx.MockTransport(respond))
        return anthropic.Anthropic(
            api_key="sk-ant-in-memory", base_url="http://anthropic.invalid", http_client=http_client, max_retries=0
        )

    def answer_call(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> _Reply:
        """Return the answer to one HTTP call."""
        version = headers.get("anthropic-version", "")
        if (method, path) == ("POST", "/v1/messages/batches"):
            return self._create_batch(json.loads(body)["requests"], version)
        if (method, path) == ("GET", "/v1/messages/batches"):
            return self._list_batches()
        if (method, path) == ("POST", "/v1/messages"):
            return self._answer_message(json.loads(body), version)
        found = _BATCH.fullmatch(path)
        batch = self._batches.get(found["id"]) if found else None
        if found is None or batch is None:
            return _error_reply("not_found_error", f"Not found: {method} {path}")
        if found["rest"] == "/results":
            lines = b"".join(json.dumps(line).encode() + b"\n" for line in batch.lines)
            return _Reply(200, lines, "application/x-jsonl")
        if found["rest"] == "/cancel":
            return _error_reply("invalid_request_error", f"Batch {found['id']} has already ended.")
        return _Reply(200, batch.shown)

    def _create_batch(self, items: list[dict[str, Any]], version: str) -> _Reply:
        batch_id = f"msgbatch_test{len(self._batches) + 1:06d}"
        lines = [
            {"custom_id": item["custom_id"], "result": self._answer_item(item, batch_id, version)} for item in items
        ]
        now = datetime.now(timezone.utc)  # noqa: TID251 - the API's clock
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        for line in lines:
            counts[line["result"]["type"]] += 1
        shown = {
            "id": batch_id,
            "type": "message_batch",
            "processing_status": "ended",
            "request_counts": counts,
            "created_at": now.isoformat(),
            "ended_at": now.isoformat(),
            "expires_at": (now + timedelta(days=1)).isoformat(),
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"http://anthropic.invalid/v1/messages/batches/{batch_id}/results",
        }
        self._batches[batch_id] = _Batch(shown, lines)
        return _Reply(200, {**shown, "processing_status": "in_progress", "ended_at": None, "results_url": None})

    def _answer_item(self, item: dict[str, Any], batch_id: str, version: str) -> dict[str, Any]:
        params = item["params"]
        owner = self._ids_of[_key_of(params)] = self._find_request(item["custom_id"])
        return self._answer_request(owner, params, version, batch_id)

    def _answer_request(
        self, owner: tuple[str, str], params: dict[str, Any], version: str, batch_id: str | None = None
    ) -> dict[str, Any]:
        """Remember a request of a job and return its result."""
        self._attempts[owner] += 1
        request = SentRequest(
            custom_id=owner[1],
            params=params,
            via="messages" if batch_id is None else "batch",
            batch_id=batch_id,
            attempt=self._attempts[owner],
        )
        self.requests.append(request)
        problem = find_problem(params, Terms(version, _find_models(params), in_batch=batch_id is not None))
        return error_result(*problem) if problem else self._decide(request)

    def _list_batches(self) -> _Reply:
        shown = [batch.shown for batch in reversed(self._batches.values())]
        return _Reply(200, {"data": shown, "has_more": False, "first_id": None, "last_id": None})

    def _answer_message(self, params: dict[str, Any], version: str) -> _Reply:
        stream = params.pop("stream", False)
        result = self._answer_request(self._ids_of.get(_key_of(params), ("", "")), params, version)
        if result["type"] != "succeeded":
            error = result.get("error", {}).get("error") or {"type": "api_error", "message": result["type"]}
            return _error_reply(error["type"], error["message"])
        if stream:
            return _Reply(200, b"".join(_events_of(result["message"])), "text/event-stream; charset=utf-8")
        return _Reply(200, result["message"])


def _find_models(params: dict[str, Any]) -> dict[str, Model]:
    """Return the models there are: those of the API, and the one that is asked for, whatever its name."""
    model, known = params.get("model"), read_catalog()
    return known if model in known or not isinstance(model, str) else read_catalog((model,))


def _key_of(params: dict[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)


def _error_reply(kind: str, text: str) -> _Reply:
    return _Reply(_STATUSES.get(kind, 400), {"type": "error", "error": {"type": kind, "message": text}})


def _events_of(message: dict[str, Any]) -> Iterator[bytes]:
    """Yield a message as server-sent events, each block in one chunk."""

    def encode_event(kind: str, **data: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()

    yield encode_event("message_start", message={**message, "content": [], "stop_reason": None})
    for index, block in enumerate(message["content"]):
        start, deltas = _split_block(block)
        yield encode_event("content_block_start", index=index, content_block=start)
        for delta in deltas:
            yield encode_event("content_block_delta", index=index, delta=delta)
        yield encode_event("content_block_stop", index=index)
    delta = {name: message[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    yield encode_event("message_delta", delta=delta, usage=message["usage"])
    yield encode_event("message_stop")


def _split_block(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return how a content block begins in a stream, and what is added to it."""
    if block["type"] == "text":
        return {**block, "text": ""}, [{"type": "text_delta", "text": block["text"]}]
    if block["type"] == "tool_use":
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
    return block, []
