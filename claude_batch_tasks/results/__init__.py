"""The code that reads results back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what is loaded with the package must be small
    from claude_batch_tasks.results.answers_by_reference import Answer as Answer
    from claude_batch_tasks.results.ask_result import AskResult as AskResult
    from claude_batch_tasks.results.reader import RequestResult as RequestResult
