"""The task ``ask``: one request, asked by itself, that becomes a part of a batch with others."""

from __future__ import annotations

from claude_batch_tasks.tasks.asks.ask_task import ask as ask
