"""A batch from creation to deletion, as the real SDK sees it."""

from __future__ import annotations

import asyncio
import time

import anthropic
import pytest

from claude_batch_tasks.simulator import Refusal, Simulator

from .conftest import new_client, request, requests

pytestmark = pytest.mark.latest


def test_counts_stay_zero_until_the_whole_batch_has_ended(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(processing_seconds=100.0)
    batch = client.messages.batches.create(requests=requests(10))
    simulator.advance(50)
    half = client.messages.batches.retrieve(batch.id)
    assert (half.processing_status, half.request_counts.processing) == ("in_progress", 10)
    assert half.request_counts.succeeded == 0
    assert simulator.journal().totals.paid_batch == 5
    simulator.advance(51)
    ended = client.messages.batches.retrieve(batch.id)
    assert (ended.processing_status, ended.request_counts.succeeded) == ("ended", 10)


def test_answers_echo_their_prompts_and_never_change(simulator: Simulator, client: anthropic.Anthropic) -> None:
    batch = client.messages.batches.create(requests=requests(50))
    simulator.end()
    first, second = (list(client.messages.batches.results(batch.id)) for _ in range(2))
    assert [r.custom_id for r in first] != [r.custom_id for r in second]
    assert {r.custom_id: r for r in first} == {r.custom_id: r for r in second}
    for r in first:
        assert r.result.type == "succeeded"
        assert r.result.message.content[0].text == f"Echo: prompt of {r.custom_id}"  # type: ignore[union-attr]


def test_canceling_keeps_what_was_done(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(processing_seconds=100.0, cancel_seconds=10.0)
    batch = client.messages.batches.create(requests=requests(10))
    simulator.advance(30.5)
    assert client.messages.batches.cancel(batch.id).processing_status == "canceling"
    assert client.messages.batches.cancel(batch.id).processing_status == "canceling"
    simulator.advance(10)
    counts = client.messages.batches.retrieve(batch.id).request_counts
    assert (counts.succeeded, counts.canceled, counts.processing) == (3, 7, 0)
    outcomes = {r.custom_id: r.result.type for r in client.messages.batches.results(batch.id)}
    assert [outcomes[f"r-{n}"] for n in range(10)] == ["succeeded"] * 3 + ["canceled"] * 7
    assert simulator.journal().totals.paid_batch == 3


def test_an_ended_batch_cannot_be_canceled(simulator: Simulator, client: anthropic.Anthropic) -> None:
    batch = client.messages.batches.create(requests=requests(1))
    simulator.end()
    with pytest.raises(anthropic.BadRequestError):
        client.messages.batches.cancel(batch.id)


def test_what_is_not_processed_in_time_expires(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(processing_seconds=2 * 86_400.0)
    batch = client.messages.batches.create(requests=requests(4))
    simulator.advance(86_399)
    assert client.messages.batches.retrieve(batch.id).processing_status == "in_progress"
    simulator.advance(2)
    counts = client.messages.batches.retrieve(batch.id).request_counts
    assert (counts.succeeded, counts.expired) == (2, 2)


def test_a_batch_expires_on_demand(simulator: Simulator, client: anthropic.Anthropic) -> None:
    batch = client.messages.batches.create(requests=requests(4))
    simulator.expire(batch.id)
    assert client.messages.batches.retrieve(batch.id).request_counts.expired == 4


def test_a_fast_clock_compresses_hours(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(processing_seconds=3600.0, clock_speed=36_000.0)
    batch = client.messages.batches.create(requests=requests(1))
    time.sleep(0.2)
    assert client.messages.batches.retrieve(batch.id).processing_status == "ended"


def test_results_only_after_the_end_and_for_29_days(simulator: Simulator, client: anthropic.Anthropic) -> None:
    batch = client.messages.batches.create(requests=requests(1))
    with pytest.raises(anthropic.AnthropicError, match="results_url"):
        client.messages.batches.results(batch.id)
    simulator.advance(29 * 86_400)
    archived = client.messages.batches.retrieve(batch.id)
    assert archived.archived_at is not None
    assert archived.results_url is None


def test_deletion_only_after_the_end_and_then_404(simulator: Simulator, client: anthropic.Anthropic) -> None:
    batch = client.messages.batches.create(requests=requests(1))
    with pytest.raises(anthropic.BadRequestError):
        client.messages.batches.delete(batch.id)
    simulator.end()
    client.messages.batches.delete(batch.id)
    for gone in (client.messages.batches.retrieve, client.messages.batches.results):
        with pytest.raises(anthropic.NotFoundError):
            gone(batch.id)
    assert list(client.messages.batches.list()) == []
    assert simulator.journal().batches[0].gone


def test_batches_of_another_key_or_workspace_do_not_exist(simulator: Simulator, client: anthropic.Anthropic) -> None:
    batch = client.messages.batches.create(requests=requests(1))
    with new_client(simulator, "key-b") as other:
        with pytest.raises(anthropic.NotFoundError):
            other.messages.batches.retrieve(batch.id)
        assert list(other.messages.batches.list()) == []
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve(batch.id, extra_headers={"anthropic-workspace-id": "wrkspc_2"})


def test_listing_both_ways(simulator: Simulator, client: anthropic.Anthropic) -> None:
    ids = [client.messages.batches.create(requests=requests(1)).id for _ in range(7)]
    newest_first = ids[::-1]
    assert [b.id for b in client.messages.batches.list(limit=3)] == newest_first
    page = client.messages.batches.list(limit=3, after_id=ids[5])
    assert ([b.id for b in page.data], page.has_more) == ([ids[4], ids[3], ids[2]], True)
    page = client.messages.batches.list(limit=3, before_id=ids[1])
    assert ([b.id for b in page.data], page.has_more) == ([ids[4], ids[3], ids[2]], True)
    assert (page.first_id, page.last_id) == (ids[4], ids[2])
    page = client.messages.batches.list(limit=3, before_id=ids[3])
    assert ([b.id for b in page.data], page.has_more) == ([ids[6], ids[5], ids[4]], False)
    assert {b.id for b in client.messages.batches.list(limit=2, before_id=ids[0])} == set(ids[1:])


def test_the_list_may_lag(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(list_lag_seconds=60.0)
    batch = client.messages.batches.create(requests=requests(1))
    assert client.messages.batches.list().data == []
    assert client.messages.batches.retrieve(batch.id).id == batch.id
    simulator.advance(61)
    assert [b.id for b in client.messages.batches.list()] == [batch.id]


def test_a_forgotten_batch_is_nowhere(simulator: Simulator, client: anthropic.Anthropic) -> None:
    batch = client.messages.batches.create(requests=requests(1))
    simulator.forget(batch.id)
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve(batch.id)
    assert client.messages.batches.list().data == []


def test_the_async_client(simulator: Simulator) -> None:
    async def job() -> dict[str, str]:
        async with anthropic.AsyncAnthropic(base_url=simulator.url, api_key="k", max_retries=0) as client:
            batch = await client.messages.batches.create(requests=requests(3))
            simulator.end()
            assert (await client.messages.batches.retrieve(batch.id)).processing_status == "ended"
            assert [b.id async for b in client.messages.batches.list()] == [batch.id]
            message = await client.messages.create(**request("")["params"])
            assert message.type == "message"
            return {r.custom_id: r.result.type async for r in await client.messages.batches.results(batch.id)}

    assert asyncio.run(job()) == dict.fromkeys(("r-0", "r-1", "r-2"), "succeeded")


def test_the_beta_namespace(simulator: Simulator, client: anthropic.Anthropic) -> None:
    batch = client.beta.messages.batches.create(requests=requests(2))
    simulator.end()
    assert len(list(client.beta.messages.batches.results(batch.id))) == 2


def test_processing_times_are_drawn_from_a_range(simulator: Simulator, client: anthropic.Anthropic) -> None:
    def times() -> list[float]:
        simulator.reset()
        simulator.behave(processing_seconds=[10.0, 20.0], seed=7)
        for _ in range(5):
            client.messages.batches.create(requests=requests(1))
        return [round(b.ended_at - b.created_at, 3) for b in simulator.journal().batches]

    first = times()
    assert all(10 <= seconds <= 20 for seconds in first)
    assert len(set(first)) == 5
    assert times() == first


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (Refusal("of r-3$", message="Not today"), "Not today"),
        (Refusal("of r-3$", message="Not today", named=True), "requests.3.params: Not today"),
    ],
)
def test_one_request_makes_a_create_fail_as_a_whole(
    refusal: Refusal, message: str, simulator: Simulator, client: anthropic.Anthropic
) -> None:
    simulator.behave(refusals=(refusal,))
    with pytest.raises(anthropic.BadRequestError) as raised:
        client.messages.batches.create(requests=requests(5))
    assert raised.value.body["error"]["message"] == message  # type: ignore[index]
    assert simulator.journal().totals.batches_created == 0
    assert client.messages.batches.create(requests=requests(3)).id
    client.messages.create(**request("r-3")["params"])


def test_a_request_makes_a_create_too_large(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(refusals=(Refusal("of r-1$", status=413),))
    with pytest.raises(anthropic.APIStatusError) as raised:
        client.messages.batches.create(requests=requests(2))
    assert raised.value.status_code == 413
