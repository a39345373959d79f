"""The blocks of a page, as a reader meets them, and what a page says of them in comments that no reader sees.

* ``python``: run, one after the other in one namespace; ``pycon``: the same, and what is shown must appear.
* ``console``: after ``$`` what is typed in a shell, and below it what appears; ``...`` stands for anything.
* A block whose first line is a comment with a path (``# reviews/views.py``) is that file; ``# proj/settings.py, at the
  end`` is added to it.
* Others are parsed, if they are of a kind that can be (YAML, TOML, INI, JSON).

``<!-- not run: why -->`` before a block: it cannot be run as it stands. ``<!-- a terminal of its own -->``: its last
command goes on beside the others, once what is shown has appeared. ``<!-- python: ... -->`` is run, and not seen.
``<!-- newcomer only: why -->``, also with ``, a terminal of its own``: only ``make newcomer`` runs it, from zero.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: Blocks of these languages are for people: diagrams, output, links between pages; diffs have a test of their own.
PROSE = {"text", "diff", "{toctree}", "{eval-rst}", "{click}"}

_MARK = re.compile(
    r"<!-- (not run|(?:newcomer only, )?a terminal of its own|newcomer only|python)(?:: ?(.*?))? ?-->", re.DOTALL
)
_FILE = re.compile(r"(?:# |<!-- )(\w[\w./-]*\.\w+)(, at the end)?(?: -->)?$")


@dataclass(frozen=True)
class Block:
    """A fenced block, or a hidden one."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None = None
    own_terminal: bool = False
    newcomer: bool = False

    @property
    def file(self) -> tuple[str, bool] | None:
        """The path it is to be written to, and whether at the end of what is there."""
        first = _FILE.match(self.text.partition("\n")[0])
        return (first[1], first[2] is not None) if first and self.language != "console" else None

    @property
    def commands(self) -> list[tuple[str, str]]:
        """What is typed, and what appears; of a console."""
        found: list[tuple[str, str]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], ""))
            elif line.startswith("> ") and found and not found[-1][1]:
                found[-1] = (f"{found[-1][0]}\n{line[2:]}", "")
            else:
                found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
        return found

    def __str__(self) -> str:
        return f"{os.path.relpath(self.page, ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """In the order in which they stand."""
    mark: re.Match[str] | None = None
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == "html_block" and token.map:
            mark = _MARK.match(token.content)
            if mark and mark[1] == "python":
                yield Block(page, token.map[0] + 1, "python", mark[2])
        elif token.type == "fence" and token.map:
            said = mark[1] if mark else ""
            yield Block(
                page,
                token.map[0] + 2,
                token.info.split()[0] if token.info else "",
                token.content,
                not_run=mark[2] if mark and said.startswith(("not run", "newcomer only")) else None,
                own_terminal=said.endswith("a terminal of its own"),
                newcomer=said.startswith("newcomer only"),
            )
            mark = None
        elif token.type not in ("paragraph_close", "heading_close"):
            mark = None
