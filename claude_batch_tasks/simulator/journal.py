"""The records that the simulator keeps for tests: every call, and what was sent and paid for each prompt."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from .script import Behaviour, Endpoint, Fault

# There are many calls and prompts, and none is in a reference cycle: the garbage collector does not track them.


class Call(Struct, gc=False):
    """One call. `status` is 0 without an answer; `endpoint` is None for a path or method that is not served."""

    number: int
    #: Epoch seconds, like the times that clients are shown.
    at: float
    endpoint: Endpoint | None
    method: str
    path: str
    batch_id: str | None = None
    #: A name made from key and workspace; the key itself is not kept.
    account: str = ""
    status: int = 0
    #: The type of the error that was answered, and why.
    error: str | None = None
    reason: str = ""
    #: Labels of the faults that struck.
    faults: list[str] = []
    request_id: str = ""
    #: How many retries of its own the SDK had made before (x-stainless-retry-count).
    sdk_retries: int = 0


class PromptRecord(Struct, gc=False):
    """The history of one prompt, which is known by a hash of its canonical params (see `Prompt.digest`).

    Requests with equal params are one prompt: give each its own text if you must distinguish their payments.
    """

    digest: str
    #: The beginning of the prompt.
    text: str
    custom_ids: list[str]
    #: How often it was accepted: in batches, and by the Messages API.
    sent_in_batches: int = 0
    sent_as_messages: int = 0
    #: How often an answer was made and is charged: at batch price (half), and at full price.
    paid_batch: int = 0
    paid_messages: int = 0
    #: Every outcome so far, in order: "succeeded", "expired", "canceled", "processing" or an error type.
    outcomes: list[str] = []

    @property
    def paid(self) -> int:
        return self.paid_batch + self.paid_messages


class BatchRecord(Struct):
    id: str
    #: The batch's number in the simulator, from 1.
    number: int
    account: str
    status: str
    requests: int
    created_at: float
    #: When processing ended, or is going to end.
    ended_at: float
    request_counts: dict[str, int]
    #: How many of its requests are charged so far.
    paid: int
    downloads: int
    gone: bool


class Tokens(Struct, gc=False):
    """Tokens that are charged, divided by what they cost."""

    #: Tokens of prompts, neither written to the prompt cache nor read from it.
    input: int = 0
    output: int = 0
    #: Tokens of prompts: written to the cache for five minutes, written to it for an hour, and read from it.
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    cache_read: int = 0

    def add(self, other: Tokens) -> None:
        self.input += other.input
        self.output += other.output
        self.cache_write_5m += other.cache_write_5m
        self.cache_write_1h += other.cache_write_1h
        self.cache_read += other.cache_read

    @classmethod
    def total(cls, parts: Iterable[Tokens]) -> Tokens:
        total = cls()
        for part in parts:
            total.add(part)
        return total


class Totals(Struct):
    calls: int
    batches_created: int
    requests_sent: int
    paid_batch: int
    paid_messages: int
    #: Tokens of everything paid, at batch price and at full price, by model.
    batch_by_model: dict[str, Tokens]
    messages_by_model: dict[str, Tokens]

    @property
    def batch_tokens(self) -> Tokens:
        return Tokens.total(self.batch_by_model.values())

    @property
    def messages_tokens(self) -> Tokens:
        return Tokens.total(self.messages_by_model.values())

    @property
    def batch_input_tokens(self) -> int:
        return self.batch_tokens.input

    @property
    def batch_output_tokens(self) -> int:
        return self.batch_tokens.output

    @property
    def messages_input_tokens(self) -> int:
        return self.messages_tokens.input

    @property
    def messages_output_tokens(self) -> int:
        return self.messages_tokens.output


class FaultRecord(Struct):
    fault: Fault
    #: The counts are over all batches.
    seen: int
    fired: int


class State(Struct):
    """The state of the simulator."""

    scenario: str
    now: float
    started: float
    behaviour: Behaviour
    faults: list[FaultRecord]
    batches: list[BatchRecord]
    totals: Totals


class Journal(Struct):
    calls: list[Call]
    prompts: list[PromptRecord]
    batches: list[BatchRecord]
    totals: Totals

    def calls_to(self, endpoint: Endpoint, status: int | None = None) -> list[Call]:
        """Return the calls of one endpoint, or of those the ones answered with `status`."""
        return [c for c in self.calls if c.endpoint == endpoint and status in (None, c.status)]

    def unserved(self) -> list[Call]:
        """Return the calls that reached no endpoint: an unknown path or method, or an account that was refused."""
        return [c for c in self.calls if c.endpoint is None or (not c.account and c.status >= 400)]

    def paid_twice(self) -> list[PromptRecord]:
        """Return the prompts that were charged more than once."""
        return [prompt for prompt in self.prompts if prompt.paid > 1]

    def unpaid(self) -> list[PromptRecord]:
        """Return the prompts that were sent and never charged."""
        return [prompt for prompt in self.prompts if not prompt.paid]
