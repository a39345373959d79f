"""Runs the table and writes the documentation's page: ``python -m tests.conformance [--all] [LANE ...]``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.conformance import page, project
from tests.conformance.bench import LANES, Configuration, servers
from tests.conformance.suite import required, run, runs, verdict, verdict_of_ask, why_not
from tests.conformance.table import USUAL, Row


def main() -> int:
    """Run the lanes one after the other; how many rows were not as expected."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("lanes", nargs="*", metavar="LANE", help=f"of {', '.join(map(str, LANES))}; all")
    parser.add_argument("--all", action="store_true", help="configurations on every lane, not where they matter alone")
    parser.add_argument("--usual", action="store_true", help="rows without a configuration of their own")
    parser.add_argument("--own", action="store_true", help="rows with one")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows with this in their names")
    arguments = parser.parse_args()
    wrong = 0
    with servers() as found, tempfile.TemporaryDirectory(prefix="claude-batch-conformance-") as folder:
        for lane in LANES:
            if arguments.lanes and str(lane) not in arguments.lanes:
                continue
            if why := why_not(lane):
                print(f"{lane}: left out: {why}")
                continue
            rows = [row for row in runs(lane) if arguments.all or required(row, lane)]
            rows = [row for row in rows if arguments.only in row.name]
            if arguments.usual or arguments.own:
                rows = [row for row in rows if (row.configuration == USUAL) == arguments.usual]
            grouped: dict[Configuration, list[Row]] = {}
            for row in rows:
                grouped.setdefault(row.configuration, []).append(row)
            for number, together in enumerate(grouped.values()):
                began = time.monotonic()
                seen: dict[str, dict[str, str]] = {}
                for row, observed in run(found, lane, together, Path(folder) / str(lane) / str(number)):
                    text = verdict(row, observed)
                    seen[row.name] = {str(lane): text}
                    if project.ASK in observed:
                        of_ask = seen[row.name]["ask"] = verdict_of_ask(row, observed)
                        wrong += bool(of_ask)
                        print(f"{lane}: ask: {row.name}: {of_ask or 'as expected'}")
                    wrong += bool(text)
                    print(f"{lane}: {row.name}: {text or row.expected}")
                print(f"{lane}: {len(together)} rows in {time.monotonic() - began:.0f} s", flush=True)
                page.write(seen)
    return wrong


if __name__ == "__main__":
    sys.exit(bool(main()))
