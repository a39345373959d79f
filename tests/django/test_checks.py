"""What `manage.py check` says of a set-up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from django.core.checks import run_checks
from django.test.utils import override_settings

from claude_batch_tasks.embedded import free_port
from claude_batch_tasks.settings import Settings
from tests.django.conftest import Login
from tests.support import inherited


def found(**how: Any) -> dict[str, str]:
    """The findings by their ids."""
    return {message.id: f"{message.msg} {message.hint}" for message in run_checks(tags=["claude_batch"], **how)}


def checked_elsewhere(before: str) -> dict[str, str]:
    """The same in a process of its own, where this was run before."""
    script = f"""
import django, json
from django.conf import settings
from django.core.checks import run_checks
settings.configure(INSTALLED_APPS=["claude_batch_tasks.contrib.django"])
django.setup()
{before}
print(json.dumps({{message.id: message.msg for message in run_checks(tags=["claude_batch"])}}))
"""
    done = subprocess.run([sys.executable, "-c", script], env=inherited(), stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout))


@pytest.fixture
def project(login: Login, app: Celery) -> Iterator[Celery]:
    """A project's Celery app, which takes its settings from Django's."""
    own = {"BROKER_URL": app.conf.broker_url, "RESULT_BACKEND": app.conf.broker_url, "RESULT_EXPIRES": 604_800}
    with override_settings(**{f"CELERY_{name}": value for name, value in own.items()}):
        made = Celery("project")
        made.config_from_object("django.conf:settings", namespace="CELERY")
        yield made
        made.close()
    app.set_current()


def test_settings_that_are_right_are_not_spoken_of(project: Celery) -> None:
    with override_settings(CELERY_CLAUDE_BATCH_POLL_MIN=3):
        assert set(found()) <= {"claude_batch.W005"}  # of one version of Celery, whatever the settings


def test_a_misspelt_setting_is_an_error(project: Celery) -> None:
    with override_settings(CELERY_CLAUDE_BATCH_POL_MIN=3):
        assert "did you mean poll_min?" in found()["claude_batch.E001"]


def test_a_setting_without_the_namespace_is_read(project: Celery) -> None:
    with override_settings(CLAUDE_BATCH_POLL_MIN=3):
        assert Settings.of(project).poll_min == 3
        assert set(found()) <= {"claude_batch.W005"}


@pytest.mark.parametrize("name", ["CELREY_CLAUDE_BATCH_POLL_MIN", "CELERYCLAUDE_BATCH_POLL_MIN"])
def test_a_setting_outside_celerys_namespace_is_an_error(project: Celery, name: str) -> None:
    with override_settings(**{name: 3}):
        text = found()["claude_batch.E020"]
    assert "Celery does not read" in text
    assert name in text
    assert "CELERY_CLAUDE_BATCH_POLL_MIN" in text


def test_a_setting_of_ones_own_is_left_alone(project: Celery) -> None:
    with override_settings(MY_CLAUDE_BATCH_SIZE=3):
        assert set(found()) <= {"claude_batch.W005"}


def test_what_doctor_finds_in_the_settings_is_found(project: Celery) -> None:
    with override_settings(CELERY_RESULT_EXPIRES=60, CELERY_TASK_SERIALIZER="pickle"):
        assert {"claude_batch.W008", "claude_batch.W009", "claude_batch.W010"} <= set(found())


def test_a_finding_can_be_silenced(project: Celery) -> None:
    with override_settings(CELERY_RESULT_EXPIRES=60, SILENCED_SYSTEM_CHECKS=["claude_batch.W008"]):
        assert [
            message.is_silenced() for message in run_checks(tags=["claude_batch"]) if message.id == "claude_batch.W008"
        ] == [True]


def test_a_project_without_a_celery_app_is_warned() -> None:
    said = checked_elsewhere("")
    assert "This project has no Celery app" in said["claude_batch.W402"]


def test_a_setting_in_such_a_project_is_an_error() -> None:
    said = checked_elsewhere("settings.CLAUDE_BATCH_MAX_COST = 5")
    assert "CLAUDE_BATCH_MAX_COST in Django's settings is not in force" in said["claude_batch.E020"]


def test_several_celery_apps_of_which_none_is_the_current_one_are_an_error() -> None:
    said = checked_elsewhere(
        "import celery; apps = [celery.Celery(name, set_as_current=False) for name in ('one', 'other')]"
    )
    assert list(said) == ["claude_batch.E401"]
    assert "which Celery app is meant" in said["claude_batch.E401"]


def test_servers_are_asked_only_before_a_deployment(project: Celery) -> None:
    with override_settings(CELERY_BROKER_URL=f"redis://127.0.0.1:{free_port()}/0"):
        assert set(found()) <= {"claude_batch.W005"}
        assert "no server listens there" in found(include_deployment_checks=True)["claude_batch.E101"]


def test_each_finding_is_said_once_before_a_deployment(project: Celery) -> None:
    with override_settings(CELERY_RESULT_EXPIRES=60):
        ids = [message.id for message in run_checks(tags=["claude_batch"], include_deployment_checks=True)]
    assert ids.count("claude_batch.W008") == 1
    assert "claude_batch.E201" in ids  # there is no worker
