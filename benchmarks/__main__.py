"""Run the benchmarks and print a table.

    python -m benchmarks                                # everything but ask and in_flight, four minutes
    python -m benchmarks fetch read --records 10000     # these groups, at this size only
    python -m benchmarks stores                         # Redis, PostgreSQL and S3 next to each other, see stores.py

Each case runs in a process of its own against a Redis and a bare HTTP server of the benchmark's own. A ratio compares
two cases of the same run at the same size.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from dataclasses import dataclass

from benchmarks.measure import Measured, run
from benchmarks.servers import servers
from benchmarks.stores import compare_stores


@dataclass(frozen=True)
class Group:
    """Cases that belong together, in the order in which they run, and the sizes they are run at."""

    cases: tuple[str, ...]
    sizes: tuple[int, ...] = (1_000, 10_000, 100_000)


GROUPS = {
    "submit": Group(("submit.dumps_only", "submit.ours")),
    "submit_million": Group(("submit.ours_small",), (1_000_000,)),
    "create": Group(
        (
            *("create.dumps_and_send", "create.sdk", "create.prepare", "create.ours"),
            *("create.prepare_signed", "create.signed"),
        )
    ),
    "fetch": Group(("world.prepare", "fetch.raw_copy", "fetch.sdk_loop", "fetch.ours")),
    # Whether answers are complete is judged since the release.
    "judged": Group(("released.world.prepare", "released.fetch.ours", "world.prepare", "fetch.ours"), (100_000,)),
    # The results that ``fetch`` has stored.
    "read": Group(
        ("read.ours", "read.in_order", "read.errored", "read.export", "read.arrow", "read.round_trips", "read.one")
    ),
    "end_to_end": Group(("end_to_end.batchwizard", "end_to_end.ours"), (50_000,)),
    "fallback": Group(("fallback.a_task_each", "fallback.ours"), (2_000,)),
    "large_job": Group(("large_job.ours",), (1_000_000,)),
    "ask": Group(("ask.no_op", "ask.short", "ask.long", "ask.delivered"), (10_000, 100_000)),
    "in_flight": Group(("in_flight.every_60_s", "in_flight.ours"), (10, 1_000, 10_000)),
}

#: Take ten minutes, and three quarters of an hour, and so run only when they are named.
LONG = ("ask", "in_flight")

#: Of times, by name: numerator over denominator, cases added up, and what is promised.
RATIOS = {
    "fetch, times as fast as the SDK's loop": (("fetch.sdk_loop",), ("fetch.ours",), "5 or more"),
    "fetch, of the time of a raw copy": (("fetch.ours",), ("fetch.raw_copy",), "2 or less"),
    "fetch, of the rate of 0.2.0": (("released.fetch.ours",), ("fetch.ours",), "0.9 or more"),
    "read, times as fast as the SDK's loop": (("fetch.sdk_loop",), ("read.ours",), "3 or more"),
    "submit + create, of the time of dumps and send": (
        ("submit.ours", "create.ours"),
        ("create.dumps_and_send",),
        "2 or less",
    ),
    "submit, of the time of json.dumps of the same requests": (("submit.ours",), ("submit.dumps_only",), "1.2 or less"),
    "one result, of the time of its four round trips": (("read.one",), ("read.round_trips",), "4 or less"),
    "fallback, times as fast as a task for each request": (("fallback.a_task_each",), ("fallback.ours",), "1 or more"),
    "ask.delay, of the time of a no-op task's": (("ask.short",), ("ask.no_op",), "2 or less"),
    "end to end, times as fast as batchwizard": (("end_to_end.batchwizard",), ("end_to_end.ours",), "5 or more"),
}


#: Of other figures: figure, case over case.
COUNTED = {
    "looks, times as many where each batch is looked at every 60 s": (
        "looks", "in_flight.every_60_s", "in_flight.ours",
    ),
    "messages, times as many where each batch is looked at every 60 s": (
        "messages", "in_flight.every_60_s", "in_flight.ours",
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", help=", ".join(GROUPS))
    parser.add_argument("--records", type=int, nargs="+", help="sizes, in place of each group's own")
    parser.add_argument("--repeat", type=int, default=1, help="run each case so many times, and show the fastest")
    parser.add_argument("--jobs", default="10,1000,100000", help="of stores: how many are in flight meanwhile")
    parser.add_argument("--markdown", action="store_true", help="of stores: print the tables of the documentation")
    options = parser.parse_args()
    if options.groups == ["stores"]:
        print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores\n")
        jobs = map(int, options.jobs.split(","))
        compare_stores(jobs, (options.records or [10_000])[0], options.repeat, markdown=options.markdown)
        return
    if unknown := set(options.groups) - set(GROUPS):
        parser.error(f"no such group: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    chosen = [GROUPS[name] for name in options.groups or GROUPS if name in options.groups or name not in LONG]
    if GROUPS["read"] in chosen and GROUPS["fetch"] not in chosen:
        chosen.insert(0, GROUPS["fetch"])
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores\n")
    print(f"{'case':24} {'records':>9} {'rate':>13} {'CPU each':>11} {'wall':>10} {'memory':>11}")
    for size in sorted({size for group in chosen for size in options.records or group.sizes}):
        cases = [case for group in chosen if size in (options.records or group.sizes) for case in group.cases]
        found: dict[str, Measured] = {}
        for _ in range(options.repeat):  # all cases each time: what else the machine does meets all of them
            with servers() as (redis, api):
                for case in cases:
                    measured = run(case, size, redis, api)
                    found[case] = min(measured, found.get(case, measured), key=lambda each: each.seconds)
        for measured in found.values():
            if measured.seconds:
                show(measured)
        for name, (above, below, promised) in RATIOS.items():
            # Of fewer records a ratio says more about what is done once than about the records.
            enough = size >= 10_000 or "fallback.ours" in below
            if enough and {*above, *below} <= set(found):
                ratio = sum(found[case].seconds for case in above) / sum(found[case].seconds for case in below)
                print(f"  at {size:,}: {name}: {ratio:.1f} ({promised})")
        for name, (figure, above_case, below_case) in COUNTED.items():
            if {above_case, below_case} <= set(found):
                ratio = found[above_case].values[figure] / found[below_case].values[figure]
                print(f"  at {size:,}: {name}: {ratio:.1f}")
        sys.stdout.flush()


def show(measured: Measured) -> None:
    """One line of the table. Memory is the peak over what was resident when the measured part began."""
    m = measured
    print(
        f"{m.case:24} {m.records:>9,} {m.rate:>11,.0f}/s {m.cpu_seconds / m.records * 1e6:>8.1f} us "
        f"{m.seconds:>8.2f} s {m.peak_mb:>8.1f} MB  {m.notes}"
    )


if __name__ == "__main__":
    main()
