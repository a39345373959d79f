"""A batch as a pure function of time, and its results as JSON lines."""

from __future__ import annotations

import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from random import Random
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from .answers.messages import make_message
from .answers.prompt import Prompt
from .answers.shapes import UNKNOWN, Line, Result, error_json
from .journal import Charge
from .script import Behaviour

Status: TypeAlias = Literal["in_progress", "canceling", "ended"]
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def new_id(prefix: str, begin: str = "01") -> str:
    """Return an id like Anthropic's, `msgbatch_01...`. It is random, so that no two servers or resets share one."""
    return prefix + begin + "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in secrets.token_bytes(24 - len(begin)))


def format_time(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="microseconds")


class Clock:
    """The simulated time, which runs `clock_speed` times as fast as the time that clients are shown.

    What takes long (processing, expiry, retention, lag, windows of faults) passes in simulated seconds. What is shown
    are times of the wall clock: it moves ahead of it only by `advance`.
    """

    def __init__(self, speed: float) -> None:
        self._monotonic = time.monotonic()
        #: Since when each speed has been in force: simulated seconds, shown epoch seconds, the speed.
        self._spans = [(0.0, time.time(), speed)]

    def now(self) -> float:
        """Return the simulated seconds since the start."""
        began, _, speed = self._spans[-1]
        return began + (time.monotonic() - self._monotonic) * speed

    def set_speed(self, speed: float) -> None:
        began, shown, before = self._spans[-1]
        now = time.monotonic()
        passed, self._monotonic = now - self._monotonic, now
        self._spans.append((began + passed * before, shown + passed, speed))

    def advance(self, seconds: float) -> None:
        """Let so many simulated seconds pass at once."""
        _, _, speed = self._spans[-1]
        self._monotonic -= seconds / speed

    def show(self, at: float) -> float:
        """Return the epoch seconds that clients are shown for a simulated time."""
        began, shown, speed = next(span for span in reversed(self._spans) if span[0] <= at or span is self._spans[0])
        return shown + (at - began) / speed


class Bill(Struct):
    """The outcomes of the requests processed so far, and what is charged for them.

    Only requests that succeeded are charged, and of these not the ones that were refused before any output.
    """

    outcomes: Counter[str] = msgspec.field(default_factory=Counter)
    by_model: dict[str, Charge] = msgspec.field(default_factory=lambda: defaultdict(Charge))
    #: What is not charged, by the error type or other reason.
    unbilled: Counter[str] = msgspec.field(default_factory=Counter)

    @property
    def paid(self) -> int:
        """How many answers are charged."""
        return sum(charge.answers for charge in self.by_model.values())

    def add_prompts(self, prompts: Sequence[Prompt]) -> None:
        self.outcomes.update(prompt.outcome for prompt in prompts)
        for prompt in prompts:
            if prompt.is_billed:
                self.by_model[prompt.model].add(Charge(1, prompt.count_tokens(), prompt.count_searches()))
            else:
                self.unbilled["refusal" if prompt.outcome == "succeeded" else prompt.outcome] += 1


class Batch:
    """A batch, whose state follows from the times below; nothing runs. All times are simulated seconds."""

    def __init__(self, number: int, account: str, prompts: list[Prompt], clock: Clock, behaviour: Behaviour) -> None:
        self.id = new_id("msgbatch_")
        #: The batch's number in the simulator, from 1.
        self.number = number
        self.account = account
        self.prompts = prompts
        self.clock = clock
        self.created = created = clock.now()
        self.behaviour = behaviour
        span = behaviour.processing_seconds
        rng = Random(f"{behaviour.seed}:batch:{number}")
        self.seconds = rng.uniform(*span) if isinstance(span, tuple) else float(span)
        self.expires = created + behaviour.expires_seconds
        #: Epoch seconds. At any speed of the clock, a client is promised the usual time.
        self.shown_expiry = clock.show(created) + behaviour.expires_seconds
        self.cancel_asked: float | None = None
        #: Whether the owner deleted the batch, or the control API forgot it.
        self.gone = False
        self.downloads = 0
        self._bill = Bill()

    @property
    def end(self) -> float:
        """The time at which processing ends, or ended."""
        end = min(self.created + self.seconds, self.expires)
        if self.cancel_asked is not None:
            end = min(end, self.cancel_asked + self.behaviour.cancel_seconds)
        return end

    def expire_now(self) -> None:
        self.expires = self.clock.now()
        self.shown_expiry = self.clock.show(self.expires)

    def has_ended(self, now: float) -> bool:
        return now >= self.end

    def is_listed(self, now: float) -> bool:
        return not self.gone and now >= self.created + self.behaviour.list_lag_seconds

    def is_archived(self, now: float) -> bool:
        return now >= self.created + self.behaviour.retention_seconds and self.has_ended(now)

    def status_at(self, now: float) -> Status:
        if self.has_ended(now):
            return "ended"
        return "in_progress" if self.cancel_asked is None else "canceling"

    def count_processed(self, now: float) -> int:
        """Return how many requests have been processed: one after another, spread evenly over the time."""
        until = min(now, self.end, now if self.cancel_asked is None else self.cancel_asked)
        # Not by the difference alone: rounding may make it slightly too small.
        if until >= self.created + self.seconds:
            return len(self.prompts)
        return int(len(self.prompts) * (until - self.created) / self.seconds)

    def rest_outcome(self, now: float) -> str:
        """Return the outcome of the requests that have not been processed."""
        if not self.has_ended(now):
            return "processing"
        return "canceled" if self.end < self.expires else "expired"

    def list_outcomes(self, now: float) -> Iterator[str]:
        """Yield the outcome of each request: "succeeded", "expired", "canceled", an error type, or "processing"."""
        done, rest = self.count_processed(now), self.rest_outcome(now)
        for index, prompt in enumerate(self.prompts):
            yield prompt.outcome if index < done else rest

    def count_requests(self, now: float) -> dict[str, int]:
        """Return `request_counts`: all requests are processing until the whole batch has ended."""
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        if not self.has_ended(now):
            counts["processing"] = len(self.prompts)
            return counts
        outcomes = self.bill_at(now).outcomes
        counts[self.rest_outcome(now)] = len(self.prompts) - outcomes.total()
        for outcome, number in outcomes.items():
            counts[outcome if outcome in counts else "errored"] += number
        return counts

    def bill_at(self, now: float) -> Bill:
        """Return the bill. It is cached between calls: only what was processed since the last call is added."""
        self._bill.add_prompts(self.prompts[self._bill.outcomes.total() : self.count_processed(now)])
        return self._bill

    def count_unbilled(self, now: float) -> Counter[str]:
        """Return how many requests are over and not charged, by reason."""
        bill, rest = self.bill_at(now), self.rest_outcome(now)
        over = {} if rest == "processing" else {rest: len(self.prompts) - bill.outcomes.total()}
        return bill.unbilled + Counter(over)

    def as_json(self, now: float, base_url: str) -> dict[str, Any]:
        """Return the batch as the API shows it."""
        ended = self.has_ended(now)
        archived = self.is_archived(now)
        show = self.clock.show
        url = self.behaviour.results.url.replace("{id}", self.id)
        url = url or f"{base_url.rstrip('/')}/v1/messages/batches/{self.id}/results"
        shown = {
            "id": self.id,
            "type": "message_batch",
            "processing_status": self.status_at(now),
            "request_counts": self.count_requests(now),
            "ended_at": format_time(show(self.end)) if ended else None,
            "created_at": format_time(show(self.created)),
            "expires_at": format_time(self.shown_expiry),
            "archived_at": format_time(show(self.created + self.behaviour.retention_seconds)) if archived else None,
            "cancel_initiated_at": None if self.cancel_asked is None else format_time(show(self.cancel_asked)),
            "results_url": url if ended and not archived else None,
        }
        if self.behaviour.results.unknown_fields:
            shown["simulated"] = {"unknown": True}
        return shown

    def result_lines(self, now: float) -> tuple[int, Iterator[bytes]]:
        """Return how many result lines there are, and the lines without their ends, in a new order each time."""
        style = self.behaviour.results
        self.downloads += 1
        rng = Random(f"{self.behaviour.seed}:{self.number}:{self.downloads}")
        order = [*range(len(self.prompts)), *range(min(style.duplicates, len(self.prompts)))]
        order += [-1 - n for n in range(style.foreign)]
        return len(order), self._shuffle_lines(order, rng, self.count_processed(now), self.rest_outcome(now))

    def _shuffle_lines(self, order: list[int], rng: Random, done: int, rest: str) -> Iterator[bytes]:
        encode = msgspec.json.Encoder().encode
        while order:
            # Shuffled line by line: all at once would keep other calls waiting.
            pick = int(rng.random() * len(order))
            order[pick], order[-1] = order[-1], order[pick]
            index = order.pop()
            if index >= 0:
                prompt = self.prompts[index]
                line = Line(
                    prompt.custom_id, self._make_result(prompt, prompt.outcome if index < done else rest, index)
                )
            else:
                # A line of another batch is made from a prompt of ours, under a custom_id that was never sent.
                prompt = self.prompts[(-1 - index) % len(self.prompts)]
                line = Line(f"foreign-{-index}", self._make_result(prompt, "succeeded", index))
            if self.behaviour.results.unknown_fields:
                line.simulated = line.result.simulated = UNKNOWN
            yield encode(line)

    def _make_result(self, prompt: Prompt, outcome: str, index: int) -> Result:
        if outcome == "succeeded":
            message_id = f"msg_01{self.id[-16:]}{index % 1_000_000:06d}"
            return Result("succeeded", make_message(prompt, message_id, "batch", self.behaviour))
        if outcome in ("expired", "canceled"):
            return Result(outcome)
        details = prompt.answer.details if prompt.answer is not None else None
        shown = {"error_visibility": "user_facing"} if details is None else details
        return Result("errored", error=error_json(outcome, prompt.message, None, shown))
