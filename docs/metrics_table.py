"""Writes the tables of metrics and alerts into howto/monitoring.md: ``python docs/metrics_table.py``."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from claude_batch_tasks.metrics import METRICS

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "howto" / "monitoring.md"


def metrics_table() -> str:
    """The metrics as a Markdown table, each under the name that Prometheus stores it by."""
    rows = ["| name | kind | labels | meaning |", "|---|---|---|---|"]
    for metric in METRICS.values():
        labels = "; ".join(f"`{name}`: {', '.join(known) or 'any'}" for name, known in metric.labels.items())
        rows.append(f"| `{metric.exposed_name}` | {metric.kind} | {labels} | {metric.help} |")
    return "\n".join(rows) + "\n"


def alerts_table() -> str:
    """The alerts as a Markdown table."""
    rows = ["| alert | meaning | what to do |", "|---|---|---|"]
    (group,) = yaml.safe_load((ROOT / "monitoring" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]:
        told = rule["annotations"]
        rows.append(f"| `{rule['alert']}` | {told['description']} | {told['action']} |")
    return "\n".join(rows) + "\n"


def updated(text: str) -> str:
    """The page with the present tables."""
    for name, table in (("metrics", metrics_table()), ("alerts", alerts_table())):
        text = re.sub(
            rf"(<!-- {name}: begin -->\n).*(<!-- {name}: end -->)",
            lambda found, table=table: found[1] + table + found[2],  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
    return text


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
