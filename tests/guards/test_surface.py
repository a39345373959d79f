"""What users see is what it was: nothing is gone or different, and what is new is written down."""

from __future__ import annotations

import pytest

from claude_batch_tasks.settings import Settings, configuration
from tests.guards import surface

# Of click, Celery and Python it shows what the latest ones have.
pytestmark = pytest.mark.latest


@pytest.fixture(scope="module")
def differences() -> list[tuple[str, str]]:
    return list(surface.differences(surface.written(), surface.present()))


def test_nothing_is_gone_or_different(differences: list[tuple[str, str]]) -> None:
    assert [each for each in differences if each[0] != "new"] == []


def test_what_is_new_is_written_down(differences: list[tuple[str, str]]) -> None:
    new = [where for what, where in differences if what == "new"]
    assert new == [], "run: python -m tests.guards"


#: A value for each setting, as text.
_TEXTS = {
    "store_url": "redis://store:6379/1",
    "encryption_key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "on_unresolved_create": "fail",
    "ask_mode": "messages",
    "fallback": "off",
    "prices": '{"m": {"input_mtok": 1, "output_mtok": 2}}',
    "client_factories": '{"other": "package.make"}',
    "workspace_id": "wrkspc_1",
    "user_profile_id": "profile_1",
    "betas": "some-beta-2026-01-01",
    "instruments": "prometheus",
    "store_prefix": "shop:",
    "spool_dir": "/tmp/spool",
    "payload_url": "s3://bucket/prefix",
    "metrics_job_label": "true",
    "poll_min": "7",
    "retry_min": "7",
}


@pytest.mark.parametrize("name", surface.written()["settings"])
def test_each_setting_is_read_from_the_environment(name: str) -> None:
    read = configuration({f"CLAUDE_BATCH_{name.upper()}": _TEXTS.get(name, "2000")})
    assert f"claude_batch_{name}" in read
    assert f"claude_batch_{name}" not in configuration({})


@pytest.mark.parametrize("name", [name for name, each in surface.written()["settings"].items() if each["per job"]])
def test_each_setting_of_a_job_is_an_option_of_run_batch(name: str) -> None:
    value = _TEXTS.get(name, "2000")
    assert getattr(Settings().override({name: value}), name) != getattr(Settings(), name)
