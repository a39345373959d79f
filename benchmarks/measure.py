"""One case of a benchmark in a process of its own: how long it takes, how much CPU, and its memory over the import's.

python -m benchmarks.measure CASE RECORDS REDIS_URL API_URL    # prints one line of JSON
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import database
from tests.chaos.released import release_env, unpack_release

#: How the name of a case begins that is the last release's.
RELEASED = "released."


@dataclass
class Measured:
    """What was measured of a case."""

    case: str
    records: int
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    """Greatest resident memory over what was resident when the measured part began."""
    notes: str = ""
    values: dict[str, float] = field(default_factory=dict)
    """Whatever else was counted, by name."""

    @property
    def rate(self) -> float:
        """Records per second."""
        return self.records / self.seconds


class Bench:
    """What a case gets: how many records, which servers, and a stopwatch."""

    def __init__(self, case: str, records: int, redis_url: str, api_url: str) -> None:
        self.records, self.redis_url, self.api_url = records, redis_url, api_url
        #: Its address where stores are compared; None: it is the Redis, which has this benchmark's jobs alone.
        self.compared = os.environ.get("BENCHMARK_STORE_URL")
        self.store_url = self.compared or redis_url
        self.payload_url = os.environ.get("BENCHMARK_PAYLOAD_URL")
        #: The end of the ids of jobs, where several cases have the same store.
        self.suffix = os.environ.get("BENCHMARK_SUFFIX", "")
        self.measured = Measured(case, records)

    @contextlib.contextmanager
    def measure(self) -> Iterator[None]:
        """Measure what is done inside; everything needed is to be imported before."""
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        with database.count_writes(self.store_url, self.measured.values):
            before = memory("VmRSS")
            cpu, wall = time.process_time(), time.perf_counter()
            yield
            self.measured.seconds = time.perf_counter() - wall
            self.measured.cpu_seconds = time.process_time() - cpu
            self.measured.peak_mb = memory("VmHWM") - before


def memory(name: str, pid: int | str = "self") -> float:
    """What the kernel says of a process's memory (``VmRSS``, or ``VmHWM``, its peak), in MB."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1000


def run(case: str, records: int, redis_url: str, api_url: str, env: dict[str, str] | None = None) -> Measured:
    """Measure a case, named ``module.function`` in this package, in a process of its own.

    ``released.module.function`` is that of the last release, which has a database of its own.
    """
    name, folder = case.removeprefix(RELEASED), None
    if name != case:
        folder, redis_url = _unpack_release(), redis_url.replace("/0", "/1")
        env = {**os.environ, **release_env(folder)}
    command = [sys.executable, "-m", "benchmarks.measure", name, str(records), redis_url, api_url]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, cwd=folder, env=env)
    return Measured(**{**json.loads(done.stdout.splitlines()[-1]), "case": case})


@functools.cache
def _unpack_release() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="claude-batch-released-")
    atexit.register(folder.cleanup)
    return unpack_release(Path(folder.name), "benchmarks")


def main() -> None:
    case, records, redis_url, api_url = sys.argv[1:]
    module, _, name = case.rpartition(".")
    bench = Bench(case, int(records), redis_url, api_url)
    getattr(importlib.import_module(f"benchmarks.{module}"), name)(bench)
    print(json.dumps(asdict(bench.measured)))


if __name__ == "__main__":
    main()
