"""Outcomes by rule, and what the journal says was sent and paid."""

from __future__ import annotations

import anthropic
import pytest

from claude_batch_tasks.simulator import Outcome, Simulator

from .conftest import request, requests

pytestmark = pytest.mark.latest


def outcomes(simulator: Simulator, client: anthropic.Anthropic, items: list[object]) -> dict[str, str]:
    batch = client.messages.batches.create(requests=items)  # type: ignore[arg-type]
    simulator.end()
    found: dict[str, str] = {}
    for r in client.messages.batches.results(batch.id):
        found[r.custom_id] = r.result.error.error.type if r.result.type == "errored" else r.result.type
    counts = client.messages.batches.retrieve(batch.id).request_counts
    assert counts.succeeded == list(found.values()).count("succeeded")
    assert counts.errored + counts.expired + counts.canceled == len(items) - counts.succeeded
    return found


def test_outcomes_by_custom_id_prompt_and_count(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(
        outcomes=[
            Outcome("errored", error="api_error", custom_id="^r-[12]$"),
            Outcome("errored", error="timeout_error", prompt="SLOW"),
            Outcome("expired", count=2),
        ]
    )
    items = [*requests(6), request("slow", "please be SLOW")]
    assert outcomes(simulator, client, items) == {
        "r-0": "expired",
        "r-1": "api_error",
        "r-2": "api_error",
        "r-3": "expired",
        "r-4": "succeeded",
        "r-5": "succeeded",
        "slow": "timeout_error",
    }
    assert simulator.journal().totals.paid_batch == 2


def test_outcomes_by_probability_repeat_with_the_seed(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(outcomes=[Outcome("expired", probability=0.3)])
    first = outcomes(simulator, client, requests(100))
    assert 15 < list(first.values()).count("expired") < 45
    assert outcomes(simulator, client, requests(100)) == first
    simulator.behave(seed=1)
    assert outcomes(simulator, client, requests(100)) != first


def test_a_failure_that_passes_with_the_next_attempt(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(outcomes=[Outcome("errored", custom_id="", prompt="r-1", attempts=2)])
    seen = [outcomes(simulator, client, requests(2))["r-1"] for _ in range(3)]
    assert seen == ["overloaded_error", "overloaded_error", "succeeded"]


def test_outcomes_of_messages(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(outcomes=[Outcome("errored", error="overloaded_error", via="messages", attempts=1)])
    params = request("", "hi")["params"]
    with pytest.raises(anthropic.APIStatusError) as raised:
        client.messages.create(**params)
    assert raised.value.status_code == 529
    client.messages.create(**params)
    (record,) = simulator.journal().prompts
    assert (record.sent_as_messages, record.paid_messages) == (2, 1)
    assert record.outcomes == ["overloaded_error", "succeeded"]
    assert outcomes(simulator, client, requests(1)) == {"r-0": "succeeded"}


def test_one_prompt_is_known_in_batches_and_messages(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(outcomes=[Outcome("expired", custom_id="^first-0$")])
    items = [request("first-0", "zero"), request("first-1", "one")]
    client.messages.batches.create(requests=items)
    simulator.end()
    # Another order of the keys, another wire id, streamed or not: the same prompt.
    params = dict(reversed(request("", "zero")["params"].items()))
    with client.messages.stream(**params) as stream:
        stream.get_final_message()
    journal = simulator.journal()
    zero, one = journal.prompts
    assert (zero.text, zero.custom_ids, zero.outcomes) == ("zero", ["first-0"], ["expired", "succeeded"])
    assert (zero.paid_batch, zero.paid_messages, zero.paid) == (0, 1, 1)
    assert (one.paid_batch, one.paid_messages) == (1, 0)
    assert journal.paid_twice() == journal.unpaid() == []

    client.messages.batches.create(requests=[request("again", "zero")])
    assert simulator.journal().prompts[0].paid == 1
    simulator.end()
    journal = simulator.journal()
    assert [p.text for p in journal.paid_twice()] == ["zero"]
    assert journal.totals.batches_created == 2
    assert (journal.totals.paid_batch, journal.totals.paid_messages) == (2, 1)
    assert journal.totals.messages_input_tokens > 0


def test_tokens_are_charged_as_the_answers_say(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(processing_seconds=100.0, answer_chars=80, outcomes=[Outcome("errored", custom_id="^r-[19]$")])
    batch = client.messages.batches.create(requests=requests(10))
    message = client.messages.create(**request("", "one", max_tokens=9)["params"])
    # What was accepted keeps its price, and what was counted at half time is not counted again.
    simulator.behave(answer_chars=4000)
    paid = []
    for _ in range(2):
        simulator.advance(51)
        paid.append(simulator.state().totals.paid_batch)
    assert paid == [4, 8]
    results = [r.result for r in client.messages.batches.results(batch.id)]
    usages = [result.message.usage for result in results if result.type == "succeeded"]
    totals = simulator.journal().totals
    assert [usage.output_tokens for usage in usages] == [20] * 8
    assert (totals.paid_batch, totals.batch_output_tokens) == (8, 160)
    assert totals.batch_input_tokens == sum(usage.input_tokens for usage in usages)
    assert (totals.messages_input_tokens, totals.messages_output_tokens) == (message.usage.input_tokens, 9)


def test_calls_are_kept_in_order_and_can_be_followed(simulator: Simulator, client: anthropic.Anthropic) -> None:
    batch = client.messages.batches.create(requests=requests(2))
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve("msgbatch_01unknown")
    journal = simulator.journal()
    assert [(c.number, c.endpoint, c.status, c.error) for c in journal.calls] == [
        (1, "create", 200, None),
        (2, "retrieve", 404, "not_found_error"),
    ]
    assert journal.calls[0].batch_id == batch.id
    assert "key-a" not in repr(journal)
    later = simulator.journal(since=1, prompts=False)
    assert [c.number for c in later.calls] == [2]
    assert later.prompts == []
    assert len(journal.calls_to("retrieve", 404)) == 1


def test_a_reset_forgets_everything(simulator: Simulator, client: anthropic.Anthropic) -> None:
    client.messages.batches.create(requests=requests(2))
    state = simulator.reset("partial")
    assert (state.scenario, state.batches, state.totals.calls) == ("partial", [], 0)
