"""The world of the simulator: all that it knows between two resets."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Literal

from .answers.judging import Judge, Sendings
from .answers.prompt import SHOWN_CHARS, Prompt
from .batch import Batch, Bill, Clock
from .faults import FaultBook, Moment
from .files import StoredFile
from .journal import Attempt, BatchRecord, Call, Charge, FaultRecord, Invoice, Journal, PromptRecord, State, Totals
from .limits import Limits
from .prompts import ApiError
from .script import Behaviour, Fault, Scenario


class World:
    """The batches, calls and clock of one scenario. It is used only from the server's event loop."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.behaviour = scenario.behaviour
        self.faults = FaultBook(scenario.faults, scenario.behaviour.seed)
        #: All batches by id, in order of creation, also the deleted ones.
        self.batches: dict[str, Batch] = {}
        #: The calls of the Messages API that were carried out, or failed with their outcome.
        self.messages: list[Prompt] = []
        self._bill = Bill()
        #: The uploaded files of each account, by id.
        self.files: defaultdict[str, dict[str, StoredFile]] = defaultdict(dict)
        self.calls: list[Call] = []
        self.sendings = Sendings()
        #: The prompt cache: account, model (each has its own cache) and digest of every prefix. Nothing expires.
        self._cache: set[tuple[str, str, bytes]] = set()
        self._limits: defaultdict[str, Limits] = defaultdict(Limits)
        self.clock = Clock(self.behaviour.clock_speed)
        self.now = self.clock.now

    def change_behaviour(self, behaviour: Behaviour) -> None:
        """Change the behaviour: at once for messages and the clock, for batches from the next one on."""
        self.clock.set_speed(behaviour.clock_speed)
        self.behaviour = behaviour

    def moment_of(self, batch: Batch | None) -> Moment:
        now = self.now()
        if batch is None:
            return Moment(now)
        return Moment(now, batch.created, batch.end if batch.has_ended(now) else None)

    def make_judge(self, via: Literal["batch", "messages"]) -> Judge:
        return Judge(self.behaviour, via, self.sendings)

    # Batches

    def create_batch(self, account: str, prompts: list[Prompt]) -> Batch:
        batch = Batch(len(self.batches) + 1, account, prompts, self.clock, self.behaviour)
        self.batches[batch.id] = batch
        self._use_cache(account, prompts)
        self._count_attempts("batch", prompts)
        return batch

    def find_batch(self, account: str, batch_id: str) -> Batch | None:
        batch = self.batches.get(batch_id)
        return batch if batch and batch.account == account and not batch.gone else None

    def list_page(
        self, account: str, after_id: str | None, before_id: str | None, limit: int
    ) -> tuple[list[Batch], bool]:
        """Return one page of a list call, newest first, and whether there are more batches in its direction.

        Raises:
            ApiError: there are two cursors, or the one that is given is invalid.
        """
        if after_id and before_id:
            raise ApiError("invalid_request_error", "Only one of after_id and before_id may be given")
        own = {b.id: b for b in self.batches.values() if b.account == account}
        end = _number_of(own, "after_id", after_id, math.inf)
        begin = _number_of(own, "before_id", before_id, 0)
        now = self.now()
        batches = [b for b in own.values() if begin < b.number < end and b.is_listed(now)]
        # Oldest first here: a page back in time has the newest of them, a page forward those next to the cursor.
        page = batches[:limit] if before_id else batches[-limit:]
        return page[::-1], len(page) < len(batches)

    # Messages

    def admit_call(self, account: str, prompt: Prompt) -> None:
        """Count a call of the Messages API.

        Raises:
            ApiError: the account's rate limits forbid the call.
        """
        tokens = prompt.input_tokens
        if prompt.prefix is not None and (account, prompt.model, prompt.prefix.digest) in self._cache:
            tokens -= prompt.prefix.tokens
        self._limits[account].admit_call(self.behaviour, tokens)

    def limit_headers(self, account: str) -> dict[str, str]:
        return self._limits[account].describe_limits(self.behaviour)

    def send_prompt(self, account: str, prompt: Prompt) -> None:
        """Record a call of the Messages API that gets an answer, or is refused with its outcome."""
        self._use_cache(account, [prompt])
        if prompt.outcome == "succeeded":
            self._limits[account].count_answer(self.behaviour, prompt.output_tokens)
        self.messages.append(prompt)
        self._bill.add_prompts([prompt])
        self._count_attempts("messages", [prompt])

    def _use_cache(self, account: str, prompts: list[Prompt]) -> None:
        """Decide, in their order, which of the requests that succeed find their prefix in the cache.

        For all requests of a batch, this is decided at its creation, so that it does not depend on when anyone polls.
        """
        for prompt in prompts:
            if prompt.prefix is not None and prompt.outcome == "succeeded":
                key = (account, prompt.model, prompt.prefix.digest)
                prompt.prefix.cached = key in self._cache
                self._cache.add(key)

    def _count_attempts(self, via: str, prompts: list[Prompt]) -> None:
        if any(rule.attempts for rule in self.behaviour.outcomes):
            self.sendings.by_params[via].update(prompt.digest for prompt in prompts)
        for prompt in prompts:
            self.sendings.by_key.update(prompt.keys)

    # Answers for tests

    def state(self) -> State:
        return State(
            scenario=self.scenario.name,
            now=self.clock.show(self.now()),
            started=self.clock.show(0),
            behaviour=self.behaviour,
            faults=[FaultRecord(i.fault, i.seen.total(), i.fired.total()) for i in self.faults.installed],
            batches=self._batch_records(),
            totals=self._sum_totals(),
        )

    def read_journal(self, since: int = 0, prompts: bool = True) -> Journal:
        """Return the calls after number `since`; `prompts=False` leaves out the prompts, which may be many."""
        records = self._prompt_records() if prompts else []
        return Journal(self.calls[since:], records, self._batch_records(), self._sum_totals(), self.write_invoice())

    def write_invoice(self) -> Invoice:
        now = self.now()
        charges: defaultdict[str, Charge] = defaultdict(Charge)
        unbilled: Counter[str] = Counter()
        for batch in self.batches.values():
            unbilled += batch.count_unbilled(now)
            for model, charge in batch.bill_at(now).by_model.items():
                charges[model].add(charge)
        return Invoice(charges, self._bill.by_model, unbilled, self._bill.unbilled)

    def add_faults(self, faults: tuple[Fault, ...], replace: bool) -> None:
        if replace:
            self.faults = FaultBook((), self.behaviour.seed)
        self.faults.add_faults(faults)

    def _batch_records(self) -> list[BatchRecord]:
        now = self.now()
        return [
            BatchRecord(
                id=b.id,
                number=b.number,
                account=b.account,
                status=b.status_at(now),
                requests=len(b.prompts),
                created_at=self.clock.show(b.created),
                ended_at=self.clock.show(b.end),
                request_counts=b.count_requests(now),
                paid=b.bill_at(now).paid,
                downloads=b.downloads,
                gone=b.gone,
            )
            for b in self.batches.values()
        ]

    def _sum_totals(self) -> Totals:
        invoice = self.write_invoice()
        return Totals(
            calls=len(self.calls),
            batches_created=len(self.batches),
            requests_sent=sum(len(b.prompts) for b in self.batches.values()),
            paid_batch=sum(charge.answers for charge in invoice.batch.values()),
            paid_messages=self._bill.paid,
            batch_by_model={model: charge.tokens for model, charge in invoice.batch.items()},
            messages_by_model={model: charge.tokens for model, charge in invoice.messages.items()},
        )

    def _prompt_records(self) -> list[PromptRecord]:
        now = self.now()
        records: dict[bytes, PromptRecord] = {}

        def add_attempt(prompt: Prompt, outcome: str, batch: int = 0) -> None:
            record = records.get(prompt.digest)
            if record is None:
                text = prompt.echo[:SHOWN_CHARS]
                record = PromptRecord(prompt.digest.hex(), text, prompt.first or text, prompt.model, [])
                records[prompt.digest] = record
            answered = outcome == "succeeded"
            stop_reason = prompt.stop_reason if answered else None
            record.add_attempt(Attempt(outcome, stop_reason, answered and prompt.is_billed, batch, prompt.custom_id))

        for batch in self.batches.values():
            for prompt, outcome in zip(batch.prompts, batch.list_outcomes(now), strict=True):
                add_attempt(prompt, outcome, batch.number)
        for sent in self.messages:
            add_attempt(sent, sent.outcome)
        return list(records.values())


def _number_of(batches: dict[str, Batch], name: str, cursor: str | None, default: float) -> float:
    if not cursor:
        return default
    if cursor not in batches:
        raise ApiError("invalid_request_error", f"{name}: Invalid cursor '{cursor}'")
    return batches[cursor].number


def choose_batches(world: World, batch_id: str) -> Iterable[Batch]:
    """Return the batches that a control call means: one by id, or all with `*`.

    Raises:
        ApiError: there is no batch with that id.
    """
    if batch_id == "*":
        return world.batches.values()
    if batch_id not in world.batches:
        raise ApiError("not_found_error", f"no batch {batch_id}")
    return [world.batches[batch_id]]
