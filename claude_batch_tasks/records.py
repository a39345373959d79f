"""Plain structs of jobs and batches: what the store keeps, and what it answers with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_type_hints

import msgspec
import msgspec.structs

# That of `typing` is refused by pydantic, and so by FastAPI, before Python 3.12.
from typing_extensions import TypedDict

BatchState = Literal["staged", "creating", "in_progress", "canceling", "ended", "fetched", "unsent", "lost", "failed"]
"""``creating``: the intent is written, no id is known. ``unsent``: never created. ``lost``: it cannot be found any
more. ``failed``: a permanent error, in ``error``."""

JobState = Literal["staged", "running", "completed", "canceled", "failed", "revoked"]

Phase = Literal[
    "queued", "running", "saving results", "canceling", "delivering", "completed", "canceled", "failed", "revoked"
]
"""What people are shown of a job, in the order in which it happens; ``rules.choose_phase`` chooses it."""


IncompleteReason = Literal["refusal", "max_tokens", "pause_turn", "model_context_window_exceeded", "empty", "invalid"]
"""Why an answer is not complete. The first four are stop reasons of Anthropic's."""

RepairKind = Literal["refusal_model", "max_tokens", "continue", "reask"]
"""How a request is sent again whose answer is not complete."""


class PublicValue:
    """Base of what applications get: it can be written as JSON, returned by a task, FastAPI or pydantic."""

    __slots__ = ()

    def asdict(self) -> dict[str, Any]:
        """Return the fields as a dict of JSON types: times as ISO 8601 in UTC, bytes in base64."""
        found: dict[str, Any] = msgspec.to_builtins(self, enc_hook=self._encode_value)
        return found

    @classmethod
    def _encode_value(cls, value: Any) -> Any:
        """Return what stands in ``asdict()`` for a value of a type that JSON does not have.

        Raises:
            NotImplementedError: nothing does.
        """
        raise NotImplementedError(f"{type(value).__name__} has no JSON form")

    def __json__(self) -> dict[str, Any]:
        """Return what kombu's JSON serializer writes, for a task that returns this."""
        return self.asdict()

    # With these two methods, `dict(...)` works, and with it FastAPI's encoder of values without a declared type.
    def keys(self) -> tuple[str, ...]:
        """Return the names of the fields."""
        raise NotImplementedError

    def __getitem__(self, name: str) -> Any:
        if name in self.keys():
            return getattr(self, name)
        raise KeyError(name)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Return how pydantic, and so FastAPI, checks and writes this."""
        from pydantic_core import core_schema

        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_plain_validator_function(cls._from_json),
            python_schema=core_schema.is_instance_schema(cls),
            serialization=core_schema.plain_serializer_function_ser_schema(cls.asdict),
        )

    @classmethod
    def _from_json(cls, value: Any) -> Any:
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as exc:  # no ValueError before msgspec 0.20
            raise ValueError(str(exc)) from None

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        """Return the JSON schema for pydantic and FastAPI's documentation: the names of the fields and their types."""
        (reference,), definitions = msgspec.json.schema_components([cls], ref_template="#/$defs/{name}")
        found = definitions[cls.__name__] if "$ref" in reference else reference
        return {name: _inline_references(each, definitions) for name, each in found.items()}


class PublicStruct(PublicValue, msgspec.Struct, frozen=True, kw_only=True):
    """Base of such values that are structs."""

    def keys(self) -> tuple[str, ...]:
        return self.__struct_fields__


def _inline_references(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return a JSON schema with each reference replaced by its definition."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inline_references(definitions[schema["$ref"].rpartition("/")[2]], definitions)
        return {name: _inline_references(each, definitions) for name, each in schema.items()}
    if isinstance(schema, list):
        return [_inline_references(each, definitions) for each in schema]
    return schema


class Attempt(PublicStruct, frozen=True, kw_only=True):
    """One time that a request was sent."""

    kind: Literal["first", "resubmission", RepairKind, "messages"]
    """Why it was sent: for the ``first`` time; as a ``resubmission`` because it had expired or failed for a cause that
    passes; as a repair of an answer that was not complete; or through the Messages API."""
    type: Literal["succeeded", "errored", "expired", "canceled"]
    model: str | None = None
    stop_reason: str | None = None
    usage: dict[str, Any] | None = None
    cost: float | None = None
    """US dollars; None: not known."""
    batch_id: str | None = None
    error_type: str | None = None


class TokenCounts(TypedDict):
    """The tokens of a job's answers, as Anthropic counts them."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int


class Costs(TypedDict):
    """What answers have cost, in US dollars."""

    cost: float | None
    """What is known of it; None: nothing is."""
    cost_by_model: dict[str, float | None]
    """``cost`` by model; None: the price is not known."""
    cost_unknown: dict[str, int | None]
    """How many answers have a price that is not known, by model; None: an older release did not count them."""


class Summary(Costs):
    """How a job has ended: what ``result.get()`` returns. Times are ISO 8601 in UTC."""

    job_id: str
    state: Literal["completed", "canceled", "failed"]
    """Of a job that has ``failed``, ``get()`` raises the error; ``status().summary`` and ``job_finished`` have this."""
    requests: int
    succeeded: int
    errored: int
    expired: int
    canceled: int
    resubmitted: int
    """Outcomes that came from a smaller batch, which what had failed was sent again in."""
    fallback: int
    """Outcomes that came through the Messages API."""
    fallback_skipped: int
    """Requests that were eligible for fallback and were not sent again: no budget was left, or the job was stopped."""
    limited: str | None
    """Which limit stopped requests from being sent through the Messages API, and how to allow more."""
    failures: dict[str, int]
    """How many requests did not succeed, by failure type: the error's type, else ``expired`` or ``canceled``; of errors
    whose type is not known, ``unknown``."""
    incomplete: dict[str, int]
    """How many answers are not complete, by reason: ``refusal``, ``max_tokens``, ``pause_turn``,
    ``model_context_window_exceeded``, ``empty``, ``invalid``; and how many have a stop reason that is not known, by its
    name. They count as succeeded."""
    repairs: dict[str, int]
    """How many times requests were sent again because their answers were not complete, by kind: ``refusal_model``,
    ``max_tokens``, ``continue``, ``reask``."""
    stopped: str | None
    """Why nothing more was sent for this job, if so."""
    batch_ids: list[str]
    usage: TokenCounts
    started_at: str | None
    """None where it failed before it was begun."""
    ended_at: str


#: Grows when a default changes in a way that must not concern jobs that were submitted before. 1: a job's
#: ``max_fallback_cost`` is 5 US dollars; before, it had no limit. 2: paused answers are continued, up to five times.
DEFAULTS = 2


class RetryLink(msgspec.Struct, kw_only=True):
    """A retry job of a job, and how many requests it took from each of the job's batches."""

    job_id: str
    taken: dict[str, int] = {}
    """By batch, counted from 0. Which they are is in the batch's record."""


class RetrySource(msgspec.Struct, kw_only=True):
    """Requests of a retry job that follow each other, and come from one batch of another job, in their order."""

    job_id: str
    batch: int
    """Counted from 0."""
    count: int


class Claim(NamedTuple):
    """The requests that a retry job takes from one job, all at once with those that it takes from others."""

    job_id: str
    retries: int
    """How many retry jobs that job had when the requests were chosen; if it has more, nothing is taken."""
    taken: dict[int, bytes]
    """By batch, counted from 0, a bit for each of its requests, the lowest first in each byte."""


class JobRecord(msgspec.Struct, kw_only=True):
    """The record of a job, made by one ``run_batch`` call. Times are epoch seconds."""

    nonce: str
    requests: int
    batches: int
    models: int = 1
    """Number of models that its requests are for."""
    client: str = "default"
    queue: str | None = None
    """The name of the queue that ``run_batch`` was sent to; steps run by an earlier release use it."""
    route: str | None = None
    """Where ``run_batch`` and all messages of the job are sent, as ``routing`` encodes it; None: to ``queue``."""
    headers: str | None = None
    """The message headers that ``run_batch`` was sent with in addition to Celery's own, as ``message_headers`` encodes
    them."""
    options: dict[str, Any] = {}
    canvas: str = "{}"
    """The job's place in the caller's Celery canvas (links, chain, chord), as ``message_chain`` encodes it."""
    account: str | None = None
    """Keyed hash of the credential that its first create was sent with."""
    organization: str | None = None
    """The organization of that credential, if the API named it."""
    workspace: str | None = None
    """The workspace of that credential, if the API named it."""
    identity: str | None = None
    """Keyed hash of everything that identifies that credential's account; see ``identity``."""
    adopted: bool = False
    """Whether it was made of a batch created elsewhere. Then the custom_ids at Anthropic are its own, and its requests
    are not in the store."""
    sealed_by: str | None = None
    """The name of the key with which its payloads were encrypted when it was submitted."""
    state: JobState = "staged"
    submitted_at: float
    started_at: float | None = None
    resumed_at: float | None = None
    """When it was last resumed after it had failed; ``max_wait`` counts from then."""
    ended_at: float | None = None
    cancel_requested: bool = False
    admitted: int = 0
    """Number of batches that were started, from the first on; each that is finished at Anthropic makes room for
    another."""
    through: int = 0
    """Number of batches that are done. The store counts them, so that a batch that ends need not read all the
    others."""
    fallback_granted: int = 0
    on_result: str | None = None
    """The task that is called with the ids of requests that have their final outcome, as a Celery signature in JSON."""
    stopped: str | None = None
    """Why nothing more is paid for this job: an error that its account, or this worker's account, got."""
    summary: dict[str, Any] | None = None
    error: str | None = None
    """Why the job failed, in full."""
    not_sent: str | None = None
    """Why a message of the job, or the message of what follows the job, cannot be sent."""
    on_result_error: str | None = None
    """Why ``on_result`` is no longer called."""
    delivery_errors: list[str] = []
    """Why calls of ``on_result`` failed permanently, each reason once, the last one last."""
    delivery_at: float | None = None
    """When ``on_result`` was last called, or a call of it was retried or ended."""
    expires_at: float | None = None
    """When it is too late for the job to start; epoch seconds."""
    defaults: int = 0
    """Which defaults of settings hold for it: ``DEFAULTS`` of the release that submitted it; 0: those of 0.2.0."""
    limited: str | None = None
    """Which limit has stopped requests from being sent through the Messages API, and how to allow more."""
    model: str | None = None
    """The model that its requests are for; None: they are for several, or an earlier release submitted it."""
    label: str | None = None
    """The name by which people find the job, and others like it."""
    metadata: dict[str, str] = {}
    """More that the caller said about the job, in plain text."""
    output: dict[str, Any] | None = None
    """The type of its answers, as ``outputs.describe_output`` describes it: import path, JSON schema, hash, check."""
    parent: str | None = None
    """The job whose failed requests it sends again, if it is a retry."""
    sources: list[RetrySource] = []
    """Where its requests come from, in their order, if it is a retry."""
    retries: list[RetryLink] = []
    """The retry jobs that took requests of this one, in the order in which they did."""
    pool: str | None = None
    """The name of the pool of asks that it was made of; None: ``run_batch`` made it."""
    answer_by: float | None = None
    """When its answers are wanted, epoch seconds: a batch that cannot end by then is canceled, and what it has not
    processed goes through the Messages API. None: whenever they come."""
    direct: bool = False
    """Whether its requests go through the Messages API at once, without a batch."""


class FailureTally(msgspec.Struct, kw_only=True):
    """How many requests of a batch did not succeed in one way."""

    outcome: str
    """``errored``, ``expired`` or ``canceled``."""
    error_type: str | None = None
    """The error's type, if they errored; None: not known."""
    count: int = 0
    open: int = 0
    """How many of them may be sent again."""
    again: int = 0
    """How many of these are in the next smaller batch, if there is one."""
    example: int | None = None
    """The position of one of them in the batch."""


class RepairOptions(msgspec.Struct, kw_only=True):
    """What a job allows to be sent again in batches."""

    retries: int = 0
    refusal_models: list[str] = []
    max_tokens_limit: int | None = None
    continue_paused: int = 0
    reask: int = 0
    long_output: bool = False
    """Whether the job has the beta header for answers of up to 300,000 tokens."""
    max_bytes: int | None = None
    """How large another batch may be; None: that was not asked for."""


class Again(msgspec.Struct, kw_only=True):
    """The requests of a batch that are in its next smaller batch, if there is one. Their positions are a key."""

    attempt: int = 0
    """The download by which they were chosen."""
    count: int = 0
    left: int = 0
    """Number of requests for which it has no room, so that their answers stay. Their positions follow in the key."""
    outcomes: dict[str, int] = {}
    """By their outcomes so far."""
    incomplete: dict[str, int] = {}
    """Those that succeeded, by why their answers are not complete."""
    kinds: dict[str, int] = {}
    """By why they are sent again: a ``resubmission``, or a kind of repair."""
    options: RepairOptions = msgspec.field(default_factory=RepairOptions)
    """The options by which they were chosen: what is sent, and what it means when it comes back, follows from them."""


class Round(msgspec.Struct, kw_only=True):
    """The state of a batch at the moment when its eligible requests were sent again as a smaller batch."""

    batch_id: str | None
    attempt: int
    """The download whose rows are the published results."""
    counts: dict[str, int]
    usage: dict[str, int]
    costs: dict[str, str | None]
    eligible: int
    open: dict[str, int]
    unpriced: dict[str, int] = {}
    failed_types: list[FailureTally] = []
    incomplete: dict[str, int] = {}
    again: Again | None = None
    """What was sent again; None: all that is eligible, as it was submitted, which is how 0.2.0 does it."""
    created_at: float | None = None

    @property
    def sent(self) -> int:
        """Number of requests in the batch that follows it."""
        return self.eligible if self.again is None else self.again.count

    @property
    def sent_outcomes(self) -> dict[str, int]:
        """These, by the outcomes that they had."""
        return self.open if self.again is None else self.again.outcomes


_T = TypeVar("_T")

Event = Literal["round", "resume"]
"""What starts a batch's steps again: a ``round`` with a smaller batch, or a ``resume`` of the job."""


class Change(NamedTuple):
    """What a new round, and what resuming the job, does to a field of a batch's record.

    ``keep``: nothing. ``reset``: the field gets its default. ``set``: it gets a value that is computed there.
    """

    round: Literal["keep", "reset", "set"]
    resume: Literal["keep", "reset", "set"]


Kept = Annotated[_T, Change(round="keep", resume="keep")]
"""About the batch as it was handed over, or counted over all that was done for it."""
OfRound = Annotated[_T, Change(round="reset", resume="keep")]
"""About the present batch at Anthropic, with which a resumed job continues."""
OfRun = Annotated[_T, Change(round="keep", resume="reset")]
"""About the steps to the end of the batch, which run again when the job is resumed."""
OfBoth = Annotated[_T, Change(round="reset", resume="reset")]
"""Counted towards giving up on the present batch."""
SetByRound = Annotated[_T, Change(round="set", resume="keep")]
SetByResume = Annotated[_T, Change(round="keep", resume="set")]
SetByBoth = Annotated[_T, Change(round="set", resume="set")]


class _HandedOver(msgspec.Struct, kw_only=True):
    """The part of a batch's record that is written when the job is handed over."""

    first: Kept[int]
    """Index in the job of the batch's first request."""
    count: Kept[int]
    body_bytes: Kept[int]
    """Exact bytes of the create body, including the envelope."""
    least: OfRound[int | None] = None
    most: OfRound[int | None] = None
    """How much money a budget must have left for its input, and at most for all of it, in nano-dollars; set if the
    job's cost is limited."""


class _Repeated(_HandedOver, kw_only=True):
    """The part that says how many times its steps were started again."""

    state: Annotated[BatchState, Change(round="reset", resume="set")] = "staged"
    turn: SetByBoth[int] = 0
    """Generation: how many times its steps were started again. That happens when requests are sent again as a smaller
    batch, when an adopted batch turns out to be somebody else's, and when the job is resumed."""
    rounds: SetByRound[list[Round]] = []
    """The batches before the present one. Each is followed by a smaller batch of those of its requests that were sent
    again."""
    smaller: SetByRound[int | None] = None
    smaller_bytes: SetByRound[int] = 0
    """Number of requests in the present smaller batch, and the exact bytes of its create body; None: it is the first
    batch."""


class _Created(_Repeated, kw_only=True):
    """The part that the create writes, and the search for a create that was not answered."""

    intent_at: OfRound[float | None] = None
    """When the present create was about to be sent."""
    create_not_found: OfBoth[int] = 0
    """Number of 404s in a row on create."""
    unanswered_at: OfRound[float | None] = None
    """When it was clear that the create would not be answered: if the batch was stored, then before this time."""
    ambiguous_at: OfBoth[float | None] = None
    """When the search for the batch of that create began."""
    create_looks: OfBoth[int] = 0
    """Number of complete list calls since then that did not show it."""
    refusal: OfBoth[list[Any] | None] = None
    """``[class name in errors, arguments]``: how something in front of the API refused that create. The batch may have
    been stored nevertheless; if it was not, it may end with this error."""
    refused_since: OfBoth[float | None] = None
    """Since when calls are refused like that, in a row."""
    rejected_ids: SetByRound[list[str]] = []
    """Ids of batches that looked like ours but are not."""
    organization: OfRound[str | None] = None
    workspace: OfRound[str | None] = None
    """The organization and workspace to which its create went, as the API named them."""
    unidentified: OfBoth[int] = 0
    """Number of list calls in a row that did not show it, made by a client that may be on another account; they prove
    nothing."""


class _Polled(_Created, kw_only=True):
    """The part that polls write: what the API last showed."""

    batch_id: OfRound[str | None] = None
    provisional: OfRound[bool] = False
    """Whether the id was found by search and is not yet confirmed by the results."""
    created_at: OfRound[float | None] = None
    expires_at: OfRound[float | None] = None
    """``created_at`` and ``expires_at`` are by the API's clock, all other times by the store's."""
    api_ahead: Kept[float] = 0.0
    """Seconds by which the API's clock was ahead of the store's when it first showed the batch."""
    cancel_sent: OfBoth[bool] = False
    cut_short: OfRound[bool] = False
    """Whether we cancel it because it could not end by the job's ``answer_by``: what is canceled in it goes through the
    Messages API."""
    sighting: OfRound[float | None] = None
    """Last seen: when the API last confirmed that the batch exists."""
    not_before: OfRound[float | None] = None
    """The earliest time for the next poll that the API asked for when it last showed the batch."""
    absences: OfBoth[int] = 0
    """Number of complete list calls in a row, after the grace period, that did not show it."""
    told: OfBoth[dict[str, int]] = {}
    """The API's ``request_counts`` after the batch had ended."""
    counts: SetByResume[dict[str, int]] = {}
    """Outcomes of its requests: at first as the API reported them, then as the result files have them."""
    processed: OfRound[int] = 0
    """Number of its requests that the API counted as ended when it last showed the running batch: 0 for most
    accounts, until a whole batch has ended."""
    looks: Kept[int] = 0
    not_found: Kept[int] = 0
    """Number of all 404s, from any endpoint."""


class _Waiting(_Polled, kw_only=True):
    """The part of the step that is at work, or waits."""

    failures: OfRun[int] = 0
    """Number of failures of the present step in a row; the backoff is computed from it."""
    step_failures: OfRun[int] = 0
    """How many times in a row the present step was interrupted: by an exception for which there is no rule, or because
    its worker died."""
    step_failure: OfRun[str | None] = None
    """What interrupted it the last time."""
    due_at: OfRun[float | None] = None
    """When the present step runs next, as it was last reported; a list call may have changed it since."""
    task_id: OfRun[str | None] = None
    """Id of the waiting task: its next message has the same id."""


class _Fetched(_Waiting, kw_only=True):
    """The part that is written when results are downloaded."""

    attempt: Kept[int] = 0
    """Number of downloads of the result file that were started."""
    attempts_before: SetByBoth[int] = 0
    """Number of downloads before the job was resumed, which do not count towards the limit."""
    published: OfRound[int | None] = None
    """The download attempt whose rows are the batch's results."""
    usage: SetByResume[dict[str, int]] = {}
    costs: SetByResume[dict[str, str | None]] = {}
    """USD by model, as exact decimals; None: the price is not known."""
    unpriced: SetByResume[dict[str, int]] = {}
    """Number of answers, or parts of answers, behind each None in ``costs``."""
    outcome: OfRun[dict[str, Any] | None] = None
    """``{"type", "error"}`` for every request that has no result row of its own."""
    rows: Kept[dict[str, int]] = {}
    """Number of rows of each published attempt."""
    eligible: SetByResume[int] = 0
    """Number of requests that may be sent again."""
    open: SetByResume[dict[str, int]] = {}
    """Number of eligible requests by their outcome so far."""
    failed_types: SetByResume[list[FailureTally]] = []
    """Those of ``counts`` that did not succeed, by type."""
    incomplete: SetByResume[dict[str, int]] = {}
    """Number of answers that are not complete, by reason, and of those with a stop reason that is not known, by its
    name. They are among the succeeded ones of ``counts``."""
    incomplete_examples: Kept[dict[str, int]] = {}
    """The position of one such answer of each reason. It may have been repaired since."""
    repairs: Kept[dict[str, int]] = {}
    """Number of requests that were sent again because their answers were not complete, by kind, over all rounds."""
    again: SetByResume[Again | None] = None
    """What is sent again in a smaller batch, if there is one; None: 0.2.0 fetched the results."""
    not_sent_again: OfBoth[str | None] = None
    """Why the requests that were to be sent again in a smaller batch were not."""
    failed_types_of: SetByResume[list[int]] = []
    """What ``failed_types`` were counted of; if the batch has other results now, an earlier release fetched them."""


class _Sent(_Fetched, kw_only=True):
    """The part of requests that are sent again, or go through the Messages API."""

    granted: Kept[int | None] = None
    """Number of requests that the job's fallback limit allows for this batch; None: not asked yet."""
    messages_out: OfRun[bool] = False
    """Whether all allowed requests are queued for the Messages API; if not, they are queued again."""
    first_lane: SetByResume[int] = 0
    """The number of its first sender to the Messages API. Senders that have ended are never started again."""
    resubmitted: Kept[int] = 0
    """Number of requests whose outcome came from a smaller batch."""
    answered: Kept[int] = 0
    """Number of requests whose outcome came through the Messages API."""
    stored: Kept[int] = 0
    """Number of requests for which the store got an outcome of the Messages API, or the reason why there is none."""
    skipped: OfRun[int] = 0
    """Number of eligible requests that were not sent again, or not in every way that there is."""
    note: OfRun[str | None] = None
    """Why they were skipped."""


class BatchRecord(_Sent, kw_only=True):
    """The record of one batch of a job, in a part for each of its steps. Times are epoch seconds."""

    final: OfRun[bool] = False
    """Whether its requests have their final outcomes."""
    done: OfRun[bool] = False
    """Whether nothing is left to be done for this batch."""
    made_room: OfRun[bool] = False
    """Whether it is finished at Anthropic, and the job's next batch, if any, was started in its place."""
    read_only: Kept[bool] = False
    """Whether its record was lost and written again: nothing of it is sent again."""
    error: OfRun[list[Any] | None] = None
    """``[class name in errors, arguments]`` of the error that ended the batch early."""

    def __post_init__(self) -> None:
        """Forget what was to be sent again if 0.2.0, which does not know of it, has fetched other results since."""
        if self.again is not None and self.published not in (None, self.again.attempt):
            self.again = None

    @property
    def sending(self) -> int:
        """Number of requests in the present batch at Anthropic."""
        return self.count if self.smaller is None else self.smaller

    @property
    def pending(self) -> dict[str, int]:
        """Number of requests, by outcome so far, whose outcomes are not final: they may yet be sent again."""
        if self.final or self.done:
            return {}
        repaired = self.again.outcomes.get("succeeded", 0) if self.again is not None else 0
        return {**self.open, "succeeded": repaired} if repaired else dict(self.open)

    @property
    def pending_count(self) -> int:
        """Number of requests whose outcomes are not final, as far as that is known."""
        return self.eligible + (0 if self.again is None else self.again.outcomes.get("succeeded", 0))

    @property
    def layers(self) -> list[tuple[int, int]]:
        """The downloads whose rows are read, and their rounds, the latest first: its rows have precedence."""
        past = [(round.attempt, number) for number, round in enumerate(self.rounds)]
        own = [] if self.published is None else [(self.published, len(self.rounds))]
        return [*own, *reversed(past)]


def reset_fields(event: Event) -> dict[str, Any]:
    """Return the fields of a batch's record that an event resets, with their defaults."""
    hints = get_type_hints(BatchRecord, include_extras=True)
    return {
        each.name: each.default if each.default_factory is msgspec.NODEFAULT else each.default_factory()
        for each in msgspec.structs.fields(BatchRecord)
        if getattr(hints[each.name].__metadata__[0], event) == "reset"
    }


class LaneRecord(msgspec.Struct, kw_only=True):
    """The record of one of the senders of a batch's requests to the Messages API. Times are epoch seconds."""

    failures: int = 0
    """Number of failures of its step in a row, of the store or of the broker."""
    due_at: float | None = None
    missing_since: float | None = None
    """Since when answers to calls of an earlier run are missing."""


def batch_number(index: int) -> int:
    """Return the number that people are shown for a batch: from 1. Records and messages have its index, from 0."""
    return index + 1


def batch_index(number: int) -> int:
    """Return the index in its job of the batch that people are shown under this number."""
    return number - 1


class DeliveryCounts(NamedTuple):
    """How many requests of a job were handed over to its ``on_result``."""

    called: int = 0
    """Requests with which it was called."""
    delivered: int = 0
    """Requests of which a call ended well."""
    failed: int = 0
    """Requests of which the last call failed permanently."""


class Unit(NamedTuple):
    """The object of a lease: a batch of a job, one of the senders of its requests to the Messages API, or the job."""

    job_id: str
    batch: int | None = None
    """The index of the batch in its job, from 0."""
    lane: int | None = None

    @property
    def number(self) -> int | None:
        """The number that people are shown for the batch; None: it is the job."""
        return None if self.batch is None else batch_number(self.batch)

    def __str__(self) -> str:
        """Return the name of the unit in errors."""
        return f"job {self.name}"

    @property
    def name(self) -> str:
        """The name of the unit in logs, after the word "job"."""
        text = self.job_id
        if self.number is not None:
            text += f" batch {self.number}"
        if self.lane is not None:
            text += f", sender {self.lane}"
        return text


class Lease(msgspec.Struct):
    """The outcome of taking a lease.

    ``stale``: the message is a duplicate of one that was already handled. ``busy``: a live worker is working on it, for
    at most ``remaining`` seconds. ``taken_over``: the last owner never finished. ``gone``: the job has expired or was
    deleted.
    """

    state: Literal["taken", "taken_over", "busy", "stale", "gone"]
    remaining: float = 0.0
    failures: int = 0
    """How many times in a row the unit's step was interrupted, from the record or because the last owner never
    finished."""
    failure: str | None = None
    """What interrupted it the last time, if the record says so."""


class Lost(NamedTuple):
    """A unit whose message seems to be lost: its present position, and when a message should have acted on it."""

    position: int
    due_at: float


class Progress(PublicStruct, frozen=True, kw_only=True):
    """How far a running job is."""

    fraction: float
    """From 0 to 1."""
    measured: bool
    """Whether it counts requests with an outcome; False: it is an estimate, by the time that similar batches took."""
    text: str
    """``40 % of the requests``, or ``about 40 %, by the time that 12 similar batches took``."""

    def __str__(self) -> str:
        return self.text


class JobLabels(NamedTuple):
    """The part of a job's record by which jobs are filtered."""

    state: JobState
    label: str | None
    metadata: dict[str, str]


class JobGlance(NamedTuple):
    """The part of a job's record that statistics over all jobs need."""

    state: JobState
    batches: int
    admitted: int
    """All batches from this number on are staged."""
    through: int
    missed: float | None
    """When its message was due, if it was sent again and no worker has taken it."""
    pool: str | None = None
    """The name of the pool of asks that it was made of."""
    requests: int | None = None


class BatchGlance(NamedTuple):
    """The part of a batch's record that statistics over all jobs need."""

    state: BatchState
    created_at: float | None
    sighting: float | None
    missed: float | None
    """When its message was due, if it was sent again and no worker has taken it."""


class Flight(msgspec.Struct, array_like=True, kw_only=True):
    """A batch that waits for its next poll, with the data that the schedule needs. Times are epoch seconds."""

    batch_id: str
    created_at: float
    expires_at: float | None
    requests: int
    poll_min: float
    poll_max: float
    deadline: float | None
    """When its job gives up waiting."""
    api_ahead: float = 0.0
    """Seconds by which the API's clock, by which ``created_at`` and ``expires_at`` are, is ahead of the store's."""


class HistoryEvent(PublicStruct, frozen=True, kw_only=True):
    """Something that happened to a job."""

    at: datetime
    event: str
    """What kind: ``created``, ``not_found``, ``ended``, ..., as docs/reference/history.md lists them."""
    batch: int | None
    """The number of the batch that it concerns, from 1; None: all of the job. (The store has its index, from 0.)"""
    text: str
    details: dict[str, Any]
    """What belongs to it: ``batch_id``, ``requests``, ``counts``, ``round``; of a call that failed ``endpoint``,
    ``status``, ``request_id`` and ``countdown``, the seconds until the next try."""


class ServerProblem(NamedTuple):
    """A problem of a server: the name of its text in ``checks.problems``, and values for the names in that text."""

    kind: str
    values: Mapping[str, Any] = {}


class ServerReport(NamedTuple):
    """What a server says of itself.

    ``product``: name and version, ``Valkey 8.1.0``; empty if it may not say them. ``state``: what it holds. ``ahead``:
    the seconds by which this machine's clock is ahead of its clock; None: unknown. ``notes``: what is no problem, each
    to follow the server's name in a sentence. ``problems``: the gravest first; a server that does not answer has one.
    """

    product: str = ""
    state: str = ""
    ahead: float | None = None
    notes: tuple[str, ...] = ()
    problems: tuple[ServerProblem, ...] = ()


class WorkerPresence(PublicStruct, frozen=True, kw_only=True):
    """A worker that runs, as it reported to the store not long ago."""

    hostname: str
    """The name of the worker: ``celery@host``."""
    queues: tuple[str, ...]
    """The queues that it takes messages from."""
    version: str
    """Its release of this package."""
    broker: str | None = None
    """The address of its broker, without user and password."""
    pool: str | None = None
    """The kind of its pool: ``prefork``, ``threads``, ``gevent``, ..."""
    processes: int | None = None
    """How many tasks it runs at a time."""
    settings: dict[str, str] = {}
    """Its ``claude_batch_*`` settings that differ from the defaults; ``set`` stands for values that may be secret."""
    started_at: datetime
    last_seen: datetime
    """When it last reported, by the clock of the store."""


class PoolSummary(PublicStruct, frozen=True, kw_only=True):
    """The asks of one pool name and queue that wait for their answers, and where they are."""

    pool: str
    """The name of the pools, as ``ask`` was given it."""
    queue: str | None
    """The queue that the messages of their jobs go to; None: it is not known."""
    open: int
    """The number of pools that take more asks."""
    closed: int
    """The number of pools that take no more, and are no job yet."""
    parked: int
    """The number of pools that wait for another one, because the API refused a request of theirs."""
    sealed: int
    """The number of jobs that were made of pools, and have not ended."""
    waiting: int
    """The number of asks without an end, in pools and in jobs."""
    in_jobs: int
    """How many of these are in jobs."""
    oldest_at: datetime | None
    """When the oldest of these pools was opened: no ask that waits is older."""
    due_at: datetime | None
    """When the next pool is to become a job; in the past: no worker has seen to it."""
    workers: tuple[str, ...] = ()
    """The workers that listen on the queue."""


class Need(NamedTuple):
    """How much one request takes of its limits."""

    tokens: int
    """Estimated input tokens."""
    least: int | None
    most: int | None
    """How much money a budget must have left for its input, and at most for all of it, in nano-dollars; None: not
    known."""


class Taken(NamedTuple):
    """The outcome of asking whether a request may be sent now.

    ``taken``: the caller sends it now. ``wait``: not before ``seconds``, because of the rate limit. ``reserved``: not
    before ``seconds``, because it depends on what other requests turn out to cost. ``gone``: another task has the
    request. ``taken_over``: another task has the sender. In all other states the request is not sent: ``stopped``,
    ``canceled``, ``budget`` (no money is left for it), ``price`` (its price is not known), ``lost`` (the store has lost
    what the job has spent).
    """

    state: Literal["taken", "wait", "reserved", "gone", "taken_over", "stopped", "canceled", "budget", "price", "lost"]
    seconds: float = 0.0
    mark: str = ""
    """How much had been sent by then; passed to ``answered``."""
