"""What all benchmarks work on: requests and result lines of about 1.8 KB, the same in every run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Any

MODEL = "claude-haiku-4-5"


@cache
def _words() -> list[str]:
    """Words with the frequencies of a language, so that texts compress as texts do."""
    rng = Random(0)
    vocabulary = ["".join(rng.choices("etaoinshrdlucmfwypvbgk", k=rng.randint(2, 10))) for _ in range(20_000)]
    return rng.choices(vocabulary, weights=[1 / (rank + 3) for rank in range(len(vocabulary))], k=400_000)


def text(number: int, size: int) -> str:
    """About ``size`` characters, different for every number."""
    words = _words()
    start = number * 7919 % (len(words) - 1000)
    return f"{number}: {' '.join(words[start : start + size // 6])}"[:size]


def request(number: int, size: int = 1_750) -> dict[str, Any]:
    """A request of about ``size`` bytes and another 150 around them."""
    return {
        "custom_id": f"review-{number}",
        "params": {
            "model": MODEL,
            "max_tokens": 512,
            "messages": [{"role": "user", "content": text(number, size)}],
        },
    }


def requests(count: int, size: int = 1_750) -> Iterator[dict[str, Any]]:
    """So many of them, made one by one."""
    return (request(number, size) for number in range(count))


def line(custom_id: str, number: int, size: int = 1_300) -> bytes:
    """A line of a result file, of about 1.8 KB."""
    message = {
        "id": f"msg_01{number:022d}",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": text(number, size), "citations": None}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 412,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 300,
            "service_tier": "batch",
        },
    }
    return json.dumps({"custom_id": custom_id, "result": {"type": "succeeded", "message": message}}).encode()
