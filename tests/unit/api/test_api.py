from __future__ import annotations

import gzip
import importlib
import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import anthropic
import pytest

from claude_batch_tasks import api, errors, rules
from claude_batch_tasks.api import calls, clients
from claude_batch_tasks.embedded import free_port
from claude_batch_tasks.results.stored.messages_outcomes import as_row, message_outcome
from tests import odd_answers
from tests.odd_answers import ODD, Odd

KEY = "sk-ant-SECRET-KEY"
PROMPT = "SECRET-PROMPT"
BODY = b'{"requests":[{"custom_id":"a","params":{"text":"SECRET-PROMPT"}}]}'
PARAMS = (
    b'{"model":"m","max_tokens":64000,"temperature":0.5,"new":1,"messages":[{"role":"user","content":"SECRET-PROMPT"}]}'
)

BATCH = {
    "id": "msgbatch_1",
    "type": "message_batch",
    "processing_status": "in_progress",
    "request_counts": {"processing": 3, "succeeded": 1, "errored": 0, "canceled": 0, "expired": 2},
    "created_at": "2026-11-22T12:00:00.250+00:00",
    "expires_at": "2026-11-23T12:00:00Z",
    "ended_at": None,
    "archived_at": None,
    "results_url": None,
    "a_new_field": {"x": 1},
}
CREATED_AT = 1795348800.25

Answer = Callable[["_Handler"], None]


class Seen(NamedTuple):
    """A request as the server saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append(Seen(self.command, self.path, headers, body))
        if len(body) < length:
            self.close_connection = True
            return
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        pass

    def send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        """An answer; ``cut``: the connection is dropped after so many bytes of its body."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:cut])
        if cut is not None:
            self.drop()

    def send_bare(self, body: bytes, headers: dict[str, str], status: str = "200 OK") -> None:
        """An answer with no headers but these."""
        head = {"Content-Length": str(len(body)), **headers}
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        self.wfile.write("\r\n".join(lines).encode() + body)

    def drop(self) -> None:
        self.wfile.flush()
        self.close_connection = True


class Server(ThreadingHTTPServer):
    """Answers with ``answers`` in turn, the last of them for good, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[Seen] = []
        self.answers: list[Answer] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def arrived(self) -> Seen:
        """The first request, once it is here: of one that broke off the client knows before the server does."""
        deadline = time.monotonic() + 10
        while not self.seen and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.seen[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the tests."""


def answer(status: int = 200, body: Any = b"", *, cut: int | None = None, **headers: Any) -> Answer:
    """``headers``: with underscores for hyphens."""
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda handler: handler.send(status, encoded, {n.replace("_", "-"): v for n, v in headers.items()}, cut)


def failure(status: int, error_type: str = "some_error", message: str = "what is wrong", **headers: Any) -> Answer:
    body = {"type": "error", "error": {"type": error_type, "message": message}, "request_id": "req_in_body"}
    return answer(status, body, **headers)


def hang_up(handler: _Handler) -> None:
    handler.drop()


def page(*ids: str, more: bool = False, created_at: str = "2026-11-22T12:00:00Z", **own: Any) -> Answer:
    data = [{**BATCH, "id": i, "created_at": created_at} for i in ids]
    known = {"first_id": ids[0], "last_id": ids[-1]} if ids else {}
    return answer(body={"data": data, "has_more": more, **known, **own})


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with Server() as server:
        yield server
        server.shutdown()


@pytest.fixture
def server(running: Server) -> Server:
    running.seen.clear()
    running.answers[:] = [answer(500)]
    return running


@pytest.fixture(scope="module")
def client(running: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=running.url, api_key=KEY, max_retries=0) as client:
        yield client


def read_results(client: anthropic.Anthropic) -> bytes:
    with api.open_results(client, "msgbatch_1", timeout=10) as chunks:
        return b"".join(chunks)


CALLS: dict[str, Callable[[anthropic.Anthropic], Any]] = {
    "create": lambda client: api.create_batch(client, iter([BODY[:10], BODY[10:]]), len(BODY)),
    "retrieve": lambda client: api.retrieve_batch(client, "msgbatch_1", timeout=10),
    "list": lambda client: list(api.list_since(client, 0, timeout=10)),
    "cancel": lambda client: api.cancel_batch(client, "msgbatch_1", timeout=10),
    "results": read_results,
    "messages": lambda client: api.create_message(client, PARAMS),
}
PAYS = ("create", "messages")
STATUS = (400, 401, 402, 403, 404, 408, 409, 410, 413, 422, 425, 429, 500, 502, 503, 504, 529)
every_endpoint = pytest.mark.parametrize("endpoint", CALLS)


def error_of(client: anthropic.Anthropic, endpoint: str) -> errors.ApiError:
    """What a call ends in, once it is known to say nothing it must not."""
    with pytest.raises(errors.ApiError) as caught:
        CALLS[endpoint](client)
    error = caught.value
    assert str(error).startswith(f"{endpoint}: ")
    for text in (str(error), repr(error.args), "".join(traceback.format_exception(error))):
        assert KEY not in text
        assert PROMPT not in text
    return error


class TestACall:
    @pytest.mark.parametrize(
        ("endpoint", "method", "path"),
        [
            ("create", "POST", "/v1/messages/batches"),
            ("retrieve", "GET", "/v1/messages/batches/msgbatch_1"),
            ("cancel", "POST", "/v1/messages/batches/msgbatch_1/cancel"),
        ],
    )
    def test_gives_a_batch(self, server: Server, client: Any, endpoint: str, method: str, path: str) -> None:
        server.answers = [answer(body=BATCH)]
        batch = CALLS[endpoint](client)
        assert (batch.id, batch.processing_status, batch.may_hold(6)) == ("msgbatch_1", "in_progress", True)
        assert batch.created_at.timestamp() == CREATED_AT
        assert batch.archived_at is None
        [seen] = server.seen
        assert (seen.method, seen.path) == (method, path)
        assert KEY in (seen.headers.get("x-api-key", "") + seen.headers.get("authorization", ""))
        assert seen.headers["anthropic-version"]

    @pytest.mark.parametrize("endpoint", ["create", "retrieve"])
    def test_may_be_answered_by_a_transport_that_reads_nothing(self, endpoint: str) -> None:
        http = calls._http_library(anthropic.DefaultHttpxClient)
        transport = http.MockTransport(lambda request: http.Response(200, json=BATCH, headers={"request-id": "req_1"}))
        with anthropic.Anthropic(api_key=KEY, http_client=http.Client(transport=transport), max_retries=0) as client:
            batch = CALLS[endpoint](client)
        assert batch.call["request_id"] == "req_1"
        assert 0 <= batch.call["seconds"] < 60

    def test_of_the_messages_api_sends_the_params_as_they_are(self, server: Server, client: Any) -> None:
        message = b'{ "id":"msg_1", "content":[{"type":"text","text":"\xe2\x80\xa8"}], "a_new_field":1e2 }'
        server.answers = [answer(body=message)]
        assert api.create_message(client, PARAMS) == (message, {})
        [seen] = server.seen
        assert (seen.method, seen.path, seen.body) == ("POST", "/v1/messages", PARAMS)

    def test_of_the_messages_api_says_what_is_left_of_its_limits(self, server: Server, client: Any) -> None:
        limits = {"anthropic_ratelimit_requests_limit": "50", "anthropic_ratelimit_requests_remaining": "49"}
        server.answers = [answer(body={}, **limits)]
        assert api.create_message(client, PARAMS).limits == {"requests": (50, 49)}
        server.answers = [failure(429, retry_after="0", **limits)]
        error = error_of(client, "messages")
        assert (error.limits, error.hold) == ({"requests": (50, 49)}, rules.SHORTEST_MESSAGES_PAUSE)

    def test_for_results_asks_the_configured_host_once(self, server: Server, client: Any) -> None:
        server.answers = [answer(body=b"x\r\n\xff\xe2\x80\xa8\ny")]
        assert read_results(client) == b"x\r\n\xff\xe2\x80\xa8\ny"
        [seen] = server.seen
        assert (seen.method, seen.path) == ("GET", "/v1/messages/batches/msgbatch_1/results")

    def test_for_results_reads_them_as_they_come(self, server: Server, client: Any) -> None:
        go_on = threading.Event()

        def slowly(handler: _Handler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", "65537")
            handler.end_headers()
            handler.wfile.write(b"x" * 65536)
            handler.wfile.flush()
            go_on.wait(30)
            handler.wfile.write(b"y")

        server.answers = [slowly]
        with api.open_results(client, "msgbatch_1", timeout=30) as chunks:
            first = next(chunks)
            assert first == b"x" * 65536
            go_on.set()
            assert b"".join(chunks) == b"y"

    def test_for_results_takes_them_compressed(self, server: Server, client: Any) -> None:
        server.answers = [answer(body=gzip.compress(b"row\n" * 1000), Content_Encoding="gzip")]
        assert read_results(client) == b"row\n" * 1000

    def test_for_results_that_is_left_early_gives_its_connection_back(self, server: Server) -> None:
        http = anthropic.DefaultHttpxClient(limits=transport().Limits(max_connections=1), timeout=5)
        with anthropic.Anthropic(base_url=server.url, api_key=KEY, http_client=http, max_retries=0) as client:
            for _ in range(3):
                server.answers = [answer(body=b"x" * 1_000_000)]
                with api.open_results(client, "b", timeout=5) as chunks:
                    next(chunks)
            server.answers = [answer(body=BATCH)]
            assert api.retrieve_batch(client, "msgbatch_1", timeout=5).id == "msgbatch_1"


class TestAnOddAnswer:
    @pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
    @pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
    def test_of_the_messages_api_is_paid_for_and_read(self, server: Server, client: Any, odd: Odd, mark: bytes) -> None:
        body = odd_answers.message(odd.json)
        server.answers = [answer(body=mark + body)]
        found = api.create_message(client, PARAMS)
        assert found.message == body
        row = as_row(message_outcome(found.message))
        assert (row.type, row.usage) == ("succeeded", {"input_tokens": 10, "output_tokens": 5})

    @pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
    @pytest.mark.parametrize("sent", [odd_answers.events, odd_answers.events_with_a_whole_block])
    def test_that_is_streamed_is_paid_for_and_read(self, server: Server, client: Any, odd: Odd, sent: Any) -> None:
        server.answers = [answer(body=b"".join(sent(odd.json)), Content_Type="text/event-stream")]
        found = api.create_message(client, PARAMS, stream=True)
        row = as_row(message_outcome(found.message))
        assert (row.type, row.usage) == ("succeeded", {"input_tokens": 10, "output_tokens": 5})

    @pytest.mark.parametrize(
        "body", [b'{"type":"error","error":{"type":"api_error"}}', b'{"id":"a","content":[', b'{"a" 1}']
    )
    def test_of_the_messages_api_that_is_no_message_may_have_been_paid_for(
        self, server: Server, client: Any, body: bytes
    ) -> None:
        server.answers = [answer(body=body)]
        assert type(error_of(client, "messages")) is errors.AmbiguousError

    @every_endpoint
    @pytest.mark.parametrize("odd", [odd for odd in ODD.values() if len(odd.json) < 10**6])
    def test_that_refuses_says_so_whatever_else_it_holds(
        self, server: Server, client: Any, endpoint: str, odd: Odd
    ) -> None:
        body = b'{"type":"error","x":%s,"error":{"type":"overloaded_error","message":"m","details":%s}}'
        server.answers = [answer(529, body % (odd.json, odd.json))]
        error = error_of(client, endpoint)
        assert (error.status, error.error_type) == (529, "overloaded_error")

    @pytest.mark.parametrize("message", [rb'"\ud83d"', b'"\xff"', b'"%s"' % (b"x" * 100_000)])
    def test_that_refuses_says_so_in_few_words_that_every_store_takes(
        self, server: Server, client: Any, message: bytes
    ) -> None:
        body = b'{"type":"error","error":{"type":"overloaded_error","message":%s}}' % message
        server.answers = [answer(529, body)]
        error = error_of(client, "messages")
        assert error.error_type == "overloaded_error"
        assert len(str(error).encode()) < 700

    @pytest.mark.parametrize("code", [[1], {"a": 1}, 7, None])
    def test_that_refuses_has_no_code_but_a_text(self, server: Server, client: Any, code: Any) -> None:
        error = {"type": "rate_limit_error", "message": "m", "details": {"error_code": code}}
        server.answers = [answer(429, {"type": "error", "error": error})]
        found = error_of(client, "messages")
        assert (found.error_type, found.code) == ("rate_limit_error", None)

    @pytest.mark.parametrize("name", ["processing_status", "last_id"])
    def test_about_batches_holds_nothing_that_no_store_takes(self, server: Server, client: Any, name: str) -> None:
        body = {"data": [BATCH], name: "\ud83d"} if name == "last_id" else {**BATCH, name: "\ud83d"}
        server.answers = [answer(body=json.dumps(body).encode())]
        assert "not the API's JSON" in str(error_of(client, "list" if name == "last_id" else "retrieve"))

    @pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
    @pytest.mark.parametrize("endpoint", ["create", "retrieve", "list"])
    def test_about_batches_is_read(self, server: Server, client: Any, endpoint: str, odd: Odd) -> None:
        batch = json.dumps(BATCH).encode()[:-1] + b',"new":%s}' % odd.json
        server.answers = [answer(body=b'{"data":[%s]}' % batch if endpoint == "list" else batch)]
        found = CALLS[endpoint](client)
        assert (found[0].id if isinstance(found, list) else found.id) == BATCH["id"]


class TestACreate:
    def test_streams_its_body_with_its_exact_length(self, server: Server, client: Any) -> None:
        server.answers = [answer(body=BATCH)]
        pieces = [b'{"requests":[', *([b'"' + b"x" * 99_998 + b'"', b","] * 40)[:-1], b"]}"]
        size = sum(map(len, pieces))
        api.create_batch(client, iter(pieces), size)
        [seen] = server.seen
        assert seen.headers["content-length"] == str(size)
        assert "transfer-encoding" not in seen.headers
        assert seen.headers["content-type"] == "application/json"
        assert seen.body == b"".join(pieces)

    @pytest.mark.parametrize("size", [len(BODY) + 1, 10 * len(BODY)])
    def test_whose_body_is_too_short_is_never_whole(self, server: Server, client: Any, size: int) -> None:
        with pytest.raises(errors.ApiError):
            api.create_batch(client, iter([BODY]), size)
        assert len(server.arrived().body) < size

    def test_whose_body_the_store_stops_giving_says_so(self, server: Server, client: Any) -> None:
        def body() -> Iterator[bytes]:
            yield BODY[:10]
            raise errors.StoreUnavailable("the store did not answer")

        try:
            with pytest.raises(errors.StoreUnavailable):
                api.create_batch(client, body(), len(BODY))
        finally:
            server.arrived()


@every_endpoint
class TestAFailure:
    @pytest.mark.parametrize("status", STATUS)
    def test_is_told_by_its_status_after_one_attempt(
        self, server: Server, client: Any, endpoint: str, status: int
    ) -> None:
        server.answers = [failure(status, request_id="req_in_header", x_should_retry="true")]
        error = error_of(client, endpoint)
        if status == 404:
            expected: type = errors.NotFoundError
        elif status in (400, 401, 402, 403, 410, 413, 422):
            expected = errors.PermanentError
        elif endpoint in PAYS and status >= 500:
            expected = errors.AmbiguousError
        else:
            expected = errors.TransientError
        assert type(error) is expected
        assert (error.status, error.error_type, error.request_id) == (status, "some_error", "req_in_header")
        assert str(error) == f"{endpoint}: Anthropic answered {status} some_error: what is wrong"
        assert len(server.seen) == 1

    def test_takes_the_request_id_from_where_it_is(self, server: Server, client: Any, endpoint: str) -> None:
        server.answers = [failure(404)]
        assert error_of(client, endpoint).request_id == "req_in_body"

    @pytest.mark.parametrize(
        ("headers", "least", "most"),
        [
            ({}, None, None),
            ({"retry_after": "7"}, 7, 7),
            ({"retry_after": "0.5"}, 0.5, 0.5),
            ({"retry_after_ms": "1500", "retry_after": "7"}, 1.5, 1.5),
            ({"retry_after": "DATE"}, 60, 91),
            ({"retry_after": "4294967"}, 600, 600),
            ({"retry_after": "soon"}, None, None),
        ],
    )
    def test_says_when_to_come_back(
        self, server: Server, client: Any, endpoint: str, headers: dict[str, str], least: Any, most: Any
    ) -> None:
        sent = {n: v.replace("DATE", formatdate(time.time() + 90, usegmt=True)) for n, v in headers.items()}
        server.answers = [failure(429, **sent)]
        found = error_of(client, endpoint).retry_after
        assert found is None if least is None else found is not None and least <= found <= most

    def test_names_moments_by_its_own_clock(self, server: Server, client: Any, endpoint: str) -> None:
        """Whatever this machine's shows."""
        then = time.time() - 7200
        moments = {"Date": formatdate(then, usegmt=True), "Retry-After": formatdate(then + 40, usegmt=True)}
        body = json.dumps({"type": "error", "error": {"type": "rate_limit_error", "message": "x"}}).encode()
        server.answers = [lambda handler: handler.send_bare(body, moments, status="429 Too Many Requests")]
        assert error_of(client, endpoint).retry_after == 40

    @pytest.mark.parametrize(
        "body",
        [
            b"<html>Bad gateway: SECRET-PROMPT sk-ant-SECRET-KEY</html>",
            b"",
            b"\xff\xfe SECRET-PROMPT",
            b"[]",
            b'"SECRET-PROMPT"',
            b'{"error":{"type":17,"message":["SECRET-PROMPT"]}}',
            b'{"input":"SECRET-PROMPT","body":{"message":"SECRET-PROMPT"}}',
        ],
    )
    def test_that_is_not_the_apis_own_quotes_nothing_but_its_reason(
        self, server: Server, client: Any, endpoint: str, body: bytes
    ) -> None:
        server.answers = [answer(502, body, Content_Type="text/html", retry_after="3")]
        error = error_of(client, endpoint)
        assert str(error) == f"{endpoint}: Anthropic answered 502 without a message of its own"
        assert (error.status, error.error_type, error.retry_after) == (502, None, 3.0)

    @pytest.mark.parametrize(
        ("body", "content_type", "reason"),
        [
            (
                b'{"message":"no Route matched with those values"}',
                "application/json",
                "no Route matched with those values",
            ),
            (b'{"Message":"User is not authorized"}', "application/json", "User is not authorized"),
            (
                b'{"error":{"type":"forbidden","message":"Request not allowed"}}',
                "application/json",
                "Request not allowed",
            ),
            (b'{"error":"quota of the team is used up"}', "text/plain", "quota of the team is used up"),
            (b'{"detail":"Not authenticated"}', "application/json", "Not authenticated"),
            (
                b'{"detail":[{"loc":["body"],"msg":"Field required","input":{"text":"SECRET-PROMPT"}}]}',
                "application/json",
                "Field required",
            ),
            (
                b'{"title":"Forbidden","status":403,"detail":"Blocked by\\n a rule","instance":"/v1"}',
                "application/problem+json",
                "Forbidden: Blocked by a rule",
            ),
            (b'{"errors":["too many",{"message":"and slow"}]}', "application/json", "too many: and slow"),
            (b'{"error":"access_denied","error_description":"expired"}', "", "access_denied: expired"),
            (b'{"fault":{"faultstring":"Spike arrest","detail":{"errorcode":"x"}}}', "", "Spike arrest"),
            (b"<html><head><TITLE>Just a moment...\n</TITLE>SECRET-PROMPT", "text/html", "Just a moment..."),
            (b"upstream connect error\nSECRET-PROMPT", "text/plain; charset=utf-8", "upstream connect error"),
            (b"error code: 1015", "text/plain", "error code: 1015"),
        ],
    )
    def test_in_front_of_the_api_keeps_its_reason(
        self, server: Server, client: Any, endpoint: str, body: bytes, content_type: str, reason: str
    ) -> None:
        server.answers = [answer(403, body, Content_Type=content_type)]
        error = error_of(client, endpoint)
        assert str(error) == f"{endpoint}: Anthropic answered 403 (not in the API's own form): {reason}"
        assert error.error_type is None
        assert type(error) is (errors.AmbiguousError if endpoint in PAYS else errors.TransientError)

    def test_in_front_of_the_api_shows_no_key_and_no_long_reason(
        self, server: Server, client: Any, endpoint: str
    ) -> None:
        server.answers = [answer(403, {"message": f"bad key {KEY} " + "x" * 100_000})]
        error = error_of(client, endpoint)
        assert "bad key [key]" in str(error)
        assert len(str(error)) < 1000

    @pytest.mark.parametrize(
        ("body", "own"),
        [
            ({"type": "error", "error": {"type": "a_new_error", "message": "x"}}, True),
            ({"type": "error", "error": {"type": "request_too_large"}}, True),
            ({"type": "error", "error": {"type": "permission_error", "message": "half a \ud83d"}}, True),
            ({"type": "error", "error": {"type": "forbidden", "message": "x"}}, False),
            ({"error": {"type": "permission_error", "message": "x"}}, False),
            ({"type": "error", "error": {"type": "permission_error", "message": ["x"]}}, False),
            ({"type": "error", "error": "permission_error"}, False),
            ({"type": "error"}, False),
        ],
    )
    def test_is_the_apis_own_only_in_the_form_it_documents(
        self, server: Server, client: Any, endpoint: str, body: Any, own: bool
    ) -> None:
        server.answers = [answer(403, body)]
        error = error_of(client, endpoint)
        assert (type(error) is errors.PermanentError) is own
        assert (error.error_type is not None) is own

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (520, b"<html><title>520: Web server is returning an unknown error</title></html>"),
            (520, b""),
            (524, b"<html><title>524: A timeout occurred</title></html>"),
            (503, b"upstream connect error or disconnect/reset before headers. reset reason: connection termination"),
            (529, b"<html>busy</html>"),
            (408, b""),
        ],
    )
    def test_recorded_after_the_answer_was_made_is_ambiguous_where_it_costs(
        self, server: Server, client: Any, endpoint: str, status: int, body: bytes
    ) -> None:
        server.answers = [answer(status, body)]
        assert type(error_of(client, endpoint)) is (
            errors.AmbiguousError if endpoint in PAYS else errors.TransientError
        )
        assert len(server.seen) == 1

    @pytest.mark.parametrize(
        "refused",
        [failure(529, "overloaded_error"), failure(429), answer(429, b"slow"), answer(522, b""), failure(408)],
    )
    def test_known_to_have_done_nothing_passes_where_it_costs_as_well(
        self, server: Server, client: Any, endpoint: str, refused: Answer
    ) -> None:
        server.answers = [refused]
        assert type(error_of(client, endpoint)) is errors.TransientError

    def test_keeps_a_long_message_short(self, server: Server, client: Any, endpoint: str) -> None:
        server.answers = [failure(400, message="x" * 100_000)]
        assert len(str(error_of(client, endpoint))) < 1000

    def test_to_connect_means_that_nothing_was_sent(self, server: Server, client: Any, endpoint: str) -> None:
        elsewhere = client.with_options(base_url=f"http://127.0.0.1:{free_port()}")
        error = error_of(elsewhere, endpoint)
        assert type(error) is errors.TransientError
        assert error.status is None

    def test_to_answer_after_it_was_asked_is_ambiguous_where_it_costs(
        self, server: Server, client: Any, endpoint: str
    ) -> None:
        server.answers = [hang_up]
        error = error_of(client, endpoint)
        assert type(error) is (errors.AmbiguousError if endpoint in PAYS else errors.TransientError)
        assert len(server.seen) == 1

    def test_in_the_middle_of_the_answer_is_the_same(self, server: Server, client: Any, endpoint: str) -> None:
        server.answers = [answer(200, BATCH, cut=20)]
        error = error_of(client, endpoint)
        assert type(error) is (errors.AmbiguousError if endpoint in PAYS else errors.TransientError)
        assert len(server.seen) == 1

    def test_to_unpack_the_answer_is_the_same(self, server: Server, client: Any, endpoint: str) -> None:
        server.answers = [answer(200, b"this is not gzip", Content_Encoding="gzip")]
        error = error_of(client, endpoint)
        assert type(error) is (errors.AmbiguousError if endpoint in PAYS else errors.TransientError)

    @pytest.mark.parametrize("body", [b"<html>SECRET-PROMPT</html>", b"", b"null", b"[1]", b'"text"', b"\xff"])
    def test_to_be_the_api_in_spite_of_a_200_is_the_same(
        self, server: Server, client: Any, endpoint: str, body: bytes
    ) -> None:
        if endpoint == "results":
            return  # its lines are judged one by one, elsewhere
        server.answers = [answer(200, body, Content_Type="text/html")]
        error = error_of(client, endpoint)
        assert type(error) is (errors.AmbiguousError if endpoint in PAYS else errors.TransientError)

    def test_because_of_a_key_with_a_newline_does_not_show_the_key(self, server: Server, endpoint: str) -> None:
        with anthropic.Anthropic(base_url=server.url, api_key=f"{KEY}\n", max_retries=0) as client:
            error_of(client, endpoint)

    @pytest.mark.parametrize("change", [{"api_key": f"{KEY}\n"}, {"base_url": "api.example.com"}])
    def test_that_a_setting_causes_does_not_pass_by_itself(
        self, server: Server, endpoint: str, change: dict[str, str]
    ) -> None:
        with (
            anthropic.Anthropic(**{"base_url": server.url, "api_key": KEY, "max_retries": 0, **change}) as client,  # type: ignore[arg-type]
            pytest.raises(errors.PermanentError),
        ):
            CALLS[endpoint](client)

    def test_is_a_redirect_to_another_host(self, server: Server, client: Any, endpoint: str) -> None:
        with Server() as other:
            other.answers = [answer(200, BATCH)]
            server.answers = [answer(302, Location=f"http://localhost:{other.server_port}/elsewhere")]
            with pytest.raises(errors.ApiError):
                CALLS[endpoint](client)
            seen = list(other.seen)
            other.shutdown()
        assert seen == []


def event(kind: str, **own: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **own})}\n\n".encode()


def spoken(message_id: str, text: str) -> bytes:
    """A message but for its end."""
    message = {"id": message_id, "model": "m", "content": [], "usage": {"input_tokens": 3, "output_tokens": 1}}
    return b"".join(
        (
            event("message_start", message=message),
            event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            event("content_block_delta", index=0, delta={"type": "text_delta", "text": text}),
            event("content_block_stop", index=0),
            event("message_delta", delta={"stop_reason": "end_turn"}, usage={"input_tokens": 3, "output_tokens": 9}),
        )
    )


STOP = event("message_stop")
SPOKEN = spoken("msg_1", "paid for")


def streamed(*parts: bytes, end: bytes = b"0\r\n\r\n", **headers: Any) -> Answer:
    """A chunked answer, a chunk a part; without the ``end`` it is cut."""

    def answer(handler: _Handler) -> None:
        handler.send_response(200)
        # Without "close" the client's pool may take the connection for the next test, before it hears of its end.
        sent = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked", "Connection": "close", **headers}
        for name, value in sent.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        for part in parts:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        handler.wfile.write(end)
        handler.drop()

    return answer


def stream(client: anthropic.Anthropic) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(api.create_message(client, PARAMS, stream=True).message)
    return found


class TestAStream:
    @pytest.mark.parametrize(
        "rest",
        [
            [STOP],
            [STOP, b"data: [DONE]\n\n"],
            [STOP, b"data:\n\n", b"data: \n\n", b": bye\n\n"],
            [STOP, b"event: error\ndata: upstream gone\n\n"],
            [STOP, event("error", error={"type": "api_error", "message": "too late"})],
            [STOP, spoken("msg_2", "somebody else's"), STOP],
            [STOP, b'data: {"type": "message_sta'],
            [STOP, b"\xff\xfe\x00"],
            [STOP.rstrip()],
            [STOP.rstrip() + b"\n"],
            [STOP.replace(b"\n", b"\r\n")],
            [b"event: message_stop\ndata: {}\n\n"],
            [b'data: {"type": "message_stop"}\n\n'],
        ],
    )
    @pytest.mark.parametrize("end", [b"0\r\n\r\n", b"", b"not a chunk"])
    def test_is_over_with_its_message_stop(self, server: Server, client: Any, rest: list[bytes], end: bytes) -> None:
        server.answers = [streamed(SPOKEN, *rest, end=end)]
        message = stream(client)
        assert message["content"] == [{"type": "text", "text": "paid for"}]
        assert message["usage"] == {"input_tokens": 3, "output_tokens": 9}

    def test_is_not_waited_for_after_its_message_stop(self, server: Server, client: Any) -> None:
        go_on = threading.Event()

        def held_open(handler: _Handler) -> None:
            streamed(SPOKEN, STOP, end=b"")(handler)
            go_on.wait(30)

        server.answers = [held_open]
        begun = time.monotonic()
        assert stream(client)["id"] == "msg_1"
        assert time.monotonic() - begun < 10
        go_on.set()

    @pytest.mark.parametrize("cut", [1, 8])
    def test_that_is_packed_may_lack_the_end_of_that(self, server: Server, client: Any, cut: int) -> None:
        server.answers = [streamed(gzip.compress(SPOKEN + STOP)[:-cut], end=b"", Content_Encoding="gzip")]
        assert stream(client)["id"] == "msg_1"

    @pytest.mark.parametrize(
        "odd",
        [
            b"data:\n\n",
            b"data: [DONE]\n\n",
            b"data: keep-alive\n\n",
            b": OPENROUTER PROCESSING\n\n",
            b"event: ping\n\n",
            b"event: ping\ndata: {not json\n\n",
            b"event: hologram\ndata: {}\n\n",
            b"event: hologram\ndata: <xml/>\n\n",
            b"data: [1]\n\n",
            b"data: null\n\n",
            b"retry: 3000\nid: 7\n\n",
            b"event: content_block_stop\ndata: {\n\n",
        ],
    )
    def test_passes_over_what_is_no_part_of_a_message(self, server: Server, client: Any, odd: bytes) -> None:
        parts = [part + b"\n\n" for part in SPOKEN.split(b"\n\n")[:-1]]
        server.answers = [streamed(odd, *(piece for part in parts for piece in (part, odd)), STOP)]
        assert stream(client)["content"] == [{"type": "text", "text": "paid for"}]

    @pytest.mark.parametrize(
        "broken",
        [
            b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, "del\n\n',
            b'data: {"type": "content_block_delta", "index": 0, "del\n\n',
            b"event: content_block_delta\ndata:\n\n",
            b"event: content_block_delta\ndata: null\n\n",
            b'event: content_block_delta\ndata: {"index": 0}\n\n',
            b"event: message_delta\ndata: []\n\n",
            b"event: error\ndata: upstream gone\n\n",
        ],
    )
    def test_with_a_hole_is_no_answer(self, server: Server, client: Any, broken: bytes) -> None:
        first, rest = SPOKEN.split(b"event: content_block_delta", 1)
        server.answers = [streamed(first, broken, b"event: content_block_delta" + rest, STOP)]
        with pytest.raises(errors.AmbiguousError):
            stream(client)

    @pytest.mark.parametrize("end", [b"0\r\n\r\n", b""])
    @pytest.mark.parametrize("size", [10, 200, len(SPOKEN)])
    def test_that_ends_before_is_ambiguous(self, server: Server, client: Any, size: int, end: bytes) -> None:
        server.answers = [streamed(SPOKEN[:size], end=end)]
        with pytest.raises(errors.AmbiguousError):
            stream(client)

    def test_of_two_messages_is_the_second(self, server: Server, client: Any, caplog: Any) -> None:
        server.answers = [streamed(SPOKEN[:-40], b"\n\n", spoken("msg_2", "anew"), STOP)]
        with pytest.raises(errors.AmbiguousError):  # what was cut off was needed
            stream(client)
        server.answers = [streamed(SPOKEN, spoken("msg_2", "anew"), STOP)]
        caplog.set_level(logging.WARNING, calls.log.name)
        calls.log.disabled = False  # by an app's own logging, in a test before this one
        message = stream(client)
        assert (message["id"], message["content"]) == ("msg_2", [{"type": "text", "text": "anew"}])
        assert "msg_1 was dropped, and may be billed too" in caplog.text

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            ({"type": "overloaded_error", "message": "Overloaded"}, errors.TransientError),
            ({"type": "rate_limit_error", "message": "slow"}, errors.TransientError),
            ({"type": "invalid_request_error", "message": "bad"}, errors.PermanentError),
            ({"type": "api_error", "message": "Internal server error"}, errors.AmbiguousError),
            ({"type": "timeout_error", "message": "x"}, errors.AmbiguousError),
            ("upstream gone", errors.AmbiguousError),
        ],
    )
    def test_that_begins_with_an_error_is_that_error(
        self, server: Server, client: Any, error: Any, expected: type
    ) -> None:
        server.answers = [streamed(event("ping"), event("error", error=error))]
        text = error if isinstance(error, str) else error["message"]
        with pytest.raises(errors.ApiError, match=text) as caught:
            stream(client)
        assert type(caught.value) is expected
        server.answers = [streamed(SPOKEN, event("error", error=error))]
        with pytest.raises(errors.AmbiguousError, match=text):
            stream(client)

    def test_that_comes_in_one_piece_is_an_answer(self, server: Server, client: Any) -> None:
        server.answers = [answer(body={"id": "msg_1", "content": []}, Content_Type="application/json")]
        assert stream(client)["id"] == "msg_1"


@pytest.mark.parametrize("streams", [False, True])
def test_an_error_under_the_status_200_is_no_answer(server: Server, client: Any, streams: bool) -> None:
    for error, expected in (("overloaded_error", errors.TransientError), ("api_error", errors.AmbiguousError)):
        body = {"type": "error", "error": {"type": error, "message": "why"}}
        server.answers = [answer(body=body, Content_Type="application/json")]
        with pytest.raises(expected, match="why"):
            api.create_message(client, PARAMS, stream=streams)


class TestATimeout:
    @pytest.mark.parametrize("endpoint", ["retrieve", "cancel", "results", "list"])
    def test_of_a_look_passes(self, server: Server, client: Any, endpoint: str) -> None:
        go_on = threading.Event()

        def stall(handler: _Handler) -> None:
            go_on.wait(30)
            handler.drop()

        server.answers = [stall]
        calls: dict[str, Callable[[], Any]] = {
            "retrieve": lambda: api.retrieve_batch(client, "b", timeout=0.1),
            "cancel": lambda: api.cancel_batch(client, "b", timeout=0.1),
            "list": lambda: list(api.list_since(client, 0, timeout=0.1)),
            "results": lambda: api.open_results(client, "b", timeout=0.1).__enter__(),
        }
        with pytest.raises(errors.TransientError):
            calls[endpoint]()
        go_on.set()

    def test_in_the_middle_of_a_download_passes(self, server: Server, client: Any) -> None:
        go_on = threading.Event()

        def stall(handler: _Handler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b"x" * 10)
            handler.wfile.flush()
            go_on.wait(30)

        server.answers = [stall]
        with (
            pytest.raises(errors.TransientError, match="while the answer was read"),
            api.open_results(client, "b", timeout=0.2) as chunks,
        ):
            b"".join(chunks)
        go_on.set()


class TestListing:
    OLD, NEW = "2026-11-21T12:00:00Z", "2026-11-22T12:00:00Z"
    SINCE = CREATED_AT - 3600

    def ids(self, client: Any, since: float = SINCE) -> list[str]:
        # Far more than any listing of these tests has: a guard that fails must not hang them.
        return [batch.id for batch in islice(api.list_since(client, since, timeout=10), 100)]

    def test_reads_all_pages(self, server: Server, client: Any) -> None:
        server.answers = [page("b1", "b2", more=True), page("b3", more=True), page("b4")]
        assert self.ids(client) == ["b1", "b2", "b3", "b4"]
        assert [seen.path.partition("?")[2] for seen in server.seen] == [
            "limit=1000",
            "limit=1000&after_id=b2",
            "limit=1000&after_id=b3",
        ]

    @pytest.mark.parametrize(
        ("ahead", "last", "found_ahead"),
        [
            (0.0, "b2", 0.0),
            (-7200.0, "b3", -7200.0),  # to us, batches seem older than they are
            (7200.0, "b2", 7200.0),  # a gateway's, perhaps
            (-1.0, "b2", 0.0),
            (None, "b2", 0.0),
        ],
    )
    def test_goes_further_back_where_the_apis_clock_is_behind(
        self, ahead: float | None, last: str, found_ahead: float, server: Server, client: Any
    ) -> None:
        now = int(CREATED_AT)
        made = {"b1": now, "b2": now - 3000, "b3": now - 9000, "b4": now - 20000}
        data = [
            {**BATCH, "id": name, "created_at": datetime.fromtimestamp(at, timezone.utc).isoformat()}
            for name, at in made.items()
        ]
        head = {} if ahead is None else {"Date": formatdate(now + ahead, usegmt=True)}
        server.answers = [lambda handler: handler.send_bare(json.dumps({"data": data}).encode(), head)]
        found = list(api.list_since(client, now - 3600, timeout=10, now=lambda: float(now)))
        assert found[-1].id == last
        assert {batch.ahead for batch in found} == {found_ahead}

    def test_reads_nothing_into_fields_that_the_api_may_come_to_have(self, server: Server, client: Any) -> None:
        server.answers = [answer(body={**BATCH, "date": "today", "ahead": ["x"], "our_date": 5.0, "our_ahead": 7.0})]
        found = api.retrieve_batch(client, "msgbatch_1", timeout=5)
        assert found.ahead == 0
        assert found.date == pytest.approx(time.time(), abs=30), "by the answer's head"

    def test_takes_from_a_batch_nothing_that_only_an_answers_head_says(self, server: Server, client: Any) -> None:
        said = {"organization": "another", "hold": 9.0, "call": {"event": "failed"}}
        server.answers = [answer(body={"data": [{**BATCH, **said}], "has_more": False})]
        [page] = api.list_pages(client, timeout=5)
        [batch] = page.data
        assert (batch.organization, batch.hold, batch.call) == (None, None, {})

    def test_says_nothing_of_absence_where_an_entry_cannot_be_read(self, server: Server, client: Any) -> None:
        good = {**BATCH, "id": "b2", "created_at": self.NEW}
        server.answers = [answer(body={"data": [{**good, "created_at": None}, good], "has_more": None})] * 2
        with pytest.raises(errors.TransientError, match="1 of its entries"):
            self.ids(client)
        [found] = api.list_pages(client, timeout=10)
        assert ([batch.id for batch in found.data], found.unreadable) == (["b2"], 1)

    def test_goes_no_further_back_than_asked(self, server: Server, client: Any) -> None:
        server.answers = [page("b1", more=True), page("b2", more=True, created_at=self.OLD), page("b3")]
        assert self.ids(client) == ["b1"]
        assert len(server.seen) == 2

    def test_takes_what_was_created_at_that_very_moment(self, server: Server, client: Any) -> None:
        server.answers = [page("b1", created_at="2026-11-22T12:00:00.250Z")]
        assert self.ids(client, CREATED_AT) == ["b1"]
        assert self.ids(client, CREATED_AT + 0.001) == []

    @pytest.mark.parametrize(
        "last",
        [page(), page("b2"), page("b2", last_id=None)],
    )
    def test_ends_with_the_last_page(self, server: Server, client: Any, last: Answer) -> None:
        server.answers = [page("b1", more=True), last]
        assert self.ids(client)[:1] == ["b1"]
        assert len(server.seen) == 2

    def test_goes_on_from_the_last_batch_where_no_cursor_is_given(self, server: Server, client: Any) -> None:
        server.answers = [page("b1", "b2", more=True, last_id=None), page("b3")]
        assert self.ids(client) == ["b1", "b2", "b3"]
        assert server.seen[1].path.endswith("after_id=b2")

    @pytest.mark.parametrize("last", [page("b1", more=True), page(more=True), page(data=[], last_id=None, more=True)])
    def test_whose_pages_lead_nowhere_is_no_listing(self, server: Server, client: Any, last: Answer) -> None:
        server.answers = [page("b1", more=True), last]
        with pytest.raises(errors.TransientError, match="ended before the last one"):
            self.ids(client)
        assert len(server.seen) in (2, 3)

    def test_that_breaks_off_is_no_listing(self, server: Server, client: Any) -> None:
        server.answers = [page("b1", more=True), failure(503)]
        with pytest.raises(errors.TransientError):
            self.ids(client)

    @pytest.mark.parametrize("status", [401, 404, 429])
    def test_that_fails_is_an_error_like_any(self, server: Server, client: Any, status: int) -> None:
        server.answers = [failure(status)]
        with pytest.raises(errors.ApiError):
            self.ids(client)


def transport() -> ModuleType:
    """The HTTP library of the SDK installed: httpx, or httpx2 from 1.0 on."""
    return importlib.import_module("httpx" if anthropic.__version__.startswith("0.") else "httpx2")


FACTORIES = """
import anthropic, importlib

http = importlib.import_module("httpx" if anthropic.__version__.startswith("0.") else "httpx2")
made = 0


class OwnHttpClient(http.Client):
    pass


def plain():
    global made
    made += 1
    return anthropic.Anthropic(base_url={url!r}, api_key="key-plain", max_retries=5)


def own_transport():
    client = OwnHttpClient(headers={{"x-tenant": "b"}})
    return anthropic.Anthropic(base_url={url!r}, api_key="key-own", http_client=client)


class Subclass(anthropic.Anthropic):
    pass


def subclass():
    return Subclass(base_url={url!r}, api_key="key-sub", default_headers={{"x-tenant": "c"}})


def broken():
    raise RuntimeError("the vault is locked")


def asynchronous():
    return anthropic.AsyncAnthropic(api_key="x")


def nothing():
    return None


not_callable = 17
"""


class TestTheClientOfAnAccount:
    @pytest.fixture(autouse=True)
    def _module(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        (tmp_path / "shop_clients.py").write_text(FACTORIES.format(url=server.url))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "shop_clients", raising=False)
        clients._client.cache_clear()
        yield
        clients._client.cache_clear()

    def client(self, name: str) -> anthropic.Anthropic:
        return api.get_client("tenant-b", {"tenant-b": f"shop_clients.{name}"})

    @pytest.mark.parametrize(
        ("factory", "key", "tenant"),
        [("plain", "key-plain", None), ("own_transport", "key-own", "b"), ("subclass", "key-sub", "c")],
    )
    def test_is_the_one_its_factory_makes(self, server: Server, factory: str, key: str, tenant: str | None) -> None:
        for endpoint, call in CALLS.items():
            server.answers = [answer(body={**BATCH, "data": []})]
            call(self.client(factory))
            seen = server.seen[-1]
            assert key in seen.headers.get("x-api-key", "") + seen.headers.get("authorization", ""), endpoint
            assert seen.headers.get("x-tenant") == tenant

    @every_endpoint
    @pytest.mark.parametrize("factory", ["plain", "own_transport", "subclass"])
    def test_never_tries_again_by_itself(self, server: Server, factory: str, endpoint: str) -> None:
        server.answers = [failure(503, retry_after="0")]
        with pytest.raises(errors.ApiError):
            CALLS[endpoint](self.client(factory))
        assert len(server.seen) == 1

    def test_is_made_once(self) -> None:
        assert self.client("plain") is self.client("plain")
        assert importlib.import_module("shop_clients").made == 1

    def test_is_not_shared_between_accounts(self) -> None:
        factories = {"a": "shop_clients.plain", "b": "shop_clients.plain"}
        assert api.get_client("a", factories) is not api.get_client("b", factories)

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            ("shop_clients.missing", "cannot be imported"),
            ("no_such_module.factory", "cannot be imported"),
            ("shop_clients.nothing", r"returned no anthropic\.Anthropic"),
            ("shop_clients.asynchronous", r"returned no anthropic\.Anthropic"),
        ],
    )
    def test_is_refused_if_its_factory_is_none(self, path: str, text: str) -> None:
        with pytest.raises(errors.InvalidSettings, match=text) as caught:
            api.get_client("tenant-b", {"tenant-b": path})
        assert path in str(caught.value)
        assert "tenant-b" in str(caught.value)

    @pytest.mark.parametrize("factory", ["broken", "not_callable"])
    def test_is_a_permanent_failure_if_its_factory_fails(self, factory: str) -> None:
        with pytest.raises(errors.PermanentError, match=f"shop_clients.{factory}"):
            self.client(factory)

    def test_is_refused_under_an_unknown_alias(self) -> None:
        with pytest.raises(errors.InvalidSettings, match=r"'tenant-c'.*claude_batch_client_factories"):
            api.get_client("tenant-c", {"tenant-b": "shop_clients.plain"})


class TestTheDefaultClient:
    @pytest.fixture(autouse=True)
    def _environment(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        for name in [name for name in os.environ if name.startswith("ANTHROPIC_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        clients._client.cache_clear()
        yield
        clients._client.cache_clear()

    FACTORIES = {"default": "claude_batch_tasks.api.default_client"}  # noqa: RUF012

    def test_has_key_and_address_from_the_environment(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        server.answers = [answer(body=BATCH)]
        api.retrieve_batch(api.get_client("default", self.FACTORIES), "msgbatch_1", timeout=10)
        [seen] = server.seen
        assert KEY in seen.headers.get("x-api-key", "") + seen.headers.get("authorization", "")

    @every_endpoint
    def test_without_a_key_fails_for_good_and_says_what_is_missing(self, server: Server, endpoint: str) -> None:
        with pytest.raises(errors.PermanentError, match="api_key") as caught:
            CALLS[endpoint](api.get_client("default", self.FACTORIES))
        assert caught.value.status is None
        assert server.seen == []
