"""The module in which ``app.autodiscover_tasks()`` of a project searches for an installed app's tasks."""

from __future__ import annotations

import claude_batch_tasks.tasks  # noqa: F401 - registers them
