"""Faults of the field: what proxies and gateways in front of the API do, over real connections."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import anthropic
import pytest

from claude_batch_tasks.simulator import Fault, Simulator

from .conftest import call, new_client, request, requests

pytestmark = pytest.mark.latest

BATCHES = "/v1/messages/batches"
HEAD = b"x-api-key: key-a\r\nanthropic-version: 2023-06-01\r\n"
PARAMS = request("", "a message " * 20)["params"]
#: Seconds in which a client that is not answered gives up.
PATIENCE = 0.3


def read_until_silent(simulator: Simulator, method: bytes, path: str, body: bytes = b"") -> tuple[bytes, bool]:
    """Return what a call is answered, and whether the connection was still open after a silence."""
    url = urlsplit(simulator.url)
    length = b"content-length: %d\r\n" % len(body)
    got = b""
    with socket.create_connection((str(url.hostname), url.port or 0), timeout=20) as connection:
        connection.sendall(method + b" " + path.encode() + b" HTTP/1.1\r\nhost: x\r\n" + HEAD + length + b"\r\n" + body)
        connection.settimeout(PATIENCE)
        try:
            while chunk := connection.recv(65536):
                got += chunk
        except TimeoutError:
            return got, True
    return got, False


@pytest.mark.parametrize("commit", [False, True])
def test_a_call_that_is_never_answered(simulator: Simulator, client: anthropic.Anthropic, commit: bool) -> None:
    simulator.faults(Fault("create", "stall", commit=commit, calls=(1,)))
    body = json.dumps({"requests": requests(1)}).encode()
    assert read_until_silent(simulator, b"POST", BATCHES, body) == (b"", True)
    assert len(client.messages.batches.list().data) == commit
    seen = simulator.journal().calls_to("create")
    assert [(c.status, c.faults) for c in seen] == [(0, ["stall"])]


def test_a_body_that_stops_and_stays_open(simulator: Simulator, client: anthropic.Anthropic) -> None:
    batch = client.messages.batches.create(requests=requests(10))
    simulator.end()
    simulator.faults(Fault("results", "cut", how="stall", at=0.5, calls=(1,)))
    got, still_open = read_until_silent(simulator, b"GET", f"{BATCHES}/{batch.id}/results")
    assert still_open
    assert got.count(b'"custom_id"') == 6
    assert not got.endswith(b"0\r\n\r\n")
    assert len(list(client.messages.batches.results(batch.id))) == 10


def test_a_stream_that_stops_and_stays_open(simulator: Simulator) -> None:
    simulator.faults(Fault("messages", "cut", how="stall", at=0.5))
    body = json.dumps({**PARAMS, "stream": True}).encode()
    got, still_open = read_until_silent(simulator, b"POST", "/v1/messages", body)
    assert still_open
    assert b"message_start" in got
    assert b"message_stop" not in got
    assert simulator.journal().totals.paid_messages == 1


def test_the_sdk_gives_up_by_its_own_timeout(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.faults(Fault("retrieve", "stall"), Fault("messages", "cut", how="stall"))
    batch = client.messages.batches.create(requests=requests(1))
    with pytest.raises(anthropic.APITimeoutError):
        client.messages.batches.retrieve(batch.id, timeout=PATIENCE)
    with pytest.raises(Exception, match=r"(?i)timed out|timeout"):
        client.messages.create(**PARAMS, timeout=PATIENCE)


def test_stalled_calls_do_not_keep_the_simulator_from_stopping() -> None:
    with Simulator() as own:
        own.faults(Fault("list", "stall"))
        url = urlsplit(own.url)
        connection = socket.create_connection((str(url.hostname), url.port or 0), timeout=20)
        connection.sendall(b"GET " + BATCHES.encode() + b" HTTP/1.1\r\nhost: x\r\n" + HEAD + b"\r\n")
        while not own.journal().calls:
            time.sleep(0.01)
        start = time.monotonic()
    assert time.monotonic() - start < 5
    connection.close()


def events(body: bytes) -> list[bytes]:
    return body.split(b"\n\n")[:-1]


def test_what_follows_the_end_of_a_stream(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.faults(Fault("messages", "append", body="data: [DONE]\n\n"))
    streamed = call(simulator, "POST", "/v1/messages", {**PARAMS, "stream": True}).body
    assert events(streamed)[-2].startswith(b"event: message_stop")
    assert events(streamed)[-1] == b"data: [DONE]"
    # An answer in one piece is left as it is, and the fault has not struck.
    assert call(simulator, "POST", "/v1/messages", PARAMS).json["type"] == "message"
    assert [c.faults for c in simulator.journal().calls] == [["append"], []]


def test_lines_after_the_end_of_results(simulator: Simulator, client: anthropic.Anthropic) -> None:
    batch = client.messages.batches.create(requests=requests(1))
    simulator.end()
    simulator.faults(Fault("results", "append", body="<html>504</html>"))
    body = call(simulator, "GET", f"{BATCHES}/{batch.id}/results").body
    assert body.splitlines()[1:] == [b"<html>504</html>"]


def test_a_spliced_stream(simulator: Simulator) -> None:
    simulator.faults(Fault("messages", "splice", at=0.5, calls=(1,)))
    spliced = events(call(simulator, "POST", "/v1/messages", {**PARAMS, "stream": True}).body)
    whole = events(call(simulator, "POST", "/v1/messages", {**PARAMS, "stream": True}).body)
    starts = [json.loads(e.split(b"data: ")[1])["message"]["id"] for e in spliced if b"event: message_start" in e]
    assert len(set(starts)) == 2
    half = len(whole) // 2
    assert spliced[1:half] == whole[1:half]
    assert spliced[half + 1 :] == whole[1:]
    # One answer was made, and one is charged.
    assert simulator.journal().totals.paid_messages == 2


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        ("", "text/plain"),
        ("<html></html>", "text/html"),
        ('{"message": "no Route matched"}', "application/json"),
        ("upstream connect error", "text/plain"),
    ],
)
def test_a_proxy_sends_nothing_of_the_api(simulator: Simulator, body: str, media_type: str) -> None:
    simulator.faults(Fault("list", "status", status=503, body=body, proxy=True, headers={"server": "envoy"}))
    answer = call(simulator, "GET", BATCHES)
    assert (answer.status, answer.body.decode()) == (503, body)
    assert answer.headers["content-type"].startswith(media_type)
    assert answer.headers["server"] == "envoy"
    assert not [name for name in answer.headers if name.startswith(("request-id", "anthropic-"))]


def test_a_proxy_says_itself_what_it_sends(simulator: Simulator) -> None:
    problem = {"title": "Error 524", "status": 524}
    headers = {"content-type": "application/problem+json"}
    simulator.faults(Fault("list", "status", status=524, body=json.dumps(problem), headers=headers, proxy=True))
    answer = call(simulator, "GET", BATCHES)
    assert (answer.headers["content-type"], answer.json) == ("application/problem+json", problem)


def test_a_fault_of_all_batch_endpoints_leaves_messages_alone(
    simulator: Simulator, client: anthropic.Anthropic
) -> None:
    simulator.faults(Fault("batches", "status", status=501))
    assert call(simulator, "GET", BATCHES).status == 501
    assert call(simulator, "GET", f"{BATCHES}/msgbatch_x/results").status == 501
    assert call(simulator, "POST", "/v1/messages", PARAMS).status == 200


def test_what_is_not_served_is_in_the_journal_and_in_the_log(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "claude_batch_tasks.simulator"):
        call(simulator, "POST", "/v1/complete", {})
        call(simulator, "GET", BATCHES, headers={"anthropic-version": "2023-06-01"})
    unserved = simulator.journal().unserved()
    assert [(c.endpoint, c.path, c.status) for c in unserved] == [(None, "/v1/complete", 404), ("list", BATCHES, 401)]
    assert [c.reason for c in unserved] == ["not served: no such path", "x-api-key header is required"]
    for expected in ("POST /v1/complete: not served", f"GET {BATCHES}: x-api-key header"):
        assert expected in caplog.text
    call(simulator, "GET", BATCHES)
    assert len(simulator.journal().unserved()) == 2


def test_a_client_that_goes_away_is_in_the_journal(simulator: Simulator) -> None:
    url = urlsplit(simulator.url)
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=20)
    connection.putrequest("POST", BATCHES)
    connection.putheader("x-api-key", "key-a")
    connection.putheader("anthropic-version", "2023-06-01")
    connection.putheader("content-length", "1000")
    connection.endheaders(b"{")
    while not simulator.journal().calls:
        time.sleep(0.01)
    connection.close()
    while not (reason := simulator.journal().calls[0].reason):
        time.sleep(0.01)
    assert reason == "the client closed the connection"
    with new_client(simulator) as client:
        assert client.messages.batches.list().data == []


def outcome_of(work: Callable[[], object]) -> int | str:
    """Return the status of what a call raises, or the name of its error; 200 if it raises nothing."""
    try:
        work()
    except anthropic.APIStatusError as error:
        return error.status_code
    except Exception as error:  # noqa: BLE001
        return type(error).__name__
    return 200


#: By scenario: the status, whether the work was done in spite of it, and what the first body begins with.
STATUSES = {
    "cloudflare-403": (403, False, b"<!DOCTYPE html>"),
    "forbidden-403": (403, False, b'{"error":{"type":"forbidden"'),
    "cloudflare-520": (520, True, b""),
    "cloudflare-522": (522, False, b'{"type":"about:blank"'),
    "cloudflare-524": (524, True, b"<!DOCTYPE html>"),
    "envoy-503": (503, True, b"upstream connect error"),
}


@pytest.mark.parametrize("name", STATUSES)
def test_statuses_of_the_field_pass_by_themselves(simulator: Simulator, client: anthropic.Anthropic, name: str) -> None:
    status, done, begin = STATUSES[name]
    simulator.reset(name)
    refused = call(simulator, "POST", BATCHES, {"requests": requests(1)})
    assert refused.status == status
    assert refused.body.startswith(begin)
    assert refused.headers["request-id"] is None
    assert simulator.state().totals.batches_created == done
    batches = client.messages.batches
    batch = batches.create(requests=requests(1))
    simulator.end()
    for work in (batches.list, lambda: batches.retrieve(batch.id), lambda: list(batches.results(batch.id))):
        assert [outcome_of(work) for _ in range(2)] == [status, 200]
    assert [outcome_of(lambda: client.messages.create(**PARAMS)) for _ in range(2)] == [status, 200]
    assert simulator.state().totals.paid_messages == 1 + done


@pytest.mark.parametrize(
    ("name", "end"),
    [("stream-done", b"data: [DONE]\n\n"), ("stream-empty", b"data:\n\ndata: \n\n")],
)
def test_streams_with_something_after_their_end(
    simulator: Simulator, client: anthropic.Anthropic, name: str, end: bytes
) -> None:
    simulator.reset(name)
    for _ in range(2):
        assert call(simulator, "POST", "/v1/messages", {**PARAMS, "stream": True}).body.endswith(b"}\n\n" + end)
    assert outcome_of(lambda: client.messages.create(**PARAMS)) == 200
    assert outcome_of(lambda: client.messages.batches.create(requests=requests(1))) == 200


def test_the_spliced_stream_is_whole_the_second_time(simulator: Simulator) -> None:
    simulator.reset("stream-spliced")
    starts = [
        call(simulator, "POST", "/v1/messages", {**PARAMS, "stream": True}).body.count(b"event: message_start")
        for _ in range(2)
    ]
    assert starts == [2, 1]


@pytest.mark.parametrize(
    ("name", "key", "media_type"),
    [
        ("no-batches-404", "message", "application/json"),
        ("no-batches-405", "detail", "application/json"),
        ("no-batches-501", "title", "application/problem+json"),
    ],
)
def test_a_gateway_without_batches(
    simulator: Simulator, client: anthropic.Anthropic, name: str, key: str, media_type: str
) -> None:
    simulator.reset(name)
    status = int(name[-3:])
    paths = [BATCHES, f"{BATCHES}/msgbatch_x", f"{BATCHES}/msgbatch_x/results"]
    answers = [call(simulator, "GET", path) for path in paths]
    answers.append(call(simulator, "POST", BATCHES, {"requests": requests(1)}))
    answers.append(call(simulator, "POST", f"{BATCHES}/msgbatch_x/cancel"))
    for answer in answers:
        assert (answer.status, answer.headers["content-type"]) == (status, media_type)
        assert answer.json[key]
    assert client.messages.create(**PARAMS).type == "message"
    assert simulator.state().totals.batches_created == 0


def test_half_open_connections(simulator: Simulator) -> None:
    simulator.reset("half-open")
    url = simulator.url
    with anthropic.Anthropic(base_url=url, api_key="key-a", max_retries=0, timeout=1.0) as client:
        batches = client.messages.batches
        assert outcome_of(lambda: batches.create(requests=requests(10))) == "APITimeoutError"
        (stored,) = batches.list().data
        simulator.end()
        assert [outcome_of(lambda: batches.retrieve(stored.id)) for _ in range(2)] == ["APITimeoutError", 200]
        assert [outcome_of(lambda: list(batches.results(stored.id))) for _ in range(2)] == ["ReadTimeout", 200]
        assert [outcome_of(lambda: client.messages.create(**PARAMS)) for _ in range(2)] == ["APITimeoutError", 200]
    assert simulator.journal().paid_twice() == []


def test_create_is_healthy_and_the_rest_is_as_reported(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.reset("issue-1432-created")
    batches = client.messages.batches
    batch = batches.create(requests=requests(1))
    seen = []
    for seconds in (0, 5, 7, 3, 10):
        simulator.advance(seconds)
        seen.append(outcome_of(lambda: batches.retrieve(batch.id)))
    assert seen == [404, 200, 404, 200, 200]
    assert [outcome_of(lambda: batches.results(batch.id)) for _ in range(3)] == [404, 404, 200]
