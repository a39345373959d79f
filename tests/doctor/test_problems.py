"""The data that the checks, the documentation and Django share."""

from __future__ import annotations

import logging
import re
import runpy
import time
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

import claude_batch_tasks
from claude_batch_tasks.checks import configuration, connections, inspection, problems
from claude_batch_tasks.doctor import workers
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store.redis.parts.inspection import PROBES
from tests.factories import find_in_info

ROOT = Path(__file__).parents[2]
PACKAGE = Path(claude_batch_tasks.__file__).parent


def test_each_problem_has_an_id_of_its_own_that_says_how_bad_it_is() -> None:
    found = list(problems.list_problems())
    assert len({problem.id for problem in found}) == len(found) > 40
    for problem in found:
        assert re.fullmatch(r"claude_batch\.[EW]\d{3}", problem.id)
        assert problem.level == (logging.ERROR if ".E" in problem.id else logging.WARNING)
        assert problem.text
        assert problem.hint


def test_each_problem_is_looked_for() -> None:
    sources = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    names = [name for name, value in vars(problems).items() if isinstance(value, problems.Problem)]
    reported = set(re.findall(r'(?:ServerProblem\(|kind = |else )"([A-Z_]+)"', sources))
    assert [name for name in names if f"problems.{name}" not in sources and name not in reported] == []
    assert reported <= {*names}


def test_the_page_on_troubleshooting_has_all_of_them() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "problems_table.py"))
    page = (ROOT / "docs" / "howto" / "troubleshooting.md").read_text()
    assert script["updated"](page) == page, "run: python docs/problems_table.py"
    assert all(f"`{problem.id}`" in page for problem in problems.list_problems())


def test_every_command_the_store_sends_is_tried() -> None:
    lua = "".join(path.read_text() for path in (PACKAGE / "store").rglob("*.lua"))
    python = "".join(path.read_text() for path in (PACKAGE / "store" / "redis").rglob("*.py"))
    sent = set(re.findall(r"redis\.p?call\('(\w+)'", lua))
    sent |= {
        {"delete": "DEL"}.get(name, name.upper().removesuffix("_ITER"))
        for name in re.findall(r"(?:_redis|pipe|client)\.(\w+)\(", python)
    }
    ours = {"PIPELINE", "EXECUTE", "REGISTER_SCRIPT", "CLOSE", "FROM_URL", "PUBSUB"}
    tried = {probe.split()[0] for probe in PROBES.split("|")}
    assert sent - ours - tried == set()


def test_what_a_worker_answers_is_compared() -> None:
    settings = Settings(store_url="redis://here/0", poll_max=30)
    same = {
        "version": claude_batch_tasks.__version__,
        "sees": True,
        "store": "there:6379/0",
        "settings": inspection.describe_worker(settings),
        "clients": ["default"],
    }

    def found(*, late: float = 0, **changes: Any) -> list[str]:
        asked = time.time()
        answer = {**same, "now": asked - late, **changes}
        return [str(one) for one in workers.of_worker("w1", answer, settings, marked=True, asked=asked)]

    assert found() == []
    [silent] = workers.of_worker("w1", {}, settings, marked=True, asked=0)
    assert "does not report its version" in silent.text
    for changes, words in (
        ({"version": "0.0.1"}, "w1 runs claude-batch-tasks 0.0.1"),
        ({"sees": None}, "w1 cannot reach its store (there:6379/0)"),
        ({"sees": False}, "uses another store (there:6379/0) than this process (here:6379/0)"),
        (
            {"settings": inspection.describe_worker(Settings(poll_max=40))},
            "other settings than this process: poll_max.",
        ),
        ({"clients": []}, "does not know the client 'default'"),
        ({"late": 60}, "the clock of w1 is 60 s behind this machine's"),
        ({"late": -60}, "the clock of w1 is 60 s ahead of this machine's"),
    ):
        [text] = found(**changes)
        assert words in text
    assert found(settings={}) == []  # another release, which does not know them


@pytest.mark.parametrize(
    ("info", "problem"),
    [
        ({"redis_version": "6.0.20"}, "E110"),
        ({"redis_version": "7.2.4", "valkey_version": "8.0.0"}, None),
        ({"redis_version": "7.0.0", "redis_mode": "cluster"}, "E111"),
        ({"maxmemory": 1000, "used_memory": 700}, None),
        ({"maxmemory": 1000, "used_memory": 900}, "W109"),
        ({"maxmemory": 1000, "used_memory": 1100}, "E105"),
        ({"role": "slave"}, "E104"),
        ({"role": "slave", "slave_read_only": 0}, None),
    ],
)
def test_what_a_server_tells_of_itself(info: dict[str, Any], problem: str | None) -> None:
    found = [one.id for one in find_in_info(info)]
    assert found == ([f"claude_batch.{problem}"] if problem else [])


def test_no_password_is_shown() -> None:
    assert connections.mask_passwords("no amqp://user:pass@host and redis://:pa%40ss@host:1") == (
        "no amqp://***@host and redis://***@host:1"
    )
    assert connections.mask_passwords("db+postgresql://u:p@a/ss@host/x") == "db+postgresql://***@host/x"
    assert (
        connections.mask_passwords("db://host/x?user=u&sslpassword=pass&a=1")
        == "db://host/x?user=u&sslpassword=***&a=1"
    )


@pytest.mark.parametrize("address", ["redis://:PASS/WORD@host:6379/0", "amqp://user:PA[SS]WORD@host//"])
def test_a_password_that_breaks_its_address_is_not_shown(address: str) -> None:
    with Celery("judged", broker=address, backend="redis://host/0", set_as_current=False) as app:
        app.conf.update(result_expires=None)
        found = {one.id: str(one) for one in configuration.check_statically(app)}
    assert "as %2F" in found["claude_batch.E018"]
    assert not any("PA" in text or "WORD" in text for text in found.values())


def test_settings_alone_are_judged_without_asking_anybody() -> None:
    with Celery("judged", broker="amqp://no-such-host.invalid", set_as_current=False) as app:
        app.conf.update(claude_batch_store_url="redis://no-such-host.invalid/0", worker_prefetch_multiplier=0)
        app.conf.update(result_backend="cache+memory://", result_expires=None)
        [found] = configuration.check_statically(app)
    assert (found.id, found.level, found.hint) == (
        "claude_batch.W007",
        logging.WARNING,
        "worker_prefetch_multiplier = 1",
    )
