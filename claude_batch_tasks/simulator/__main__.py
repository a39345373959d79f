from __future__ import annotations

from .cli import simulator

simulator(prog_name="claude-batch simulator")
