"""The tool that writes Markdown with one sentence a line: where it breaks lines, and what it leaves alone."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.latest

TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "sentence_lines.py"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("One. Two, over\ntwo lines.\n", "One.\nTwo, over two lines.\n"),
        ("Is it? `run_batch` is. (So it is.) 404s are.\n", "Is it?\n`run_batch` is.\n(So it is.)\n404s are.\n"),
        ('It says "no." *Then* it ends.\n', 'It says "no."\n*Then* it ends.\n'),
        ("* One. Two.\n  * Three.\n    Four, a\n    line.\n", "* One.\n  Two.\n  * Three.\n    Four, a line.\n"),
        ("10. One. Two.\n", "10. One.\n    Two.\n"),
        ("* One.\n\n  Two. Three.\n", "* One.\n\n  Two.\n  Three.\n"),
        ("- [ ] One. Two.\n", "- [ ] One.\n  Two.\n"),
        ("**Why.** Money.\nTime.\n", "**Why.** Money.\nTime.\n"),
        ("* **Paid once.**\n  As said. Twice.\n", "* **Paid once.** As said.\n  Twice.\n"),
        ("```\nA. B.\n```\nOne. Two.\n", "```\nA. B.\n```\nOne.\nTwo.\n"),
        (
            "<!-- t: begin -->\nA. B.\n<!-- t: end -->\nOne. Two.\n",
            "<!-- t: begin -->\nA. B.\n<!-- t: end -->\nOne.\nTwo.\n",
        ),
    ],
)
def test_breaks_lines_between_sentences_and_nowhere_else(before: str, after: str) -> None:
    assert TOOL["rewritten"](before) == after
    assert TOOL["rewritten"](after) == after


@pytest.mark.parametrize(
    "text",
    [
        "Some, e.g. Redis, i.e. A server, etc. Are here: J. Smith, Redis 6.2 and `a. B` and [a. B](c. D).\n",
        "It says 1. 2. 3. and goes on.\n",
        "# A. B.\n",
        "| A. B. | C. D. |\n|---|---|\n",
        "> A. B.\n",
        "[a]: https://example.com A. B.\n",
        "---\ntitle: A. B.\n---\n",
        "    code = 1. Code.\n",
        "````{note}\n:class: x\n\n```\nA. B.\n```\n\nC. D.\n````\n",
        "* One:\n\n  ```console\n  $ echo A. B.\n  ```\n",
        "<!-- python:\nA. B.\n-->\n",
        "<!-- not run: A. B. -->\n",
        "<details>\nA. B.\n</details>\n",
        "One. Two.  \nThree.\n",
    ],
)
def test_leaves_the_rest_alone(text: str) -> None:
    assert TOOL["rewritten"](text) == text


def test_says_where_lines_are_to_be_broken() -> None:
    assert [paragraph.line for paragraph in TOOL["wrong"]("# A\n\nOne.\n\n* Two. Three.\n")] == [5]
