"""Each fault, as the real SDK meets it, and what was done and paid in spite of it."""

from __future__ import annotations

import http.client
import json
import time

import anthropic
import pytest

from claude_batch_tasks.simulator import Fault, Simulator

from .conftest import call, new_client, request, requests

pytestmark = pytest.mark.latest

PARAMS = request("", "a message")["params"]


def ended(simulator: Simulator, client: anthropic.Anthropic, count: int = 10) -> str:
    batch = client.messages.batches.create(requests=requests(count))
    simulator.end()
    return batch.id


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 409, 413, 422, 425, 429, 500, 502, 503, 504, 529])
def test_a_status(simulator: Simulator, client: anthropic.Anthropic, status: int) -> None:
    simulator.faults(Fault("create", "status", status=status, headers={"retry-after": "7", "retry-after-ms": "70"}))
    with pytest.raises(anthropic.APIStatusError) as raised:
        client.messages.batches.create(requests=requests(1))
    response = raised.value.response
    assert (raised.value.status_code, response.headers["retry-after"]) == (status, "7")
    assert response.headers["retry-after-ms"] == "70"
    assert raised.value.request_id
    journal = simulator.journal()
    assert journal.totals.batches_created == 0
    assert [(c.status, c.faults) for c in journal.calls] == [(status, [f"status {status}"])]


def test_an_error_of_any_type_and_text(simulator: Simulator) -> None:
    simulator.faults(Fault("list", "status", status=400, error="billing_error", message="no credit"))
    assert call(simulator, "GET", "/v1/messages/batches").error == (400, "billing_error", "no credit")


def test_an_html_error(simulator: Simulator) -> None:
    simulator.faults(Fault("list", "status", status=502, body="<html>Bad Gateway</html>"))
    answer = call(simulator, "GET", "/v1/messages/batches")
    assert answer.status == 502
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.body == b"<html>Bad Gateway</html>"


def test_stored_but_answered_500(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.faults(Fault("create", "status", status=500, commit=True))
    with pytest.raises(anthropic.InternalServerError):
        client.messages.batches.create(requests=requests(1))
    journal = simulator.journal()
    assert journal.totals.batches_created == 1
    assert journal.calls[0].batch_id == client.messages.batches.list().data[0].id


@pytest.mark.parametrize("commit", [False, True])
def test_a_dropped_create(simulator: Simulator, client: anthropic.Anthropic, commit: bool) -> None:
    simulator.faults(Fault("create", "drop", commit=commit))
    with pytest.raises(anthropic.APIConnectionError):
        client.messages.batches.create(requests=requests(1))
    assert len(client.messages.batches.list().data) == commit
    assert simulator.journal().calls[0].status == 0


@pytest.mark.parametrize("commit", [False, True])
def test_a_dropped_message_is_paid_where_it_was_answered(
    simulator: Simulator, client: anthropic.Anthropic, commit: bool
) -> None:
    simulator.faults(Fault("messages", "drop", commit=commit))
    with pytest.raises(anthropic.APIConnectionError):
        client.messages.create(**PARAMS)
    assert simulator.journal().totals.paid_messages == commit


def test_the_sdks_own_retries_are_seen(simulator: Simulator) -> None:
    simulator.faults(Fault("create", "drop", commit=True, calls=(1,)))
    with anthropic.Anthropic(base_url=simulator.url, api_key="k", max_retries=1) as client:
        client.messages.batches.create(requests=requests(2))
    simulator.end()
    journal = simulator.journal()
    assert [c.sdk_retries for c in journal.calls_to("create")] == [0, 1]
    assert journal.totals.batches_created == 2
    assert [prompt.custom_ids for prompt in journal.paid_twice()] == [["r-0"] * 2, ["r-1"] * 2]


def test_a_download_that_ends_early_but_validly(simulator: Simulator, client: anthropic.Anthropic) -> None:
    batch_id = ended(simulator, client)
    simulator.faults(Fault("results", "cut", how="clean", at=0.5))
    assert len(list(client.messages.batches.results(batch_id))) == 5


def test_a_download_that_ends_in_a_line(simulator: Simulator, client: anthropic.Anthropic) -> None:
    batch_id = ended(simulator, client)
    simulator.faults(Fault("results", "cut", how="line", at=0.5))
    seen = []
    with pytest.raises(json.JSONDecodeError):
        seen += list(client.messages.batches.results(batch_id))
    body = call(simulator, "GET", f"/v1/messages/batches/{batch_id}/results").body
    assert body.count(b"\n") == 5


@pytest.mark.parametrize(("how", "error"), [("close", "RemoteProtocolError"), ("reset", "ReadError")])
def test_a_download_that_breaks(simulator: Simulator, client: anthropic.Anthropic, how: str, error: str) -> None:
    batch_id = ended(simulator, client, 2000)
    simulator.faults(Fault("results", "cut", how=how, at=0.9))  # type: ignore[arg-type]
    seen = 0
    with pytest.raises(Exception, match=r".") as raised:  # noqa: PT012
        for _ in client.messages.batches.results(batch_id):
            seen += 1
    # httpx or httpx2, by the version of the SDK.
    assert type(raised.value).__name__ == error
    # A reset throws away what has arrived and was not read yet.
    assert (1000 if how == "close" else 0) <= seen <= 1800


def test_a_broken_answer_of_one_piece(simulator: Simulator, client: anthropic.Anthropic) -> None:
    batch_id = ended(simulator, client)
    simulator.faults(Fault("retrieve", "cut", how="line", calls=(1,)), Fault("retrieve", "cut", how="reset"))
    for _ in range(2):
        with pytest.raises(Exception):  # noqa: B017, PT011
            client.messages.batches.retrieve(batch_id).ended_at  # noqa: B018
    assert [c.faults for c in simulator.journal().calls_to("retrieve")] == [["cut"], ["cut"]]


def test_a_delay_that_a_client_does_not_wait_for(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.faults(Fault("create", "delay", seconds=0.5, commit=True))
    with pytest.raises(anthropic.APITimeoutError):
        client.messages.batches.create(requests=requests(1), timeout=0.2)
    assert simulator.journal().totals.batches_created == 1


def test_a_delay_goes_with_another_fault(simulator: Simulator) -> None:
    simulator.faults(Fault("list", "delay", seconds=0.2), Fault("list", "status", status=529))
    start = time.monotonic()
    assert call(simulator, "GET", "/v1/messages/batches").status == 529
    assert time.monotonic() - start > 0.2
    assert simulator.journal().calls[0].faults == ["delay", "status 529"]


def statuses(client: anthropic.Anthropic, batch_id: str, calls: int) -> list[int]:
    answers = []
    for _ in range(calls):
        try:
            client.messages.batches.retrieve(batch_id)
            answers.append(200)
        except anthropic.APIStatusError as error:
            answers.append(error.status_code)
    return answers


def test_faults_by_call_and_batch(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.faults(Fault("retrieve", "status", status=404, calls=(1, 3)))
    for _ in range(2):
        batch = client.messages.batches.create(requests=requests(1))
        assert statuses(client, batch.id, 4) == [404, 200, 404, 200]


def test_faults_by_call_of_the_whole_server(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.faults(Fault("retrieve", "status", status=404, calls=(2,), per="server"))
    ids = [client.messages.batches.create(requests=requests(1)).id for _ in range(2)]
    assert [statuses(client, batch_id, 2) for batch_id in ids] == [[200, 404], [200, 200]]


def test_faults_by_number(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.faults(Fault("any", "status", status=503, times=2, per="server"))
    assert call(simulator, "GET", "/v1/messages/batches").status == 503
    with pytest.raises(anthropic.APIStatusError):
        client.messages.batches.create(requests=requests(1))
    client.messages.batches.create(requests=requests(1))
    assert [(f.seen, f.fired) for f in simulator.state().faults] == [(3, 2)]


def test_faults_by_time(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(processing_seconds=100.0)
    simulator.faults(
        Fault("retrieve", "status", status=404, before=10),
        Fault("retrieve", "status", status=500, after=50, before=60),
        Fault("retrieve", "status", status=503, since="ended", calls=(2,)),
        Fault("create", "status", status=529, after=90),
    )
    batch = client.messages.batches.create(requests=requests(1))
    seen = []
    for seconds in (0, 20, 35, 10, 40):
        simulator.advance(seconds)
        seen.append(statuses(client, batch.id, 2))
    assert seen == [[404, 404], [200, 200], [500, 500], [200, 200], [200, 503]]
    with pytest.raises(anthropic.APIStatusError):
        client.messages.batches.create(requests=requests(1))


def test_faults_by_probability_repeat_with_the_seed(simulator: Simulator, client: anthropic.Anthropic) -> None:
    def run() -> list[int]:
        simulator.reset()
        simulator.faults(Fault("retrieve", "status", status=404, probability=0.5))
        batch = client.messages.batches.create(requests=requests(1))
        return statuses(client, batch.id, 20)

    first = run()
    assert {200, 404} == set(first)
    assert run() == first


def test_messages_are_counted_by_prompt(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.faults(Fault("messages", "status", status=529, calls=(1,)))
    for text in ("one", "two"):
        with pytest.raises(anthropic.APIStatusError):
            client.messages.create(**request("", text)["params"])
        client.messages.create(**request("", text)["params"])


def test_a_stream_that_breaks(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.faults(Fault("messages", "cut", how="reset"))
    with (
        pytest.raises(Exception),  # noqa: B017, PT011
        client.messages.stream(**PARAMS) as stream,
    ):
        stream.get_final_message()
    assert simulator.journal().totals.paid_messages == 1


@pytest.mark.parametrize(("how", "whole"), [("clean", True), ("line", False), ("close", False)])
def test_a_stream_that_ends_early(simulator: Simulator, how: str, whole: bool) -> None:
    params = {**PARAMS, "stream": True}
    events = call(simulator, "POST", "/v1/messages", params).body.split(b"\n\n")[:-1]
    simulator.faults(Fault("messages", "cut", how=how, at=0.5))  # type: ignore[arg-type]
    try:
        body = call(simulator, "POST", "/v1/messages", params).body
    except http.client.IncompleteRead as error:
        assert how == "close"
        body = error.partial
    half = len(events) // 2
    begun = body.split(b"\n\n")
    # All the same but for the message's id in the first event.
    assert begun[1:half] == events[1:half]
    assert len(begun) == half + 1
    assert (begun[-1] == b"") == whole
    assert events[half].startswith(begun[-1])


def test_other_calls_go_on_after_a_drop(simulator: Simulator) -> None:
    simulator.faults(Fault("list", "drop", times=3, per="server"))
    with new_client(simulator) as client:
        for _ in range(3):
            with pytest.raises(anthropic.APIConnectionError):
                client.messages.batches.list()
        assert client.messages.batches.list().data == []


def test_faults_are_replaced(simulator: Simulator) -> None:
    simulator.faults(Fault("list", "status", status=500))
    simulator.faults(replace=True)
    assert call(simulator, "GET", "/v1/messages/batches").status == 200


def test_nonsense_is_refused(simulator: Simulator) -> None:
    with pytest.raises(ValueError, match="unknown field"):
        simulator.behave(procesing_seconds=1)
    with pytest.raises(ValueError, match="Invalid enum value"):
        simulator.faults(Fault("nowhere", "status"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no scenario 'nope'"):
        simulator.reset("nope")
