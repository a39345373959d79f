"""The example's Django project as it runs: its web server, its worker, and people who may log in."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from claude_batch_tasks.embedded import Worker, free_port
from tests.support import inherited

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

FOLDER = Path(__file__).parent.parent.parent / "examples" / "django_app"

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

#: How its worker runs; under a name of its own, and not that of this machine.
OPTIONS = ("--pool=threads", "--concurrency=4", "--hostname=celery@worker-1")

PASSWORD = "Rosinenbrot"

#: boss may do everything, keeper looks after jobs, guest may look at them, stranger may log in.
_PREPARE = f"""
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django.contrib.auth.models import Permission, User
User.objects.create_superuser("boss", password={PASSWORD!r})
for name, may in {{"keeper": ["view", "cancel", "retry", "download"], "guest": ["view"], "stranger": []}}.items():
    user = User.objects.create_user(name, password={PASSWORD!r}, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=[f"{{each}}_job" for each in may]))
"""


def environment(redis_url: str, simulator_url: str, folder: Path) -> dict[str, str]:
    """Of the project's processes."""
    return {
        **inherited(),
        "REDIS_URL": redis_url,
        "POLL_SECONDS": "0.3",
        "DATABASE": str(folder / "db.sqlite3"),
        "ANTHROPIC_BASE_URL": simulator_url,
        "ANTHROPIC_API_KEY": "sk-ant-test-key-never-to-be-seen",
    }


@contextlib.contextmanager
def running(redis_url: str, simulator_url: str, folder: Path) -> Iterator[str]:
    """The project's address, while it and its worker run."""
    env = environment(redis_url, simulator_url, folder)
    port = free_port()
    server = [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
    worker = Worker(
        env,
        folder / "worker.log",
        app="proj",
        cwd=str(FOLDER),
        options=OPTIONS,
    )
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((folder / "web.log").open("wb"))
        prepare = [sys.executable, "manage.py", "shell", "-c", _PREPARE]
        subprocess.run(prepare, cwd=FOLDER, env=env, check=True, stdout=log)
        process = subprocess.Popen(server, cwd=FOLDER, env=env, stdout=log, stderr=subprocess.STDOUT)
        stack.callback(process.wait)
        stack.callback(process.kill)
        stack.callback(worker.stop, kill=True)
        worker.start()
        url = f"http://127.0.0.1:{port}"
        for _ in range(200):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/admin/login/", timeout=10):
                break
            assert process.poll() is None, (folder / "web.log").read_text()
            time.sleep(0.1)
        yield url


@contextlib.contextmanager
def browser(playwright: Playwright) -> Iterator[Browser]:
    """The Chromium of this machine, without a window."""
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
    started = playwright.chromium.launch(executable_path=BROWSER, args=options)
    try:
        yield started
    finally:
        started.close()
