"""How Sphinx builds these pages: ``make docs``. They are plain Markdown, to be read on GitHub as well."""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path

from sphinx.application import Sphinx

import claude_batch_tasks

project = "claude_batch_tasks"
release = version = claude_batch_tasks.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["*.py"]

html_theme = "furo"
html_title = f"claude-batch-tasks {release}"
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["narrow.css"]

#: Where pages were that have another name now.
MOVED = {
    "quickstart": "tutorial",
    "explanation/another_chance": "explanation/resubmission_and_fallback",
}

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# The builtin `type` has the name of attributes of several classes.
suppress_warnings = ["ref.python"]
napoleon_numpy_docstring = False
napoleon_use_rtype = False


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", _draw_pictures)
    app.connect("autodoc-process-docstring", _spare_sentences, priority=400)
    app.connect("sphinx-click-process-description", _from_help)
    app.connect("build-finished", _redirect_old_addresses)


def _draw_pictures(app: Sphinx) -> None:
    """The picture of the layers, from the import contract; it is in the repository too, for readers on GitHub."""
    runpy.run_path(str(Path(app.srcdir) / "architecture_picture.py"))["draw"]()


def _spare_sentences(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Attributes are described in sentences; napoleon takes what stands before a colon in the first for a type."""
    if what in ("attribute", "property"):
        lines.insert(0, "")


def _from_help(app: Sphinx, ctx: object, lines: list[str]) -> None:
    """A command's help is plain text, in which reStructuredText finds references."""
    lines[:] = [re.sub(r"`([^`]+)`", r"``\1``", line).replace("_...", r"\_...") for line in lines]


def _redirect_old_addresses(app: Sphinx, error: Exception | None) -> None:
    """Leave a page at each old address that leads to the new one."""
    if error is None and app.builder.name == "html":
        for old, new in MOVED.items():
            path = Path(app.outdir) / f"{old}.html"
            address = os.path.relpath(f"{new}.html", Path(old).parent)
            path.write_text(
                f'<!doctype html><meta charset="utf-8"><title>Moved</title>'
                f'<meta http-equiv="refresh" content="0; url={address}"><a href="{address}">{new}</a>'
            )
