"""Which words and constructions texts may not have, by the glossary, and where a text has one.

``python -m tests.words [path ...]`` prints each place with what to use instead.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
GLOSSARY = ROOT / "docs/contributing/glossary.md"
PACKAGE = ROOT / "claude_batch_tasks"

#: Texts outside the package that users read.
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md")
#: These list the old words, or say what earlier releases said.
NOT_READ = {"docs/contributing/glossary.md"}

#: A file, or a folder with a slash at its end, and the words that are right there, with the reason.
EXCEPTIONS: dict[str, dict[str, str]] = {
    "claude_batch_tasks/store/redis/keys.py": {
        "lane": "a part of a key's name",
        "lanes": "a key's name",
        "census": "a key's name",
        "pace": "a key's name",
        "pieces": "a key's name",
        "settled": "a word that scripts return",
    },
    "claude_batch_tasks/store/interface/results.py": {"pieces": "the name of an argument"},
}


class Refused(NamedTuple):
    """A row of the glossary: a pattern, what it stands for there, and what to use instead."""

    pattern: re.Pattern[str]
    use: str


class Place(NamedTuple):
    """A refused word in a text."""

    file: str
    line: int
    word: str
    use: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.word!r}: {self.use}"


@cache
def refused() -> tuple[Refused, ...]:
    """Return what the tables of the glossary refuse: those with a column "refused in texts"."""
    found, header = [], None
    for line in GLOSSARY.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else None
        if cells is None:
            header = None
        elif header is None:
            header = cells
        elif "refused in texts" in header and not cells[0].startswith("---"):
            row = dict(zip(header, cells, strict=True))
            if words := _split(row["refused in texts"]):
                found.append(Refused(_compile(words, _split(row["but not"])), row["use instead"].replace("`", "")))
    return tuple(found)


def _split(cell: str) -> list[str]:
    return [word.strip() for word in cell.split(",") if word.strip()]


def _compile(words: Sequence[str], allowed: Sequence[str]) -> re.Pattern[str]:
    """Match whole words, unless they are part of what is allowed."""
    spelled = ("|".join(re.escape(word).replace(r"\ ", r"\s+") for word in each) for each in (allowed, words))
    fine, bad = spelled
    skipped = rf"\b(?:{fine})\b|" if fine else ""
    return re.compile(rf"{skipped}(?<![\w.-])(?P<bad>{bad})(?![\w-])", re.IGNORECASE)


def find_words(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the offset of each refused word in a text, the word, and what to use instead."""
    for each in refused():
        for match in each.pattern.finditer(text):
            if (word := match.group("bad")) is not None:
                yield match.start("bad"), re.sub(r"\s+", " ", word), each.use


def _blank(pattern: str, text: str, flags: int = 0) -> str:
    """Replace what matches with spaces, so that offsets and lines stay what they are."""
    return re.sub(pattern, lambda match: re.sub(r"[^\n]", "\0", match.group()), text, flags=flags)


def prose_of_markdown(text: str) -> str:
    """Return a document without its code, its addresses and its anchors."""
    text = _blank(r"^( *)(```+|~~~+).*?^\1\2 *$", text, re.MULTILINE | re.DOTALL)
    text = _blank(r"<!--.*?-->", text, re.DOTALL)
    text = _blank(r"``.+?``|`[^`\n]+`", text)
    text = _blank(r"\]\([^)\s]*\)|<https?://[^>]*>|^\([\w-]+\)=$|\{#[\w-]+\}", text, re.MULTILINE)
    return _blank(r"<[^>\n]+>", text)


def prose_of_template(text: str) -> str:
    """Return a template without its tags."""
    text = _blank(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", text, re.DOTALL)
    text = _blank(r"<(style|script)\b.*?</\1>", text, re.DOTALL)
    return _blank(r"<[^>]*>", text)


def _strings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield strings that are texts: with a space, and not the names of keys, fields, or formats."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"\w\s+\S", node.value):
            yield node


def _in_strings(source: str) -> Iterator[tuple[int, str, str]]:
    for node in _strings(ast.parse(source)):
        assert isinstance(node.value, str)
        text = _blank(r"``.+?``|`[^`\n]+`", node.value)
        for offset, word, use in find_words(text):
            yield node.lineno + text[:offset].count("\n"), word, use


def _in_text(text: str) -> Iterator[tuple[int, str, str]]:
    for offset, word, use in find_words(text):
        yield text[:offset].count("\n") + 1, word, use


def files() -> list[Path]:
    """Return the files with texts for users."""
    documents = [path for pattern in DOCUMENTS for path in ROOT.glob(pattern)]
    package = [path for ending in ("py", "html", "txt") for path in PACKAGE.rglob(f"*.{ending}")]
    return sorted(path for path in (*documents, *package) if path.relative_to(ROOT).as_posix() not in NOT_READ)


def find_in_file(path: Path) -> list[Place]:
    """Return the refused words of a file, without the exceptions."""
    name, text = path.relative_to(ROOT).as_posix(), path.read_text()
    fine = {
        word
        for where, words in EXCEPTIONS.items()
        if name == where or (where.endswith("/") and name.startswith(where))
        for word in words
    }
    if path.suffix == ".py":
        found = _in_strings(text)
    else:
        found = _in_text(prose_of_markdown(text) if path.suffix == ".md" else prose_of_template(text))
    return sorted(Place(name, line, word, use) for line, word, use in found if word.lower() not in fine)


def main(paths: Sequence[str]) -> int:
    """Print what is found in these files, or in all."""
    places = [place for path in files() for place in find_in_file(path)]
    shown = [place for place in places if not paths or place.file.startswith(tuple(paths))]
    print("\n".join(map(str, shown)))
    return bool(shown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
