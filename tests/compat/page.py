"""The documentation's page: what each client did on each scenario, when it was last run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.compat.clients import CLIENTS, Client

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "compatibility.md"
RESULTS = Path(__file__).parent / "results.json"
SCENARIOS = ("healthy", "issue-1432", "issue-1432-created")
_BETWEEN = re.compile(r"(<!-- (\w+): begin -->\n).*?(<!-- \2: end -->)", re.DOTALL)


def read_results() -> dict[str, Any]:
    """Return what the last runs saw, by the names of clients."""
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def write_results(seen: Mapping[str, Mapping[str, Any]]) -> None:
    """Put what was seen in the place of what was seen before of the same clients and scenarios, and write the page."""
    known = read_results()
    for name, entry in seen.items():
        before = known.get(name, {})
        same = before.get("versions") == entry["versions"]
        known[name] = {**entry, "runs": {**(before.get("runs", {}) if same else {}), **entry["runs"]}}
    kept = {client.name: known[client.name] for client in CLIENTS if client.name in known}
    RESULTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(update_page(PAGE.read_text()))


def update_page(text: str) -> str:
    """Return the page with the present tables."""
    seen = read_results()
    tables = {"clients": _make_table(seen), "paths": _make_paths(seen)}
    return _BETWEEN.sub(lambda found: f"{found[1]}\n{tables[found[2]]}\n{found[3]}", text)


def _make_table(seen: Mapping[str, Any]) -> str:
    lines = ["| client | " + " | ".join(f"`{name}`" for name in SCENARIOS) + " |", "|---" * (len(SCENARIOS) + 1) + "|"]
    for client in CLIENTS:
        entry = seen.get(client.name, {})
        cells = [_make_cell(entry, scenario) for scenario in SCENARIOS]
        lines.append(f"| {client.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _make_cell(entry: Mapping[str, Any], scenario: str) -> str:
    if why := entry.get("not_installed"):
        return f"not installed: {_escape(why)}"
    run = entry.get("runs", {}).get(scenario)
    return _escape(run["verdict"]) if run else "not run"


def _make_paths(seen: Mapping[str, Any]) -> str:
    lines = ["| client | versions | what it runs |", "|---|---|---|"]
    lines += [f"| {client.title} | {_list_versions(client, seen)} | {client.path} |" for client in CLIENTS]
    return "\n".join(lines) + "\n"


def _list_versions(client: Client, seen: Mapping[str, Any]) -> str:
    versions = seen.get(client.name, {}).get("versions") or dict(each.split("==") for each in client.packages)
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(update_page(PAGE.read_text()))
