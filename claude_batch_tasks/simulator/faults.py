"""The faults in force, and the choice of those that strike a call."""

from __future__ import annotations

import random
from collections import Counter
from typing import Literal, NamedTuple

from .script import BATCH_ENDPOINTS, ONE_BATCH_ENDPOINTS, Endpoint, Fault


class Moment(NamedTuple):
    """The times that matter for a call, in simulated seconds since the start: now, its batch's creation and end."""

    now: float
    created: float | None = None
    ended: float | None = None


class Target(NamedTuple):
    """What a fault must know of a call."""

    endpoint: Endpoint
    #: A batch's number or a prompt's hash; faults count separately for each.
    subject: str = ""
    #: What its answer has several of, if it is not one piece.
    parts: Literal["", "events", "lines"] = ""


class Installed:
    """A fault with its counters, one for each subject (batch or prompt)."""

    def __init__(self, fault: Fault, number: int) -> None:
        self.fault = fault
        self.number = number
        self.seen: Counter[str] = Counter()
        self.fired: Counter[str] = Counter()

    def matches(self, target: Target, moment: Moment, seed: int) -> bool:
        """Count a call, and return whether the fault strikes it."""
        fault, subject = self.fault, target.subject
        if not self._concerns(target) or not self._in_window(target.endpoint, moment):
            return False
        key = self.count_key(subject)
        self.seen[key] += 1
        count = self.seen[key]
        if fault.calls and count not in fault.calls:
            return False
        if fault.times and self.fired[key] >= fault.times:
            return False
        return draw_chance(fault.probability, seed, "fault", self.number, subject, count)

    def _concerns(self, target: Target) -> bool:
        if self.fault.endpoint not in (target.endpoint, "any") and not (
            self.fault.endpoint == "batches" and target.endpoint in BATCH_ENDPOINTS
        ):
            return False
        if self.fault.effect == "splice":
            return target.parts == "events"
        return self.fault.effect != "append" or target.parts != ""

    def count_key(self, subject: str) -> str:
        return subject if self.fault.per == "batch" else ""

    def _in_window(self, endpoint: Endpoint, moment: Moment) -> bool:
        fault = self.fault
        if fault.since == "started" or endpoint not in ONE_BATCH_ENDPOINTS:
            origin: float | None = 0.0
        else:
            origin = moment.created if fault.since == "created" else moment.ended
        if origin is None:
            # Without a bound, the default `since="created"` is no condition.
            return fault.since == "created" and fault.after == 0 and fault.before is None
        age = moment.now - origin
        return age >= fault.after and (fault.before is None or age < fault.before)


class FaultBook:
    """The faults in force, in the order in which they were installed."""

    def __init__(self, faults: tuple[Fault, ...], seed: int) -> None:
        self.seed = seed
        self.installed: list[Installed] = []
        self.add_faults(faults)

    def add_faults(self, faults: tuple[Fault, ...]) -> None:
        self.installed += [Installed(fault, len(self.installed) + n) for n, fault in enumerate(faults)]

    def strike_call(self, target: Target, moment: Moment) -> list[Fault]:
        """Return the faults that strike this call: any number of delays, and at most one other."""
        struck: list[Fault] = []
        ended = False
        for rule in self.installed:
            # Every fault counts every call, also a call that an earlier fault has already decided.
            if not rule.matches(target, moment, self.seed):
                continue
            if rule.fault.effect != "delay":
                if ended:
                    continue
                ended = True
            rule.fired[rule.count_key(target.subject)] += 1
            struck.append(rule.fault)
        return struck


def draw_chance(probability: float, *key: object) -> bool:
    """Draw with this probability. The draw depends only on the key: it is the same in whatever order calls arrive."""
    if probability >= 1:
        return True
    return random.Random(":".join(map(str, key))).random() < probability
