"""One batch: a pure function of time, and its results as JSON lines."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timezone
from random import Random
from typing import Any, Literal, TypeAlias

import msgspec

from .prompts import Prompt
from .script import Behaviour

Status: TypeAlias = Literal["in_progress", "canceling", "ended"]
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def new_id(prefix: str) -> str:
    """An id like Anthropic's, `msgbatch_01...`. Random, so that no two servers or resets share any."""
    return f"{prefix}01" + "".join(secrets.choice(_ALPHABET) for _ in range(22))


def rfc3339(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="microseconds")


class Batch:
    """A batch's life follows from the moments below; nothing runs. All times are simulated epoch seconds."""

    def __init__(self, number: int, account: str, prompts: list[Prompt], created: float, behaviour: Behaviour) -> None:
        self.id = new_id("msgbatch_")
        #: Counts the batches of the simulator from 1.
        self.number = number
        self.account = account
        self.prompts = prompts
        self.created = created
        self.behaviour = behaviour
        span = behaviour.processing_seconds
        rng = Random(f"{behaviour.seed}:batch:{number}")
        self.seconds = rng.uniform(*span) if isinstance(span, tuple) else float(span)
        self.expires = created + behaviour.expires_seconds
        self.cancel_asked: float | None = None
        #: Deleted by its owner, or forgotten through the control API.
        self.gone = False
        self.downloads = 0
        self._tally: tuple[int, Counter[str]] = (-1, Counter())

    @property
    def end(self) -> float:
        """When processing ends, or ended."""
        end = min(self.created + self.seconds, self.expires)
        if self.cancel_asked is not None:
            end = min(end, self.cancel_asked + self.behaviour.cancel_seconds)
        return end

    def ended(self, now: float) -> bool:
        return now >= self.end

    def archived(self, now: float) -> bool:
        return now >= self.created + self.behaviour.retention_seconds and self.ended(now)

    def status(self, now: float) -> Status:
        if self.ended(now):
            return "ended"
        return "in_progress" if self.cancel_asked is None else "canceling"

    def processed(self, now: float) -> int:
        """How many requests have been processed: one after another, spread evenly over the time."""
        until = min(now, self.end, now if self.cancel_asked is None else self.cancel_asked)
        # Not by the difference alone: at today's epoch seconds it may come out a hair short of the whole.
        if until >= self.created + self.seconds:
            return len(self.prompts)
        return int(len(self.prompts) * (until - self.created) / self.seconds)

    def outcomes(self, now: float) -> Iterator[str]:
        """What became of each request: "succeeded", "expired", "canceled", an error type, or "processing"."""
        done = self.processed(now)
        rest = "processing"
        if self.ended(now):
            rest = "canceled" if self.end < self.expires else "expired"
        for index, prompt in enumerate(self.prompts):
            yield prompt.outcome if index < done else rest

    def tally(self, now: float) -> dict[str, int]:
        """`request_counts`: all are processing until the whole batch has ended."""
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        if not self.ended(now):
            counts["processing"] = len(self.prompts)
            return counts
        for outcome, number in self.counted(now).items():
            counts[outcome if outcome in counts else "errored"] += number
        return counts

    def counted(self, now: float) -> Counter[str]:
        """How often each outcome occurred so far; counted anew only when more has been processed."""
        key = self.processed(now) * 2 + self.ended(now)
        if self._tally[0] != key:
            self._tally = (key, Counter(self.outcomes(now)))
        return self._tally[1]

    def json(self, now: float, base_url: str) -> dict[str, Any]:
        """The batch as the API shows it."""
        ended = self.ended(now)
        archived = self.archived(now)
        url = self.behaviour.results.url.replace("{id}", self.id)
        url = url or f"{base_url.rstrip('/')}/v1/messages/batches/{self.id}/results"
        shown = {
            "id": self.id,
            "type": "message_batch",
            "processing_status": self.status(now),
            "request_counts": self.tally(now),
            "ended_at": rfc3339(self.end) if ended else None,
            "created_at": rfc3339(self.created),
            "expires_at": rfc3339(self.expires),
            "archived_at": rfc3339(self.created + self.behaviour.retention_seconds) if archived else None,
            "cancel_initiated_at": rfc3339(self.cancel_asked),
            "results_url": url if ended and not archived else None,
        }
        if self.behaviour.results.unknown_fields:
            shown["simulated"] = {"unknown": True}
        return shown

    def lines(self, now: float) -> tuple[int, Iterator[bytes]]:
        """How many result lines there are, and the lines without their ends, in a new order each time."""
        style = self.behaviour.results
        self.downloads += 1
        rng = Random(f"{self.behaviour.seed}:{self.number}:{self.downloads}")
        order = [*range(len(self.prompts)), *range(min(style.duplicates, len(self.prompts)))]
        order += [-1 - n for n in range(style.foreign)]
        rng.shuffle(order)
        return len(order), self._lines(order, list(self.outcomes(now)))

    def _lines(self, order: list[int], outcomes: list[str]) -> Iterator[bytes]:
        encode = msgspec.json.Encoder().encode
        for index in order:
            # A line of another batch is the mirror of one of ours under a name that was never sent.
            prompt = self.prompts[index if index >= 0 else (-1 - index) % len(self.prompts)]
            custom_id = prompt.custom_id if index >= 0 else f"foreign-{-index}"
            result = self._result(prompt, outcomes[index] if index >= 0 else "succeeded", index)
            line: dict[str, Any] = {"custom_id": custom_id, "result": result}
            if self.behaviour.results.unknown_fields:
                line["simulated"] = result["simulated"] = {"unknown": True}
            yield encode(line)

    def _result(self, prompt: Prompt, outcome: str, index: int) -> dict[str, Any]:
        if outcome == "succeeded":
            message_id = f"msg_01{self.id[-8:]}{index % 1_000_000:06d}{prompt.digest[:4].hex()}"
            return {"type": "succeeded", "message": message(prompt, message_id, "batch", self.behaviour)}
        if outcome in ("expired", "canceled"):
            return {"type": outcome}
        return {"type": "errored", "error": error_json(outcome, prompt.message, None)}


def message(
    prompt: Prompt, message_id: str, tier: Literal["batch", "standard"], behaviour: Behaviour
) -> dict[str, Any]:
    """The answer to a prompt: its echo, always the same."""
    text = "Echo: " + prompt.echo
    if len(text) < behaviour.answer_chars:
        text = text.ljust(behaviour.answer_chars, ".")
    content: list[dict[str, Any]] = [{"type": "text", "text": text, "citations": None}]
    if behaviour.results.unknown_fields and tier == "batch":
        content.insert(0, {"type": "simulated_block", "payload": [1, {"two": None}]})
    wanted = max(1, len(text) // 4)
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": prompt.model,
        "content": content,
        "stop_reason": "end_turn" if wanted <= prompt.max_tokens else "max_tokens",
        "stop_sequence": None,
        "usage": {
            "input_tokens": prompt.input_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": output_tokens(prompt, behaviour),
            "service_tier": tier,
        },
    }


def output_tokens(prompt: Prompt, behaviour: Behaviour) -> int:
    """What the answer costs: a token for every four characters, at most `max_tokens`, at least one."""
    length = max(len("Echo: ") + len(prompt.echo), behaviour.answer_chars)
    return max(1, min(length // 4, prompt.max_tokens))


def error_json(kind: str, text: str, request_id: str | None) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": text}, "request_id": request_id}
