"""Writes the simulator's scenarios into docs/howto/test_double.md: ``python docs/scenarios_table.py``."""

from __future__ import annotations

import re
from pathlib import Path

from claude_batch_tasks.simulator import SCENARIOS

PAGE = Path(__file__).parent / "howto" / "test_double.md"
_BETWEEN = re.compile(r"(<!-- scenarios: begin -->\n).*(<!-- scenarios: end -->)", re.DOTALL)


def table() -> str:
    """The scenarios, in the order of ``--list-scenarios``, as a Markdown table."""
    rows = ["| scenario | what happens |", "|---|---|"]
    rows += [f"| `{scenario.name}` | {scenario.about} |" for scenario in SCENARIOS.values()]
    return "\n".join(rows) + "\n"


def updated(text: str) -> str:
    """The page with the present table."""
    return _BETWEEN.sub(lambda found: found[1] + table() + found[2], text)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
