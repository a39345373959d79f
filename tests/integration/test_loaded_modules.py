"""What a process loads: ``doctor``, which asks servers, workers and the API, only where somebody calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_DJANGO = """
import django
from django.conf import settings
from django.core.checks import run_checks
settings.configure(INSTALLED_APPS=["claude_batch_tasks.contrib.django"])
django.setup()
run_checks(include_deployment_checks=DEPLOY)
"""

#: A whole worker, from its first signal to its end.
_WORKER = """
from celery import signals
from celery.worker import state
from claude_batch_tasks.app import app
signals.worker_ready.connect(lambda **_: setattr(state, "should_stop", 0), weak=False)
app.Worker(pool="solo", loglevel="ERROR").start()
assert "claude_batch_tasks.checks.inspection" in sys.modules
"""

PROGRAMS = {
    "the package": "import claude_batch_tasks as ours; [getattr(ours, name) for name in ours.__all__]",
    "tasks": "import claude_batch_tasks.app, claude_batch_tasks.tasks, claude_batch_tasks.worker",
    "celery": "import claude_batch_tasks.cli, claude_batch_tasks.simulator.pytest_plugin",
    "other commands": "from claude_batch_tasks.cli.commands import change, completion, read, results, submit, "
    "watch; from claude_batch_tasks.cli import common, following, job_texts, submitting",
    "Django": _DJANGO.replace("DEPLOY", "False"),
    "a worker": _WORKER,
}


def loads_doctor(program: str, environment: dict[str, str], folder: Path) -> bool:
    # A worker takes sys.stdout for its log.
    script = f"import sys\n{program}\nprint('claude_batch_tasks.doctor' in sys.modules, file=sys.__stdout__)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=folder, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return {"True": True, "False": False}[done.stdout.splitlines()[-1]]


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_doctor_is_not_loaded_by(program: str, environment: dict[str, str], tmp_path: Path) -> None:
    assert not loads_doctor(program, environment, tmp_path)


def test_doctor_is_loaded_by_checks_before_a_deployment(environment: dict[str, str], tmp_path: Path) -> None:
    """Otherwise the tests above would pass whatever is loaded."""
    assert loads_doctor(_DJANGO.replace("DEPLOY", "True"), environment, tmp_path)
