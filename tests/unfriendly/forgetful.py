"""The ready-made app, with a broker that hands out a dead worker's messages after seconds instead of minutes."""

from __future__ import annotations

from claude_batch_tasks.app import app

app.conf.broker_transport_options = {
    "visibility_timeout": 4,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}
