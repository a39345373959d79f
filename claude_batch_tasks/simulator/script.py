"""The instructions for a simulator: outcomes, timing, faults. Plain values, also JSON for the control API."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

from .models import Model

Endpoint: TypeAlias = Literal[
    "create",
    "list",
    "retrieve",
    "cancel",
    "delete",
    "results",
    "messages",
    "count_tokens",
    "models",
    "files",
]
#: The endpoints that concern batches.
ONE_BATCH_ENDPOINTS = ("retrieve", "cancel", "delete", "results")
BATCH_ENDPOINTS = ("create", "list", *ONE_BATCH_ENDPOINTS)
ErrorType: TypeAlias = Literal[
    "invalid_request_error",
    "authentication_error",
    "billing_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "rate_limit_error",
    "timeout_error",
    "api_error",
    "overloaded_error",
]

#: A number of times, and a probability, as a file or the control API may give them.
Times: TypeAlias = Annotated[int, Meta(ge=0)]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]

#: The HTTP status that Anthropic sends with each error type.
STATUS_OF: dict[ErrorType, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
MESSAGE_OF: dict[ErrorType, str] = {
    "invalid_request_error": "Invalid request",
    "authentication_error": "invalid x-api-key",
    "billing_error": "Your credit balance is too low to access the Anthropic API.",
    "permission_error": "Your API key does not have permission to use the specified resource.",
    "not_found_error": "Not found",
    "request_too_large": "Request exceeds the maximum size",
    "rate_limit_error": "This request would exceed your organization's rate limit.",
    "api_error": "Internal server error",
    "timeout_error": "Request timed out",
    "overloaded_error": "Overloaded",
}
_TYPE_OF: dict[int, ErrorType] = {status: kind for kind, status in STATUS_OF.items()}


def error_type(status: int) -> ErrorType:
    """Return the error type that usually comes with an HTTP status."""
    return _TYPE_OF.get(status, "api_error" if status >= 500 else "invalid_request_error")


class Value(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The base of all values that a user gives to the simulator: frozen, and strict when read from JSON."""


class Fault(Value, frozen=True):
    """One thing that goes wrong, and when.

    >>> Fault("create", "status", status=404, calls=(1, 2))              # the first two creates
    >>> Fault("retrieve", "status", status=404, before=2.0)              # while the batch is younger than 2 s
    >>> Fault("results", "status", status=404, since="ended", before=3)  # for 3 s after the batch ended
    >>> Fault("create", "drop", commit=True, calls=(1,))                 # stored, but no answer arrives
    >>> Fault("results", "cut", how="reset", at=0.5, calls=(1,))         # broken at half of the lines
    >>> Fault("messages", "status", status=429, headers={"retry-after": "2"}, probability=0.2)
    >>> Fault("create", "stall", commit=True, calls=(1,))                # stored, and never answered
    >>> Fault("messages", "append", body="data: [DONE]\n\n")             # after the end of a stream

    Every condition that is given must hold. Of several faults that match one call, all delays apply, and the
    first other one. Calls that fail authentication meet no fault.
    """

    #: One endpoint, all that concern batches, or all.
    endpoint: Endpoint | Literal["batches", "any"]
    #: `status`: answer with `status`; `drop`: close the connection without an answer; `stall`: send no answer
    #: and keep the connection open; `cut`: end the body early; `delay`: answer `seconds` later; `append`: send
    #: `body` after the end of the body; `splice`: begin the message again in its own stream, under another id.
    #: `append` strikes streams and results only, `splice` streams only.
    effect: Literal["status", "drop", "stall", "cut", "delay", "append", "splice"]

    #: Which of the calls that this fault sees (right endpoint, inside the window), from 1. Empty: every one.
    calls: tuple[int, ...] = ()
    #: Count calls, and `times`, apart for each batch (for messages: for each prompt), or over the whole
    #: server, as creating and listing always do.
    per: Literal["batch", "server"] = "batch"
    #: Strike with this probability. The draw depends only on the seed, the fault, the batch and the call's
    #: number.
    probability: Share = 1.0
    #: Strike at most so often (0: without limit), counted as `per` says.
    times: Times = 0
    #: The moment that `after` and `before` count from. The batch must exist, and for `ended` have ended.
    #: Where a call is not for one batch it is always `started`, the start or reset of the simulator.
    since: Literal["started", "created", "ended"] = "created"
    #: The window in simulated seconds, [after, before).
    after: float = 0.0
    before: float | None = None

    #: Do the work first (store the batch, answer the message and charge for it), then strike.
    commit: bool = False
    #: For `status`: the HTTP status, the error's type (default: the usual one of this status) and message,
    #: extra headers, and a raw body instead of the JSON error, which may be empty. A body that starts with `<`
    #: is HTML, one that starts with `{` or `[` is JSON, unless `headers` say otherwise.
    status: int = 500
    error: ErrorType | None = None
    message: str = ""
    headers: dict[str, str] = {}
    body: str | None = None
    #: For `status`: whether it comes from something in front of the API, without the API's own headers.
    proxy: bool = False
    #: For `cut` and `splice`, the part of the body (of its lines, where it has several) that is sent before, 0
    #: to 1. Then, for `cut`: `clean`: a valid end at a line boundary; `line`: a valid end in the middle of a
    #: line; `close`: the connection closed in the middle of a line; `reset`: the same with a TCP reset;
    #: `stall`: nothing more in the middle of a line, and the connection stays open.
    at: float = 0.5
    how: Literal["clean", "line", "close", "reset", "stall"] = "reset"
    #: For `delay`, in real seconds.
    seconds: float = 0.0
    #: What the journal calls this fault; its effect where empty.
    name: str = ""

    @property
    def label(self) -> str:
        return self.name or (f"status {self.status}" if self.effect == "status" else self.effect)


class Outcome(Value, frozen=True):
    """What becomes of matching requests. The first matching rule decides; without one a request succeeds.

    >>> Outcome("expired", count=2)                                        # the first two of every batch
    >>> Outcome("errored", error="overloaded_error", custom_id="-3$")      # by a regular expression
    >>> Outcome("errored", error="api_error", prompt="flaky", attempts=1)  # by the prompt, only at first
    >>> Outcome("errored", error="billing_error", via="messages")          # at the Messages API
    """

    type: Literal["succeeded", "errored", "expired", "canceled"]
    error: ErrorType = "overloaded_error"
    message: str = ""
    #: A regular expression searched for in the custom_id. Requests to the Messages API have the custom_id "".
    custom_id: str = ""
    #: Text contained in the last user message.
    prompt: str = ""
    probability: Share = 1.0
    #: At most so many requests of each batch (0: without limit).
    count: Times = 0
    #: Only the first so many times that one prompt is sent this way (0: always).
    attempts: Times = 0
    via: Literal["batch", "messages", "both"] = "batch"


class Refusal(Value, frozen=True):
    """What makes a create fail as a whole: a request that the API does not accept in any batch.

    >>> Refusal("poison")                                                   # 400, and the message names no request
    >>> Refusal("poison", message="Unknown beta", named=True)               # "requests.17.params: Unknown beta"
    >>> Refusal("poison", status=413, message="Request exceeds the limit")  # by its size
    """

    #: A regular expression searched for in the last user message.
    prompt: str
    status: int = 400
    message: str = "Invalid request"
    #: Whether the message names the first such request by its place in the batch.
    named: bool = False


class ToolCall(Value, frozen=True):
    """One call of a tool, as a block of an answer. Without an id it gets one."""

    name: str
    input: dict[str, Any] = {}
    id: str = ""


class Answer(Value, frozen=True):
    """What matching requests are answered with. The first rule that matches decides; without one it is an echo.

    >>> Answer(prompt="weather", json={"sky": "blue"})               # the text is JSON
    >>> Answer(custom_id="-3$", refusal="cyber")                     # refused before any output: not billed
    >>> Answer(prompt="flaky", attempts=1, error="overloaded_error")  # only the first time
    >>> Answer(prompt="search", pauses=2, text="a long text")        # paused twice, then the end
    >>> Answer(prompt="sum", attempts=1, text="not JSON")            # wrong at first,
    >>> Answer(prompt="sum", json={"sum": 3})                        # then right

    Every condition that is given must hold. What a rule does not say is as without a rule.
    """

    #: Regular expressions, each searched for in its text: the custom_id ("" at the Messages API), the text of the
    #: first user message, that of the last one, and the name of the model.
    custom_id: str = ""
    prompt: str = ""
    last_prompt: str = ""
    model: str = ""
    #: A number: only the first so many times. A list: only these times, from 1. 0: always. Times are counted over
    #: batches and the Messages API, from the moment that a rule asks for them.
    attempts: Times | tuple[Annotated[int, Meta(ge=1)], ...] = 0
    #: What is one request to `attempts`: every request with the same first user message, whatever else of it
    #: changes (so also one that is repaired: another model, more turns, another custom_id), or with the same
    #: custom_id.
    attempts_of: Literal["prompt", "custom_id"] = "prompt"
    probability: Share = 1.0
    #: At most so many requests of each batch (0: without limit).
    count: Times = 0
    via: Literal["batch", "messages", "both"] = "both"

    type: Literal["succeeded", "errored", "expired", "canceled"] = "succeeded"
    #: An error makes the type `errored`.
    error: ErrorType | None = None
    message: str = ""
    #: The `details` of the error, which an errored row has.
    details: dict[str, Any] | None = None

    #: The blocks of the answer, in this order: thinking, text (with its citations) or JSON as a text, calls of tools.
    #: In text and JSON, `{prompt}` is replaced by the echo of the prompt. An empty text means no content.
    thinking: str | None = None
    text: str | None = None
    json: Any = UNSET
    citations: tuple[dict[str, Any], ...] = ()
    tool: ToolCall | tuple[ToolCall, ...] = ()
    #: In place of these: content blocks, sent as they are.
    content: tuple[dict[str, Any], ...] | None = None
    #: A refusal's category, or its whole `stop_details`; `true`: a refusal of no category. It has content only if the
    #: rule gives some.
    refusal: str | bool | dict[str, Any] | None = None
    #: Any text, also one that the API does not have. An answer whose stop reason is given is not cut.
    stop_reason: str | UnsetType | None = UNSET
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None
    #: The answer is paused so many times: it comes in one part more than this, and each but the last has the stop
    #: reason `pause_turn`. A request whose last turn is the assistant's gets the part after it.
    pauses: Times = 0
    #: The container of the server's tools, which a request that continues the answer names: `{"id": "container_1"}`.
    container: dict[str, Any] | None = None
    #: Counters of the usage, in place of those that are counted: `{"output_tokens": 500}`.
    usage: dict[str, Any] = {}

    def __post_init__(self) -> None:
        for name in ("custom_id", "prompt", "last_prompt", "model"):
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                raise ValueError(f"`{name}` is no regular expression: {error}") from None
        fields = {"text": self.text is not None, "json": self.json is not UNSET, "content": self.content is not None}
        given = [name for name, is_given in fields.items() if is_given]
        if len(given) > 1:
            raise ValueError(f"`{given[0]}` and `{given[1]}` exclude each other")

    @property
    def failure(self) -> ErrorType | None:
        """The type of the error, if the outcome is one."""
        return self.error or ("overloaded_error" if self.type == "errored" else None)

    @property
    def is_refusal(self) -> bool:
        return self.stop_reason == "refusal" or self.refusal not in (None, False)


class ResultsStyle(Value, frozen=True):
    """Legal but unfriendly ways to send the same results."""

    newline: Literal["\n", "\r\n"] = "\n"
    final_newline: bool = True
    #: An empty line after every line.
    blank_lines: bool = False
    #: Content-Encoding gzip, where the client accepts it.
    gzip: bool = False
    #: Size of the pieces in which the body is written, in bytes.
    chunk_bytes: int = 65536
    #: Unknown fields at every level, and an unknown content block before the text.
    unknown_fields: bool = False
    #: A results_url in place of our own; `{id}` in it becomes the batch id.
    url: str = ""
    #: So many of the lines are sent twice, and so many lines of another batch are mixed in.
    duplicates: int = 0
    foreign: int = 0


class Behaviour(Value, frozen=True):
    """How the simulator does its work when nothing goes wrong. Times are simulated seconds unless stated."""

    seed: int = 0
    #: How long a batch takes: a number, or a range to draw from. Its requests are spread evenly over it.
    processing_seconds: float | tuple[float, float] = 1.0
    #: From the request to cancel until the batch has ended.
    cancel_seconds: float = 0.5
    expires_seconds: float = 86_400.0
    #: Results can be had for so long after a batch's creation.
    retention_seconds: float = 29 * 86_400.0
    #: A new batch shows up in lists only after so long.
    list_lag_seconds: float = 0.0
    #: Simulated seconds per real second: 3600 makes an hour of processing, expiry or retention pass in one second.
    #: The times that clients are shown stay those of the wall clock, and a new batch expires in 24 hours for them.
    clock_speed: float = 1.0
    outcomes: tuple[Outcome, ...] = ()
    #: The scripted answers. A request that one of the outcomes decides does not get to them.
    answers: tuple[Answer, ...] = ()
    #: What makes a create fail as a whole. The Messages API answers such requests as others.
    refusals: tuple[Refusal, ...] = ()
    #: The answer is "Echo: " and so many characters of the prompt, padded to at least `answer_chars`.
    echo_chars: int = 500
    answer_chars: int = 0
    #: How long the Messages API takes for an answer, in real seconds. A call over a limit is refused at once.
    messages_seconds: float = 0.0
    #: How many calls, and tokens of prompts and answers, the Messages API allows each account in a minute.
    #: What is read from the prompt cache does not count. None: the limit is not enforced, and the headers tell
    #: of a usual one of which nothing is used.
    messages_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    #: How the limits are renewed: `bucket`: a little all the time; `window`: wholly, each minute from an
    #: account's first call on.
    messages_limit: Literal["bucket", "window"] = "bucket"
    #: How long a minute of the limits is, in real seconds.
    minute_seconds: float = 60.0
    max_requests: int = 100_000
    max_bytes: int = 256_000_000
    max_message_bytes: int = 32_000_000
    results: ResultsStyle = ResultsStyle()
    #: What a running batch asks for before the next retrieve (Retry-After), in real seconds; never more than the
    #: batch has left, and nothing at 0.
    retry_after_seconds: int = 10
    #: Models beside those of `models.CATALOG`: whole, or a name that takes everything. Any other is unknown: 404.
    models: tuple[Model | str, ...] = ()


class Scenario(Value, frozen=True):
    """A named bundle of a behaviour and its faults."""

    name: str = "custom"
    about: str = ""
    behaviour: Behaviour = Behaviour()
    faults: tuple[Fault, ...] = ()
