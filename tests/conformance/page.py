"""The documentation's table: the rows, what is expected of each, and where that was last seen."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Mapping
from pathlib import Path

from tests.conformance import asks
from tests.conformance.bench import LANES, Lane
from tests.conformance.table import LEFT_OUT, ROWS, Row

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "celery.md"
RESULTS = Path(__file__).parent / "results.json"
_BETWEEN = re.compile(r"(<!-- (\w+): begin -->\n).*?(<!-- \2: end -->)", re.DOTALL)

#: What was seen, by the name of a row and a lane: an empty text is what was expected.
Results = Mapping[str, Mapping[str, str]]


def results() -> dict[str, dict[str, str]]:
    """Return what the last runs saw."""
    found: dict[str, dict[str, str]] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def write(seen: Results) -> None:
    """Put what was seen of some rows on some lanes in the place of what was seen before, and the page up to date."""
    names = {row.name for row in ROWS}
    with open(Path(__file__)) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # lanes may run beside each other
        known = results()
        for name, lanes in seen.items():
            known.setdefault(name, {}).update(lanes)
        kept = {name: dict(sorted(lanes.items())) for name, lanes in sorted(known.items()) if name in names}
        RESULTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
        PAGE.write_text(updated(PAGE.read_text()))


def updated(text: str) -> str:
    """Return the page with the present tables."""
    tables = {"differences": _differences(), "conformance": _tables(results()), "omissions": _left_out()}
    return _BETWEEN.sub(lambda found: f"{found[1]}\n{tables[found[2]]}\n{found[3]}", text)


def _differences() -> str:
    found = [row for row in ROWS if row.expected != "same"]
    return "".join(f"* {row.name} ({row.expected}): {_reason(row)}.\n" for row in found)


def _reason(row: Row) -> str:
    """Return why; a reason that refers to another row's has that row's in its place."""
    if row.reason == "as above":
        return _reason(ROWS[ROWS.index(row) - 1])
    for other in ROWS:
        if row.reason.startswith("as `") and other is not row and row.reason[3:] in other.name and other.reason:
            return _reason(other)
    return row.reason


def _tables(seen: Results) -> str:
    lines = []
    for part in dict.fromkeys(row.part for row in ROWS):
        lines += [f"### {part}\n", "| | `run_batch` | Redis | RabbitMQ | `ask` |", "|---|---|---|---|---|"]
        lines += [_line(row, seen.get(row.name, {})) for row in ROWS if row.part == part]
        lines.append("")
    return "\n".join(lines)


def _line(row: Row, seen: Mapping[str, str]) -> str:
    marks = [
        " ".join(_mark(row, lane, seen) for lane in LANES if lane.broker == broker) for broker in ("redis", "rabbitmq")
    ]
    said = row.expected if row.expected == "same" else f"{row.expected}: {_reason(row)}"
    return f"| {_cell(row.name)} | {_cell(said)} | {marks[0]} | {marks[1]} | {_cell(_said_of_ask(row, seen))} |"


def _said_of_ask(row: Row, seen: Mapping[str, str]) -> str:
    if row.name in asks.LEFT_OUT:
        return f"-: {asks.LEFT_OUT[row.name]}"
    if not asks.runs(row, asks.LANE):
        return ""
    found, expected = seen.get("ask"), asks.EXPECTED.get(row.name, asks.SAME)
    mark = "·" if found is None else "✗" if found else "✓"
    return f"{mark} {expected.kind}" + (f": {expected.reason}" if expected.reason else "")


def _mark(row: Row, lane: Lane, seen: Mapping[str, str]) -> str:
    if not row.runs_on(lane):
        return "-"
    found = seen.get(str(lane))
    return "·" if found is None else "✗" if found else "✓"


def _left_out() -> str:
    return "".join(f"* {names}: {why}\n" for names, why in LEFT_OUT.items())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
