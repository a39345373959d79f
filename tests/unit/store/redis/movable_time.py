"""Time that a test moves on: of a Redis server, of the scripts that it runs, and of this process.

A server's own clock cannot be set. So scripts and clients add to what it tells what has passed, which is kept on the
server, and what expires by itself there expires as much earlier.
"""

from __future__ import annotations

from typing import Any

import pytest
import redis

from claude_batch_tasks import steady
from claude_batch_tasks.store.redis import scripts

#: Milliseconds that have passed.
PASSED = "test:passed"

#: Before a script: has TIME tell what has passed as well.
_MOVED_SCRIPT = f"""
local server = redis
local redis = {{call = function(name, ...)
  local found = server.call(name, ...)
  if name == 'TIME' then
    local passed = tonumber(server.call('GET', '{PASSED}') or '0')
    local microseconds = tonumber(found[2]) + passed % 1000 * 1000
    found[1] = string.format('%d', tonumber(found[1]) + math.floor(passed / 1000) + math.floor(microseconds / 1000000))
    found[2] = string.format('%d', microseconds % 1000000)
  end
  return found
end, pcall = redis.pcall}}
"""


class MovableTime:
    """``time(2.5)``: lets so many seconds pass.

    Args:
        client: of a server that nobody else uses meanwhile.
    """

    def __init__(self, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        self._client = client
        self._passed = 0.0
        text, monotonic_now = scripts.script_text, steady.monotonic_now
        monkeypatch.setattr(scripts, "script_text", lambda *names: _MOVED_SCRIPT + text(*names))
        monkeypatch.setattr(steady, "monotonic_now", lambda: monotonic_now() + self._passed)

    def move_client(self, client: redis.Redis) -> redis.Redis:
        """Have a client tell this time, and return it."""
        tell: Any = client.time

        def tell_moved_time() -> tuple[int, int]:
            seconds, microseconds = tell()
            moved: int = seconds * 1_000_000 + microseconds + round(self._passed * 1000) * 1000
            return divmod(moved, 1_000_000)

        client.time = tell_moved_time  # type: ignore[method-assign, assignment]
        return client

    def __call__(self, seconds: float) -> None:
        self._passed += seconds
        self._client.set(PASSED, round(self._passed * 1000))
        for key in self._client.scan_iter(count=1000):
            if (left := self._client.pttl(key)) > 0:
                self._client.pexpire(key, max(left - round(seconds * 1000), 0))
