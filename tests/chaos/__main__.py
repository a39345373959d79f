"""``python -m tests.chaos``: many seeds in several processes, one seed again, or the list of crash points anew."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.chaos import ledgers, schedule
from tests.chaos.points import CALLED_BACK, operation_of, operations
from tests.chaos.run import Bench, Report, as_json, failure, from_json
from tests.support import STORE


def main() -> int:
    """Returns the exit status: 1 if a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="so many, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="only this one, with all its details")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--report", type=Path, help="a file for the details of failed seeds; default: the output")
    parser.add_argument("--points", action="store_true", help="write the list of crash points anew")
    parser.add_argument("--wild", type=int, default=40, help="of --points: runs in which workers die")
    parser.add_argument("--mixed", action="store_true", help="half of the workers and callers are of the last release")
    parser.add_argument("--store", choices=ledgers.KINDS, default=STORE)
    parser.add_argument("--only", type=lambda text: [int(part) for part in text.split(",")], help=argparse.SUPPRESS)
    given = parser.parse_args()
    # The workers and servers of a run that is ended must not stay behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    # A shell has what it starts in the background ignore these, and a worker that starts would lose a stop with them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    if given.points:
        return find_points(given.wild)
    fleet = _Fleet(given.mixed, given.store)
    if given.only:
        return serve(given.only, fleet)
    if given.seed is not None:
        return again(given.seed, fleet)
    return many(range(given.first, given.first + given.seeds), given.processes, given.report, fleet)


class _Fleet(NamedTuple):
    """Which workers, and on which store."""

    mixed: bool
    store: str

    @property
    def options(self) -> list[str]:
        """What says so on the command line."""
        return [*["--mixed"] * self.mixed, "--store", self.store]


def again(seed: int, fleet: _Fleet) -> int:
    """One seed, with its schedule and all that is known of it."""
    with Bench(**fleet._asdict()) as bench:
        planned = bench.schedule(seed)
        print(planned, flush=True)
        report = bench.run(planned)
    print(failure(report) if report.problems else f"seed {seed} is well: {as_json(report)}")
    return bool(report.problems)


def find_points(wild: int) -> int:
    """Run every weather without kills, then wild runs, and write down which points are passed, and where most often.

    Some points are passed after deaths alone, so what wild runs alone have passed gets deaths for its weather as well.
    """
    best: dict[str, schedule.Known] = {}
    with Bench() as bench:
        for weather in schedule.WEATHERS:
            _add_points(best, bench.run(schedule.quiet(weather)), weather)
        for seed in range(wild):
            planned = schedule.wild(seed)
            found: dict[str, schedule.Known] = {}
            _add_points(found, bench.run(planned), "+".join(dict.fromkeys((*planned.weather, "deadly"))))
            best = {**found, **best}
    known = operations()
    schedule.write_points([point for name, point in best.items() if not name.endswith(CALLED_BACK)])
    print(f"{len(best)} crash points; never passed: {', '.join(sorted(known - {operation_of(name) for name in best}))}")
    return 0


def _add_points(best: dict[str, schedule.Known], report: Report, weather: str) -> None:
    print(f"{weather}: {len(report.hits)} points, {report.seconds:.1f} s", flush=True)
    if report.problems:
        print(failure(report))
    for name, passed in report.hits.items():
        if name not in best or passed > best[name].passed:
            best[name] = schedule.Known(name, weather, passed)


def serve(seeds: list[int], fleet: _Fleet) -> int:
    """Run seeds, and write a line of JSON for each: what the processes of ``many`` do."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with Bench(**fleet._asdict()) as bench:
        for seed in seeds:
            try:
                report = bench.run(bench.schedule(seed))
            except Exception as exc:  # noqa: BLE001 - one broken run must not end the others
                report = Report(seed, problems=[f"the run broke: {type(exc).__name__}: {exc}"])
                if bench.crew is not None:
                    bench.crew.close()
                    bench.crew = None
            print(as_json(report), flush=True)
    return 0


def _end_with_parent() -> None:
    sys.stdin.read()
    signal.raise_signal(signal.SIGTERM)


def many(seeds: range, processes: int, path: Path | None, fleet: _Fleet) -> int:
    """Run seeds side by side, then say what came of them."""
    began = time.monotonic()
    size = schedule.BLOCK
    blocks = [[seed for seed in seeds if seed // size == block] for block in {seed // size: 0 for seed in seeds}]
    shares = [[seed for block in blocks[place::processes] for seed in block] for place in range(processes)]
    reports: list[Report] = []
    lock = threading.Lock()

    def listen(share: list[int]) -> None:
        for report in _lines(share, fleet):
            with lock:
                reports.append(report)
                _tell(report, len(reports), len(seeds), path)

    threads = [threading.Thread(target=listen, args=[share], daemon=True) for share in shares if share]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():  # a join without a limit would hold up signals
            thread.join(1.0)
    missing = sorted(set(seeds) - {report.seed for report in reports})
    print(table(reports, time.monotonic() - began))
    if missing:
        print(f"not run, as their process ended: {missing}")
    return bool(missing or any(report.problems for report in reports))


def _lines(share: list[int], fleet: _Fleet) -> Iterator[Report]:
    command = [sys.executable, "-m", "tests.chaos", "--only", ",".join(map(str, share)), *fleet.options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                yield from_json(line)
            else:
                print(line, end="")


def _tell(report: Report, number: int, count: int, path: Path | None) -> None:
    state = "FAILED" if report.problems else "ok"
    what = ", ".join(f"{n} {kind}" for kind, n in sorted(report.done.items()) if n)
    slow = f" (pace {report.pace})" if report.pace > 1 else ""
    at = f" at {', '.join(report.fired)}" if report.fired else ""
    print(f"[{number}/{count}] seed {report.seed} {state} {report.seconds:.1f} s{slow}: {what}{at}", flush=True)
    if report.problems:
        print("\n".join(f"    {problem}" for problem in report.problems), flush=True)
        if path is None:
            print(failure(report), flush=True)
        else:
            with path.open("a") as file:
                file.write(failure(report) + "\n\n" + "=" * 100 + "\n")


def table(reports: list[Report], seconds: float) -> str:
    """The figures of a run."""
    known = {point.name for point in schedule.known_points()}
    done, counts = Counter[str](), Counter[str]()
    visited: set[str] = set()
    passed: set[str] = set()
    for report in reports:
        done.update(report.done)
        counts.update(report.counts)
        visited.update(report.fired)
        passed.update(report.hits)
    failed = sorted(report.seed for report in reports if report.problems)
    rows: list[tuple[str, object]] = [
        ("seeds", len(reports)),
        ("jobs", sum(report.jobs for report in reports)),
        ("requests", sum(report.requests for report in reports)),
        *((kind, number) for kind, number in sorted(done.items()) if number),
        ("crash points visited", f"{len(visited & known)} of {len(known)}"),
        ("redeliveries", sum(report.redeliveries for report in reports)),
        ("orphan searches", sum(report.searches for report in reports)),
        *((kind, number) for kind, number in sorted(counts.items()) if number),
        ("failures", f"{len(failed)} {failed or ''}"),
        ("seconds per seed", round(sum(report.seconds for report in reports) / max(len(reports), 1), 1)),
        ("wall time", f"{seconds:.0f} s"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    if new := sorted(name for name in passed - known if not name.endswith(CALLED_BACK)):
        lines.append(f"{len(new)} points are not on the list (--points writes it anew), such as {', '.join(new[:5])}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
