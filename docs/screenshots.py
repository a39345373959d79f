"""Make docs/images from real runs: the demo, the admin's pages of jobs, Flower. Look at them before you commit."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from celery import Celery
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(ROOT))

from claude_batch_tasks import BatchJob, demo, errors, run_batch  # noqa: E402
from claude_batch_tasks.embedded import RedisServer, free_port  # noqa: E402
from claude_batch_tasks.simulator import Behaviour, Fault, Outcome, Scenario, Simulator  # noqa: E402
from tests.django import project  # noqa: E402

TROUBLED = Scenario(
    behaviour=Behaviour(
        processing_seconds=3,
        outcomes=(Outcome("errored", error="invalid_request_error", count=1),),
    ),
    faults=(
        Fault("create", "status", status=404, calls=(1,)),
        Fault("retrieve", "status", status=404, calls=(1, 2)),
        Fault("results", "status", status=404, calls=(1,)),
    ),
)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    of_demo()
    with sync_playwright() as playwright, project.browser(playwright) as browser:
        of_project(browser)


def of_demo() -> None:
    console = Console(record=True, file=io.StringIO(), width=150, highlight=False)
    demo.run_demo(scenario="issue-1432", count=40, real=False, model="claude-haiku-4-5", console=console)
    drawn = console.export_svg(title="$ make demo")
    # Fonts from elsewhere would not be loaded into a page's image.
    (IMAGES / "demo.svg").write_text(re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL))


def of_project(browser: Browser) -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(RedisServer())
        simulator = stack.enter_context(Simulator(TROUBLED))
        site = stack.enter_context(project.running(redis.url, simulator.url, folder))
        seen = stack.enter_context(flower(project.environment(redis.url, simulator.url, folder)))
        app = stack.enter_context(Celery("screenshots", broker=redis.url, backend=redis.url))
        app.loader.import_task_module("claude_batch_tasks.tasks")
        shown = submit(simulator)
        page = browser.new_page()
        page.goto(f"{site}/admin/")
        page.fill("#id_username", "keeper")
        page.fill("#id_password", project.PASSWORD)
        page.click("[type=submit]")
        page.click("text=Jobs")
        while BatchJob(shown).status().done < 20:
            time.sleep(0.1)
        taken(page, f"{site}/admin/claude_batch/job/", "admin-list", height=480)
        taken(page, f"{site}/admin/claude_batch/job/{shown}/change/", "admin-job", height=1040)
        taken(page, f"{seen}/tasks", "flower", height=760)


def submit(simulator: Simulator) -> str:
    """Jobs that have come to all kinds of ends; the id of one that runs."""
    run_batch.delay(reviews(40)).get(timeout=60)
    failed = run_batch.delay(reviews(25), max_wait=1)
    with contextlib.suppress(errors.WaitExceeded):
        failed.get(timeout=60)
    canceled = run_batch.delay(reviews(30))
    while not BatchJob(canceled.id).status().polls:
        time.sleep(0.1)
    BatchJob(canceled.id).cancel()
    canceled.get(timeout=60)
    return str(run_batch.delay(reviews(60), max_requests_per_batch=10, max_batches_in_flight=2).id)


def reviews(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        prompt = f"Is this review positive or negative? One word. Review: number {number}"
        params = {"model": "claude-haiku-4-5", "max_tokens": 16, "messages": [{"role": "user", "content": prompt}]}
        yield {"custom_id": f"review {number}", "params": params}


def taken(page: Page, address: str, name: str, *, height: int) -> None:
    page.set_viewport_size({"width": 1280, "height": height})
    page.goto(address)
    page.wait_for_load_state("networkidle")
    page.screenshot(path=IMAGES / f"{name}.png")


@contextlib.contextmanager
def flower(env: dict[str, str]) -> Iterator[str]:
    """Its address."""
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
