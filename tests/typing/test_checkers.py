"""Both type checkers find what is wrong in code that uses the package, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import inherited

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = [HERE / "must_pass.py", HERE / "must_fail.py"]

# What older type checkers and type stubs make of it says nothing of the package.
pytestmark = pytest.mark.latest


def mypy() -> Iterator[tuple[str, str]]:
    """Yield where mypy finds an error, and what it says.

    It reads the project's own configuration, and so shares the cache of ``make lint``.
    """
    out = run("mypy", "--no-pretty", "--show-error-codes", "--no-color-output", *map(str, FILES))
    for path, line, message in re.findall(r"^(.+?):(\d+)(?::\d+)?: error: (.*)$", out, re.MULTILINE):
        yield place(ROOT / path, int(line)), message


def pyright() -> Iterator[tuple[str, str]]:
    """Yield where pyright finds an error or a warning, and what it says."""
    out = run("pyright", "--project", str(HERE), "--pythonpath", sys.executable, "--outputjson")
    for each in json.loads(out)["generalDiagnostics"]:
        yield place(Path(each["file"]), each["range"]["start"]["line"] + 1), each["message"]


def run(checker: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", checker, *arguments],
        capture_output=True,
        text=True,
        env=inherited(),
        cwd=ROOT,
        timeout=240,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr  # 1: it found errors
    return done.stdout


def place(path: Path, line: int) -> str:
    return f"{path.resolve().relative_to(ROOT)}:{line}"


def marked(checker: str) -> Iterator[str]:
    """Yield the lines on which a checker must find an error."""
    for path in FILES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if (found := re.search(r"# error: ([\w, ]+)$", line)) and checker in found[1].split(", "):
                yield place(path, number)


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_what_must_pass_passes_and_what_must_fail_fails(checker: Callable[[], Iterator[tuple[str, str]]]) -> None:
    found = dict(checker())
    expected = set(marked(checker.__name__))
    assert len(expected) > 50
    assert {at: message for at, message in found.items() if at not in expected} == {}
    assert expected - found.keys() == set()
