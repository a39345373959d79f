"""Writes the settings into docs/reference/settings.md: ``python docs/settings_table.py``."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from claude_batch_tasks.settings import Settings

PAGE = Path(__file__).parent / "reference" / "settings.md"
_BETWEEN = re.compile(r"(<!-- settings: begin -->\n).*(<!-- settings: end -->)", re.DOTALL)

#: The settings by subject, in the order of the page. Every setting is in one of these.
GROUPS = {
    "Costs": [
        "max_cost",
        "max_fallback_cost",
        "max_fallback_requests",
        "prices",
    ],
    "What is sent again": [
        "retries",
        "fallback",
        "deadline",
        "refusal_model",
        "max_tokens_limit",
        "continue_paused",
        "reask",
        "messages_limit",
        "max_messages_in_flight",
    ],
    "Time": [
        "max_wait",
        "poll_min",
        "poll_max",
        "retry_min",
        "retry_max",
        "timeout",
    ],
    "404s and unclear answers": [
        "not_found_grace",
        "listings",
        "create_not_found_limit",
        "create_settle",
        "on_unresolved_create",
        "clock_skew",
        "proxy_error_grace",
        "results_limit",
    ],
    "Batches": [
        "max_requests_per_batch",
        "max_bytes_per_batch",
        "max_batches_in_flight",
    ],
    "Asks": [
        "ask_max_requests",
        "ask_max_bytes",
        "ask_max_wait",
        "ask_max_cost",
        "ask_cost_window",
        "ask_mode",
    ],
    "Store": [
        "store_url",
        "store_prefix",
        "encryption_key",
        "payload_url",
        "result_ttl",
        "spool_dir",
    ],
    "Accounts and clients": [
        "client_factories",
        "workspace_id",
        "user_profile_id",
        "betas",
    ],
    "Workers": [
        "lease",
        "max_step_failures",
        "recover_every",
        "recover_after",
    ],
    "Metrics": [
        "instruments",
        "metrics_port",
        "metrics_job_label",
    ],
}


def describe(field: dataclasses.Field[object]) -> str:
    """Return the section of one setting."""
    if field.default is dataclasses.MISSING:
        default = "one client, named `default`" if field.name == "client_factories" else "none"
    elif isinstance(field.default, float):
        default = f"`{field.default:g}`"
    else:
        default = "none" if field.default in (None, ()) else f"`{field.default}`"
    meaning = field.metadata["meaning"].replace("docs/howto/monitoring.md", "[monitoring](../howto/monitoring.md)")
    per_job = " · also for one job" if field.metadata["per_job"] else ""
    if field.name.startswith("ask_"):
        per_job = " · also for one ask"
    return f"### `{field.name}`\n\nDefault: {default}{per_job}\n\n{meaning[0].upper()}{meaning[1:]}.\n"


def sections() -> str:
    """Return the settings as Markdown: an overview, then a section for each."""
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    assert sorted(fields) == sorted(name for names in GROUPS.values() for name in names), "each setting in one group"
    rows = ["| subject | settings |", "|---|---|"]
    rows += [
        f"| **{group}** | {', '.join(f'[`{name}`](#{name})' for name in names)} |" for group, names in GROUPS.items()
    ]
    parts = ["\n".join(rows) + "\n"]
    for group, names in GROUPS.items():
        parts += [f"## {group}\n", *(describe(fields[name]) for name in names)]
    return "\n" + "\n".join(parts) + "\n"


def updated(text: str) -> str:
    """Return the page with the present settings."""
    return _BETWEEN.sub(lambda found: found[1] + sections() + found[2], text)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
