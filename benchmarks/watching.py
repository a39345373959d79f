"""The memory and the CPU time of a worker while something is measured."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import Bench, memory
from claude_batch_tasks.embedded import Worker


@dataclass
class Watched:
    """What all processes of a worker took together."""

    peaks: list[float] = field(default_factory=lambda: [0.0])
    """Their memory over what it was, sampled, in MB."""
    cpu_seconds: float = 0.0

    @property
    def peak_mb(self) -> float:
        return max(self.peaks)


@contextmanager
def watch_worker(bench: Bench, worker: Worker) -> Iterator[Watched]:
    """Measure what is done inside, and what the worker takes for it."""
    over, watched = threading.Event(), Watched()
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    processes = [worker.pid, *map(int, children)]
    idle = sum(memory("VmRSS", process) for process in processes)
    before = sum(map(_cpu_seconds, processes))

    def sample() -> None:
        while not over.wait(1):
            watched.peaks.append(sum(memory("VmRSS", process) for process in processes) - idle)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        with bench.measure():
            yield watched
        watched.cpu_seconds = sum(map(_cpu_seconds, processes)) - before
    finally:
        over.set()
        thread.join()


def _cpu_seconds(pid: int) -> float:
    """Return what a process has had of the CPU, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
