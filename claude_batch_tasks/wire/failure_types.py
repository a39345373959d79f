"""Requests that did not succeed, counted by failure type: the error's type, else the outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from claude_batch_tasks.formatting import shorten_text
from claude_batch_tasks.records import BatchRecord, FailureTally, Round
from claude_batch_tasks.wire.result_rows import LONGEST_NAME, OUTCOMES

#: The failure type of errored requests whose error has no type, or whose errors were counted without it.
UNKNOWN = "unknown"

#: How many failure types a summary names, and what the rest is called: a gateway may invent one for each request.
MOST_TYPES, OTHER = 50, "other"

#: The outcomes of requests that did not succeed.
FAILED_OUTCOMES = tuple(outcome for outcome in OUTCOMES if outcome != "succeeded")

#: The most failure types of one batch that are counted apart; an API in order has a dozen.
MAX_TYPES = 20


def name_type(outcome: str, error_type: str | None) -> str:
    """Return the failure type of an outcome: the error's type if the request errored, else the outcome itself."""
    return (error_type or UNKNOWN) if outcome == "errored" else outcome


def shorten_type(error_type: str | None) -> str | None:
    """Return an error's type as it is counted: foreign text, of a limited length."""
    return None if error_type is None else shorten_text(error_type, LONGEST_NAME)


class FailureCounter:
    """Counts requests that did not succeed, by outcome and error type; it takes the same memory for any number."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str | None], FailureTally] = {}

    def add_failure(
        self, outcome: str, error_type: str | None, place: int | None, *, is_open: bool = False, again: bool = False
    ) -> None:
        """Count one request.

        Args:
            outcome: one of ``FAILED_OUTCOMES``.
            place: its position in the batch.
            is_open: whether it may be sent again.
            again: whether it is in the next smaller batch.
        """
        key = outcome, shorten_type(error_type) if outcome == "errored" else None
        found = self._tallies.get(key) or self._begin_tally(key, place)
        found.count += 1
        found.open += is_open
        found.again += again

    def add_tally(self, tally: FailureTally, *, without: int = 0, again: int = 0) -> None:
        """Count requests that were counted before.

        Args:
            without: how many of those that may be sent again are left out.
            again: how many are in the next smaller batch.
        """
        count = tally.count - without
        if count <= 0:
            return
        # The example may be one of those that are left out.
        example = None if without else tally.example
        key = tally.outcome, tally.error_type
        found = self._tallies.get(key) or self._begin_tally(key, example)
        found.example = example if found.example is None else found.example
        found.count += count
        found.open += tally.open - without
        found.again += again

    def _begin_tally(self, key: tuple[str, str | None], example: int | None) -> FailureTally:
        outcome, error_type = key
        if error_type is not None and len(self._tallies) >= MAX_TYPES:
            key, example = (outcome, None), None
        made = FailureTally(outcome=outcome, error_type=key[1], example=example)
        return self._tallies.setdefault(key, made)

    @property
    def tallies(self) -> list[FailureTally]:
        """The counts so far."""
        return list(self._tallies.values())


def merge_tallies(past: Round, now: Iterable[FailureTally]) -> list[FailureTally]:
    """Return the counts of a batch after a round: its own, and those of the last round that were not sent again."""
    counter = FailureCounter()
    for tally in tallies_of_round(past):
        counter.add_tally(tally, without=tally.open if past.again is None else tally.again)
    for tally in now:
        counter.add_tally(tally, again=tally.again)
    return counter.tallies


def tallies_of_round(past: Round) -> list[FailureTally]:
    """Return the counts of a round, which add up to its outcomes."""
    return add_uncounted(past.failed_types, past.counts, past.open, past.sent_outcomes)


def add_uncounted(
    tallies: Sequence[FailureTally],
    counts: Mapping[str, int],
    still_open: Mapping[str, int],
    again: Mapping[str, int] = {},
) -> list[FailureTally]:
    """Return counts by type that add up to those by outcome: what was counted without a type has the type None.

    A worker of an earlier release changes the outcomes alone.

    Args:
        counts: requests by outcome.
        still_open: those of them that may be sent again.
        again: those of these that are in the next smaller batch.
    """
    found: list[FailureTally] = []
    for outcome in FAILED_OUTCOMES:
        count, is_open = counts.get(outcome, 0), still_open.get(outcome, 0)
        own = [tally for tally in tallies if tally.outcome == outcome]
        missing = count - sum(tally.count for tally in own)
        missing_open = is_open - sum(tally.open for tally in own)
        if missing < 0 or not 0 <= missing_open <= missing:
            own, missing, missing_open = [], count, is_open
        found += own
        if missing:
            sent = min(max(again.get(outcome, 0) - sum(tally.again for tally in own), 0), missing_open)
            found.append(FailureTally(outcome=outcome, count=missing, open=missing_open, again=sent))
    return found


def fingerprint(batch: BatchRecord, answered: int | None = None) -> list[int]:
    """Return what the counts of a batch are of: the download that is read first, and the answers of the Messages API.

    Args:
        answered: the number of those, if it is about to change.
    """
    return [batch.layers[0][0] if batch.layers else 0, batch.answered if answered is None else answered]


def tallies_now(batch: BatchRecord) -> list[FailureTally]:
    """Return how many requests of a batch did not succeed so far, by type, with those that may be sent again.

    They add up to the batch's outcomes.
    """
    again = {} if batch.again is None else batch.again.outcomes
    return add_uncounted(_valid_tallies(batch), batch.counts, batch.open, again)


def read_tallies(batch: BatchRecord) -> list[FailureTally]:
    """Return how many requests of a batch have a final outcome that is not ``succeeded``, by type.

    They add up to the batch's outcomes. Those of which no type is known, because a worker of an earlier release counted
    them, or because the results are not fetched yet, have the type None.
    """
    if batch.eligible and not batch.final and not batch.done:
        counter = FailureCounter()
        for tally in tallies_now(batch):
            counter.add_tally(tally, without=tally.open)
        return counter.tallies
    return add_uncounted([_close_tally(tally) for tally in _valid_tallies(batch)], batch.counts, {})


def _valid_tallies(batch: BatchRecord) -> list[FailureTally]:
    """Return the counts by type, if they are of the results that the batch has now."""
    if batch.failed_types_of == fingerprint(batch):
        return batch.failed_types
    if batch.layers or batch.answered or batch.outcome is None:
        return []
    return [_tally_default(batch)]


def is_accounted(batch: BatchRecord) -> bool:
    """Return whether each request of a finished batch has a stored outcome, by the batch's counts."""
    if not batch.layers and batch.outcome is None:
        return False
    return sum(batch.counts.get(outcome, 0) for outcome in OUTCOMES) == batch.count


def _tally_default(batch: BatchRecord) -> FailureTally:
    """Return the count of a batch all of whose requests have the same outcome."""
    outcome = batch.outcome or {}
    error = outcome.get("error") or {}
    error_type = (error.get("error") or error).get("type")
    count, is_open = batch.counts.get(outcome["type"], 0), batch.open.get(outcome["type"], 0)
    return FailureTally(
        outcome=outcome["type"], error_type=shorten_type(error_type), count=count, open=is_open, example=0
    )


def _close_tally(tally: FailureTally) -> FailureTally:
    return FailureTally(outcome=tally.outcome, error_type=tally.error_type, count=tally.count, example=tally.example)


def count_types(batches: Iterable[BatchRecord]) -> dict[str, int]:
    """Count the final outcomes that are not ``succeeded`` by failure type, over all batches, the largest first.

    A summary is a small message: types beyond the ``MOST_TYPES`` most frequent ones are counted together.
    """
    found: Counter[str] = Counter()
    for batch in batches:
        for tally in read_tallies(batch):
            found[name_type(tally.outcome, tally.error_type)] += tally.count
    counts = dict(found.most_common(MOST_TYPES))
    if rest := found.total() - sum(counts.values()):
        counts[OTHER] = counts.get(OTHER, 0) + rest
    return counts
