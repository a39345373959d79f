"""The example apps as their users start them: a web process, a worker of the example's own app, and a browser."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_batch_tasks.embedded import RedisServer, Worker, free_port
from claude_batch_tasks.simulator import Behaviour, Fault, Outcome, Scenario, Simulator
from tests.docs.browser import Browser
from tests.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.latest, pytest.mark.workers]

#: A 404 on create, and a request that is refused with a message that a page must not take for its own.
TROUBLED = Scenario(
    behaviour=Behaviour(
        outcomes=(Outcome("errored", error="invalid_request_error", message="overdone: <i>", prompt="too much"),)
    ),
    faults=(Fault("create", "status", status=404, calls=(1,)),),
)

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@contextlib.contextmanager
def web(command: list[str], cwd: Path, env: dict[str, str], port: int, log: Path) -> Iterator[Browser]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=out, stderr=subprocess.STDOUT)
    browser = Browser(f"http://127.0.0.1:{port}/")
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                browser.open("/")
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield browser
    finally:
        process.kill()
        process.wait()


def own_settings(environment: dict[str, str]) -> dict[str, str]:
    """The environment without the ready-made app's settings: the example's own count, and these would override them."""
    return {name: value for name, value in environment.items() if not name.startswith(("CELERY_", "CLAUDE_BATCH_"))}


def finished_page(browser: Browser, url: str) -> str:
    """The job's page, once its status says that it has ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        _, status = browser.open(url.rstrip("/") + "/status")
        found = json.loads(status)
        # An answer is in its row when the task that saves it has ended.
        if found["state"] == "completed" and found.get("delivered", found["requests"]) == found["requests"]:
            return browser.open(url)[1]
        time.sleep(0.2)
    raise AssertionError(f"the job did not end: {status}")


@pytest.mark.parametrize("example", ["flask_app", "django_app"])
def test_a_form_becomes_a_job_and_its_page_shows_the_answers(
    example: str, environment: dict[str, str], redis_url: str, tmp_path: Path
) -> None:
    folder, port = EXAMPLES / example, free_port()
    env = own_settings(environment) | {
        "REDIS_URL": redis_url,
        "POLL_SECONDS": "0.3",
        "DATABASE": str(tmp_path / "db.sqlite3"),
    }
    if example == "django_app":
        subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity=0"], cwd=folder, env=env, check=True)
        command = [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
        celery_app = "proj"
    else:
        command = [sys.executable, "-m", "flask", "--app", "app", "run", "--port", str(port)]
        celery_app = "make_celery"
    with Simulator(TROUBLED) as simulator:
        worker_env = {**env, "ANTHROPIC_BASE_URL": simulator.url}
        web_env = {name: value for name, value in env.items() if not name.startswith("ANTHROPIC_")}
        with (
            Worker(worker_env, tmp_path / "worker.log", app=celery_app, cwd=str(folder)) as worker,
            web(command, folder, web_env, port, tmp_path / "web.log") as browser,
        ):
            page = browser.open("/")[1]
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
            form = {"texts": "<b>good</b>\n\nbad\ntoo much"} | ({"csrfmiddlewaretoken": token[1]} if token else {})
            url, _ = browser.open("/" if example == "django_app" else "/summaries", form)
            page = finished_page(browser, url)
    assert page.count("Echo: ") == 2
    assert "overdone: &lt;i&gt;" in page
    assert "&lt;b&gt;good&lt;/b&gt;" in page
    assert "<b>" not in page
    assert "<i>" not in page
    assert "Traceback" not in worker.log.read_text()
    assert "Traceback" not in (tmp_path / "web.log").read_text()


def test_questions_are_asked_one_at_a_time(environment: dict[str, str], redis_url: str, tmp_path: Path) -> None:
    """In Django: after the commit, in a chain, and in a chord."""
    folder, port = EXAMPLES / "django_app", free_port()
    env = own_settings(environment) | {
        "REDIS_URL": redis_url,
        "POLL_SECONDS": "0.3",
        "ASK_SECONDS": "1",
        "DATABASE": str(tmp_path / "db.sqlite3"),
    }
    subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity=0"], cwd=folder, env=env, check=True)
    command = [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
    with Simulator(TROUBLED) as simulator:
        web_env = {name: value for name, value in env.items() if not name.startswith("ANTHROPIC_")}
        worker_env = {**env, "ANTHROPIC_BASE_URL": simulator.url}
        with (
            web(command, folder, web_env, port, tmp_path / "web.log") as browser,
            Worker(worker_env, tmp_path / "worker.log", app="proj", cwd=str(folder)) as worker,
        ):
            for how, texts in (("alone", "one\ntwo"), ("chain", "three\ntoo much"), ("chord", "four")):
                token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', browser.open("/questions/")[1])
                assert token is not None
                browser.open("/questions/", {"csrfmiddlewaretoken": token[1], "how": how, "texts": texts})
            page = wait_until(
                lambda: (text := browser.open("/questions/")[1]).count("Echo: ") == 6 and "<em>" in text and text
            )
        batches = simulator.state().batches
    assert "overdone: &lt;i&gt;" in page
    assert "Echo: Answer as a lawyer: four / Echo: Answer as an engineer: four / Echo: Answer as a child: four" in page
    assert len(batches) <= 3
    assert "Traceback" not in worker.log.read_text()
    assert "Traceback" not in (tmp_path / "web.log").read_text()


def test_what_is_not_there_is_said_so(environment: dict[str, str], redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    env = {**environment, "REDIS_URL": redis_url}
    command = [sys.executable, "-m", "flask", "--app", "app", "run", "--port", str(port)]
    with web(command, EXAMPLES / "flask_app", env, port, tmp_path / "web.log") as browser:
        with pytest.raises(urllib.error.HTTPError) as missing:
            browser.open("/summaries/no-such-job")
        assert missing.value.code == 404
        assert "no job no-such-job" in missing.value.read().decode()
        with pytest.raises(urllib.error.HTTPError) as empty:
            browser.open("/summaries", {"texts": " \n "})
        assert empty.value.code == 400
        assert "the job is empty" in empty.value.read().decode()


def test_reviews_are_not_lost_when_redis_is_away(environment: dict[str, str], tmp_path: Path) -> None:
    folder, port, server = EXAMPLES / "django_app", free_port(), RedisServer()
    env = own_settings(environment) | {"REDIS_URL": server.url, "DATABASE": str(tmp_path / "db.sqlite3")}
    subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity=0"], cwd=folder, env=env, check=True)
    command = [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
    with web(command, folder, env, port, tmp_path / "web.log") as browser:

        def press(path: str, page: str, **form: str) -> tuple[str, str]:
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
            assert token is not None
            return browser.open(path, {"csrfmiddlewaretoken": token[1], **form})

        url, page = press("/", browser.open("/")[1], texts="good value")
        assert "There is no job to be seen" in page
        assert "good value" in page
        with server:
            url, page = press(f"{url}again", page)
            assert '<p id="state">staged</p>' in page
            assert '"requests": 1' in browser.open(f"{url}status")[1]
