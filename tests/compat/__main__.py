"""Runs other clients on the simulator: ``python -m tests.compat [--write] [--scenario NAME] [CLIENT ...]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from claude_batch_tasks.simulator import SCENARIOS as KNOWN
from tests.compat.clients import CLIENTS, Client
from tests.compat.environments import NotInstalled, install, read_versions
from tests.compat.page import SCENARIOS, write_results
from tests.compat.running import run_client


def main() -> int:
    """Run the clients; on how many of them `healthy` is not what the list says."""
    parser = argparse.ArgumentParser(prog="python -m tests.compat", description=__doc__)
    parser.add_argument("clients", nargs="*", metavar="CLIENT", help=f"of {', '.join(each.name for each in CLIENTS)}")
    parser.add_argument("--scenario", action="append", choices=KNOWN, help=f"instead of {', '.join(SCENARIOS)}")
    parser.add_argument("--write", action="store_true", help="write docs/reference/compatibility.md")
    parser.add_argument("--processes", type=int, default=2, help="how many clients run at a time")
    arguments = parser.parse_args()
    if unknown := set(arguments.clients) - {each.name for each in CLIENTS}:
        parser.error(f"no client {', '.join(sorted(unknown))}")
    chosen = [each for each in CLIENTS if not arguments.clients or each.name in arguments.clients]
    scenarios = arguments.scenario or SCENARIOS
    wrong = 0
    with ThreadPoolExecutor(arguments.processes) as pool:
        for client, entry in zip(chosen, pool.map(lambda client: _run_all(client, scenarios), chosen), strict=True):
            wrong += "healthy" in scenarios and _works(entry) != client.works
            if arguments.write:
                write_results({client.name: entry})
    return wrong


def _run_all(client: Client, scenarios: Sequence[str]) -> dict[str, Any]:
    try:
        folder = install(client)
    except NotInstalled as error:
        print(f"{client.name}: not installed: {error}", flush=True)
        return {"versions": {}, "not_installed": str(error), "runs": {}}
    runs = {}
    for scenario in scenarios:
        run = run_client(client, folder, scenario)
        print(f"{client.name}, {scenario}: {run['verdict']} ({run['seconds']} s, {run['batches']} batches)", flush=True)
        runs[scenario] = run
    return {"versions": read_versions(client, folder), "runs": runs}


def _works(entry: dict[str, Any]) -> bool:
    if "not_installed" in entry:
        return False
    return bool(entry["runs"]["healthy"]["verdict"].startswith("works"))


if __name__ == "__main__":
    sys.exit(bool(main()))
