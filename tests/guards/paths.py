"""What is importable, found out in a process of its own: what is imported for a guard is no part of other tests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.support import inherited

ROOT = Path(__file__).parents[2]

#: What users read and copy from. The changelog names what there was; the scripts in docs/ and docs/contributing are the
#: project's own.
TEXTS = sorted(
    path
    for pattern in (
        "README.md",
        "SECURITY.md",
        "docs/**/*.md",
        "examples/**/*.py",
        "examples/**/*.md",
        "monitoring/*",
        "celeryconfig.py",
        "Dockerfile",
        "*.yml",
    )
    for path in ROOT.glob(pattern)
    if "contributing" not in path.parts
)

_DOTTED = re.compile(r"(?<![\w./-])claude_batch_tasks((?:\.[A-Za-z_]\w*)+)(?::(\w+))?(?![\w/])")
_IMPORTED = re.compile(r"^\s*(?:>>> )?from (claude_batch_tasks[\w.]*) import (\([^)]*\)|[^\n#]*)", re.MULTILINE)

#: Finds each path as ``from ... import ...`` does: an attribute comes before a module of that name. Says what it found.
_FIND = """
import importlib, importlib.util, json, sys

import django
from django.conf import settings

settings.configure(INSTALLED_APPS=[
    "claude_batch_tasks.contrib.django",
    *(f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "messages", "sessions")),
])
django.setup()

def find(path):
    parent, _, name = path.rpartition(".")
    found = find(parent) if parent else None
    return getattr(found, name) if hasattr(found, name) else importlib.import_module(path)

def kind(found):
    if type(found).__name__ == "module":
        return "module"
    if isinstance(found, type):
        return "class"
    return "function" if callable(found) else type(found).__name__

def told(path):
    if path.endswith(".__main__"):  # not imported: it would run
        return "module" if importlib.util.find_spec(path) else "nothing"
    try:
        return kind(find(path))
    except Exception as exc:
        return f"{type(exc).__name__}: {exc}"

print(json.dumps({path: told(path) for path in json.load(sys.stdin)}))
"""


def named() -> dict[str, str]:
    """Return each dotted path below the package that the texts name, with where."""
    return {path: place for file in TEXTS for path, place in _named_in(file)}


def _named_in(file: Path) -> Iterator[tuple[str, str]]:
    text = file.read_text()
    place = str(file.relative_to(ROOT))
    for match in _DOTTED.finditer(text):
        yield f"claude_batch_tasks{match[1]}" + (f".{match[2]}" if match[2] else ""), place
    for match in _IMPORTED.finditer(text):
        for name in match[2].strip("() \n").split(","):
            if name.strip():
                yield f"{match[1]}.{name.split()[0]}", place


def found(paths: Iterable[str]) -> dict[str, str]:
    """Return what each path leads to: ``module``, ``class``, ``function``, the type of something else; or an error."""
    done = subprocess.run(
        [sys.executable, "-c", _FIND],
        input=json.dumps(sorted(paths)),
        capture_output=True,
        text=True,
        env=inherited(),
        cwd=ROOT / "monitoring",  # where nothing can be imported from, and no celeryconfig.py is
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return told
