"""What the store keeps of jobs and batches, and what it answers with: plain structs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec

BatchState = Literal["staged", "creating", "in_progress", "canceling", "ended", "fetched", "unsent", "lost", "failed"]
"""``creating``: the intent is written, no id is known. ``unsent``: never created. ``lost``: beyond finding.
``failed``: a permanent error, in ``error``."""

JobState = Literal["staged", "running", "completed", "canceled", "failed", "revoked"]


class JobRecord(msgspec.Struct, kw_only=True):
    """What one ``run_batch`` call handed over. Times are epoch seconds."""

    nonce: str
    requests: int
    batches: int
    models: int = 1
    """How many models its requests are for."""
    client: str = "default"
    queue: str | None = None
    """The name of the queue ``run_batch`` was sent to, which steps run by an earlier release follow."""
    route: str | None = None
    """Where ``run_batch`` and all messages of the job are sent to, as ``routing`` encodes it; None: to ``queue``."""
    headers: str | None = None
    """The message headers that ``run_batch`` was sent with beside Celery's own, as ``headers`` encodes them."""
    options: dict[str, Any] = {}
    canvas: str = "{}"
    """Where the job stands in the caller's Celery canvas (links, chain, chord), as ``line`` encodes it."""
    account: str | None = None
    """Keyed hash of the credential its first create was sent with."""
    organization: str | None = None
    """What the API called that credential's organization, if it said so."""
    workspace: str | None = None
    """What it called its workspace."""
    identity: str | None = None
    """Keyed hash of all that tells that credential's account; see ``identity``."""
    adopted: bool = False
    """It is made of a batch created elsewhere: the custom_ids at Anthropic are its own, its requests are not here."""
    sealed_by: str | None = None
    """The name of the key its payloads were sealed with when it was handed over."""
    state: JobState = "staged"
    submitted_at: float
    started_at: float | None = None
    resumed_at: float | None = None
    """When it was last taken up again after it had failed; its patience counts from then."""
    ended_at: float | None = None
    cancel_requested: bool = False
    admitted: int = 0
    """Batches begun, from the first on; each that is through makes room for another."""
    through: int = 0
    """Batches that are done; kept by the store, so that each that ends needs not read all the others."""
    fallback_granted: int = 0
    on_result: str | None = None
    """The task to be called with the ids of requests that have their final outcome, as a Celery signature in JSON."""
    stopped: str | None = None
    """Why nothing more of the job is paid for: what its account, or this worker's, has met."""
    summary: dict[str, Any] | None = None
    error: str | None = None
    """Why the job failed, in full."""
    not_sent: str | None = None
    """Why a message of the job, or what follows it, cannot be sent."""
    on_result_error: str | None = None
    """Why ``on_result`` is not called any more."""
    expires_at: float | None = None
    """When it is too late for the job to begin; epoch seconds."""


class Round(msgspec.Struct, kw_only=True):
    """What a batch had come to when what was left of it was sent again as a smaller one."""

    batch_id: str | None
    attempt: int
    """The download whose rows are published."""
    counts: dict[str, int]
    usage: dict[str, int]
    costs: dict[str, str | None]
    eligible: int
    open: dict[str, int]
    unpriced: dict[str, int] = {}


class BatchRecord(msgspec.Struct, kw_only=True):
    """One batch of a job, and how far its steps have come. Times are epoch seconds."""

    first: int
    """Index in the job of its first request."""
    count: int
    body_bytes: int
    """Exact bytes of the create body, envelope included."""
    least: int | None = None
    most: int | None = None
    """What a budget must have for its input, and for all of it at most, nano-dollars, where the job's cost is
    limited."""
    state: BatchState = "staged"
    turn: int = 0
    """How often its steps were begun anew: for what is sent again as a smaller batch, after an adopted batch proved to
    be somebody else's, or when the job was taken up again."""

    rounds: list[Round] = []
    """The batches before the present one, which is smaller and made of what was left of the last."""
    smaller: int | None = None
    smaller_bytes: int = 0
    """Requests in the present one, and the exact bytes of its create body; None: it is the first."""

    intent_at: float | None = None
    """When the create now under way was about to be sent."""
    create_not_found: int = 0
    """404s on create in a row."""
    unanswered_at: float | None = None
    """When it was clear that no answer to it would come: if it was stored, then before."""
    ambiguous_at: float | None = None
    """Since when the search for it goes on."""
    create_looks: int = 0
    """Complete listings since then that did not show it."""
    refusal: list[Any] | None = None
    """``[class name in errors, arguments]``: how something in front of the API refused that create. It may have been
    stored all the same; if it was not, the batch may end with this."""
    refused_since: float | None = None
    """Since when calls are refused so, in a row."""
    rejected_ids: list[str] = []
    """Batches that looked like ours but are not."""
    organization: str | None = None
    workspace: str | None = None
    """Where its create went, as the API named it."""
    unidentified: int = 0
    """Listings in a row that did not show it, of a client that may be on another account; they prove nothing."""

    batch_id: str | None = None
    provisional: bool = False
    """The id was found by search, and the results have not confirmed it yet."""
    created_at: float | None = None
    expires_at: float | None = None
    """These two are by the API's clock, all other times by the store's."""
    api_ahead: float = 0.0
    """Seconds by which the API's clock was ahead of the store's when it first showed the batch."""
    cancel_sent: bool = False
    sighting: float | None = None
    """When the API last confirmed that the batch exists."""
    not_before: float | None = None
    """When the API asked for the next look, at the earliest, as it last showed the batch."""
    absences: int = 0
    """Complete listings in a row, past the grace, that did not show it."""
    told: dict[str, int] = {}
    """The API's ``request_counts`` when it had ended."""
    counts: dict[str, int] = {}
    """Outcomes of its requests: at first as the API told, then as the result files have them."""

    looks: int = 0
    not_found: int = 0
    """404s in all, whichever endpoint."""
    failures: int = 0
    """Failures of the present step in a row; the backoff is computed from it."""
    step_failures: int = 0
    """How often in a row the present step was broken off: by an exception that no rule is for, or with its worker."""
    step_failure: str | None = None
    """What broke it off the last time."""
    due_at: float | None = None
    """When the present step is to look again, as it was last said; a listing may have changed it since."""
    task_id: str | None = None
    """Of the task that waits: its next message carries on under the same id."""

    attempt: int = 0
    """Downloads of the result file begun."""
    attempts_before: int = 0
    """Those before the job was taken up again, which do not count towards giving up."""
    published: int | None = None
    """The attempt whose rows are the batch's results."""
    usage: dict[str, int] = {}
    costs: dict[str, str | None] = {}
    """USD by model, as exact decimals; None: the price is not known."""
    unpriced: dict[str, int] = {}
    """How many answers, or parts of some, are behind each None."""
    outcome: dict[str, Any] | None = None
    """``{"type", "error"}`` for every request that has no result row of its own."""
    granted: int | None = None
    """Requests the job's fallback limit left to this batch; None: not asked yet."""
    messages_out: bool = False
    """All of the granted requests wait to be sent through the Messages API; if not, they are entered again."""
    first_lane: int = 0
    """The number of the first lane they go through. Lanes that have ended are never begun again."""
    eligible: int = 0
    """Requests that deserve another chance."""
    open: dict[str, int] = {}
    """How those have ended so far."""
    final: bool = False
    """Its requests have their final outcomes."""
    done: bool = False
    """Nothing is left to be done for this batch."""
    made_room: bool = False
    """It is through at Anthropic, and the job's next batch, if any, was begun in its place."""
    resubmitted: int = 0
    """Requests whose outcome came from a smaller batch."""
    answered: int = 0
    """Requests whose outcome came through the Messages API."""
    stored: int = 0
    """Requests for which the store was given an outcome of the Messages API, or the reason why there is none."""
    rows: dict[str, int] = {}
    """How many rows each published attempt has."""
    read_only: bool = False
    """Its record was lost and made anew: nothing of it is sent again."""
    skipped: int = 0
    """Requests that deserved another chance and did not get one, or not all there are."""
    note: str | None = None
    """Why not."""
    error: list[Any] | None = None
    """``[class name in errors, arguments]`` of what ended the batch before its time."""

    @property
    def sending(self) -> int:
        """Requests in the present batch at Anthropic."""
        return self.count if self.smaller is None else self.smaller

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Which download's rows are to be read, and of which round, the latest first: it has the last word."""
        past = [(round.attempt, number) for number, round in enumerate(self.rounds)]
        own = [] if self.published is None else [(self.published, len(self.rounds))]
        return [*own, *reversed(past)]


class LaneRecord(msgspec.Struct, kw_only=True):
    """One of the lanes in which a batch's requests go through the Messages API. Times are epoch seconds."""

    failures: int = 0
    """Failures of its step in a row: of the store, or of the broker."""
    due_at: float | None = None
    missing_since: float | None = None
    """Since when answers to calls of an earlier run are missed."""


class Unit(NamedTuple):
    """What a lease is for: a batch of a job, one of the lanes of its requests to the Messages API, or the job."""

    job_id: str
    batch: int | None = None
    lane: int | None = None

    def __str__(self) -> str:
        """As logs name it."""
        text = f"job {self.job_id}"
        if self.batch is not None:
            text += f" batch {self.batch}"
        if self.lane is not None:
            text += f", its lane {self.lane}"
        return text


class Lease(msgspec.Struct):
    """What taking a lease came to. ``stale``: the message is a duplicate of one already acted on. ``busy``: somebody
    living is at it, for ``remaining`` seconds at most. ``taken_over``: the last owner never finished. ``gone``: the job
    has expired or was deleted."""

    state: Literal["taken", "taken_over", "busy", "stale", "gone"]
    remaining: float = 0.0
    failures: int = 0
    """How often in a row the unit's step was broken off: so the record says, or the last owner never finished."""
    failure: str | None = None
    """What broke it off the last time, if the record says so."""


class Lost(NamedTuple):
    """A unit whose message seems to be lost: the position it is at, and when a message should have acted on it."""

    position: int
    due_at: float


class JobGlance(NamedTuple):
    """What figures over all jobs need of a job's record."""

    state: JobState
    batches: int
    admitted: int
    """From this batch on all are staged."""
    through: int
    missed: float | None
    """When its message was due, where it was sent again and nobody has taken any."""


class BatchGlance(NamedTuple):
    """What they need of a batch's."""

    state: BatchState
    created_at: float | None
    sighting: float | None
    missed: float | None
    """As a job's."""


class Flight(msgspec.Struct, array_like=True, kw_only=True):
    """A batch whose poll waits, as the schedule needs to know it. Times are epoch seconds."""

    batch_id: str
    created_at: float
    expires_at: float | None
    requests: int
    poll_min: float
    poll_max: float
    deadline: float | None
    """When its job gives up waiting."""
    api_ahead: float = 0.0
    """Seconds by which the API's clock, whose times the first two are, is ahead of the store's."""


class HistoryEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a job."""

    at: datetime
    event: str
    """What kind: ``created``, ``not_found``, ``ended``, ..., as docs/reference/history.md lists them."""
    batch: int | None
    """Which of its batches it concerns, counted from 0; None: all of the job."""
    text: str
    details: dict[str, Any]
    """What belongs to it: ``batch_id``, ``requests``, ``counts``, ``round``; of a call that failed ``endpoint``,
    ``status``, ``request_id`` and ``countdown``, the seconds until the next try."""


class Need(NamedTuple):
    """What one request takes of the limits it is under."""

    tokens: int
    """Input tokens, estimated."""
    least: int | None
    most: int | None
    """What a budget must have for its input, and for all of it at most, nano-dollars; None: it is not known."""


class Taken(NamedTuple):
    """What asking for a request to be sent came to. ``taken``: it is to be sent now, by whoever asked. ``wait``: not
    before ``seconds``, for what its pace allows, or (``reserved``) for what others turn out to cost. ``gone``: another
    has it. ``taken_over``: another has the lane. Else it is not to be sent at all: ``stopped``, ``canceled``,
    ``budget`` (no money is left for it), ``price`` (its price is not known), ``lost`` (what the job has spent is gone
    from the store)."""

    state: Literal["taken", "wait", "reserved", "gone", "taken_over", "stopped", "canceled", "budget", "price", "lost"]
    seconds: float = 0.0
    mark: str = ""
    """How much had been sent by then, for ``answered``."""
