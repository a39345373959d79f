"""What is named in a text or a string is there: tasks, modules, settings, metrics, problems, events, fields."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import msgspec
import pytest
import yaml
from celery import Celery
from celery.app.defaults import SETTING_KEYS
from celery.app.task import Task

import claude_batch_tasks
from claude_batch_tasks import doctor, records
from claude_batch_tasks.checks import celery_settings, problems
from claude_batch_tasks.metrics import METRICS
from claude_batch_tasks.settings import FIELDS, NAMES
from claude_batch_tasks.steps.message_chain import NAME
from claude_batch_tasks.store import history
from claude_batch_tasks.store.redis import keys

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "claude_batch_tasks"

#: The changelog names what there was.
TEXTS = sorted(
    path
    for pattern in (
        "claude_batch_tasks/**/*.py",
        "claude_batch_tasks/**/*.html",
        "claude_batch_tasks/**/*.js",
        "claude_batch_tasks/**/*.lua",
        "docs/**/*.md",
        "docs/*.py",
        "examples/**/*.py",
        "examples/**/*.md",
        "monitoring/*",
        "*.md",
        "*.yml",
        "*.toml",
        "celeryconfig.py",
        "Dockerfile",
        "Makefile",
    )
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
)
SOURCES = {path: ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}

#: What begins as our settings do and is something else: permissions, headers, fixtures, templates, Redis keys, context
#: variables, and the fields of lines in the log.
OTHERS = {
    "app",
    "call",
    "confirm",
    "countdown",
    "key",
    "simulator",
    "simulator_factory",
    "tasks",
    "sent",
    "fixed_headers",
}
OTHERS |= {"answer", "delivery"}
OTHERS |= {"event", "job_id", "label", "batch", "batch_id", "lane"}

#: Found by ``manage.py check`` alone.
OF_DJANGO = {"claude_batch.E401", "claude_batch.W402"}

#: Wrong on purpose: what the documentation shows to be refused.
MISSPELLED = {"max_wiat"}


def found(pattern: str, *, within: list[Path] | None = None) -> Iterator[tuple[str, str]]:
    """Each match in the texts, with where it is."""
    for path in within or TEXTS:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for match in re.finditer(pattern, line):
                yield match[1], f"{path.relative_to(ROOT)}:{number}"


class Call(NamedTuple):
    """A call in the package: of what, with which constants, which keywords, and where."""

    function: str
    constants: list[str | None]
    keywords: set[str | None]
    place: str


def calls() -> Iterator[Call]:
    """Each call in the package."""
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                constants = [arg.value if isinstance(arg, ast.Constant) else None for arg in node.args]
                keywords = {keyword.arg for keyword in node.keywords}
                yield Call(ast.unparse(node.func), constants, keywords, f"{path.relative_to(ROOT)}:{node.lineno}")


def top_level(tree: ast.Module) -> set[str]:
    """What a module defines, imports, or gives away under names that it lists."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
            continue
        for each in ast.walk(node):
            if isinstance(each, ast.alias):
                names.add(each.asname or each.name)
            elif isinstance(each, ast.Name):
                names.add(each.id)
            elif isinstance(each, ast.Constant):
                names.add(str(each.value))
    return names


@pytest.fixture(scope="module")
def tasks() -> set[str]:
    """The names of all tasks."""
    with Celery("named", set_as_current=False) as app:
        app.loader.import_task_module("claude_batch_tasks.tasks")
        return {name for name in app.tasks if name.startswith(NAME)}


def test_modules_functions_and_tasks(tasks: set[str]) -> None:
    def exists(name: str) -> bool:
        parts = name.split(".")
        for length in range(len(parts), 0, -1):
            path = ROOT.joinpath(*parts[:length])
            path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            if path in SOURCES:
                return length == len(parts) or parts[length] in top_level(SOURCES[path])
        return False

    named = dict(found(r"(?<![\w./-])(claude_batch_tasks(?:\.[A-Za-z_]\w*)+)(?![\w/])"))
    assert {name: place for name, place in named.items() if name not in tasks and not exists(name)} == {}


def test_tasks_by_the_end_of_their_names(tasks: set[str]) -> None:
    named = {
        node.right.value
        for tree in SOURCES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp)
        and isinstance(node.right, ast.Constant)
        and ast.unparse(node.left).rpartition(".")[2] == "NAME"
    }
    named |= {name for name, _ in found(r"\{NAME\}(\w+)")} | set(celery_settings.LONG_STEPS)
    assert len(named) > 3
    assert {name for name in named if NAME + name not in tasks} == set()


def test_settings_and_metrics() -> None:
    series = {
        f"{metric.exposed_name.removeprefix('claude_batch_')}{end}"
        for metric in METRICS.values()
        for end in ("", "_bucket", "_sum", "_count")
    }
    named = {
        name: place
        for pattern in (r"(?<![\w.])(?:celery_)?claude_batch_([a-z]\w*)", r"CLAUDE_BATCH_([A-Z]\w*)")
        for name, place in found(pattern)
    }
    known = {*NAMES, *series, *OTHERS, *MISSPELLED}
    assert {name: place for name, place in named.items() if name.lower() not in known} == {}


def test_problems() -> None:
    known = {problem.id for problem in problems.list_problems()} | OF_DJANGO
    assert {name: at for name, at in found(r"(claude_batch\.[EW]\d{3})") if name not in known} == {}


def test_metrics_that_are_counted_have_the_labels_they_are_counted_with() -> None:
    counted = [call for call in calls() if call.function in ("metrics.count", "metrics.observe")]
    assert len(counted) > 10
    for call in counted:
        name = call.constants[0]
        if name is not None:
            assert name in METRICS, call
            assert None in call.keywords or call.keywords - {"amount", "job"} == set(METRICS[name].labels), call


def test_events_of_the_history_are_on_its_page() -> None:
    page = (ROOT / "docs" / "reference" / "history.md").read_text()
    on_page = set(re.findall(r"^\| `(\w+)` \|", page.partition("## The history")[2], re.MULTILINE))
    assert on_page == set(get_args(history.Event))
    noted = {
        constant
        for call in calls()
        if call.function.rpartition(".")[2] in ("note", "record_event")
        and (call.function.startswith(("history", "self", "step")))
        for constant in call.constants
        if constant in on_page
    }
    assert len(noted) > 10


def test_settings_are_read_by_their_names() -> None:
    named = {
        constant: call.place
        for call in calls()
        if call.function.endswith((".options.get", ".options.pop", "settings.get"))
        for constant in call.constants[:1]
        # A URL has options of redis-py's, and a signature those of apply_async.
        if constant not in (None, "headers") and not call.place.startswith("claude_batch_tasks/settings/redis_urls.py")
    }
    assert {name: at for name, at in named.items() if name not in NAMES} == {}
    assert set(doctor.LIMITS) <= NAMES


def messages() -> Iterator[tuple[str, str]]:
    """Every text of more than one word that is no docstring: problems, errors, meanings; and the alerts.

    The simulator's are not among them: they are the API's texts.
    """
    for path, tree in SOURCES.items():
        if "simulator" in path.parts:
            continue
        statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and id(node) not in statements else None
            if isinstance(text, str) and " " in text.strip():
                yield f"{path.relative_to(ROOT)}:{node.lineno}", text
    [group] = yaml.safe_load((ROOT / "monitoring" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]:
        yield rule["alert"], json.dumps(rule["annotations"])


#: Of Anthropic's API, its SDK, Celery, RabbitMQ and a Redis.
ELSEWHERE = {
    # PostgreSQL's own
    "autovacuum_enabled",
    "full_page_writes",
    "pg_backend_pid",
    "pg_reload_conf",
    "synchronous_commit",
    *("custom_id", "custom_ids", "max_tokens", "max_uses", "base_url", "after_id", "before_id"),
    *(
        "set_default",
        "active_queues",
        "visibility_timeout",
        "ssl_ca_certs",
        "add_vhost",
        "global_keyprefix",
        "master_name",
    ),
    *("default_headers", "default_query", "output_config", "model_dump", "overloaded_error"),
    *("check_function_bodies", "to_regclass", "to_regnamespace", "pg_advisory_xact_lock", "only_row", "create_engine"),
    *("pg_notify", "statement_timeout", "max_connections", "default_transaction_isolation"),
}


def test_messages_name_what_there_is(tasks: set[str]) -> None:
    fields = {
        name
        for value in vars(records).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct)
        for name in value.__struct_fields__
    }
    labels = {value for metric in METRICS.values() for values in metric.labels.values() for value in values}
    prices = set(re.findall(r"\w+_mtok", FIELDS["prices"].metadata["meaning"]))
    ours = {"claude_batch", *claude_batch_tasks.__all__, *(name.removeprefix(NAME) for name in tasks)}
    calls = {name: call for name, call in vars(claude_batch_tasks.BatchJob).items() if inspect.isfunction(call)}
    ours |= {*calls, *(name for call in calls.values() for name in inspect.signature(call).parameters)}
    known = {*NAMES, *fields, *METRICS, *labels, *prices, *ours, *SETTING_KEYS, *vars(Task), *ELSEWHERE}
    unknown = {
        (place, word)
        for place, text in messages()
        for word in re.findall(r"(?<![\w.{/'-])[a-z]+(?:_[a-z0-9]+)+(?![\w}./])", text)
        if word not in known and not word.startswith("claude_batch_")
    }
    assert unknown == set()


def test_fields_in_scripts_are_written_and_read() -> None:
    scripts = Counter(
        word
        for path in (PACKAGE / "store").rglob("*.lua")
        for namespace, word in re.findall(r"\b([A-Z][A-Z_]*)\.(\w+)", path.read_text())
        if namespace in keys.FIELDS
    )
    python = {
        word
        for path, tree in SOURCES.items()
        if ("store" in path.parts and path.name not in ("keys.py", "lua.py")) or path.name == "records.py"
        for word in re.findall(r"\w+", ast.unparse(tree))
    }
    assert {word for word, times in scripts.items() if times == 1 and word not in python} == set()
