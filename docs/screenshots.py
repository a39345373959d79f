"""Make the pictures of docs/images from real runs on the simulator. Look at each before you commit it.

``python docs/screenshots.py`` makes all; ``python docs/screenshots.py cli web`` those of these parts alone: ``demo``,
``cli``, ``web`` (admin, progress page, Flower), ``docs``.
"""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from celery import Celery
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(ROOT))

from claude_batch_tasks import BatchJob, ask, demo, errors, run_batch  # noqa: E402
from claude_batch_tasks.contrib.web import ProgressPage  # noqa: E402
from claude_batch_tasks.embedded import RedisServer, free_port  # noqa: E402
from claude_batch_tasks.jobs.job_ids import short_id  # noqa: E402
from claude_batch_tasks.simulator import Behaviour, Fault, Outcome, Scenario, Simulator  # noqa: E402
from tests.django import project  # noqa: E402

#: The most bytes of a picture.
LARGEST = 150_000

EMPTY = "messages: text content blocks must be non-empty"

#: 404s as they happen, and requests that fail in four ways.
TROUBLED = Scenario(
    behaviour=Behaviour(
        processing_seconds=3,
        outcomes=(
            *(Outcome("errored", error="invalid_request_error", message=EMPTY, prompt=f" {n}.") for n in (3, 7, 9)),
            Outcome("errored", error="api_error", message="Internal server error", prompt=" 11."),
            *(Outcome("expired", prompt=f" {n}.") for n in (15, 16)),
        ),
    ),
    faults=(
        Fault("create", "status", status=404, calls=(1,)),
        Fault("retrieve", "status", status=404, calls=(1, 2)),
        Fault("results", "status", status=404, calls=(1,)),
    ),
)

#: Lets long texts in tables have several lines.
WRAP = """
for (const cell of document.querySelectorAll("td:last-child, td:last-child *")) {
    cell.style.setProperty("white-space", "normal", "important");
    cell.style.setProperty("max-width", "720px", "important");
}
"""

METADATA = {"team": "search", "run": "2026-11-30"}


class Rig(NamedTuple):
    """What runs while pictures are made."""

    site: str
    """The address of the Django project."""
    page: str
    """The address of the progress page."""
    flower: str
    env: dict[str, str]
    """The environment of commands."""
    failed: str
    """The id of a job some of whose requests failed."""
    running: str
    """The id of a job that runs."""


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    wanted = sys.argv[1:] or ["demo", "cli", "web", "docs"]
    if "demo" in wanted:
        draw_demo()
    with sync_playwright() as playwright, project.browser(playwright) as browser:
        if {"cli", "web"} & {*wanted}:
            draw_project(browser, wanted)
        if "docs" in wanted:
            draw_docs(browser)
    large = [path.name for path in IMAGES.glob("*") if path.stat().st_size > LARGEST]
    assert not large, f"too large: {large}"


def draw_demo() -> None:
    console = Console(record=True, file=io.StringIO(), width=150, highlight=False)
    demo.run_demo(scenario="issue-1432", count=40, real=False, model="claude-haiku-4-5", console=console)
    save_svg(console, "demo", "$ make demo")


def draw_project(browser: Browser, wanted: list[str]) -> None:
    with rig() as running:
        if "web" in wanted:
            draw_flower(browser, running)
            draw_admin(browser, running)
            draw_progress_page(browser, running)
        if "cli" in wanted:
            draw_commands(running)


@contextlib.contextmanager
def rig() -> Iterator[Rig]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(RedisServer())
        simulator = stack.enter_context(Simulator(TROUBLED))
        env = project.environment(redis.url, simulator.url, folder)
        site = stack.enter_context(project.running(redis.url, simulator.url, folder))
        flower = stack.enter_context(run_flower(env))
        app = stack.enter_context(Celery("screenshots", broker=redis.url, backend=redis.url))
        app.loader.import_task_module("claude_batch_tasks.tasks")
        page = stack.enter_context(run_page(app))
        failed, running = submit()
        yield Rig(site, page, flower, env, failed, running)


def submit() -> tuple[str, str]:
    """Submit jobs that come to all kinds of ends, and return the ids of one with failures and of one that runs."""
    run_batch.delay(reviews(12, first=20), label="weekly report").get(timeout=60)
    failed = run_batch.delay(reviews(40), label="nightly reviews", metadata=METADATA, fallback="off", retries=0)
    failed.get(timeout=60)
    late = run_batch.delay(reviews(25), max_wait=1, label="import")
    with contextlib.suppress(errors.WaitExceeded):
        late.get(timeout=60)
    canceled = run_batch.delay(reviews(30))
    while not BatchJob(canceled.id).status().polls:
        time.sleep(0.1)
    BatchJob(canceled.id).cancel()
    canceled.get(timeout=60)
    running = run_batch.delay(
        reviews(200, first=20), max_requests_per_batch=10, max_batches_in_flight=1, label="archive", metadata=METADATA
    )
    for pool, queue, count in ("summaries", None, 240), ("support", None, 12), ("nightly", "night", 35):
        for request in reviews(count):
            ask.apply_async((request["params"],), {"pool": pool, "ask_max_wait": 900}, queue=queue)
    while BatchJob(running.id).status().done < 20:
        time.sleep(0.1)
    return failed.id, running.id


def reviews(count: int, first: int = 1) -> Iterator[dict[str, Any]]:
    for number in range(first, first + count):
        prompt = f"Is this review positive or negative? One word. Review number {number}."
        params = {"model": "claude-haiku-4-5", "max_tokens": 16, "messages": [{"role": "user", "content": prompt}]}
        yield {"custom_id": f"review {number}", "params": params}


def draw_admin(browser: Browser, running: Rig) -> None:
    jobs = f"{running.site}/admin/claude_batch/job/"

    def log_in(page: Page) -> None:
        page.goto(jobs)
        page.fill("#id_username", "keeper")
        page.fill("#id_password", project.PASSWORD)
        page.click("[type=submit]")

    with opened(browser, log_in) as page:
        take(page, jobs, "admin-list", height=960)
        take(page, jobs, "admin-pools", part=".claude-batch-pools")
        take(page, f"{jobs}{running.failed}/change/", "admin-job", height=1000)
        take(page, f"{jobs}{running.failed}/change/", "admin-failures", part=".claude-batch-failures")
    with opened(browser, log_in, color_scheme="dark") as page:
        take(page, f"{jobs}{running.running}/change/", "admin-dark", height=900)
    with opened(browser, log_in) as page:
        take(page, jobs, "admin-phone", width=390, height=844)


def draw_progress_page(browser: Browser, running: Rig) -> None:
    with opened(browser) as page:
        take(page, f"{running.page}/", "progress-list", height=490)
        take(page, f"{running.page}/job?id={running.failed}", "progress-job", height=900)
    with opened(browser, color_scheme="dark") as page:
        take(page, f"{running.page}/job?id={running.running}", "progress-dark", height=760)
        take(page, f"{running.page}/job?id={running.running}", "progress-phone", width=390, height=844)


def draw_flower(browser: Browser, running: Rig) -> None:
    with opened(browser) as page:
        # Long reasons are on several lines, where Flower has a bar to scroll with.
        take(page, f"{running.flower}/tasks", "flower", height=700, script=WRAP)


def draw_docs(browser: Browser) -> None:
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "sphinx", "--quiet", "-b", "html", str(ROOT / "docs"), folder]
        subprocess.run(build, check=True)
        with opened(browser) as page:
            take(page, (Path(folder) / "index.html").as_uri(), "docs-start", height=760)


def draw_commands(running: Rig) -> None:
    """Draw what commands print in terminals of two widths."""
    failed = short_id(running.failed)
    commands = ["claude-batch list", f"claude-batch status {failed}", f"claude-batch failures {failed}"]
    for width in (80, 140):
        console = Console(record=True, file=io.StringIO(), width=width, highlight=False, force_terminal=True)
        for command in commands:
            console.print(Text(f"$ {command}", style="bold"))
            console.print(Text.from_ansi(run_in_terminal(command, running.env, width)), end="\n\n")
        save_svg(console, f"cli-{width}", f"{width} columns")


def run_in_terminal(command: str, env: dict[str, str], width: int) -> str:
    """Return what a command prints in a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("claude-batch")), "-A", "proj", *command.split()[1:]],
        env={**env, "COLUMNS": str(width), "LINES": "50", "TERM": "xterm-256color"},
        cwd=project.FOLDER,
        stdout=theirs,
        stderr=theirs,
        stdin=subprocess.DEVNULL,
    )
    os.close(theirs)
    printed = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while some := os.read(ours, 65_536):
            printed += some
    os.close(ours)
    process.wait()
    return printed.decode().replace("\r\n", "\n").rstrip("\n")


def save_svg(console: Console, name: str, title: str) -> None:
    drawn = console.export_svg(title=title)
    # Fonts from elsewhere would not be loaded into a page's image.
    (IMAGES / f"{name}.svg").write_text(re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL))


@contextlib.contextmanager
def opened(browser: Browser, prepare: Callable[[Page], None] | None = None, **options: Any) -> Iterator[Page]:
    """Open a page of a browser that nobody has used."""
    context = browser.new_context(**options, timezone_id="UTC")
    page = context.new_page()
    if prepare is not None:
        prepare(page)
    yield page
    context.close()


def take(
    page: Page,
    address: str,
    name: str,
    *,
    width: int = 1280,
    height: int = 800,
    part: str | None = None,
    script: str = "",
) -> None:
    page.set_viewport_size({"width": width, "height": height})
    page.goto(address)
    page.wait_for_load_state("load")
    if script:
        page.evaluate(script)
    page.wait_for_timeout(500)
    path = IMAGES / f"{name}.png"
    if part is None:
        page.screenshot(path=path)
    else:
        page.locator(part).screenshot(path=path)


@contextlib.contextmanager
def run_page(app: Celery) -> Iterator[str]:
    """Serve the progress page."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(ProgressPage(app).asgi, port=port, log_level="warning", interface="asgi3"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


@contextlib.contextmanager
def run_flower(env: dict[str, str]) -> Iterator[str]:
    """Serve Flower."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "proj", "flower", f"--port={port}", "--address=127.0.0.1"],
        env={**env, "FLOWER_TASKS_COLUMNS": "name,state,exception"},
        cwd=project.FOLDER,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/healthcheck", timeout=10):
                break
            time.sleep(0.1)
        time.sleep(2)  # it learns of a worker from its next heartbeat
        yield url
    finally:
        process.terminate()
        process.wait(20)


if __name__ == "__main__":
    main()
