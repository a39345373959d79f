"""Where the API key goes: to the configured address, and into nothing that says what went wrong there."""

from __future__ import annotations

import json
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path

import anthropic
import pytest

from claude_batch_tasks import api, errors
from tests.security.hostile import KEY, Hostile, error, head
from tests.security.test_limits import BATCH, CALLS, every_call


@pytest.fixture(scope="module")
def server() -> Iterator[Hostile]:
    with Hostile() as running:
        yield running


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Hostile]:
    with Hostile() as running:
        yield running


def shown(exc: BaseException) -> str:
    """Everything an exception can be made to say."""
    return f"{exc!r} {exc} {exc.args} {vars(exc)} {''.join(traceback.format_exception(exc))} {pickle.dumps(exc)!r}"


@pytest.fixture(scope="module", params=["api_key", "auth_token"])
def client(request: pytest.FixtureRequest, server: Hostile) -> Iterator[anthropic.Anthropic]:
    """With each way in which the SDK says who it is."""
    with anthropic.Anthropic(base_url=server.url, max_retries=0, **{request.param: KEY}) as made:
        yield made


def test_a_factory_that_quotes_it_is_not_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "quoting_factory.py").write_text(f"raise RuntimeError('no use for sk-ant-{'x' * 20}')")
    monkeypatch.syspath_prepend(tmp_path)
    assert api.why_unusable("quoting_factory.make") == "RuntimeError: no use for [key]"


RESULTS = {"results": lambda client: api.open_results(client, "msgbatch_1", timeout=20).__enter__()}
WITH_RESULTS = {**CALLS, **RESULTS}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("call", WITH_RESULTS)
def test_a_redirect_is_not_followed(
    server: Hostile, elsewhere: Hostile, client: anthropic.Anthropic, call: str, status: int
) -> None:
    server.seen.clear()
    server.answers(head(status, Location=f"{elsewhere.url.replace('127.0.0.1', 'localhost')}/v1/messages"))
    with pytest.raises(errors.ApiError, match=str(status)):
        WITH_RESULTS[call](client)
    assert len(server.seen) == 1
    assert KEY in server.seen[0]
    assert elsewhere.seen == []


def test_results_come_from_the_configured_address_whatever_the_batch_says(
    server: Hostile, elsewhere: Hostile, client: anthropic.Anthropic
) -> None:
    url = f"{elsewhere.url}/v1/messages/batches/msgbatch_1/results"
    fields = {"processing_status": "ended", "created_at": "2026-11-22T12:00:00Z", "results_url": url}
    body = json.dumps({"id": "msgbatch_1", **fields})
    server.answers(head(200), lambda: iter([body.encode()]))
    batch = api.retrieve_batch(client, "msgbatch_1", timeout=20)
    server.answers(head(200), lambda: iter([b"row\n"]))
    with api.open_results(client, batch.id, timeout=20) as chunks:
        assert b"".join(chunks) == b"row\n"
    assert elsewhere.seen == []


@pytest.mark.parametrize("call", WITH_RESULTS)
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
def test_a_refusal_that_quotes_it_becomes_an_error_without_it(
    server: Hostile, client: anthropic.Anthropic, call: str, status: int
) -> None:
    said = f"{'long ' * 90} not {KEY}, not Bearer {KEY}, not sk-ant-oat01-anothers_own"
    server.answers(*error(status, said, request_id=f"req_{KEY}"))
    with pytest.raises(errors.ApiError) as caught:
        WITH_RESULTS[call](client)
    assert KEY not in shown(caught.value)
    assert "sk-ant" not in shown(caught.value)
    assert "not [key]" in str(caught.value)


@pytest.mark.parametrize("call", ["create", "retrieve"])
def test_a_request_id_that_quotes_it_is_told_without_it(
    server: Hostile, client: anthropic.Anthropic, call: str
) -> None:
    server.answers(head(200, request_id=f"req_{KEY}"), lambda: iter([json.dumps(BATCH).encode()]))
    assert CALLS[call](client).call["request_id"] == "req_[key]"


@every_call
def test_an_error_in_a_stream_that_quotes_it_does_so_in_vain(
    server: Hostile, client: anthropic.Anthropic, call: str
) -> None:
    event = f'event: error\ndata: {{"type":"error","error":{{"type":"api_error","message":"{KEY}"}}}}\n\n'
    server.answers(head(200), lambda: iter([event.encode()]))
    with pytest.raises(errors.ApiError) as caught:
        CALLS[call](client)
    assert KEY not in shown(caught.value)


def test_a_key_of_a_gateway_is_hidden_as_well(server: Hostile) -> None:
    server.answers(*error(401, "unknown: tenant-key-17"))
    with (
        anthropic.Anthropic(base_url=server.url, api_key="tenant-key-17", max_retries=0) as client,
        pytest.raises(errors.PermanentError, match=r"unknown: \[key\]") as caught,
    ):
        api.retrieve_batch(client, "msgbatch_1", timeout=20)
    assert "tenant-key-17" not in shown(caught.value)
