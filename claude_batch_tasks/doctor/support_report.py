"""The report on one job and the versions in use: one block of Markdown to paste into a support ticket.

It has no prompt, no answer, no key, no password, and no name of a host.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from celery import Celery

from claude_batch_tasks.checks.servers import find_servers
from claude_batch_tasks.checks.versions import list_versions
from claude_batch_tasks.doctor import servers
from claude_batch_tasks.formatting import format_counts, format_unpriced
from claude_batch_tasks.jobs.batch_job import BatchJob
from claude_batch_tasks.jobs.job_status import JobStatus
from claude_batch_tasks.records import HistoryEvent, JobRecord, WorkerPresence
from claude_batch_tasks.settings import Settings, display, store_urls
from claude_batch_tasks.store import open_store

#: How many outcomes are read at most to count the types of errors.
_ERRORS = 1_000


def write_report(app: Celery, job_id: str, *, workers: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """Return the report as Markdown.

    Args:
        workers: the versions that each worker reported, by the worker's name.

    Raises:
        JobNotFound: the store has no such job.
        StoreUnavailable: the store does not answer.
    """
    job = BatchJob(job_id, app)
    status, settings = job.status(), Settings.of(app)
    store = open_store(settings)
    record = store.jobs.read_job(job_id)
    assert record is not None
    history = job.history()
    sections = {
        "Job": _format_table(_job_rows(status, record)),
        "Versions": _format_table(_version_rows(app, workers or {})),
        "Settings that differ from the defaults": _format_table(display.list_changes(settings, record.options))
        or ["none"],
        "Workers": _worker_table(store.presence.list_workers()),
        "Batches": _batch_table(status),
        "Latencies": _latency_table(history),
        "404s": _not_found(status, history),
        "Timeline": _timeline_table(status, history),
    }
    if kinds := _kinds_of_errors(job):
        sections["Errors of requests"] = _format_table(kinds)
    lines = [f"## claude-batch report of job {job_id}"]
    for title, body in sections.items():
        lines += ["", f"### {title}", "", *body]
    return _hide_hosts(_list_hosts(app), "\n".join(lines)) + "\n"


def _format_table(rows: Mapping[str, Any]) -> list[str]:
    return _grid("| | |", rows.items()) if rows else []


def _grid(head: str, rows: Iterable[Iterable[Any]]) -> list[str]:
    line = "|---" * (head.count("|") - 1) + "|"
    return [head, line, *(f"| {' | '.join(map(_format_cell, row))} |" for row in rows)]


def _format_cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _job_rows(status: JobStatus, record: JobRecord) -> dict[str, Any]:
    counts = {name: getattr(status, name) for name in ("succeeded", "errored", "expired", "canceled")}
    rows = {
        "state": status.state,
        "error": status.error,
        "stopped": status.stopped,
        "requests": f"{status.requests:,}: {format_counts(counts)}, {status.processing:,} without an outcome",
        "of these": f"{status.resubmitted:,} from a smaller batch, {status.fallback:,} through the Messages API",
        "client": record.client,
        "organization": record.organization,
        "workspace": record.workspace,
        "queue": record.queue,
        "models": ", ".join(status.cost_by_model) or None,
        "cost, US dollars": None if status.cost is None else f"{status.cost:.6f}",
        "not in it": format_unpriced(status.cost_unknown) or None,
        "submitted": f"{status.submitted_at:%Y-%m-%d %H:%M:%S} UTC",
        "started": _format_since(status, status.started_at),
        "ended": _format_since(status, status.ended_at),
        "reported": _format_since(status, datetime.now(timezone.utc)),
    }
    return {name: value for name, value in rows.items() if value is not None}


def _format_since(status: JobStatus, moment: datetime | None) -> str | None:
    return None if moment is None else f"after {(moment - status.submitted_at).total_seconds():,.1f} s"


def _version_rows(app: Celery, workers: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    here = list_versions()
    rows = {**here, **_server_versions(app)}
    for number, theirs in enumerate(workers.values(), 1):
        other = {name: version for name, version in theirs.items() if here.get(name) != version}
        rows[f"worker {number}"] = ", ".join(f"{name} {version}" for name, version in other.items()) or "the same"
    return rows


def _worker_table(workers: Iterable[WorkerPresence]) -> list[str]:
    """Return a table of the workers that report to the store, by number: their names have the names of hosts."""
    rows = (
        (
            number,
            ", ".join(worker.queues),
            f"{worker.pool or '?'}, {worker.processes or '?'}",
            worker.version,
            ", ".join(f"{name} {value}" for name, value in worker.settings.items()) or "none",
        )
        for number, worker in enumerate(workers, 1)
    )
    table = _grid("| worker | queues | pool, processes | release | settings that differ from the defaults |", rows)
    return table if len(table) > 2 else ["none has reported to the store in the last minute; before 0.3 they do not"]


def _server_versions(app: Celery) -> dict[str, str]:
    """Return the kind and version of each server, by its roles."""
    found, settings = {}, Settings.of(app)
    for server in find_servers(app, settings):
        report = server.inspect(settings)
        why = "".join(
            f" ({each.values['error'].partition(':')[0]})" for each in report.problems if "error" in each.values
        )
        silent = f"a {store_urls.store_product(server.url)} that does not report its version{why}"
        found[", ".join(server.roles)] = report.product or silent
    named = " ".join(found)
    if "broker" not in named:
        with servers.open_broker(app) as connection:
            if connection is None:
                found["broker"] = "does not answer"
            else:
                version = servers.broker_version(connection).removeprefix(": ")
                found["broker"] = version or connection.transport.driver_type
    if "result back end" not in named:
        found["result back end"] = type(app.backend).__name__
    return found


def _batch_table(status: JobStatus) -> list[str]:
    rows = (
        (each.number, each.batch_id or "-", each.state, each.requests, each.polls, each.polls_404, each.error or "")
        for each in status.batches
    )
    return _grid("| batch | id | state | requests | polls | 404s | error |", rows)


def _latency_table(history: Iterable[HistoryEvent]) -> list[str]:
    """Return a table of the times from one stage to the next, for each batch that was created."""
    rows = []
    stages: dict[tuple[int | None, str], dict[str, HistoryEvent]] = {}
    for event in history:
        if batch_id := event.details.get("batch_id"):
            stages.setdefault((event.batch, batch_id), {}).setdefault(event.event, event)
    for (batch, _), seen in stages.items():
        if "created" in seen:
            took = seen["created"].details.get("seconds")
            pairs = (("created", "seen"), ("created", "ended"), ("ended", "fetched"))
            times = (_format_between(seen, *pair) for pair in pairs)
            rows.append((batch, "-" if took is None else f"{took:.3f} s", *times))
    head = "| batch | create took | first seen after | ended after | results after that |"
    return _grid(head, rows) if rows else ["none was created"]


def _format_between(seen: Mapping[str, HistoryEvent], begin: str, end: str) -> str:
    return f"{(seen[end].at - seen[begin].at).total_seconds():,.1f} s" if begin in seen and end in seen else "-"


def _not_found(status: JobStatus, history: Iterable[HistoryEvent]) -> list[str]:
    """Return a table of the 404s by endpoint: how many, and when, counted from the batch's create."""
    created: dict[int | None, datetime] = {}
    met: dict[str, list[str]] = {}
    for event in history:
        if event.event in ("created", "adopted"):
            created.setdefault(event.batch, event.at)
        elif event.event == "not_found":
            begun = created.get(event.batch)
            since = "create" if begun else "submission"
            seconds = (event.at - (begun or status.submitted_at)).total_seconds()
            met.setdefault(str(event.details.get("endpoint")), []).append(f"{seconds:,.1f} s after {since}")
    if not met:
        return ["none"]
    return _format_table({endpoint: f"{len(times)}: {', '.join(times[:20])}" for endpoint, times in met.items()})


def _timeline_table(status: JobStatus, history: Iterable[HistoryEvent]) -> list[str]:
    rows = []
    for event in history:
        seconds = f"{(event.at - status.submitted_at).total_seconds():,.1f}"
        details = ", ".join(f"{name} {value}" for name, value in _pick_details(event.details))
        batch = "" if event.batch is None else event.batch
        rows.append((seconds, batch, event.event, event.text, details))
    return _grid("| seconds | batch | event | what | details |", rows)


def _pick_details(details: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the details that the event's text does not have."""
    names = {"seconds": "call took", "countdown": "countdown"}
    for name in ("endpoint", "status", "request_id", "seconds", "countdown"):
        if name in details:
            yield names.get(name, name), details[name]


def _kinds_of_errors(job: BatchJob) -> dict[str, int]:
    results = islice(job.results("errored"), _ERRORS)
    return dict(Counter(str((result.error or {}).get("type")) for result in results).most_common())


def _list_hosts(app: Celery) -> set[str]:
    """Return the host names of the app's servers."""
    settings = Settings.of(app)
    assert settings.store_url is not None
    urls: list[Any] = [f"//{host}" for host in store_urls.store_hosts(settings.store_url)]
    urls.append(app.conf.result_backend)
    brokers: tuple[Any, ...] = (app.conf.broker_url, app.conf.broker_read_url, app.conf.broker_write_url)
    for setting in brokers:
        urls += setting if isinstance(setting, (list, tuple)) else [setting]
    return {host for url in urls for part in str(url or "").split(";") if (host := urlsplit(part).hostname)}


def _hide_hosts(hosts: Iterable[str], text: str) -> str:
    # A gateway is none of the app's servers, and OpenSSL quotes it: "certificate is not valid for 'gateway.example'".
    text = re.sub(r"(?<=not valid for ')[^'\n]+", "<host>", text)
    for host in hosts:
        # A host name without a dot may also be an ordinary word ("redis").
        text = re.sub(rf"\b{re.escape(host)}" + (r"\b" if "." in host else r"(?=:\d)"), "<host>", text)
    return text
