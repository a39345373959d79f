"""Requests whose answers are incomplete in every way: how the simulator answers, and what each must come to.

Each request belongs to a case, which its prompt names. A case says how often it occurs, and how each attempt ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from claude_batch_tasks.simulator import Answer

#: The model of all requests, then those that get what was refused.
MODELS = ("claude-haiku-4-5", "claude-sonnet-4-5", "claude-opus-4-5")

#: US dollars for a million tokens, by model.
PRICES = {
    model: {"input_mtok": price, "output_mtok": 5 * price} for model, price in zip(MODELS, (1.0, 3.0, 7.0), strict=True)
}

#: With how many tokens an answer is cut, and with how many at most it is sent again.
MAX_TOKENS, MAX_TOKENS_LIMIT = 64, 256

#: The options of a job that mend whatever can be mended.
REPAIRS: dict[str, Any] = {
    "refusal_model": list(MODELS[1:]),
    "max_tokens_limit": MAX_TOKENS_LIMIT,
    "reask": 2,
    "retries": 2,
    "fallback": "off",
}

#: The options of a job that sends nothing again.
NO_REPAIRS: dict[str, Any] = {"continue_paused": 0, "retries": 0, "fallback": "off"}

#: A web search, which pauses an answer.
_SEARCH = {"type": "server_tool_use", "id": "srvtoolu_01", "name": "web_search", "input": {"query": "more"}}
_FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_01", "content": []}


@dataclass
class Verdict:
    """What each request asks for."""

    echo: str
    fill: str = ""


def check_verdict(verdict: Verdict) -> str | None:
    """Return what is wrong with a verdict that its type cannot say."""
    return "nothing was echoed" if verdict.echo == "nothing" else None


class Attempt(NamedTuple):
    """One time that a request is sent, and how that ends."""

    kind: str
    ended: str
    """The stop reason; the error's type; or ``expired``."""
    incomplete: str | None = None
    """Why the answer to this attempt alone is not complete."""
    model: int = 0
    free: bool = False
    """Whether it is a refusal before any output."""


@dataclass(frozen=True)
class Case:
    """Requests that are answered alike."""

    share: int
    """How many of ten thousand requests."""
    attempts: tuple[Attempt, ...]
    first: tuple[dict[str, Any], ...] = ()
    """What each of the first attempts is answered with, in fields of the simulator's ``Answer``."""
    then: dict[str, Any] | None = None
    """What later attempts are answered with; None: with a short verdict."""

    @property
    def is_answered(self) -> bool:
        """Whether the request succeeds."""
        return any(attempt.ended not in FAILED for attempt in self.attempts)

    @property
    def incomplete(self) -> str | None:
        """Why the answer is not complete in the end: that of the last attempt that has one."""
        return next((each.incomplete for each in reversed(self.attempts) if each.ended not in FAILED), None)


#: How attempts end that have no answer.
FAILED = ("overloaded_error", "invalid_request_error", "expired")

#: A short answer that fits.
VERDICT = {"json": {"echo": "{prompt}"}}


def _long(chars: int) -> dict[str, Any]:
    """Return an answer of more than so many characters."""
    return {"json": {"echo": "{prompt}", "fill": "x" * chars}}


def _paused(times: int) -> dict[str, Any]:
    """Return an answer in several parts, each but the last a web search."""
    text = '{"echo":"searched"}'
    searches = [
        {**block, key: f"srvtoolu_{number:02d}"}
        for number in range(times)
        for block, key in ((_SEARCH, "id"), (_FOUND, "tool_use_id"))
    ]
    return {"content": [*searches, {"type": "text", "text": text}], "pauses": times}


A = Attempt
FIRST = A("first", "end_turn")
REFUSED = A("first", "refusal", "refusal", free=True)
CUT = A("first", "max_tokens", "max_tokens")
PAUSED = A("first", "pause_turn", "pause_turn")
INVALID = A("first", "end_turn", "invalid")
CONTINUED = A("continue", "end_turn")

CASES = {
    "plain": Case(0, (FIRST,), then=VERDICT),
    "by itself": Case(100, (FIRST,)),
    "refused": Case(350, (REFUSED, A("refusal_model", "end_turn", model=1)), ({"refusal": "cyber"},)),
    "refused twice": Case(
        100,
        (REFUSED, A("refusal_model", "refusal", "refusal", 1), A("refusal_model", "end_turn", model=2)),
        ({"refusal": "bio"}, {"refusal": True, "text": "I"}),
    ),
    "refused always": Case(
        50,
        (REFUSED, *(A("refusal_model", "refusal", "refusal", model, free=True) for model in (1, 2))),
        then={"refusal": True},
    ),
    "cut": Case(300, (CUT, A("max_tokens", "end_turn")), then=_long(350)),
    "cut twice": Case(
        150, (CUT, A("max_tokens", "max_tokens", "max_tokens"), A("max_tokens", "end_turn")), then=_long(700)
    ),
    "cut always": Case(
        50, (CUT, *[A("max_tokens", "max_tokens", "max_tokens")] * 2), then=_long(1200)
    ),
    "paused": Case(200, (PAUSED, CONTINUED), then=_paused(1)),
    "paused twice": Case(
        70, (PAUSED, A("continue", "pause_turn", "pause_turn"), CONTINUED), then=_paused(2)
    ),
    "paused always": Case(
        30, (PAUSED, *[A("continue", "pause_turn", "pause_turn")] * 5), then=_paused(7)
    ),
    "empty": Case(100, (A("first", "end_turn", "empty"),), then={"text": ""}),
    "invalid": Case(300, (INVALID, A("reask", "end_turn")), ({"text": "What?"},)),
    "invalid twice": Case(
        150, (INVALID, A("reask", "end_turn", "invalid"), A("reask", "end_turn")), ({"json": {"echo": 5}}, {"json": []})
    ),
    "invalid always": Case(
        50, (INVALID, *[A("reask", "end_turn", "invalid")] * 2), then={"json": {"echo": "nothing"}}
    ),
    "busy": Case(
        200, (A("first", "overloaded_error"), A("resubmission", "end_turn")), ({"error": "overloaded_error"},)
    ),
    "busy always": Case(
        50,
        (A("first", "overloaded_error"), *[A("resubmission", "overloaded_error")] * 2),
        then={"error": "overloaded_error"},
    ),
    "wrong": Case(50, (A("first", "invalid_request_error"),), then={"error": "invalid_request_error"}),
    "expired": Case(250, (A("first", "expired"), A("resubmission", "end_turn")), ({"type": "expired"},)),
    "expired twice": Case(
        50,
        (A("first", "expired"), A("resubmission", "expired"), A("resubmission", "end_turn")),
        ({"type": "expired"}, {"type": "expired"}),
    ),
    "unknown": Case(20, (A("first", "done_thinking"),), then={**VERDICT, "stop_reason": "done_thinking"}),
    # One after another.
    "expired, refused, cut": Case(
        25,
        (
            A("first", "expired"),
            A("resubmission", "refusal", "refusal", free=True),
            A("refusal_model", "max_tokens", "max_tokens", 1),
            A("max_tokens", "end_turn", model=1),
        ),
        ({"type": "expired"}, {"refusal": True}),
        then=_long(350),
    ),
    "cut, invalid": Case(
        25,
        (CUT, A("max_tokens", "end_turn", "invalid"), A("reask", "end_turn")),
        ({"text": "y" * 300}, {"text": "No."}),
    ),
    "paused, busy": Case(
        20,
        (PAUSED, A("continue", "overloaded_error"), A("resubmission", "end_turn")),
        (_paused(1), {"error": "overloaded_error"}),
        then=_paused(1),
    ),
    "invalid, expired": Case(
        20,
        (INVALID, A("reask", "expired"), A("resubmission", "end_turn")),
        ({"text": "What?"}, {"type": "expired"}),
    ),
    "refused, wrong": Case(
        10,
        (REFUSED, A("refusal_model", "invalid_request_error", model=1)),
        ({"refusal": True},),
        then={"error": "invalid_request_error"},
    ),
}  # fmt: skip


def script_answers() -> tuple[Answer, ...]:
    """Return the script that the simulator answers by."""
    return tuple(answer for name, case in CASES.items() for answer in _script_case(name, case))


def _script_case(name: str, case: Case) -> Iterator[Answer]:
    prompt = rf"^\[{name}\]"
    for number, fields in enumerate(case.first, 1):
        yield Answer(prompt=prompt, attempts=(number,), **_as_script(fields))
    if case.first or case.then is not None:
        yield Answer(prompt=prompt, **_as_script(case.then or VERDICT))


def _as_script(fields: dict[str, Any]) -> dict[str, Any]:
    content = fields.get("content")
    return fields if content is None else {**fields, "content": tuple(content)}


def assign_cases(count: int) -> list[str]:
    """Return the case of each of so many requests; neighbors are of different cases, each case occurs."""
    numbers = {name: max(1, case.share * count // 10_000) for name, case in CASES.items()}
    numbers["plain"] += count - sum(numbers.values())
    names = [name for name, number in numbers.items() for _ in range(number)]
    step = next(step for step in (7919, 7907, 7901) if count % step)
    return [names[index * step % count] for index in range(count)]


def make_requests(cases: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the requests of these cases."""
    for index, case in enumerate(cases):
        params: dict[str, Any] = {
            "model": MODELS[0],
            "max_tokens": MAX_TOKENS,
            "messages": [{"role": "user", "content": f"[{case}] request {index}"}],
        }
        if case.startswith("paused"):
            params["tools"] = [{"type": "web_search_20250305", "name": "web_search"}]
        yield {"custom_id": f"{index} {case}", "params": params}


def count_incomplete(cases: list[str], *, repaired: bool) -> dict[str, int]:
    """Count the answers that are not complete at the end of the job, by reason, and unknown stop reasons."""
    found: Counter[str] = Counter()
    for case in cases:
        if case == "unknown":
            found["done_thinking"] += 1
        elif reason := CASES[case].incomplete if repaired else CASES[case].attempts[0].incomplete:
            found[reason] += 1
    return dict(found)


def count_repairs(cases: list[str]) -> dict[str, int]:
    """Count the repairs of the job by kind."""
    kinds = Counter(attempt.kind for case in cases for attempt in CASES[case].attempts)
    return {kind: kinds[kind] for kind in ("refusal_model", "max_tokens", "continue", "reask")}
