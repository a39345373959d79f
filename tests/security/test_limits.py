"""Answers made to fill a worker's memory or to keep it for ever, over real sockets: refused, with an error of ours."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest

from claude_batch_tasks import api, errors, rules
from claude_batch_tasks.compression import zstd
from claude_batch_tasks.wire import batch_requests
from claude_batch_tasks.wire.completeness import Completeness
from tests.security.hostile import KEY, Body, Hostile, error, for_ever, head, packed, packed_twice

#: Bytes that a call may take at most, whatever it is answered: a few times the longest answer there is.
MOST = 250_000_000

BATCH = {"id": "msgbatch_1", "processing_status": "in_progress", "created_at": "2026-11-22T12:00:00Z"}
NONCE = "0" * 16
PARAMS = b'{"model":"m","max_tokens":9,"messages":[]}'
PAYS = ("create", "messages", "stream")

CALLS: dict[str, Callable[[anthropic.Anthropic], Any]] = {
    "create": lambda client: api.create_batch(client, iter([b"{}"]), 2),
    "retrieve": lambda client: api.retrieve_batch(client, "msgbatch_1", timeout=20),
    "cancel": lambda client: api.cancel_batch(client, "msgbatch_1", timeout=20),
    "list": lambda client: list(api.list_since(client, 0, timeout=20)),
    "messages": lambda client: api.create_message(client, PARAMS),
    "stream": lambda client: api.create_message(client, PARAMS, stream=True),
}
every_call = pytest.mark.parametrize("call", CALLS)


@pytest.fixture(scope="module")
def server() -> Iterator[Hostile]:
    with Hostile() as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Hostile) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0) as made:
        yield made


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    tracemalloc.start(1)
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST


def fails(client: anthropic.Anthropic, call: str) -> errors.ApiError:
    """How the call ends: what may be paid for is unclear, everything else passes."""
    with pytest.raises(errors.ApiError) as caught:
        CALLS[call](client)
    assert type(caught.value) is (errors.AmbiguousError if call in PAYS else errors.TransientError)
    return caught.value


@every_call
class TestAnAnswer:
    def test_that_unpacks_to_gigabytes_is_left_unread(
        self, server: Hostile, client: anthropic.Anthropic, call: str
    ) -> None:
        server.answers(head(200, Content_Encoding="gzip"), packed(4, first=b'{"id":"'))
        assert "bytes, more than any answer of the API; the rest was not read" in str(fails(client, call))

    def test_without_end_is_left_unread(self, server: Hostile, client: anthropic.Anthropic, call: str) -> None:
        server.answers(head(200), for_ever(b" ", first=b'{"id":"'))
        assert "bytes, more than any answer of the API" in str(fails(client, call))
        assert server.sent < 2 * rules.STREAM_BYTES

    @pytest.mark.parametrize(
        ("coding", "body"),
        [("zstd", zstd.compress(b" " * 200_000_000)), ("gzip, gzip", packed_twice(1)), ("br", b"..")],
    )
    def test_packed_in_a_way_that_was_not_asked_for_is_refused(
        self, server: Hostile, client: anthropic.Anthropic, call: str, coding: str, body: bytes
    ) -> None:
        server.answers(head(200, Content_Encoding=coding), lambda: iter([body]))
        assert f"is coded as {coding!r}" in str(fails(client, call))
        assert "accept-encoding: gzip\r\n" in server.seen[-1].lower()

    def test_whose_packed_body_breaks_off_is_broken(
        self, server: Hostile, client: anthropic.Anthropic, call: str
    ) -> None:
        whole = b"".join(packed(0, first=json.dumps(BATCH).encode())())
        server.answers(head(200, Content_Encoding="gzip"), lambda: iter([whole[:-12]]))
        fails(client, call)

    def test_with_endless_headers_is_refused(self, server: Hostile, client: anthropic.Anthropic, call: str) -> None:
        server.answers(b"HTTP/1.1 200 OK\r\n", for_ever(b"X-Filler: " + b"x" * 90 + b"\r\n"))
        fails(client, call)

    def test_nested_without_end_is_not_the_apis(self, server: Hostile, client: anthropic.Anthropic, call: str) -> None:
        deep = b'{"id":"a","type":"message_start","data":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"
        events = b"data: " + deep + b"\n\n"
        server.answers(head(200), lambda: iter([events if call == "stream" else deep]))
        assert "not the API's JSON" in str(fails(client, call))

    @pytest.mark.parametrize("unpacks", [False, True])
    def test_that_is_an_error_without_end_keeps_its_status(
        self, server: Hostile, client: anthropic.Anthropic, call: str, unpacks: bool
    ) -> None:
        if unpacks:
            server.answers(head(404, Content_Encoding="gzip"), packed(4))
        else:
            server.answers(head(404), for_ever(b"x"))
        with pytest.raises(errors.NotFoundError) as caught:
            CALLS[call](client)
        assert caught.value.status == 404
        assert server.sent < 50 * rules.ERROR_BYTES

    def test_that_is_an_error_packed_in_an_odd_way_keeps_its_status(
        self, server: Hostile, client: anthropic.Anthropic, call: str
    ) -> None:
        server.answers(head(404, Content_Encoding="zstd"), lambda: iter([zstd.compress(b" " * 100_000_000)]))
        with pytest.raises(errors.NotFoundError):
            CALLS[call](client)

    @pytest.mark.parametrize(
        "value", ["1e400", "-5", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "9" * 5000, "0001-01-01"]
    )
    def test_that_is_an_error_with_absurd_headers_keeps_its_status(
        self, server: Hostile, client: anthropic.Anthropic, call: str, value: str
    ) -> None:
        names = ("retry_after", "anthropic_ratelimit_requests_limit", "anthropic_ratelimit_requests_reset")
        headers = {"anthropic_ratelimit_requests_remaining": "0", **dict.fromkeys(names, value)}
        server.answers(*error(429, "no", **headers))
        with pytest.raises(errors.TransientError) as caught:
            CALLS[call](client)
        assert 0 <= (caught.value.retry_after or 0) <= rules.LONGEST_PAUSE


@pytest.mark.parametrize(("coding", "wbits"), [("gzip", 31), ("deflate", 15), ("deflate", -15)])
def test_an_answer_is_unpacked_however_its_packing_begins(
    server: Hostile, client: anthropic.Anthropic, coding: str, wbits: int
) -> None:
    pack = zlib.compressobj(wbits=wbits)
    body = pack.compress(json.dumps(BATCH).encode()) + pack.flush()
    server.answers(head(200, Content_Encoding=coding), lambda: (body[i : i + 1] for i in range(len(body))))
    assert api.retrieve_batch(client, "msgbatch_1", timeout=20).id == "msgbatch_1"


def test_an_answer_is_unpacked_to_its_end_also_where_that_fills_the_last_piece(
    server: Hostile, client: anthropic.Anthropic
) -> None:
    text = json.dumps(BATCH).encode()
    for size in range(65_560, 65_600, 4):
        pack = zlib.compressobj(9, wbits=-15)
        body = pack.compress(text + b" " * (size - len(text))) + pack.flush()
        server.answers(head(200, Content_Encoding="deflate"), lambda body=body: iter([body]))  # type: ignore[misc]
        assert api.retrieve_batch(client, "msgbatch_1", timeout=20).id == "msgbatch_1"


class TestABatch:
    @pytest.mark.parametrize("number", ["1" + "0" * 400, "-1", "1.5", '"7"', "true", "null", "[]"])
    def test_with_absurd_counts_has_none(self, server: Hostile, client: anthropic.Anthropic, number: str) -> None:
        body = json.dumps({**BATCH, "request_counts": {"succeeded": 3}})
        body = body.replace('"succeeded": 3', f'"succeeded": 3, "errored": {number}')
        server.answers(head(200), lambda: iter([body.encode()]))
        assert api.retrieve_batch(client, "msgbatch_1", timeout=20).request_counts == {"succeeded": 3}

    @pytest.mark.parametrize("batch_id", ["", "a/../b", "a\nb", "x" * 10_000, "a?b", "a b"])
    def test_with_an_absurd_id_is_none(self, server: Hostile, client: anthropic.Anthropic, batch_id: str) -> None:
        server.answers(head(200), lambda: iter([json.dumps({**BATCH, "id": batch_id}).encode()]))
        fails(client, "create")

    @pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
    def test_of_an_absurd_time_has_that(self, server: Hostile, client: anthropic.Anthropic, moment: str) -> None:
        server.answers(head(200), lambda: iter([json.dumps({**BATCH, "created_at": moment}).encode()]))
        assert abs(api.retrieve_batch(client, "msgbatch_1", timeout=20).created_at.timestamp()) < 1e12


def test_a_listing_without_end_is_none(
    server: Hostile, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "PAGES", 20)
    server.head = lambda request: head(200)
    server.body = lambda: iter(
        [json.dumps({"data": [BATCH], "has_more": True, "last_id": f"b{len(server.seen)}"}).encode()]
    )
    server.seen.clear()
    with pytest.raises(errors.TransientError, match="ended before the last one"):
        list(api.list_since(client, 0, timeout=20))
    assert len(server.seen) == rules.PAGES + 1


class TestAStream:
    @pytest.fixture(autouse=True)
    def _short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What takes its time is the reading of millions of events."""
        monkeypatch.setattr("claude_batch_tasks.rules.response_limits.STREAM_BYTES", 500_000)

    def test_of_events_without_end_is_left(self, server: Hostile, client: anthropic.Anthropic) -> None:
        server.answers(head(200), for_ever(b'event: ping\ndata: {"type": "ping"}\n\n'))
        assert "500,000 bytes" in str(fails(client, "stream"))

    def test_of_an_event_without_end_is_left(self, server: Hostile, client: anthropic.Anthropic) -> None:
        server.answers(head(200), for_ever(b"data: 0123456789012345678901234567890123456789\n"))
        assert "500,000 bytes" in str(fails(client, "stream"))

    @pytest.mark.parametrize(
        "event",
        [
            {"type": "message_start"},
            {"type": "message_start", "message": 7},
            {"type": "content_block_delta", "index": 9, "delta": {"type": "text_delta", "text": "x"}},
            {"type": "content_block_start", "index": {}, "content_block": {}},
            {"type": "message_delta", "usage": [1]},
        ],
    )
    def test_of_absurd_events_may_have_been_paid_for(
        self, server: Hostile, client: anthropic.Anthropic, event: dict[str, Any]
    ) -> None:
        begin = {"type": "message_start", "message": {"content": []}}
        server.answers(head(200), lambda: iter(f"data: {json.dumps(e)}\n\n".encode() for e in (begin, event)))
        fails(client, "stream")


def test_an_answer_of_millions_of_parts_is_refused(server: Hostile, client: anthropic.Anthropic) -> None:
    server.answers(head(200), lambda: iter([b'{"content":[', b"[],[]," * 4_000_000, b"0]}"]))
    assert "more parts" in str(fails(client, "messages"))


def row(index: int) -> bytes:
    line = {
        "custom_id": batch_requests.wire_id(NONCE, index),
        "result": {"type": "succeeded", "message": {"content": []}},
    }
    return json.dumps(line).encode() + b"\n"


class TestAResultFile:
    def kept(self, server: Hostile, client: anthropic.Anthropic, body: Body, **headers: str) -> Completeness:
        """What of the file of three requests was kept."""
        server.answers(head(200, **headers), body)
        seen = Completeness(NONCE, 0, 3)
        with api.open_results(client, "msgbatch_1", timeout=20) as chunks:
            self.pieces = list(seen.keep_rows(chunks))
        return seen

    @pytest.mark.parametrize("coded", [False, True])
    def test_with_a_line_without_end_is_read_up_to_there(
        self, server: Hostile, client: anthropic.Anthropic, coded: bool
    ) -> None:
        if coded:
            seen = self.kept(server, client, packed(4, first=row(0) + row(1)), Content_Encoding="gzip")
        else:
            seen = self.kept(server, client, for_ever(b"x", first=row(0) + row(1)))
        assert (seen.distinct, seen.broken) == (2, 1)
        assert b"".join(self.pieces) + b"\n" == (row(0) + row(1)).rstrip(b"\n") + b"\n"
        with pytest.raises(errors.ResultsIncomplete, match="2 of 3"):
            seen.check_counts({})

    @pytest.mark.parametrize(
        "line", [row(0), b'{"custom_id":"another","result":{"type":"expired"}}\n', b"no" * 500 + b"\n"]
    )
    def test_with_lines_without_end_is_read_up_to_a_limit(
        self, server: Hostile, client: anthropic.Anthropic, line: bytes
    ) -> None:
        seen = self.kept(server, client, for_ever(line, first=row(0)))
        assert seen.distinct == 1
        assert server.sent < 50_000_000
        with pytest.raises(errors.ResultsIncomplete, match="1 of 3"):
            seen.check_counts({})

    def test_with_a_line_nested_without_end_has_one_that_is_broken(
        self, server: Hostile, client: anthropic.Anthropic
    ) -> None:
        deep = b'{"custom_id":"a","result":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}\n"
        seen = self.kept(server, client, lambda: iter([row(0), deep, row(1), row(2)]))
        assert (seen.distinct, seen.broken) == (3, 1)

    def test_that_is_large_and_right_is_read_whole(self, server: Hostile, client: anthropic.Anthropic) -> None:
        """The limits are for what no file of the API has."""
        padded = b"".join(row(i).replace(b"[]", b'["' + b"x" * 20_000_000 + b'"]') for i in range(3))
        seen = self.kept(server, client, lambda: iter([padded]))
        seen.check_counts({})
        assert sum(map(len, self.pieces)) > 60_000_000
