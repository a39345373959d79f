"""Outcomes by rule, and what the journal says was sent and paid."""

from __future__ import annotations

from decimal import Decimal

import anthropic
import pytest

from claude_batch_tasks.simulator import Answer, Charge, Outcome, Simulator, Tokens

from .conftest import call, request, requests

pytestmark = pytest.mark.latest

SEARCHES = {"web_search_requests": 3, "web_fetch_requests": 1}


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


def test_equal_prompts_of_one_batch_are_no_repeated_payment(simulator: Simulator, client: anthropic.Anthropic) -> None:
    twins = [request("a", "same"), request("b", "same"), request("c", "other")]
    assert outcomes(simulator, client, twins) == dict.fromkeys("abc", "succeeded")
    journal = simulator.journal()
    assert journal.paid_twice() == []
    assert [(p.text, p.custom_ids, p.requests, p.paid) for p in journal.repeated_prompts()] == [
        ("same", ["a", "b"], 2, 2)
    ]
    # A third answer is one too many, whoever gives it.
    client.messages.create(**request("", "same")["params"])
    (record,) = simulator.journal().paid_twice()
    assert (record.paid, record.requests, record.repaid) == (3, 2, 1)


def test_the_request_of_two_that_failed_may_be_sent_again(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(outcomes=[Outcome("expired", custom_id="^b$")])
    outcomes(simulator, client, [request("a", "same"), request("b", "same")])
    outcomes(simulator, client, [request("b-again", "same")])
    journal = simulator.journal()
    assert journal.paid_twice() == []
    (record,) = journal.prompts
    assert [(a.batch, a.custom_id, a.outcome, a.billed) for a in record.attempts] == [
        (1, "a", "succeeded", True),
        (1, "b", "expired", False),
        (2, "b-again", "succeeded", True),
    ]


def test_a_custom_id_that_is_charged_again_is_a_repeated_payment(
    simulator: Simulator, client: anthropic.Anthropic
) -> None:
    simulator.behave(outcomes=[Outcome("expired", custom_id="^b$")])
    outcomes(simulator, client, [request("a", "same"), request("b", "same")])
    outcomes(simulator, client, [request("a", "same")])
    # As many payments as requests, but one of them has two.
    (record,) = simulator.journal().paid_twice()
    assert (record.paid, record.requests, record.repaid) == (2, 2, 1)


def test_what_is_repaired_is_found_by_its_first_text(simulator: Simulator, client: anthropic.Anthropic) -> None:
    outcomes(simulator, client, [request("a", "question 1", max_tokens=2), request("b", "question 2")])
    turns = [
        {"role": "user", "content": "question 1"},
        {"role": "assistant", "content": "Echo"},
        {"role": "user", "content": "That is not JSON."},
    ]
    outcomes(simulator, client, [request("a", messages=turns)])
    found = simulator.journal().find_prompts("question 1")
    assert [(p.first_text, p.text) for p in found] == [
        ("question 1", "question 1"),
        ("question 1", "That is not JSON."),
    ]
    assert [attempt.stop_reason for p in found for attempt in p.attempts] == ["max_tokens", "end_turn"]


def test_the_invoice_is_exact(simulator: Simulator, client: anthropic.Anthropic) -> None:
    usage = {"input_tokens": 1_000_000, "output_tokens": 200_000, "cache_read_input_tokens": 500_000}
    written = {"cache_creation_input_tokens": 300_000, "cache_creation": {"ephemeral_1h_input_tokens": 100_000}}
    simulator.answer_with(
        Answer(prompt="refused at once", refusal=True),
        Answer(prompt="refused late", refusal=True, text="I begin", usage={"input_tokens": 100, "output_tokens": 3}),
        Answer(prompt="cached", usage={**usage, **written}),
        Answer(prompt="searched", usage={"input_tokens": 0, "output_tokens": 0, "server_tool_use": SEARCHES}),
        Answer(prompt="wrong", error="invalid_request_error"),
        Answer(prompt="late", type="expired"),
    )
    opus = "claude-opus-4-7"
    texts = ["refused at once", "refused late", "cached", "searched", "wrong", "late"]
    items = [request(f"r-{n}", text) for n, text in enumerate(texts)]
    outcomes(simulator, client, [*items, request("r-6", "cached", model=opus)])
    client.messages.create(**request("", "cached", model=opus)["params"])
    client.messages.create(**request("", "refused at once", model=opus)["params"])
    cached = Tokens(1_000_000, 200_000, 200_000, 100_000, 500_000)
    haiku = Tokens(1_000_100, 200_003, 200_000, 100_000, 500_000)
    invoice = simulator.invoice()
    assert invoice == simulator.journal(prompts=False).invoice
    assert invoice.batch == {"claude-haiku-4-5": Charge(3, haiku, 3), opus: Charge(1, cached)}
    assert invoice.messages == {opus: Charge(1, cached)}
    assert invoice.unbilled_batch == {"refusal": 1, "invalid_request_error": 1, "expired": 1}
    assert invoice.unbilled_messages == {"refusal": 1}
    # An answer that uses the cache: 1 + 0.2 * 1.25 + 0.1 * 2 + 0.5 * 0.1 = 1.5 million tokens of input, 0.2 of output.
    late = Decimal("0.0001") + Decimal("0.000003") * 5
    in_batches = (Decimal("1.5") + 1 + late) + (Decimal("1.5") * 5 + 5)
    assert invoice.cost({"claude-haiku-4-5": (1, 5), opus: (5, 25)}) == in_batches / 2 + Decimal("12.5") + Decimal(
        "0.03"
    )


def test_what_is_canceled_or_expires_is_not_billed(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(processing_seconds=100.0)
    first = client.messages.batches.create(requests=requests(10))
    assert simulator.invoice().unbilled_batch == {}
    simulator.advance(30.5)
    assert sum(charge.answers for charge in simulator.invoice().batch.values()) == 3
    client.messages.batches.cancel(first.id)
    simulator.advance(1)
    client.messages.batches.create(requests=[request(f"s-{n}") for n in range(4)])
    simulator.advance(50.5)
    simulator.expire()
    invoice = simulator.invoice()
    assert invoice.unbilled_batch == {"canceled": 7, "expired": 2}
    assert {model: charge.answers for model, charge in invoice.batch.items()} == {"claude-haiku-4-5": 5}


def test_the_invoice_over_http(simulator: Simulator, client: anthropic.Anthropic) -> None:
    for _ in range(2):
        outcomes(simulator, client, [request("a", "same")])
    invoice = call(simulator, "GET", "/__sim__/invoice").json
    assert invoice["batch"]["claude-haiku-4-5"]["answers"] == 2
    (record,) = call(simulator, "GET", "/__sim__/paid_twice").json
    assert (record["text"], record["paid_batch"], len(record["attempts"])) == ("same", 2, 2)
