"""What an outcome says about its ask."""

from __future__ import annotations

import msgspec
import pytest

from claude_batch_tasks.lifecycle.pools.ask_outcomes import AskOutcome
from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.results.stored import outcomes
from claude_batch_tasks.results.stored.messages_outcomes import as_line, as_row, error_outcome, message_outcome
from claude_batch_tasks.wire import result_rows
from claude_batch_tasks.wire.stored_rows import Origin

PRICED = {"model": "claude-haiku-4-5", "usage": {"input_tokens": 1000, "output_tokens": 100}, "content": []}


@pytest.mark.parametrize(
    ("stored", "cost"),
    [
        (message_outcome(msgspec.json.encode(PRICED)), 1_500_000),
        (message_outcome(msgspec.json.encode({**PRICED, "model": "nobody-knows"})), None),
        (error_outcome("invalid_request_error", "bad", None), 0),
        (error_outcome(result_rows.ANSWER_LOST, "gone", None), None),
    ],
)
def test_its_cost_is_known_or_stays_reserved(stored: bytes, cost: int | None) -> None:
    origin = Origin(None, Prices({}), batch=False)
    outcome = outcomes.make_outcome(0, "messages", as_row(stored), as_line(stored), origin=origin)
    assert AskOutcome("a", outcome).sum_cost() == cost
