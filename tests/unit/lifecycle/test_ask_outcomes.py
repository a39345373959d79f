"""What an outcome says about its ask."""

from __future__ import annotations

import msgspec
import pytest

from claude_batch_tasks.lifecycle.pools.ask_outcomes import AskOutcome
from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.results import reader
from claude_batch_tasks.wire import result_rows
from claude_batch_tasks.wire.stored_rows import Origin

PRICED = {"model": "claude-haiku-4-5", "usage": {"input_tokens": 1000, "output_tokens": 100}, "content": []}


@pytest.mark.parametrize(
    ("stored", "cost"),
    [
        (reader.message_outcome(msgspec.json.encode(PRICED)), 1_500_000),
        (reader.message_outcome(msgspec.json.encode({**PRICED, "model": "nobody-knows"})), None),
        (reader.error_outcome("invalid_request_error", "bad", None), 0),
        (reader.error_outcome(result_rows.ANSWER_LOST, "gone", None), None),
    ],
)
def test_its_cost_is_known_or_stays_reserved(stored: bytes, cost: int | None) -> None:
    origin = Origin(None, Prices({}), batch=False)
    outcome = reader.Outcome(0, "messages", reader.as_row(stored), reader._as_line(stored), origin=origin)
    assert AskOutcome("a", outcome).sum_cost() == cost
