"""The ready-made app on a machine whose clock is wrong: by the seconds in the file ``CLOCK``, at this moment."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta
from pathlib import Path

from celery import Celery
from kombu.asynchronous import timer

from claude_batch_tasks.app import app

__all__ = ["app"]

_time, _time_ns, _now = time.time, time.time_ns, Celery.now


def shift() -> float:
    return float(Path(os.environ["CLOCK"]).read_text() or 0)


def now(app: Celery) -> datetime:
    return _now(app) + timedelta(seconds=shift())


time.time = timer._time = lambda: _time() + shift()
time.time_ns = lambda: _time_ns() + int(shift() * 1e9)
Celery.now = now  # type: ignore[method-assign]
