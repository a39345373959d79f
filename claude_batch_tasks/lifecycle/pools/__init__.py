"""Pools of asks: how an ask gets into one, how it becomes a job, and how asks end."""

from __future__ import annotations

from claude_batch_tasks.lifecycle.pools.ending import (
    AskEnding as AskEnding,
    end_final_asks as end_final_asks,
    fail_asks_of_job as fail_asks_of_job,
    fail_open_asks as fail_open_asks,
)
