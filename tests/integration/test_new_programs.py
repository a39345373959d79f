"""What a program that has just begun loads, and which app it finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from celery import Celery

from claude_batch_tasks import ask
from tests.factories import make_params

REQUEST = {
    "custom_id": "a",
    "params": make_params("hello"),
}


def run_code(code: str, *args: str, **environ: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY", "CLAUDE_BATCH_"))}
    return subprocess.run(
        [sys.executable, "-c", code, *args], env={**clean, **environ}, check=True, capture_output=True, text=True
    ).stdout.strip()


class TestCommands:
    def test_cost_those_who_start_celery_nothing(self) -> None:
        out = run_code(
            "import sys, click; before = set(sys.modules); import claude_batch_tasks.cli; "
            "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
        )
        assert not {"anthropic", "celery", "httpx", "kombu", "msgspec", "redis", "rich", "starlette"} & set(out.split())

    def test_need_no_sdk_for_looking(self) -> None:
        """It takes longer to import than the rest takes to answer."""
        code = (
            "import sys; from claude_batch_tasks.cli import common, following, job_texts, retrying, submitting; "
            "print('anthropic' in sys.modules)"
        )
        assert run_code(code) == "False"

    @pytest.mark.parametrize(("command", "code"), [("estimate -", 0), ("results x", 2)])
    def test_may_be_started_without_standard_output(self, command: str, code: int) -> None:
        script = f"'{sys.executable}' -m claude_batch_tasks.cli {command} >&-"
        request = json.dumps(REQUEST) + "\n"
        done = subprocess.run(["bash", "-c", script], input=request, stderr=subprocess.PIPE, text=True)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False)


def test_importing_prices_does_not_load_them() -> None:
    modules = "claude_batch_tasks.pricing.prices, claude_batch_tasks.jobs.estimating"
    assert run_code(f"import {modules}, sys; print('genai_prices' in sys.modules)") == "False"


class TestTheAppTasksAreSentWith:
    def test_is_the_ready_made_one_in_a_program_that_made_none(self) -> None:
        code = (
            "from claude_batch_tasks.current_app import configured_app\n"
            "from claude_batch_tasks.settings import Settings\n"
            "from claude_batch_tasks import run_batch\n"
            "app = configured_app(); found = Settings.of(app)\n"
            "print(app.main, app.conf.broker_url, found.store_url, found.poll_min, run_batch.name in app.tasks)"
        )
        out = run_code(code, CELERY_BROKER_URL="redis://b:1/2", CLAUDE_BATCH_POLL_MIN="3")
        assert out == "claude_batch_tasks redis://b:1/2 redis://b:1/2 3.0 True"

    def test_is_the_programs_own_if_it_made_one_before_or_after_the_import(self) -> None:
        make = "from celery import Celery; app = Celery('shop')\n"
        load = "from claude_batch_tasks.current_app import configured_app\n"
        for code in (make + load, load + make):
            assert run_code(code + "print(configured_app() is app)") == "True"

    def test_is_the_programs_own_in_every_thread(self) -> None:
        code = (
            "import threading\n"
            "from celery import Celery; app = Celery('shop')\n"
            "from claude_batch_tasks.current_app import configured_app\n"
            "thread = threading.Thread(target=lambda: print(configured_app() is app)); thread.start(); thread.join()"
        )
        assert run_code(code) == "True"


def test_an_id_of_an_ask_is_enough_for_a_program_that_asks_nothing(app: Celery, redis_url: str, store_url: str) -> None:
    app.set_current()
    asked = ask.delay(make_params("hello"))
    code = (
        "import sys, threading\n"
        "from celery import Celery\n"
        "from claude_batch_tasks import AskResult\n"
        "app = Celery('shop', broker=sys.argv[1], backend=sys.argv[1])\n"
        "app.conf.claude_batch_store_url = sys.argv[3]\n"
        "def read():\n"
        "    found = AskResult(sys.argv[2])\n"
        "    print(found.app is app, found.state, found.cancel(), found.state)\n"
        "thread = threading.Thread(target=read); thread.start(); thread.join()"
    )
    assert run_code(code, redis_url, asked.id, store_url) == "True PROGRESS True REVOKED"


class TestPytest:
    def run_tests(self, folder: Path, text: str) -> None:
        (folder / "test_it.py").write_text(text)
        run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
        done = subprocess.run(run, cwd=folder, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stdout

    def test_forgets_between_tests(self, tmp_path: Path) -> None:
        self.run_tests(
            tmp_path,
            "import anthropic\n"
            "from claude_batch_tasks import api\n"
            "client = anthropic.Anthropic(api_key='x')\n"
            "seen = []\n"
            "def make(): return anthropic.Anthropic(api_key='x')\n"
            "def look(): seen.append(api.get_client('own', {'own': 'test_it.make'}))\n"
            "def test_one(): look()\n"
            "def test_two():\n    look()\n    assert seen[0] is not seen[1]\n",
        )

    def test_loads_nothing_for_it(self, tmp_path: Path) -> None:
        self.run_tests(
            tmp_path,
            "import sys\n"
            "def test_one(): pass\n"
            "def test_two(): assert not {'anthropic', 'celery', 'claude_batch_tasks.settings'} & set(sys.modules)\n",
        )
