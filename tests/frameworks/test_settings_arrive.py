"""A setting is read as each framework spells it, or worker, doctor and Django's checks say that it is not in force."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.frameworks.projects import KINDS, make

pytestmark = pytest.mark.slow

NOWHERE = "redis://127.0.0.1:1/0"

#: Every spelling that arrives.
READ = [
    ("django", "CLAUDE_BATCH_MAX_COST"),
    ("django", "CELERY_CLAUDE_BATCH_MAX_COST"),
    ("django_namespace", "CLAUDE_BATCH_MAX_COST"),
    ("django_namespace", "CELERY_CLAUDE_BATCH_MAX_COST"),
    ("django_other_namespace", "CLAUDE_BATCH_MAX_COST"),
    ("django_other_namespace", "QUEUE_CLAUDE_BATCH_MAX_COST"),
    ("flask_update", "CLAUDE_BATCH_MAX_COST"),
    ("flask_update", "CELERY_CLAUDE_BATCH_MAX_COST"),
    ("flask_object", "CLAUDE_BATCH_MAX_COST"),
    ("flask_object", "CELERY_CLAUDE_BATCH_MAX_COST"),
    ("plain_module", "claude_batch_max_cost"),
    ("plain_module", "CLAUDE_BATCH_MAX_COST"),
    ("plain_module", "CELERY_CLAUDE_BATCH_MAX_COST"),
    ("plain_variable", "claude_batch_max_cost"),
    ("plain_variable", "CLAUDE_BATCH_MAX_COST"),
    ("ready_made", "CLAUDE_BATCH_MAX_COST"),
    ("ready_made", "CELERY_CLAUDE_BATCH_MAX_COST"),
    ("ready_made", "claude_batch_max_cost"),
]


@pytest.mark.parametrize(("kind", "name"), READ)
def test_it_is_in_force(kind: str, name: str, tmp_path: Path) -> None:
    found = make(kind, tmp_path, NOWHERE, **{name: 5}).doctor()
    assert not {"claude_batch.E001", "claude_batch.E020", "claude_batch.W021"} & set(found), found
    assert "max_cost 5," in found["ok"]


def test_doctor_shows_every_limit_in_force(tmp_path: Path) -> None:
    project = make("django", tmp_path, NOWHERE, CLAUDE_BATCH_MAX_MESSAGES_IN_FLIGHT=3, CLAUDE_BATCH_DEADLINE=60)
    said = project.doctor()["ok"]
    assert "max_cost none" in said
    assert "max_messages_in_flight 3" in said
    assert "deadline 60" in said
    assert "max_fallback_requests 1,000" in said


#: What is written, where nothing reads it: kind of project, settings, environment, code, words of what is said.
UNREAD: list[tuple[str, dict[str, Any], dict[str, str], str, tuple[str, ...]]] = [
    (
        "django",
        {},
        {},
        "claude_batch_max_cost = 5",
        ("claude_batch_max_cost in mysite.settings", "capitals", "Write CLAUDE_BATCH_MAX_COST in Django's settings"),
    ),
    (
        "django_namespace",
        {},
        {},
        "claude_batch_max_cost = 5",
        ("claude_batch_max_cost in mysite.settings", "Write CELERY_CLAUDE_BATCH_MAX_COST in Django's settings"),
    ),
    (
        "django_namespace",
        {"CELREY_CLAUDE_BATCH_MAX_COST": 5},
        {},
        "",
        ("CELREY_CLAUDE_BATCH_MAX_COST in Django's settings", "Write CELERY_CLAUDE_BATCH_MAX_COST"),
    ),
    (
        "django_namespace",
        {"CELERY_CLAUDE_BACTH_MAX_COST": 5},
        {},
        "",
        ("CELERY_CLAUDE_BACTH_MAX_COST in Django's settings", "misspelled", "Write CELERY_CLAUDE_BATCH_MAX_COST"),
    ),
    (
        "django_other_namespace",
        {"CELERY_CLAUDE_BATCH_MAX_COST": 5},
        {},
        "",
        ("CELERY_CLAUDE_BATCH_MAX_COST in Django's settings", "Write QUEUE_CLAUDE_BATCH_MAX_COST"),
    ),
    (
        "django_unread",
        {"CLAUDE_BATCH_MAX_COST": 5},
        {},
        "",
        ("app.conf.claude_batch_max_cost = settings.CLAUDE_BATCH_MAX_COST",),
    ),
    (
        "django_unread",
        {},
        {},
        "claude_batch_max_cost = 5",
        ("capitals", "app.conf.claude_batch_max_cost = mysite.settings.claude_batch_max_cost"),
    ),
    (
        "django",
        {"CELERY": {"claude_batch_max_cost": 5}},
        {},
        "",
        ("CELERY in Django's settings", "app.conf.claude_batch_max_cost = settings.CELERY['claude_batch_max_cost']"),
    ),
    (
        "django",
        {},
        {"CLAUDE_BATCH_MAX_COST": "5"},
        "",
        ("in the environment", "app.conf.claude_batch_max_cost = os.environ['CLAUDE_BATCH_MAX_COST']"),
    ),
    (
        "django_namespace",
        {"CELERY_CLAUDE_BATCH_MAX_COST": 50},
        {"CLAUDE_BATCH_MAX_COST": "5"},
        "",
        ("max_cost is 50.0", "CELERY_CLAUDE_BATCH_MAX_COST in the app's configuration says otherwise"),
    ),
    (
        "flask_dict",
        {"CELERY": {}, "CLAUDE_BATCH_MAX_COST": 5},
        {},
        "",
        (
            "config of the Flask app 'shop'",
            "app.conf.claude_batch_max_cost = flask_app.config['CLAUDE_BATCH_MAX_COST']",
        ),
    ),
    (
        "flask_update",
        {"CELERY": {"claude_batch_max_cost": 5}},
        {},
        "",
        (
            "CELERY in the config",
            "app.conf.claude_batch_max_cost = flask_app.config['CELERY']['claude_batch_max_cost']",
        ),
    ),
    (
        "flask_unread",
        {"CLAUDE_BATCH_MAX_COST": 5},
        {},
        "",
        ("app.conf.claude_batch_max_cost = flask_app.config['CLAUDE_BATCH_MAX_COST']",),
    ),
    (
        "flask_update",
        {},
        {},
        "class Config:\n    CURRENCY = 'USD'\n    claude_batch_max_cost = 5\n\nflask_app.config.from_object(Config)",
        ("claude_batch_max_cost in shop.Config", "capitals", "Write CLAUDE_BATCH_MAX_COST in place of it"),
    ),
    (
        "flask_dict",
        {"CELERY": {}},
        {},
        "CURRENCY, claude_batch_max_cost = 'USD', 5\nflask_app.config.from_object(__name__)",
        ("claude_batch_max_cost in shop", "app.conf.claude_batch_max_cost = shop.claude_batch_max_cost"),
    ),
    ("flask_update", {}, {"FLASK_CLAUDE_BATCH_MAX_COST": "5"}, "", ("FLASK_CLAUDE_BATCH_MAX_COST in the environment",)),
    ("flask_dict", {"CELERY": {}, "CLAUDE_BATCH_MAX_COTS": 5}, {}, "", ("misspelled (max_cost is meant)",)),
    ("plain", {}, {"CLAUDE_BATCH_MAX_COST": "5"}, "", ("CLAUDE_BATCH_MAX_COST in the environment",)),
    ("plain", {}, {"CLAUDE_BATCH_MAX_COTS": "5"}, "", ("misspelled (max_cost is meant)",)),
    ("plain_module", {"celrey_claude_batch_max_cost": 5}, {}, "", ("Write claude_batch_max_cost in place of it",)),
    (
        "ready_made",
        {"CLAUDE_BACTH_MAX_COST": 5},
        {},
        "",
        ("misspelled", "Set CLAUDE_BATCH_MAX_COST in the environment"),
    ),
]


@pytest.mark.workers
@pytest.mark.parametrize(
    ("kind", "settings", "env", "code", "words"),
    UNREAD,
    ids=[f"{kind} {' '.join([*settings, *env])}{code[:25]}" for kind, settings, env, code, _ in UNREAD],
)
def test_it_is_an_error_where_it_is_not_in_force(
    kind: str, settings: dict[str, Any], env: dict[str, str], code: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    project = make(kind, tmp_path, NOWHERE, env=env, config=code, **settings)
    found = project.doctor()
    refusal = project.refusal()
    for word in ("is not in force", *words):
        assert word in found["claude_batch.E020"]
        assert word in refusal
    assert "max_cost 5," not in found["ok"]
    if KINDS[kind].framework == "django":
        said = project.check()
        assert said.code == 1
        assert "(claude_batch.E020)" in said.text
        assert all(word in said.text for word in words)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("django_namespace", {"CELERY_CLAUDE_BATCH_MAX_COTS": 5}),
        ("django", {"CLAUDE_BATCH_MAX_COTS": 5}),
        ("flask_update", {"CLAUDE_BATCH_MAX_COTS": 5}),
    ],
)
def test_a_misspelled_name_that_celery_reads_is_told_how_to_be_written(
    kind: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    [name] = settings
    said = make(kind, tmp_path, NOWHERE, **settings).doctor()["claude_batch.E001"]
    assert "did you mean max_cost?" in said
    assert f"Write {name.replace('COTS', 'COST')} in place of {name}" in said


@pytest.mark.parametrize(
    ("kind", "name"),
    [("django_namespace", "CELERY_RESULT_EXPIRES"), ("django", "CELERY_TASK_RESULT_EXPIRES")],
)
def test_other_hints_name_settings_as_django_reads_them(kind: str, name: str, tmp_path: Path) -> None:
    project = make(kind, tmp_path / "before", NOWHERE, **{name: 60})
    hint = f"{name} = 604800"
    assert hint in project.doctor()["claude_batch.W008"]
    assert hint in project.check().text
    assert "claude_batch.W008" not in make(kind, tmp_path / "after", NOWHERE, **{name: 604800}).doctor()


@pytest.mark.parametrize(
    ("kind", "settings", "env", "code"),
    [
        # of the project's own, for something else
        (
            "django_namespace",
            {"MY_CLAUDE_BATCH_SIZE": 3},
            {"CLAUDE_BATCH_MODEL": "x", "CLAUDE_BATCH_MAX_TOKENS": "9"},
            "",
        ),
        # names of tasks
        (
            "django_namespace",
            {
                "CELERY_TASK_ROUTES": {"claude_batch_tasks.*": {"queue": "batches"}},
                "CELERY_TASK_ANNOTATIONS": {"claude_batch_tasks.fetch_results": {"rate_limit": "9/s"}},
                "CELERY_BEAT_SCHEDULE": {"claude_batch_retry": {"task": "x", "schedule": 60}},
            },
            {},
            "",
        ),
        # taken from the environment by the project itself, or twice the same
        ("django_namespace", {"CELERY_CLAUDE_BATCH_MAX_COST": 5}, {"CLAUDE_BATCH_MAX_COST": "5.0"}, ""),
        ("django", {"CLAUDE_BATCH_MAX_COST": 5, "CELERY_CLAUDE_BATCH_MAX_COST": 5}, {}, ""),
        ("flask_dict", {"CELERY": {"claude_batch_max_cost": 5}, "CLAUDE_BATCH_MAX_COST": 5}, {}, ""),
        ("plain", {}, {"CLAUDE_BATCH_MAX_COST": ""}, ""),
    ],
)
def test_there_is_no_false_alarm(
    kind: str, settings: dict[str, Any], env: dict[str, str], code: str, tmp_path: Path
) -> None:
    found = make(kind, tmp_path, NOWHERE, env=env, config=code, **settings).doctor()
    assert not {"claude_batch.E001", "claude_batch.E020", "claude_batch.W021"} & set(found), found


def test_a_name_that_may_be_the_projects_own_is_a_warning(tmp_path: Path) -> None:
    found = make("django_namespace", tmp_path, NOWHERE, MY_CLAUDE_BATCH_TIMEOUT=3).doctor()
    assert "MY_CLAUDE_BATCH_TIMEOUT in Django's settings looks like a setting" in found["claude_batch.W021"]


@pytest.mark.parametrize("kind", ["django", "flask_update"])
def test_a_setting_with_two_values_is_refused(kind: str, tmp_path: Path) -> None:
    settings = {"CLAUDE_BATCH_MAX_COST": 5, "CELERY_CLAUDE_BATCH_MAX_COST": 50}
    found = make(kind, tmp_path, NOWHERE, **settings).doctor()
    assert "CLAUDE_BATCH_MAX_COST and" in found["claude_batch.E001"]
    assert "remove one of them" in found["claude_batch.E001"]


@pytest.mark.workers
@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("django", ["CLAUDE_BATCH_MAX_COST", "CELERY_CLAUDE_BATCH_POLL_MIN"]),
        ("flask_update", ["CLAUDE_BATCH_MAX_COST", "CELERY_CLAUDE_BATCH_POLL_MIN"]),
    ],
)
def test_a_worker_works_by_it(kind: str, names: list[str], redis_url: str, store_url: str, tmp_path: Path) -> None:
    ours = {"CLAUDE_BATCH_STORE_URL": store_url, **dict.fromkeys(names, 0.01)}
    project = make(kind, tmp_path, redis_url, env={"ANTHROPIC_API_KEY": "sk-ant-test"}, **ours)
    program = f"""
from {project.app} import {"celery_app as app" if project.app == "mysite" else "app"}
from claude_batch_tasks import errors, run_batch
from claude_batch_tasks.doctor import workers
from claude_batch_tasks.settings import Settings
assert (Settings.of(app).max_cost, Settings.of(app).poll_min) == (0.01, 0.01)
print([str(finding) for finding in workers.check_workers(app)])
message = {{"role": "user", "content": "word " * 100_000}}
params = {{"model": "claude-haiku-4-5", "max_tokens": 64, "messages": [message]}}
try:
    run_batch.delay([{{"custom_id": "dear", "params": params}}])
except errors.InvalidRequests as exc:
    print("refused:", exc)
"""
    with project.worker() as worker:
        said = project.run("-c", program)
        assert "runs jobs, with claude-batch-tasks" in said.text, said.text + worker.log.read_text()
        assert "other settings" not in said.text
        assert "refused: " in said.text
