"""The records that the simulator keeps for tests: every call, and what was sent and paid for each prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec
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


class Attempt(Struct, gc=False, omit_defaults=True):
    """One time that a prompt was sent and accepted."""

    #: "succeeded", "expired", "canceled", "processing" or an error type.
    outcome: str
    stop_reason: str | None = None
    #: Whether it is charged: an answer was made, and it is not a refusal before any output.
    billed: bool = False
    #: The batch's number in the simulator, from 1; 0 at the Messages API.
    batch: int = 0
    custom_id: str = ""


class PromptRecord(Struct, gc=False):
    """The history of one prompt, which is known by a hash of its canonical params (see `Prompt.digest`).

    Requests with equal params are one prompt. They are different requests if they come in one batch. In other
    batches and at the Messages API they are taken for these same requests: a payment beyond their number, or one for a
    custom_id that was charged before, is a repeated payment. Requests that are equal on purpose and come in several
    batches need something that distinguishes them, such as `metadata.user_id`.
    """

    digest: str
    #: The beginning of the last user message, and of the first one.
    text: str
    first_text: str
    model: str
    #: Every time that it was sent: in batches, in their order, and then to the Messages API.
    attempts: list[Attempt] = []
    #: How often it was accepted: in batches, and by the Messages API.
    sent_in_batches: int = 0
    sent_as_messages: int = 0
    #: How often an answer was made and is charged: at batch price (half), and at full price.
    paid_batch: int = 0
    paid_messages: int = 0

    @property
    def paid(self) -> int:
        return self.paid_batch + self.paid_messages

    @property
    def custom_ids(self) -> list[str]:
        """The custom_id of each time that it was sent in a batch."""
        return [attempt.custom_id for attempt in self.attempts if attempt.batch]

    @property
    def outcomes(self) -> list[str]:
        return [attempt.outcome for attempt in self.attempts]

    @property
    def requests(self) -> int:
        """How many requests have this prompt on purpose: the most that one batch had of it, at least one."""
        return max(Counter(attempt.batch for attempt in self.attempts if attempt.batch).values(), default=1)

    @property
    def repaid(self) -> int:
        """How many of its payments are repeated ones."""
        if self.paid < 2:
            return 0
        charged = Counter(attempt.custom_id for attempt in self.attempts if attempt.billed and attempt.batch)
        again = charged.total() - len(charged)
        return max(again, self.paid - self.requests, 0)

    def add_attempt(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)
        if attempt.batch:
            self.sent_in_batches += 1
            self.paid_batch += attempt.billed
        else:
            self.sent_as_messages += 1
            self.paid_messages += attempt.billed


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


class Charge(Struct):
    """What is charged for the answers of one model."""

    answers: int = 0
    tokens: Tokens = msgspec.field(default_factory=Tokens)
    web_searches: int = 0

    def add(self, other: Charge) -> None:
        self.answers += other.answers
        self.tokens.add(other.tokens)
        self.web_searches += other.web_searches


class Invoice(Struct):
    """What is charged so far, by the models that the requests name, and what is not. The sum of the answers' usages."""

    #: At batch price (half), and at full price.
    batch: dict[str, Charge] = {}
    messages: dict[str, Charge] = {}
    #: How many were not charged, by reason: `refusal` (before any output), `expired`, `canceled`, or an error type.
    unbilled_batch: dict[str, int] = {}
    unbilled_messages: dict[str, int] = {}

    def cost(self, prices: Mapping[str, tuple[float, float]]) -> Decimal:
        """Return the exact dollars.

        Args:
            prices: by model, the dollars for a million tokens of input and of output at full price. What is written to
                the prompt cache costs 1.25 times the input (for an hour 2 times), what is read from it 0.1 times.
        """
        halves = sum((_price_charge(charge, *prices[model]) for model, charge in self.batch.items()), Decimal())
        wholes = sum((_price_charge(charge, *prices[model]) for model, charge in self.messages.items()), Decimal())
        searches = sum(charge.web_searches for part in (self.batch, self.messages) for charge in part.values())
        return halves / 2 + wholes + searches * DOLLARS_OF_SEARCH


#: What one web search costs; there is no other price for batches.
DOLLARS_OF_SEARCH = Decimal("0.01")


def _price_charge(charge: Charge, per_input: float, per_output: float) -> Decimal:
    tokens = charge.tokens
    written = tokens.cache_write_5m * Decimal("1.25") + tokens.cache_write_1h * 2
    inputs = tokens.input + written + tokens.cache_read * Decimal("0.1")
    return (inputs * Decimal(str(per_input)) + tokens.output * Decimal(str(per_output))) / 1_000_000


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
    invoice: Invoice

    def calls_to(self, endpoint: Endpoint, status: int | None = None) -> list[Call]:
        """Return the calls of one endpoint, or of those the ones answered with `status`."""
        return [c for c in self.calls if c.endpoint == endpoint and status in (None, c.status)]

    def unserved(self) -> list[Call]:
        """Return the calls that reached no endpoint: an unknown path or method, or an account that was refused."""
        return [c for c in self.calls if c.endpoint is None or (not c.account and c.status >= 400)]

    def paid_twice(self) -> list[PromptRecord]:
        """Return the prompts with repeated payments: charged again, and not for another request."""
        return [prompt for prompt in self.prompts if prompt.repaid]

    def repeated_prompts(self) -> list[PromptRecord]:
        """Return the prompts that several requests of one batch have: each of these is paid once, on purpose."""
        return [prompt for prompt in self.prompts if prompt.sent_in_batches > 1 and prompt.requests > 1]

    def find_prompts(self, first_text: str) -> list[PromptRecord]:
        """Return the prompts whose first user message begins so: a request and its repairs, which have other params."""
        return [prompt for prompt in self.prompts if prompt.first_text.startswith(first_text)]

    def unpaid(self) -> list[PromptRecord]:
        """Return the prompts that were sent and never charged."""
        return [prompt for prompt in self.prompts if not prompt.paid]
