"""The rate limits of the Messages API: what they refuse, until when, and what the headers say of them."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

import pytest

from claude_batch_tasks.simulator import Fault, Simulator

from .conftest import Raw, call, request
from .test_caching import ask

pytestmark = pytest.mark.latest

KEY_B = {"x-api-key": "key-b", "anthropic-version": "2023-06-01"}


def send(simulator: Simulator, text: str = "hi", headers: dict[str, str] | None = None, **params: Any) -> Raw:
    return call(simulator, "POST", "/v1/messages", request("", text, **params)["params"], headers)


def told(answer: Raw, what: str) -> tuple[int, int, float]:
    """Limit, remaining, and seconds until it is full again."""
    limit, remaining, reset = (answer.headers[f"anthropic-ratelimit-{what}-{part}"] for part in PARTS)
    moment = datetime.strptime(reset, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    return int(limit), int(remaining), moment.timestamp() - time.time()


def soon(seconds: float, tolerance: float) -> Any:
    """About so many seconds, or up to one more: the headers have whole seconds, and none before the moment."""
    return pytest.approx(seconds + 0.5, abs=tolerance + 0.5)


PARTS = ("limit", "remaining", "reset")


def wait(answer: Raw) -> float:
    """What a refusal asks for, in seconds."""
    assert answer.error[:2] == (429, "rate_limit_error")
    return int(answer.headers["retry-after-ms"]) / 1000


def test_no_limit_is_told_as_an_unused_one(simulator: Simulator) -> None:
    for _ in range(3):
        answer = send(simulator)
    usual = {"requests": 4000, "input-tokens": 2_000_000, "output-tokens": 400_000, "tokens": 2_400_000}
    for what, limit in usual.items():
        assert told(answer, what)[:2] == (limit, limit)
        assert abs(told(answer, what)[2]) < 2
    assert answer.headers["retry-after"] is None


def test_a_bucket_of_requests_in_real_minutes(simulator: Simulator) -> None:
    simulator.behave(messages_per_minute=4)
    seen = [told(send(simulator), "requests") for _ in range(4)]
    assert [remaining for _, remaining, _ in seen] == [3, 2, 1, 0]
    # Full again after a quarter of a minute for each request.
    for used, (limit, _, reset) in enumerate(seen, 1):
        assert limit == 4
        assert reset == soon(15 * used, 3)
    refused = send(simulator)
    assert refused.error[:2] == (429, "rate_limit_error")
    assert 12 <= int(refused.headers["retry-after"]) <= 15
    assert refused.headers["retry-after-ms"] is None
    assert told(refused, "requests")[1] == 0
    assert told(refused, "requests")[2] == soon(60, 3)
    assert simulator.journal().totals.paid_messages == 4


def test_a_bucket_fills_bit_by_bit(simulator: Simulator) -> None:
    simulator.behave(messages_per_minute=4, minute_seconds=4.0)
    assert [send(simulator).status for _ in range(4)] == [200] * 4
    refused = send(simulator)
    assert 0 < wait(refused) <= 1.0
    assert refused.headers["retry-after"] == "1"
    time.sleep(wait(refused))
    # One has become free, no more.
    assert [send(simulator).status for _ in range(2)] == [200, 429]


def test_a_window_is_full_at_its_end_and_not_before(simulator: Simulator) -> None:
    simulator.behave(messages_per_minute=4, messages_limit="window", minute_seconds=2.0)
    began = time.monotonic()
    answers = [send(simulator) for _ in range(4)]
    assert [told(answer, "requests")[1] for answer in answers] == [3, 2, 1, 0]
    time.sleep(1.0)
    refused = send(simulator)
    left = began + 2 - time.monotonic()
    assert wait(refused) == pytest.approx(left, abs=0.4)
    assert told(refused, "requests")[2] == soon(left, 0.4)
    assert int(refused.headers["retry-after"]) == math.ceil(wait(refused))
    time.sleep(wait(refused))
    assert [send(simulator).status for _ in range(5)] == [200] * 4 + [429]


def test_windows_keep_their_beat(simulator: Simulator) -> None:
    simulator.behave(messages_per_minute=1, messages_limit="window", minute_seconds=1.0)
    began = time.monotonic()
    assert send(simulator).status == 200
    time.sleep(1.6)
    # In the second window, which began at 1 s and not with this call.
    assert send(simulator).status == 200
    assert wait(send(simulator)) == pytest.approx(began + 2 - time.monotonic(), abs=0.3)


def test_input_tokens(simulator: Simulator) -> None:
    text = "x" * 4000
    tokens = send(simulator, text, KEY_B).json["usage"]["input_tokens"]
    simulator.behave(input_tokens_per_minute=2500, minute_seconds=5.0)
    first = send(simulator, text)
    limit, remaining, reset = told(first, "input-tokens")
    assert (limit, remaining) == (2500, 2500 - tokens)
    assert reset == soon(5 * tokens / 2500, 0.5)
    assert send(simulator, text).status == 200
    refused = send(simulator, text)
    # Not empty, but there is less than this call needs; a small one passes.
    assert 300 < told(refused, "input-tokens")[1] < 1000
    assert 0 < wait(refused) <= 5 * (3 * tokens - 2500) / 2500
    assert send(simulator, "y").status == 200
    time.sleep(wait(send(simulator, text)))
    assert send(simulator, text).status == 200
    assert told(first, "requests")[:2] == (4000, 4000)


def test_what_is_read_from_the_cache_is_no_input(simulator: Simulator) -> None:
    simulator.behave(input_tokens_per_minute=500, messages_limit="window", minute_seconds=30.0)
    remaining = []
    for n in range(5):
        answer = call(simulator, "POST", "/v1/messages", ask(f"r-{n}")["params"])
        usage = answer.json["usage"]
        remaining.append(told(answer, "input-tokens")[1])
        assert (usage["cache_read_input_tokens"] > 300) == (n > 0)
    assert remaining[0] == 500 - usage["cache_read_input_tokens"] - usage["input_tokens"]
    assert [remaining[n] - remaining[n + 1] for n in range(4)] == [usage["input_tokens"]] * 4


def test_output_tokens(simulator: Simulator) -> None:
    simulator.behave(output_tokens_per_minute=100, minute_seconds=4.0, answer_chars=600)
    first = send(simulator, max_tokens=1000)
    # An answer is as long as it is: the limit is overdrawn, and the next call waits for it.
    assert first.json["usage"]["output_tokens"] == 150
    assert told(first, "output-tokens")[:2] == (100, 0)
    assert told(first, "output-tokens")[2] == soon(6.0, 0.6)
    refused = send(simulator, max_tokens=1000)
    assert wait(refused) == pytest.approx(4 * 51 / 100, abs=0.5)
    assert int(refused.headers["retry-after"]) == math.ceil(wait(refused))
    time.sleep(wait(refused))
    assert send(simulator, max_tokens=1000).status == 200


def test_output_is_counted_at_the_answer_and_requests_at_the_call(simulator: Simulator) -> None:
    simulator.behave(messages_per_minute=3, output_tokens_per_minute=1, messages_seconds=0.5)
    with ThreadPoolExecutor(4) as pool:
        began = time.monotonic()
        answers = list(pool.map(lambda _: (send(simulator), time.monotonic() - began), range(4)))
    assert sorted(answer.status for answer, _ in answers) == [200, 200, 200, 429]
    for answer, seconds in answers:
        # Refusals do not take the time of an answer.
        assert (seconds >= 0.5) == (answer.status == 200)
    refused = send(simulator)
    assert told(refused, "output-tokens")[1] == told(refused, "requests")[1] == 0


def test_remaining_tokens_are_rounded_for_large_limits(simulator: Simulator) -> None:
    simulator.behave(input_tokens_per_minute=10_000, output_tokens_per_minute=9_000, messages_limit="window")
    answer = send(simulator, "x" * 6000)
    usage = answer.json["usage"]
    assert usage["input_tokens"] > 1500
    assert told(answer, "input-tokens")[:2] == (10_000, 8_000)
    assert told(answer, "output-tokens")[:2] == (9_000, 9_000 - usage["output_tokens"])
    assert told(answer, "tokens")[:2] == (19_000, 17_000)
    assert told(answer, "tokens")[2] == soon(60, 2)


def test_a_call_waits_for_the_slowest_of_its_limits(simulator: Simulator) -> None:
    simulator.behave(messages_per_minute=1, output_tokens_per_minute=1, minute_seconds=10.0)
    output = send(simulator, max_tokens=3).json["usage"]["output_tokens"]
    assert wait(send(simulator)) == pytest.approx(10.0 * output, abs=1)


def test_each_account_has_its_own_limits(simulator: Simulator) -> None:
    simulator.behave(messages_per_minute=1)
    assert [send(simulator, headers=headers).status for headers in (None, None, KEY_B, KEY_B)] == [200, 429] * 2
    workspace = {**KEY_B, "anthropic-workspace-id": "w"}
    assert send(simulator, headers=workspace).status == 200


def test_what_a_fault_keeps_from_the_api_uses_no_limit(simulator: Simulator) -> None:
    simulator.behave(messages_per_minute=1)
    simulator.faults(Fault("messages", "status", status=529, calls=(1,)))
    assert [send(simulator).status for _ in range(3)] == [529, 200, 429]


def test_batches_are_not_limited(simulator: Simulator) -> None:
    simulator.behave(messages_per_minute=1, input_tokens_per_minute=1, output_tokens_per_minute=1)
    for _ in range(3):
        answer = call(simulator, "POST", "/v1/messages/batches", {"requests": [request("a")]})
        assert answer.status == 200
        assert answer.headers["anthropic-ratelimit-requests-limit"] is None
