"""The ready-made app for ``in_flight``: what is left to messages is as short as everything else there."""

from __future__ import annotations

import os

from claude_batch_tasks import rules
from claude_batch_tasks.app import app

rules.LONGEST_IN_BROKER /= float(os.environ["BENCHMARK_COMPRESS"])

__all__ = ["app"]
