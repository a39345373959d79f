"""What is paid for is sent whole only by its owner: the last part of a request waits until its sender has proved it."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import pytest

from claude_batch_tasks import api, errors
from claude_batch_tasks.api import body_limits
from claude_batch_tasks.steps.step import LeaseLost
from tests.support import wait_until

pytestmark = pytest.mark.latest

PARAMS = b'{"model":"m","max_tokens":8,"messages":[]}'
ANSWER = b'{"id":"msgbatch_1","processing_status":"in_progress","created_at":"2026-11-22T12:00:00Z","content":[]}'
STREAM = b'data: {"type":"message_start","message":{"id":"m","content":[]}}\n\ndata: {"type":"message_stop"}\n\n'


@dataclass
class Body:
    """One that a client began to send."""

    length: int
    data: bytearray

    @property
    def lacks(self) -> int:
        return self.length - len(self.data)


class Listener:
    """A server that takes a request byte by byte as it comes, and answers what is whole."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        #: Of each connection.
        self.bodies: list[list[Body]] = []
        #: Released whenever a client has closed its connection.
        self.ended = threading.Semaphore(0)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def whole(self) -> int:
        return sum(not body.lacks for found in self.bodies for body in found)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            found: list[Body] = []
            self.bodies.append(found)
            threading.Thread(target=self._serve, args=(client, found), daemon=True).start()

    def _serve(self, client: socket.socket, found: list[Body]) -> None:
        data = b""
        try:
            while part := client.recv(65536):
                data += part
                if b"\r\n\r\n" not in data:
                    continue
                head, _, data = data.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                assert length is not None, "a body that may end anywhere"
                body, data = Body(int(length[1]), bytearray(data)), b""
                found.append(body)
                while body.lacks:
                    if not (part := client.recv(65536)):
                        return
                    body.data += part
                sent = STREAM if b'"stream":true' in body.data else ANSWER
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(sent), sent))
        except ConnectionError:
            pass
        finally:
            client.close()
            self.ended.release()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def client(listener: Listener) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=listener.url, api_key="sk-ant-1", max_retries=0)


Call = Callable[[anthropic.Anthropic], Any]

CALLS: dict[str, Call] = {
    "create": lambda client: api.create_batch(client, iter([b'{"requests":[', b"{}", b"]}"]), 17),
    "a long create": lambda client: api.create_batch(client, iter([b'["', *[b"x" * 2**20] * 8, b'"]']), 4 + 8 * 2**20),
    "create in one part": lambda client: api.create_batch(client, [b'{"requests":[]}', b""], 15),
    "messages": lambda client: api.create_message(client, PARAMS),
    "stream": lambda client: api.create_message(client, PARAMS, stream=True),
}


def call(name: str, client: anthropic.Anthropic, confirm: Callable[[], None]) -> None:
    with body_limits.confirm_before_end(confirm):
        CALLS[name](client)


def lacking(listener: Listener) -> list[int]:
    """How many bytes each body of the last connection lacks."""
    return [body.lacks for found in listener.bodies[-1:] for body in found]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("error", [LeaseLost, errors.StoreUnavailable])
def test_what_is_not_confirmed_is_never_whole(
    name: str, error: type[Exception], listener: Listener, client: anthropic.Anthropic
) -> None:
    def refuse() -> None:
        raise error("not ours")

    for _ in range(2):
        with pytest.raises(error, match="not ours"):
            call(name, client, refuse)
        assert listener.ended.acquire(timeout=10), "the connection is closed, and not used again"
        assert len(lacking(listener)) == 1
    assert listener.whole == 0
    call(name, client, lambda: None)
    assert listener.whole == 1
    assert len(listener.bodies) == 3


@pytest.mark.parametrize(("name", "left"), [("create", 2), ("a long create", 2), ("messages", len(PARAMS))])
def test_no_more_than_a_small_last_part_is_sent_after_it_is_confirmed(
    name: str, left: int, listener: Listener, client: anthropic.Anthropic
) -> None:
    def confirm() -> None:
        wait_until(lambda: lacking(listener) == [left])

    call(name, client, confirm)
    assert listener.whole == 1


def test_a_large_part_is_divided(listener: Listener, client: anthropic.Anthropic) -> None:
    with body_limits.confirm_before_end(lambda: wait_until(lambda: lacking(listener) == [body_limits._AT_ONCE])):
        api.create_batch(client, [b"x" * 2**20], 2**20)
    assert listener.whole == 1


def test_a_body_whose_source_fails_is_never_whole(listener: Listener, client: anthropic.Anthropic) -> None:
    def parts() -> Iterator[bytes]:
        yield b'{"requests":['
        raise LeaseLost("taken over")

    with pytest.raises(LeaseLost, match="taken over"), body_limits.confirm_before_end(lambda: None):
        api.create_batch(client, parts(), 17)
    assert listener.ended.acquire(timeout=10)
    assert listener.whole == 0


def test_a_client_that_knows_its_whole_body_is_held_back_too(listener: Listener) -> None:
    """One that signs its requests reads the body before it sends it."""

    class Signing(anthropic.Anthropic):
        def _prepare_request(self, request: Any) -> None:
            request.read()
            request.headers["x-signed"] = str(len(request.content))

    def refuse() -> None:
        raise LeaseLost

    client = Signing(base_url=listener.url, api_key="sk-ant-1", max_retries=0)
    with pytest.raises(LeaseLost):
        call("create", client, refuse)
    assert listener.ended.acquire(timeout=10)
    assert lacking(listener) == [17]


def test_calls_of_others_through_the_same_client_are_left_alone(
    listener: Listener, client: anthropic.Anthropic
) -> None:
    call("messages", client, lambda: None)
    client.post("/v1/messages", body={"a": 1}, cast_to=object)
    assert listener.whole == 2
    assert client._client.event_hooks["request"].count(body_limits._hold_back) == 1
