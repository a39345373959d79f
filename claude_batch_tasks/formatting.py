"""How logs, errors and Flower write counts, times and durations."""

from __future__ import annotations

import time
from collections.abc import Mapping


def format_counts(counts: Mapping[str, int]) -> str:
    """Format counts: ``34 succeeded, 3 expired``."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "nothing"


def format_count(count: int, name: str) -> str:
    """Format a count of things: ``1 request``, ``1,200 requests``, ``3 batches``."""
    plural = "es" if name.endswith("ch") else "s"
    return f"{count:,} {name}{'' if count == 1 else plural}"


def format_unpriced(unknown: Mapping[str, int | None]) -> str:
    """Format answers whose price is not known: ``3 answers whose price is not known (claude-x: 2, claude-y: 1)``."""
    if not unknown:
        return ""
    counted = [count for count in unknown.values() if count is not None]
    number = format_count(sum(counted), "answer") if len(counted) == len(unknown) else "answers"
    names = ", ".join(f"{name}: {'some' if count is None else f'{count:,}'}" for name, count in unknown.items())
    return f"{number} whose price is not known ({names})"


def format_dollars(cost: float) -> str:
    """Format what something has cost: ``$12.40``, ``$0.0031``."""
    return f"${cost:,.2f}" if cost >= 1 or not cost else f"${cost:.4f}"


def format_time(moment: float) -> str:
    """Format a time in epoch seconds."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


def format_duration(seconds: float) -> str:
    """Format a short or a long duration: ``2.5 s``, ``120 s``."""
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def format_span(seconds: float) -> str:
    """Format how long something is stored: ``7 days``, ``36 hours``, ``90 s``."""
    for length, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {name}"
    return f"{seconds:g} s"


def shorten_text(text: str, longest: int) -> str:
    """Cut a foreign text to ``longest`` characters, without half surrogate pairs, which no log and no store accepts."""
    text = text[:longest]
    return text if text.isascii() else text.encode(errors="replace").decode()


def describe_missing_job(job_id: str) -> str:
    """Explain to the user what it means that the store has no such job."""
    return (
        f"job {job_id} is gone from the store: it expired or was deleted, or the store lost it. "
        "Batches that it created continue at Anthropic: see the Console; adopt() fetches the results of such a batch"
    )
