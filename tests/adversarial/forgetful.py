"""The ready-made app, with a broker that hands out a dead worker's messages after seconds instead of minutes."""

from __future__ import annotations

import functools
import os

from kombu.transport import redis as transport

from claude_batch_tasks.app import app

app.conf.broker_transport_options = {
    "visibility_timeout": float(os.environ.get("STORM_VISIBILITY", "4")),
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}

if not hasattr(transport.Channel, "unacked_restore_throttle"):
    # Before kombu 5.7 neither can be set: it looks every 10 s, and acts on every tenth look only.
    transport.QoS.restore_visible = functools.partialmethod(transport.QoS.restore_visible, interval=1)
