"""Draws the layers of the package into images/architecture.svg: ``python docs/architecture_picture.py``.

The layers are those of the import contract in pyproject.toml, which ``make lint`` checks. What a package is for is the
first sentence of its docstring. ``make docs`` draws the picture each time.
"""

from __future__ import annotations

import ast
import re
import textwrap
from html import escape
from pathlib import Path
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "images" / "architecture.svg"
PACKAGE = "claude_batch_tasks"

#: What is outside of the package, and which module reaches it.
OUTSIDE = {"cli": "terminal", "contrib": "Django", "tasks": "Celery", "api": "Anthropic", "store": "Redis"}

_WIDTH, _LEFT, _GAP, _PADDING, _LINE = 1000, 16, 8, 10, 16
_CHARACTER = 6.6
_FONT = "font-family='system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif'"


def layers(text: str | None = None) -> list[list[str]]:
    """Return the layers of the first contract of type "layers", the highest first; empty if there is none.

    Args:
        text: of pyproject.toml; default: as it is.
    """
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text() if text is None else text)
    contracts = project.get("tool", {}).get("importlinter", {}).get("contracts", [])
    found = next((each for each in contracts if each.get("type") == "layers"), {"layers": []})
    return [[_short(name) for name in re.split(r"[|:]", layer)] for layer in found["layers"]]


def _short(name: str) -> str:
    """Return a module's name without our package's, and without the brackets of one that may be missing."""
    return name.strip().strip("()").strip().removeprefix(f"{PACKAGE}.")


def purpose(name: str) -> str:
    """Return the first sentence of a module's docstring."""
    path = ROOT.joinpath(PACKAGE, *name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    first = re.split(r"(?<=\w)[.:](?:\s|$)", " ".join(text.split()), maxsplit=1)[0]
    return first.replace("``", "")


def svg(found: list[list[str]]) -> str:
    """Return the picture of layers."""
    parts: list[str] = []
    top = _LEFT
    for layer in found:
        width = (_WIDTH - 2 * _LEFT - (len(layer) - 1) * _GAP) / len(layer)
        texts = [_wrapped(purpose(name), width) for name in layer]
        height = 2 * _PADDING + _LINE * (1 + max(map(len, texts)))
        for number, (name, lines) in enumerate(zip(layer, texts, strict=True)):
            parts += _box(name, lines, _LEFT + number * (width + _GAP), top, width, height)
        top += height + _GAP
    height = top - _GAP + _LEFT
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {height:.0f}' width='{_WIDTH}' "
        f"height='{height:.0f}' role='img' {_FONT} font-size='12'>"
    )
    title = "<title>The layers of the package: a module imports only from layers below its own</title>"
    return "\n".join([head, title, "<rect width='100%' height='100%' fill='#ffffff'/>", *parts, "</svg>"]) + "\n"


def _wrapped(text: str, width: float) -> list[str]:
    return textwrap.wrap(text, int((width - 2 * _PADDING) / _CHARACTER)) or [""]


def _box(name: str, lines: list[str], left: float, top: float, width: float, height: float) -> list[str]:
    """Return the rectangle of one module: its name, what it is for, and what it reaches outside."""
    x, y = left + _PADDING, top + _PADDING + 11
    fill, stroke = ("#fdf1e7", "#d97706") if name in OUTSIDE else ("#eef2f7", "#94a3b8")
    parts = [
        f"<rect x='{left:.1f}' y='{top:.1f}' width='{width:.1f}' height='{height:.1f}' rx='6' fill='{fill}' "
        f"stroke='{stroke}'/>",
        f"<text x='{x:.1f}' y='{y:.1f}' font-weight='600' fill='#0f172a'>{escape(name)}</text>",
    ]
    if outside := OUTSIDE.get(name):
        right = left + width - _PADDING
        parts.append(f"<text x='{right:.1f}' y='{y:.1f}' text-anchor='end' fill='#b45309'>→ {outside}</text>")
    for number, line in enumerate(lines, 1):
        parts.append(f"<text x='{x:.1f}' y='{y + number * _LINE:.1f}' fill='#334155'>{escape(line)}</text>")
    return parts


def draw() -> None:
    """Write the picture, if there is a contract and what it says has changed."""
    if (found := layers()) and (text := svg(found)) != (PICTURE.read_text() if PICTURE.exists() else None):
        PICTURE.write_text(text)


if __name__ == "__main__":
    draw()
