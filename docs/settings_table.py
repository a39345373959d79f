"""Writes the table of settings into docs/reference/settings.md: ``python docs/settings_table.py``."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from claude_batch_tasks.settings import Settings

PAGE = Path(__file__).parent / "reference" / "settings.md"
_BETWEEN = re.compile(r"(<!-- settings: begin -->\n).*(<!-- settings: end -->)", re.DOTALL)


def table() -> str:
    """The settings as a Markdown table."""
    rows = ["| name | default | per job | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(Settings):
        if field.default is dataclasses.MISSING:
            default = "one, `default`" if field.name == "client_factories" else "none"
        elif isinstance(field.default, float):
            default = f"{field.default:g}"
        else:
            default = "none" if field.default in (None, ()) else str(field.default)
        per_job = "✓" if field.metadata["per_job"] else ""
        rows.append(f"| `{field.name}` | {default} | {per_job} | {field.metadata['meaning']} |")
    return "\n".join(rows) + "\n"


def updated(text: str) -> str:
    """The page with the present table."""
    return _BETWEEN.sub(lambda found: found[1] + table() + found[2], text)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
