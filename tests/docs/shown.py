"""Whether what a page shows is what appears."""

from __future__ import annotations

import re

#: What is different each time: ids, moments, durations, this machine's name, colours.
_DIFFERENT = [
    (r"\x1b\[[0-9;]*m", ""),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>"),
    (r"\b(msgbatch|req|msg)_\w+", r"\1_<id>"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?([.,]\d+)?(Z|[+-]\d\d:\d\d)?", "<moment>"),
    (r"\b\d\d:\d\d:\d\d\b", "<moment>"),
    (r"\bcelery@[\w.-]+", "celery@<host>"),
    (r"\b\d+(\.\d+)?( ?s|s| seconds)\b", "<duration>"),
    # What pytest adds where a run takes a minute or longer.
    (r" \(\d+:\d\d:\d\d\)$", ""),
    (r"[ \t]+$", ""),
]


def plain(text: str) -> str:
    """Without what is different each time."""
    for pattern, instead in _DIFFERENT:
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    return text


def appears(shown: str, got: str, *, so_far: bool = False) -> bool:
    """Whether the output is as shown, where ``...`` stands for anything within a line, or alone for any lines.

    Args:
        so_far: whether more output may follow.
    """
    parts = []
    for line in plain(shown).splitlines():
        parts.append(r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line).replace(r"\.\.\.", ".*?") + r"\n")
    text = plain(got)
    pattern = re.compile("".join(parts) + ("" if so_far else r"\n*\Z"))
    return pattern.match(text if text.endswith("\n") else text + "\n") is not None
