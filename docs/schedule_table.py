"""Writes the schedule into docs/explanation/waiting.md, from rules/polling.py: ``python docs/schedule_table.py``."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from random import Random

from claude_batch_tasks.rules import BATCH_LIFETIME, poll_interval
from claude_batch_tasks.settings import Settings

PAGE = Path(__file__).parent / "explanation" / "waiting.md"
_BETWEEN = re.compile(r"(<!-- schedule: begin -->\n).*(<!-- schedule: end -->)", re.DOTALL)
_ROWS = {
    "2 min": (120, None),
    "2 min, where the quickest such batch took 100 s": (120, 100.0),
    "1 h": (3600, None),
    "1 h, where the quickest such batch took 50 min": (3600, 3000.0),
    "24 h: it expires": (BATCH_LIFETIME, None),
}


def table() -> str:
    """The schedule at the default settings, as a Markdown table."""
    rows = ["| the batch ends after | polls | noticed late, on average | at most |", "|---|---|---|---|"]
    for name, (seconds, usual) in _ROWS.items():
        rng = Random(name)
        # A little earlier or later each time, so that the figures are not those of one moment; an expiry is exact.
        ends = [seconds if seconds == BATCH_LIFETIME else seconds * rng.uniform(0.9, 1.1) for _ in range(400)]
        runs = [_watch(end, usual, rng) for end in ends]
        polls, late = statistics.mean(run[0] for run in runs), [run[1] for run in runs]
        rows.append(f"| {name} | {polls:.0f} | {statistics.mean(late):.0f} s | {max(late):.0f} s |")
    return "\n".join(rows) + "\n"


def _watch(end: float, usual: float | None, rng: Random) -> tuple[int, float]:
    """Return how many polls it takes until the end is seen, and how long after it that is."""
    bounds, at, polls = {"poll_min": Settings().poll_min, "poll_max": Settings().poll_max}, 0.0, 0
    while polls == 0 or at < end:
        at += poll_interval(at, **bounds, rand=rng.random(), overdue=at - BATCH_LIFETIME, usual=usual)
        polls += 1
    return polls, at - end


def updated(text: str) -> str:
    """The page with the present table."""
    return _BETWEEN.sub(lambda found: found[1] + table() + found[2], text)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
