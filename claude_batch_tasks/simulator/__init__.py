"""A local Message Batches API over HTTP, with faults on demand, that remembers what was paid.

>>> from claude_batch_tasks.simulator import Fault, Simulator
>>> with Simulator("issue-1432") as simulator:
...     client = anthropic.Anthropic(base_url=simulator.url, api_key="any", max_retries=0)

Imports nothing of the rest of the package: it must not share its mistakes. What Anthropic does not document
is inferred: 400 for canceling an ended batch or deleting a running one; 404 for a
deleted batch, another key's, and archived results.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .answers.files import read_script
    from .journal import (
        Attempt,
        BatchRecord,
        Call,
        Charge,
        Invoice,
        Journal,
        PromptRecord,
        State,
        Tokens,
        Totals,
    )
    from .models import Model
    from .scenarios import SCENARIOS
    from .script import Answer, Behaviour, Fault, Outcome, Refusal, ResultsStyle, Scenario, ToolCall
    from .server import Control, Simulator

__all__ = [
    "SCENARIOS",
    "Answer",
    "Attempt",
    "BatchRecord",
    "Behaviour",
    "Call",
    "Charge",
    "Control",
    "Fault",
    "Invoice",
    "Journal",
    "Model",
    "Outcome",
    "PromptRecord",
    "Refusal",
    "ResultsStyle",
    "Scenario",
    "Simulator",
    "State",
    "Tokens",
    "ToolCall",
    "Totals",
    "read_script",
]

# On first use: every pytest run loads this package for its plugin, and most never start a simulator.
_HOME = {
    "read_script": "answers.files",
    **dict.fromkeys(
        ("Attempt", "BatchRecord", "Call", "Charge", "Invoice", "Journal", "PromptRecord", "State", "Tokens", "Totals"),
        "journal",
    ),
    "Model": "models",
    "SCENARIOS": "scenarios",
    **dict.fromkeys(
        ("Answer", "Behaviour", "Fault", "Outcome", "Refusal", "ResultsStyle", "Scenario", "ToolCall"),
        "script",
    ),
    **dict.fromkeys(("Control", "Simulator"), "server"),
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
