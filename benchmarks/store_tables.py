"""What one run of ``stores`` has measured, as lines of text and as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.measure import Measured

#: What tables call the cases, in the order of their rows.
TITLES = {
    "submit.ours": "submit, per request",
    "fetch.ours": "fetch, per result",
    "read.ours": "read, per result",
    "read.one": "one result",
    "many_jobs.submit": "submit a job of one request",
    "many_jobs.poll_all": "poll all by list calls, per job",
    "many_jobs.poll_each": "poll by a call each",
    "many_jobs.recover": "recover, per message",
}

#: What tables call that of which the size is known.
_SIZED = {
    "job": "job in flight, of one request",
    "submit.ours": "request of 1.9 KB",
    "fetch.ours": "result of 1.8 KB",
}

#: The store that the others are compared to.
BASELINE = "Redis"


@dataclass
class Comparison:
    """What was measured, by number of jobs, case and store."""

    measured: dict[tuple[int, str, str], Measured] = field(default_factory=dict)
    #: How often something has waited for a lock.
    lock_waits: dict[tuple[int, str, str], int] = field(default_factory=dict)
    #: Bytes of a job in flight (``job``), and of each record of a case, by server.
    sizes: dict[tuple[int, str, str], float] = field(default_factory=dict)

    def add(self, jobs: int, store: str, found: Measured, lock_waits: int) -> None:
        """Add a case; of several runs of it, the fastest stays."""
        key = (jobs, found.case, store)
        self.measured[key] = min(found, self.measured.get(key, found), key=lambda each: each.seconds)
        self.lock_waits[key] = max(lock_waits, self.lock_waits.get(key, 0))

    def compare_time(self, jobs: int, case: str, store: str) -> float:
        """Return how many times as long as on Redis something takes."""
        return self.measured[jobs, case, BASELINE].rate / self.measured[jobs, case, store].rate

    def describe_load(self, jobs: int, case: str, store: str) -> list[str]:
        """Return what a case writes in a database, and how often it has waited for locks; nothing if it is none."""
        m = self.measured[jobs, case, store]
        if "wal" not in m.values:
            return []
        each = [f"{m.values['wal'] / m.records:,.0f} B", f"{m.values['transactions'] / m.records:.2f}"]
        return [*each, str(self.lock_waits[jobs, case, store])]


def list_lines(found: Comparison, jobs: int) -> Iterator[str]:
    """Yield what was measured with so many jobs."""
    yield f"{'case':20} {'jobs':>8} {'store':16} {'rate':>11} {'CPU':>11} {'wall':>9} {'memory':>10} {'of Redis':>9}"
    for (count, case, store), m in found.measured.items():
        if count == jobs:
            load = ", ".join(found.describe_load(count, case, store))
            yield (
                f"{case:20} {count:>8,} {store:16} {m.rate:>9,.0f}/s {m.cpu_seconds / m.records * 1e6:>8.1f} us "
                f"{m.seconds:>7.2f} s {m.peak_mb:>7.1f} MB {found.compare_time(count, case, store):>9.2f}"
                f"{load and f'  WAL, writing transactions, waits for locks: {load}'}"
            )
    for (count, what, server), size in found.sizes.items():
        if count == jobs:
            yield f"  at {count:,} jobs: {_SIZED[what]}: {size:,.0f} B, {server}"


def list_tables(found: Comparison) -> Iterator[str]:
    """Yield the tables of a run as lines of Markdown."""
    stores = list(dict.fromkeys(store for _, _, store in found.measured))
    rows = sorted({(list(TITLES).index(case), jobs, case) for jobs, case, _ in found.measured})
    cases = [
        (jobs, case, [store for store in stores if (jobs, case, store) in found.measured]) for _, jobs, case in rows
    ]

    def fill_row(jobs: int, case: str, cells: dict[str, str]) -> list[str]:
        return [TITLES[case], f"{jobs:,}", *(cells.get(store, "") for store in stores)]

    yield from _make_table(
        ["path", "jobs in flight", BASELINE, *(f"{store}, times {BASELINE}" for store in stores[1:])],
        [
            fill_row(jobs, case, {
                store: f"{found.compare_time(jobs, case, store):.2f}" for store in known
            } | {BASELINE: _duration(1 / found.measured[jobs, case, BASELINE].rate)})
            for jobs, case, known in cases
        ],
    )  # fmt: skip
    yield ""
    yield from _make_table(
        ["CPU each, memory", "jobs in flight", *stores],
        [
            fill_row(jobs, case, {store: _describe_use(found.measured[jobs, case, store]) for store in known})
            for jobs, case, known in cases
        ],
    )
    yield ""
    yield from _make_table(
        ["what", "jobs in flight", "server", "bytes each"],
        [[_SIZED[what], f"{jobs:,}", server, f"{size:,.0f}"] for (jobs, what, server), size in found.sizes.items()],
    )
    yield ""
    yield from _make_table(
        ["path", "jobs in flight", "store", "WAL each", "writing transactions each", "waits for locks"],
        [
            [TITLES[case], f"{jobs:,}", store, *load]
            for jobs, case, known in cases
            for store in known
            if (load := found.describe_load(jobs, case, store))
        ],
    )


def _describe_use(m: Measured) -> str:
    return f"{_duration(m.cpu_seconds / m.records)}, {m.peak_mb:.0f} MB"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds >= 0.001 else f"{seconds * 1e6:.1f} us"


def _make_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for line in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(line)} |"
