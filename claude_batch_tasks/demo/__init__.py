"""The demo ``claude-batch demo``: one job from beginning to end on embedded parts, with all that happens shown live."""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import anthropic
import msgspec
from celery import Celery
from celery.result import AsyncResult
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.simulator import SCENARIOS, Outcome, Scenario, Simulator

#: Countdowns that suit scenarios in which hours are seconds; the defaults suit Anthropic.
_FAST = {
    "CLAUDE_BATCH_POLL_MIN": "1",
    "CLAUDE_BATCH_POLL_MAX": "2",
    "CLAUDE_BATCH_RETRY_MIN": "1",
    "CLAUDE_BATCH_RETRY_MAX": "4",
    "CLAUDE_BATCH_CREATE_SETTLE": "5",
}

#: What goes wrong with single requests in the demo, besides what its scenario does to the calls.
_OUTCOMES = (
    Outcome("expired", count=3, attempts=1),
    Outcome("errored", error="overloaded_error", count=2),
    Outcome("errored", error="invalid_request_error", count=1, attempts=1),
)
#: Seconds that the second batch takes, in which expired requests are sent again.
_SECOND_BATCH = 3.0
_PLAIN_LOOP_PATIENCE = 45.0
_STEPS = {"create_batch", "poll_batch", "fetch_results", "fall_back"}


def run_demo(*, scenario: str, count: int, real: bool, model: str, console: Console | None = None) -> None:
    """Start a Redis, the simulator and a worker with two processes; run a job; end all of them again.

    Raises:
        RuntimeError: a part cannot be started, or ``real`` is set and there is no key.
    """
    if console is None:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = 160
    if real and not os.environ.get("ANTHROPIC_API_KEY"):
        raise RuntimeError("--real needs a key in ANTHROPIC_API_KEY")
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        console.print(f"[dim]Redis-compatible server at {redis.url}[/]")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="claude-batch-demo-")))
        env = {**os.environ, "CELERY_BROKER_URL": redis.url, "CELERY_RESULT_BACKEND": redis.url}
        simulator = plain = None
        if not real:
            simulator = stack.enter_context(Simulator(_with_outcomes(SCENARIOS[scenario])))
            env |= {**_FAST, "ANTHROPIC_BASE_URL": simulator.url, "ANTHROPIC_API_KEY": "sk-ant-simulated"}
            console.print(f"[dim]Message Batches API simulated at {simulator.url}: {SCENARIOS[scenario].about}[/]")
            plain = _PlainLoop(stack.enter_context(Simulator(_with_outcomes(SCENARIOS[scenario]))).url, count, model)
        worker = stack.enter_context(Worker(env, folder / "worker.log", cwd=str(folder)))
        console.print(f"[dim]Celery worker {worker.pid} with two prefork processes[/]\n")
        app = Celery("demo", broker=redis.url, backend=redis.url)
        app.loader.import_task_module("claude_batch_tasks.tasks")
        result = _watch_job(app, console, _make_requests(count, model), plain, simulator)
        _print_answers(console, app, result, simulator)
        if plain is not None:
            plain.print_outcome(console)


def _make_requests(count: int, model: str) -> Iterator[dict[str, Any]]:
    for number in range(1, count + 1):
        prompt = f"In one short sentence: what is {number} squared?"
        params = {"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": prompt}]}
        yield {"custom_id": f"question {number}", "params": params}


def _with_outcomes(scenario: Scenario) -> Scenario:
    if scenario.behaviour.outcomes:
        return scenario
    return msgspec.structs.replace(scenario, behaviour=msgspec.structs.replace(scenario.behaviour, outcomes=_OUTCOMES))


def _watch_job(
    app: Celery,
    console: Console,
    requests: Iterator[dict[str, Any]],
    plain: _PlainLoop | None,
    simulator: Simulator | None,
) -> Any:
    """Submit the job and show its events until it ends."""
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    begun = time.monotonic()

    def show(step: str, text: str) -> None:
        colour = "yellow" if "404" in text else "red" if "failed" in text else "white"
        shown = escape(text[:200])
        progress.console.print(f"[dim]{time.monotonic() - begun:5.1f} s[/]  [cyan]{step:<14}[/] [{colour}]{shown}[/]")

    with progress, _show_events(app, show):
        result = run_batch.delay(requests, retries=1)
        if plain is not None:
            plain.start()
        total = BatchJob(result.id, app).status().requests
        console.print(f"[bold]run_batch.delay(...)[/] → job {result.id}, {total} requests\n")
        bar = progress.add_task("waiting for the worker", total=total)
        while not result.ready():
            if simulator is not None and simulator.state().totals.batches_created:
                simulator.behave(processing_seconds=_SECOND_BATCH)
                simulator = None
            info = result.info
            if isinstance(info, dict) and "processing" in info:
                progress.update(
                    bar,
                    completed=total - info["processing"],
                    description=f"{info['polls']} polls, {info['polls_404']} times 404",
                )
            time.sleep(0.1)
        time.sleep(0.3)  # for the last events on their way
    return result


@contextmanager
def _show_events(app: Celery, show: Any) -> Iterator[None]:
    """Hand every step's end and every retry's reason to ``show``, from the events the worker sends."""
    names: dict[str, str] = {}
    done = threading.Event()
    ready = threading.Event()

    def remember_name(event: dict[str, Any]) -> None:
        names[event["uuid"]] = str(event.get("name", "")).rpartition(".")[2]

    def show_retry(event: dict[str, Any]) -> None:
        reason = re.sub(r"^Waiting\((['\"])(.*)\1\)$", r"\2", str(event.get("exception", "")))
        show(names.get(event["uuid"], "?"), reason)

    def show_success(event: dict[str, Any]) -> None:
        name = names.get(event["uuid"], "?")
        if name in _STEPS:
            show(name, str(event.get("result", "")).strip("'\""))

    def receive_events() -> None:
        handlers = {"task-received": remember_name, "task-retried": show_retry, "task-succeeded": show_success}
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers=handlers)
            ready.set()
            while not done.is_set():
                with suppress(OSError):  # among them the timeout
                    receiver.capture(timeout=0.5, wakeup=False)

    thread = threading.Thread(target=receive_events, daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield
    finally:
        done.set()
        thread.join(5)


def _print_answers(console: Console, app: Celery, result: AsyncResult[Any], simulator: Simulator | None) -> None:
    if result.failed():
        console.print(f"\n[red bold]The job failed:[/] {escape(str(result.result))}")
        return
    summary = result.get()
    table = Table(title="Some of the answers", title_justify="left", show_edge=False)
    for heading in ("custom_id", "outcome", "source", "answer or error"):
        table.add_column(heading)
    rows = sorted(BatchJob(result.id, app).results(), key=lambda row: (row.source == "batch", row.type == "succeeded"))
    for row in [*rows[:3], *[row for row in rows if row.type != "succeeded"][:2], *rows[-3:]]:
        answer = row.text or (row.error or {}).get("message", "")
        table.add_row(row.custom_id, row.type, row.source, escape(str(answer)[:60]))
    console.print()
    console.print(table)
    console.print("\n[bold]The summary, which result.get() returns:[/]")
    for name, value in summary.items():
        console.print(f"  {name}: {value}")
    if simulator is not None:
        journal = simulator.journal()
        console.print(
            f"\nThe API says: {journal.totals.batches_created} batches created, "
            f"{len(journal.paid_twice())} requests paid twice."
        )


class _PlainLoop(threading.Thread):
    """The loop that most people write first, with the SDK's defaults, against a simulator of its own.

    Each exception that would have ended it is recorded, and the loop continues where it failed, as if a patient person
    had started it again.
    """

    def __init__(self, url: str, count: int, model: str) -> None:
        super().__init__(daemon=True)
        self._client = anthropic.Anthropic(base_url=url, api_key="sk-ant-simulated")
        self._prompts = [
            {"custom_id": f"question-{number}", "params": request["params"]}
            for number, request in enumerate(_make_requests(count, model), 1)
        ]
        self.falls: list[tuple[float, str, str]] = []
        self.counts: dict[str, int] = {}

    def run(self) -> None:
        batches = self._client.messages.batches
        begun = time.monotonic()
        batch_id: str | None = None
        ended = False
        while time.monotonic() - begun < _PLAIN_LOOP_PATIENCE and not self.counts:
            call = "results" if ended else "retrieve" if batch_id else "create"
            try:
                if batch_id is None:
                    batch_id = batches.create(requests=self._prompts).id  # type: ignore[arg-type]
                elif not ended:
                    ended = batches.retrieve(batch_id).processing_status == "ended"
                else:
                    for line in batches.results(batch_id):
                        self.counts[line.result.type] = self.counts.get(line.result.type, 0) + 1
            except Exception as exc:  # noqa: BLE001 - whatever it is, it would have ended the loop
                self.falls.append((time.monotonic() - begun, call, f"{type(exc).__name__}: {exc}"))
                self.counts = {}
            time.sleep(1)

    def print_outcome(self, console: Console) -> None:
        """Wait for the loop to end, and print where it failed."""
        self.join(_PLAIN_LOOP_PATIENCE)
        console.print("\n[bold]Meanwhile, the SDK's plain loop[/] (create, retrieve every second, results):")
        for at, call, error in self.falls[:1]:
            console.print(f"  [red]crashed after {at:.1f} s in {call}()[/]: {escape(error[:110])}")
        if len(self.falls) > 1:
            again = ", ".join(f"{at:.1f} s {call}()" for at, call, _ in self.falls[1:])
            console.print(f"  started again each time, it would have crashed {len(self.falls) - 1} times more: {again}")
        if not self.falls:
            console.print("  came through.")
        if self.counts:
            console.print(f"  and ended with {self.counts}: what failed stays failed.")
