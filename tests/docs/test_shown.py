"""The pages' tests can fail: what differs from what is shown is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import Block
from tests.docs.reader import Reader
from tests.docs.shown import appears
from tests.support import inherited

pytestmark = pytest.mark.latest


@pytest.mark.parametrize(
    ("shown", "got"),
    [
        ("done 3\n", "done 3\n"),
        ("job 61a1c16c-2890-4732-b226-08d043dd214a\n", "job ab8b98a2-9dbb-4a66-a3e8-bbc8fcc1d2aa\n"),
        ("at 2026-11-26T10:00:00+00:00\n", "at 2027-01-01T23:59:59.123456+00:00\n"),
        ("first\n...\nlast\n", "first\nsecond\nthird\nlast\n"),
        ("first\n...\nlast\n", "first\nlast\n"),
        ("took ... calls\n", "took 7 calls\n"),
    ],
)
def test_what_is_different_each_time_may_differ(shown: str, got: str) -> None:
    assert appears(shown, got)


@pytest.mark.parametrize(
    ("shown", "got"),
    [
        ("done 3\n", "done 4\n"),
        ("done 3\n", "done 3\nand more\n"),
        ("first\n...\nlast\n", "first\nlast but one\n"),
        ("took ... calls\n", "took 7\ncalls\n"),
    ],
)
def test_anything_else_may_not(shown: str, got: str) -> None:
    assert not appears(shown, got)


@pytest.mark.parametrize(
    ("language", "text", "wrong"),
    [
        ("python", "1 / 0\n", "ZeroDivisionError"),
        ("pycon", ">>> 1 + 1\n3\n", "Expected"),
        ("console", "$ false\n", "ended with 1"),
        ("console", "$ echo a\nb\n", "but the page shows"),
        ("json", "{]", "Expecting"),
        ("rust", "fn main() {}", "nobody knows how to run"),
    ],
)
def test_what_is_not_true_is_told(language: str, text: str, wrong: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n```{language}\n{text}```\n")
    with Reader(tmp_path, inherited(), {"6379": "6379"}) as reader, pytest.raises(Exception, match=wrong):
        reader.read(page)


def test_a_block_is_a_file_where_its_first_line_says_so() -> None:
    def block(text: str) -> Block:
        return Block(Path("page.md"), 1, "python", text)

    assert block("# reviews/views.py\nimport os\n").file == ("reviews/views.py", False)
    assert block("# proj/settings.py, at the end\n").file == ("proj/settings.py", True)
    assert block("# Not a path.\n").file is None
    assert block("# /etc/passwd.d\n").file is None
