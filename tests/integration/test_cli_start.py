"""How much `claude-batch` imports before it says something: its help is there at once. Imports are counted, not
time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import atexit, json, sys
from claude_batch_tasks.cli import main
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.__stderr__))
sys.argv = ["claude-batch", *{args}]
main()
"""

_CELERY = """
import atexit, json, sys
from celery.__main__ import main
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.__stderr__))
sys.argv = ["celery", "-A", "proj", "claude-batch", *{args}]
main()
"""

#: What takes long to import. None of it is needed for a text.
SLOW = {"anthropic", "celery", "httpx", "kombu", "msgspec", "redis", "rich", "backports.zstd"}


def modules_after(program: str, args: list[str], environment: dict[str, str], folder: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", program.format(args=args)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "args",
    [["--help"], ["--version"], ["status", "--help"], ["submit", "--help"], ["completion", "bash"]],
    ids=" ".join,
)
def test_a_text_imports_nothing_slow(args: list[str], environment: dict[str, str], tmp_path: Path) -> None:
    assert not modules_after(_PROGRAM, args, environment, tmp_path) & SLOW


def test_the_help_imports_no_command(environment: dict[str, str], tmp_path: Path) -> None:
    loaded = modules_after(_PROGRAM, ["--help"], environment, tmp_path)
    assert not [name for name in loaded if name.startswith("claude_batch_tasks.cli.commands")]


@pytest.mark.parametrize("args", [["--help"], ["--version"]], ids=" ".join)
def test_celery_imports_no_more_of_ours_than_the_group(
    args: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "proj.py").write_text("from celery import Celery\napp = Celery('proj')\n")
    loaded = modules_after(_CELERY, args, environment, tmp_path)
    assert {name for name in loaded if name.partition(".")[0] == "claude_batch_tasks"} == {
        "claude_batch_tasks",
        "claude_batch_tasks._version",
        "claude_batch_tasks.cli",
        "claude_batch_tasks.cli.exits",
        "claude_batch_tasks.cli.lazy_group",
        "claude_batch_tasks.cli.output",
        # Whatever process reads a message may meet a reference to an answer in it.
        "claude_batch_tasks.results",
        "claude_batch_tasks.results.answers_by_reference",
    }


def test_a_command_that_works_imports_what_it_needs(environment: dict[str, str], tmp_path: Path) -> None:
    """Otherwise the tests above would pass whatever is imported."""
    (tmp_path / "requests.jsonl").write_text("")
    program = _PROGRAM.replace("main()", "try:\n    main()\nexcept SystemExit:\n    raise SystemExit(0)")
    loaded = modules_after(program, ["estimate", "requests.jsonl"], environment, tmp_path)
    assert {"celery", "msgspec"} <= loaded
