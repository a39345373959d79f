"""Write Markdown with one sentence a line, so that a diff shows which sentence changed.

``python tools/sentence_lines.py`` rewrites the pages of the repository; ``--check`` lists what it would rewrite, and
exits with 1. Pages look as before: only line breaks within paragraphs and list items move. Code, directives, tables,
headings, quotes and HTML stay as they are, and what a script writes between ``<!-- name: begin -->`` and
``<!-- name: end -->``. Only the standard library is used.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("*.md", "docs/**/*.md", "examples/**/*.md", ".github/**/*.md")

#: What has a full stop after it within a sentence.
ABBREVIATIONS = ("e.g", "i.e", "etc", "cf", "vs", "approx", "incl", "resp")

_FENCE = re.compile(r"\s*(`{3,}|~{3,}|:{3,})")
_GENERATED = re.compile(r"\s*<!-- (\w+): begin -->")
_ITEM = re.compile(r"(\s*(?:[-*+]|\d+[.)])\s+)\S")
#: Headings and their underlines, rules, tables, quotes, comments, definitions of links, and what is MyST's alone.
_OTHER = re.compile(r"\s*(?:#|>|\||<!--|\[[^]]+\]:|\([\w-]+\)=$|%|\+\+\+|(?:[-*_=]\s*){3,}$)")

#: Code, links and images, addresses: a full stop in one ends no sentence.
_WHOLE = re.compile(
    r"(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)"
    r"|!?\[(?:[^][]|\[[^]]*\])*\](?:\([^()]*\)|\[[^]]*\])?"
    r"|<[^<>]+>"
)
#: The space between two sentences: after a full stop and what closes with it, before what may begin a sentence.
_GAP = re.compile(r"(?<=[.?!])[\"')*_]*( )(?=[\"'(*_]*[A-Z0-9])")
_NO_END = re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, ABBREVIATIONS))}|[A-Z])\.$")
#: What would begin a list, a heading or a quote, if a line began with it.
_BLOCK = re.compile(r"(?:[-*+#>|]|\d+[.)])(?:\s|$)")
#: What a paragraph begins with in bold stands on the line of its first sentence.
_LEAD = re.compile(r"\*\*[^*]+\*\*$")


def sentences(text: str) -> list[str]:
    """Return the sentences of a paragraph."""
    masked = _WHOLE.sub(lambda found: "X" * len(found[0]), text)
    found: list[str] = []
    start = 0
    for gap in _GAP.finditer(masked):
        end = gap.start(1)
        if _NO_END.search(masked, start, gap.start()) or _BLOCK.match(text, end + 1) or _LEAD.match(text[:end]):
            continue
        found.append(text[start:end])
        start = end + 1
    return [*found, text[start:]]


@dataclass
class Paragraph:
    """A paragraph, or the first one of a list item."""

    line: int
    #: What the first line begins with, a list's marker included; the others begin with as many spaces.
    start: str
    lines: list[str]

    def rewritten(self) -> list[str]:
        """Return its lines, one for each sentence; the same, if they break where a reader shall see it."""
        if any(line.endswith(("  ", "\\")) for line in self.lines[:-1]):
            return self.lines
        first, *others = self.lines
        text = " ".join(line.strip() for line in [first[len(self.start) :], *others])
        starts = [self.start, *[" " * len(self.start)] * len(text)]
        return [start + sentence for start, sentence in zip(starts, sentences(text), strict=False)]


def parts(text: str) -> Iterator[Paragraph | str]:
    """Split a page into its paragraphs, and the lines between them."""
    lines = enumerate(text.splitlines(), 1)
    paragraph: Paragraph | None = None
    indent = 0
    for number, line in lines:
        item, end = _ITEM.match(line), end_of_block(line, number)
        between = not line.strip() or end is not None or _OTHER.match(line) is not None
        if paragraph and not between and not item:
            paragraph.lines.append(line)
            continue
        if paragraph:
            yield paragraph
            paragraph = None
        width = len(line) - len(line.lstrip())
        if between or width >= indent + 4:  # so far to the right, it is code
            yield line
        else:
            indent = len(item[1]) if item else width
            paragraph = Paragraph(number, item[1] if item else " " * width, [line])
        while end and (rest := next(lines, None)):
            yield rest[1]
            end = None if end.match(rest[1]) else end
    if paragraph:
        yield paragraph


def end_of_block(line: str, number: int) -> re.Pattern[str] | None:
    """Return what the last line of a block looks like, if this is the first line of one that stays as it is."""
    if number == 1 and line == "---":
        return re.compile("---$")
    if fence := _FENCE.match(line):
        return re.compile(rf"\s*{fence[1]}+\s*$")
    if generated := _GENERATED.match(line):
        return re.compile(rf"\s*<!-- {generated[1]}: end -->")
    if line.lstrip().startswith("<!--") and "-->" not in line:
        return re.compile(".*-->")
    return re.compile(r"\s*$") if re.match(r"\s*</?[a-z]+[\s>]", line) else None


def rewritten(text: str) -> str:
    """Return a page with one sentence a line."""
    lines = (part.rewritten() if isinstance(part, Paragraph) else [part] for part in parts(text))
    return "".join(f"{line}\n" for group in lines for line in group)


def wrong(text: str) -> Iterator[Paragraph]:
    """Give the paragraphs of a page that would be rewritten."""
    for part in parts(text):
        if isinstance(part, Paragraph) and part.lines != part.rewritten():
            yield part


def main() -> None:
    """Rewrite the pages, or list what is not one sentence a line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true", help="list paragraphs and rewrite nothing")
    check = arguments.parse_args().check
    pages = [page for pattern in PAGES for page in sorted(ROOT.glob(pattern))]
    found = [(page, paragraph) for page in pages for paragraph in wrong(page.read_text())]
    if check and found:
        for page, paragraph in found:
            print(f"{page.relative_to(ROOT)}:{paragraph.line}: {paragraph.lines[0].strip()[:80]}")
        sys.exit("These are not one sentence a line. Run: python tools/sentence_lines.py")
    for page in {page for page, _ in found}:
        page.write_text(rewritten(page.read_text()))


if __name__ == "__main__":
    main()
