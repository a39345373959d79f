"""Small projects, each with a way of its own to give Celery its settings, and the commands that people run in them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from claude_batch_tasks.embedded import Worker
from tests.support import inherited

_DJANGO = """
import os
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
app = Celery("mysite"{arguments})
{configure}
app.set_default()
app.autodiscover_tasks()
"""

_DJANGO_SETTINGS = """
SECRET_KEY = "tests"
USE_TZ = True
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}}
INSTALLED_APPS = ["claude_batch_tasks.contrib.django"]
{celery}
"""

_MANAGE = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""

_FLASK = """
from celery import Celery, Task
from flask import Flask
{before}
flask_app = Flask("shop")
flask_app.config.from_mapping({celery})
{config}

class FlaskTask(Task):
    def __call__(self, *args, **kwargs):
        with flask_app.app_context():
            return self.run(*args, **kwargs)

app = Celery(flask_app.name, task_cls=FlaskTask, include=["claude_batch_tasks.tasks"]{arguments})
{configure}
app.set_default()
flask_app.extensions["celery"] = app
"""

_PLAIN = """
from celery import Celery
app = Celery("plain", include=["claude_batch_tasks.tasks"]{arguments})
{configure}
"""


class Kind(NamedTuple):
    """How a project gives Celery its settings.

    ``names``: Celery's own as they are spelled where Celery reads them; none: it is given two addresses in its call.
    """

    framework: str
    configure: str
    names: tuple[str, str] | None


KINDS = {
    # edx-platform, sentry
    "django": Kind("django", 'app.config_from_object("django.conf:settings")', ("BROKER_URL", "CELERY_RESULT_BACKEND")),
    "django_namespace": Kind(
        "django",
        'app.config_from_object("django.conf:settings", namespace="CELERY")',
        ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"),
    ),
    "django_other_namespace": Kind(
        "django",
        'app.config_from_object("django.conf:settings", namespace="QUEUE")',
        ("QUEUE_BROKER_URL", "QUEUE_RESULT_BACKEND"),
    ),
    "django_unread": Kind("django", "", None),
    "flask_update": Kind("flask", "app.conf.update(flask_app.config)", None),
    "flask_object": Kind("flask", "app.config_from_object(flask_app.config)", ("BROKER_URL", "CELERY_RESULT_BACKEND")),
    "flask_dict": Kind("flask", 'app.config_from_object(flask_app.config["CELERY"])', None),
    "flask_unread": Kind("flask", "", None),
    "plain_module": Kind("plain", 'app.config_from_object("plain_settings")', ("broker_url", "result_backend")),
    "plain_variable": Kind("plain", 'app.config_from_envvar("PLAIN")', ("broker_url", "result_backend")),
    "plain": Kind("plain", "", None),
    "ready_made": Kind("ready_made", "", None),
}


class Said(NamedTuple):
    """What a command printed, and its exit code."""

    text: str
    code: int


@dataclass
class Project:
    """A project in a folder; ``app`` is what follows ``-A``."""

    folder: Path
    app: str
    env: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str) -> Said:
        """Run a command of Python's ``-m`` in the project."""
        done = subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=90
        )
        return Said(done.stdout + done.stderr, done.returncode)

    def doctor(self) -> dict[str, str]:
        """Return what ``claude-batch doctor settings`` says, by ids; what is well has none."""
        said = self.run("-m", "claude_batch_tasks.cli", "-A", self.app, "doctor", "settings", "--json")
        lines = [json.loads(line) for line in said.text.splitlines() if line.startswith("{")]
        assert lines, said.text
        found = {line.get("id", "ok"): f"{line['text']} {line.get('hint', '')}" for line in lines}
        assert said.code == any(line["status"] == "error" for line in lines)
        return found

    def check(self) -> Said:
        """Run ``manage.py check``."""
        return self.run("manage.py", "check", "--tag", "claude_batch")

    def refusal(self) -> str:
        """Start a worker that refuses; what it says."""
        said = self.run("-m", "celery", "-A", self.app, "worker", "--pool=solo", "--loglevel=info")
        assert said.code != 0
        assert "Traceback" not in said.text
        return said.text

    @contextmanager
    def worker(self) -> Iterator[Worker]:
        """Start a worker, which works."""
        worker = Worker(self.env, self.folder / "worker.log", self.app, ("--pool=solo",), str(self.folder))
        try:
            worker.start()
            yield worker
        finally:
            worker.stop(kill=True)


def make(
    kind: str, folder: Path, url: str, /, env: dict[str, str] | None = None, config: str = "", **settings: Any
) -> Project:
    """Write a project whose settings are these.

    Args:
        url: of the broker, the result back end and the store.
        env: more of its environment.
        config: Python that comes after the settings: in Django's module, after Flask's config is made, in Celery's
            configuration module.
    """
    framework, configure, names = KINDS[kind]
    environment = {**inherited(), "PYTHONPATH": str(folder), "PLAIN": "plain_settings", **(env or {})}
    if names is None and framework != "ready_made":
        arguments = f", broker={url!r}, backend={url!r}"
    else:
        arguments, settings = "", {**dict.fromkeys(names or (), url), **settings}
    lines = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    if framework == "django":
        package = folder / "mysite"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("from .celery import app as celery_app\n")
        (package / "celery.py").write_text(_DJANGO.format(arguments=arguments, configure=configure))
        (package / "settings.py").write_text(_DJANGO_SETTINGS.format(celery=f"{lines}\n{config}"))
        (folder / "manage.py").write_text(_MANAGE)
        return Project(folder, "mysite", environment)
    if framework == "flask":
        code = _FLASK.format(
            before="", celery=f"**{settings!r}", arguments=arguments, configure=configure, config=config
        )
        (folder / "shop.py").write_text(code)
        return Project(folder, "shop", environment)
    if framework == "plain":
        (folder / "plain.py").write_text(_PLAIN.format(arguments=arguments, configure=configure))
        (folder / "plain_settings.py").write_text(f"{lines}\n{config}\n")
        return Project(folder, "plain", environment)
    environment |= {"CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url}
    environment |= {name: str(value) for name, value in settings.items()}
    return Project(folder, "claude_batch_tasks.app", environment)
