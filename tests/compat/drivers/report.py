"""What all drivers share: the requests, and one line that says what happened. Standard library only."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from typing import Any

COUNT = 20
MODEL = "claude-haiku-4-5"
BASE_URL = os.environ["ANTHROPIC_BASE_URL"]
QUESTIONS = {f"question-{n}": f"Question {n}?" for n in range(COUNT)}
REQUESTS: list[Any] = [
    {
        "custom_id": name,
        "params": {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": question}]},
    }
    for name, question in QUESTIONS.items()
]


class Report:
    """The answers by custom_id, and what was raised on the way by a client that goes on by itself or is run again."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        #: Messages, whole or streamed, beside the batch.
        self.messages: list[str] = []
        self.raised: list[str] = []


def run(main: Callable[[Report], Any]) -> None:
    """Run a client, and print the report as the last line."""
    report = Report()
    error = ""
    try:
        done = main(report)
        if asyncio.iscoroutine(done):
            asyncio.run(done)
    except (Exception, SystemExit) as found:  # noqa: BLE001
        error = describe(found)
    sys.stdout.flush()
    print("\n" + json.dumps({**vars(report), "error": error}, default=str), flush=True)
    # Threads of a client that has failed do not keep the process.
    os._exit(0)


def describe(error: BaseException) -> str:
    """Return the error's class and the first line of its text; of a group, its first member."""
    while members := getattr(error, "exceptions", None):
        error = members[0]
    lines = str(error).strip().splitlines() or [""]
    # A command line's last words have the class of its error in them.
    return (lines[0] if isinstance(error, SystemExit) else f"{type(error).__name__}: {lines[0]}")[:300]
