"""The choice of what becomes of a request: the rules of `Behaviour.outcomes` and `Behaviour.answers`."""

from __future__ import annotations

import re
from collections import Counter
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from ..faults import draw_chance
from ..script import MESSAGE_OF, Answer, Behaviour, Outcome
from .forms import Forms

_encode = msgspec.json.Encoder(order="sorted").encode
_Patterns: TypeAlias = list[tuple[str, re.Pattern[str]]]


class Asked(NamedTuple):
    """What the rules know of a request."""

    custom_id: str
    #: Hash of the canonical params.
    digest: bytes
    model: str
    #: The texts of the first and the last user message.
    first: str
    last: str
    #: The content of the first user message.
    opening: Any = ""


class Verdict(NamedTuple):
    """What becomes of a request."""

    #: "succeeded", "expired", "canceled" or an error type.
    outcome: str = "succeeded"
    #: The message of an error.
    message: str = ""
    #: The rule that says how it is answered.
    answer: Answer | None = None


class Sendings:
    """How often each request was sent before: counted only if a rule asks for it, since the keys take memory."""

    def __init__(self) -> None:
        #: For `Outcome`: by the way that a request was sent, and the hash of its params.
        self.by_params: dict[str, Counter[bytes]] = {"batch": Counter(), "messages": Counter()}
        #: For `Answer`: by a hash of the first user message, or of the custom_id.
        self.by_key: Counter[bytes] = Counter()


class Judge:
    """The judge that decides what becomes of the requests of one call."""

    def __init__(self, behaviour: Behaviour, via: Literal["batch", "messages"], sendings: Sendings) -> None:
        self.behaviour = behaviour
        self._params = sendings.by_params[via]
        self._keys = sendings.by_key
        self._used: Counter[int] = Counter()
        self.forms = Forms()
        self._key_kinds = sorted({rule.attempts_of for rule in behaviour.answers if rule.attempts})
        self._outcomes = [
            (number, rule, re.compile(rule.custom_id).search)
            for number, rule in enumerate(behaviour.outcomes)
            if rule.via in (via, "both")
        ]
        self._answers = [
            (-1 - number, rule, _compile_patterns(rule))
            for number, rule in enumerate(behaviour.answers)
            if rule.via in (via, "both")
        ]

    def decide_outcome(self, asked: Asked) -> Verdict:
        """Return what the first rule that matches says."""
        for number, outcome, search in self._outcomes:
            if search(asked.custom_id) and self._strikes(number, outcome, asked):
                self._used[number] += 1
                return _outcome_of(outcome)
        for number, answer, patterns in self._answers:
            if self._is_answered(number, answer, patterns, asked):
                self._used[number] += 1
                if answer.failure is None:
                    return Verdict(answer.type, answer=answer)
                return Verdict(answer.failure, answer.message or MESSAGE_OF[answer.failure], answer)
        return Verdict()

    def find_keys(self, asked: Asked) -> tuple[bytes, ...]:
        """Return all keys by which the rules in force count the attempts of a request."""
        return tuple([_attempt_key(kind, asked) for kind in self._key_kinds])

    def _strikes(self, number: int, rule: Outcome, asked: Asked) -> bool:
        attempt = self._params[asked.digest]
        if (rule.count and self._used[number] >= rule.count) or (rule.attempts and attempt >= rule.attempts):
            return False
        key = (self.behaviour.seed, "outcome", number, asked.digest.hex(), attempt)
        return rule.prompt in asked.last and draw_chance(rule.probability, *key)

    def _is_answered(self, number: int, rule: Answer, patterns: _Patterns, asked: Asked) -> bool:
        if rule.count and self._used[number] >= rule.count:
            return False
        if not all(pattern.search(getattr(asked, name)) for name, pattern in patterns):
            return False
        attempt = self._keys[_attempt_key(rule.attempts_of, asked)] + 1 if rule.attempts else 1
        if not _covers_attempt(rule.attempts, attempt):
            return False
        return draw_chance(rule.probability, self.behaviour.seed, "answer", number, asked.digest.hex(), attempt)


def _covers_attempt(attempts: int | tuple[int, ...], attempt: int) -> bool:
    if isinstance(attempts, tuple):
        return not attempts or attempt in attempts
    return not attempts or attempt <= attempts


def _attempt_key(kind: str, asked: Asked) -> bytes:
    counted = asked.custom_id if kind == "custom_id" else asked.opening
    return blake2b(_encode((kind, counted)), digest_size=8).digest()


def _outcome_of(rule: Outcome) -> Verdict:
    if rule.type != "errored":
        return Verdict(rule.type)
    return Verdict(rule.error, rule.message or MESSAGE_OF[rule.error])


def _compile_patterns(rule: Answer) -> _Patterns:
    """Return the patterns of a rule, each with its field of `Asked`."""
    patterns = {"custom_id": rule.custom_id, "model": rule.model, "first": rule.prompt, "last": rule.last_prompt}
    return [(name, re.compile(pattern)) for name, pattern in patterns.items() if pattern]
