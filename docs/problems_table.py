"""Writes the tables of docs/howto/troubleshooting.md, from checks/problems.py: ``python docs/problems_table.py``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

from claude_batch_tasks.checks.problems import list_problems

PAGE = Path(__file__).parent / "howto" / "troubleshooting.md"
_BETWEEN = re.compile(r"(<!-- problems: begin -->\n).*(<!-- problems: end -->)", re.DOTALL)

#: The first digit after the letter of a number.
_PARTS = {
    "0": "Settings",
    "1": "Store, broker, result back end",
    "2": "Workers",
    "3": "Anthropic",
    "9": "The examination itself",
}


def tables() -> str:
    """The problems as Markdown tables, one for each part."""
    problems = list(list_problems())
    return (
        "\n".join(
            line
            for digit, title in _PARTS.items()
            for line in (
                f"\n### {title}\n",
                "| id | what is wrong, and what it leads to | what to do |",
                "|---|---|---|",
                *(
                    f"| `{problem.id}` | {_shown(problem.text)} | {_shown(problem.hint)} |"
                    for problem in problems
                    if problem.number[1] == digit
                ),
            )
        ).lstrip("\n")
        + "\n\n"
    )


def _shown(template: str) -> str:
    """With what differs from one finding to the next in italics."""
    return "".join(_pieces(template)).replace("|", "\\|")


def _pieces(template: str) -> Iterator[str]:
    for text, name, _, _ in Formatter().parse(template):
        yield text.replace("*", "\\*").replace("<", "&lt;")
        if name is not None:
            yield f"*{name}*"


def updated(text: str) -> str:
    """The page with the present tables."""
    return _BETWEEN.sub(lambda found: found[1] + "\n" + tables() + found[2], text)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
