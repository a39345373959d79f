"""The former name of ``instruments.gauges``, an alias until 1.0."""

from __future__ import annotations

from claude_batch_tasks.instruments.gauges import readings as readings
