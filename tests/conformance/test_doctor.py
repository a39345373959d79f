"""``doctor`` on every configuration of the table: no false alarm, and an error where no job can be sent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from celery import Celery
from click.testing import CliRunner

from claude_batch_tasks.api import clients
from claude_batch_tasks.cli import claude_batch
from tests.conformance.bench import Configuration, Servers, bench, servers
from tests.conformance.suite import FIRST, runs

pytestmark = [pytest.mark.slow, pytest.mark.latest, pytest.mark.workers, pytest.mark.timeout(300)]

_ROWS = runs(FIRST)
CONFIGURATIONS = list(dict.fromkeys(row.configuration for row in _ROWS))


class Context(NamedTuple):
    """What Celery's own command line hands to a plugin."""

    app: Celery


@pytest.fixture(scope="module")
def found() -> Iterator[Servers]:
    """Start what all have in common."""
    with servers() as started:
        yield started


def _parameters() -> Iterator[object]:
    for number, configuration in enumerate(CONFIGURATIONS):
        rows = [row for row in _ROWS if row.configuration == configuration]
        refused = all(row.refused for row in rows)
        marks = [] if refused or number == 0 else [pytest.mark.release]
        yield pytest.param(configuration, refused, id=rows[0].name, marks=marks)


@pytest.mark.parametrize(("configuration", "refused"), list(_parameters()))
def test_its_exit_code_fits(configuration: Configuration, refused: bool, found: Servers, tmp_path: Path) -> None:
    clients._client.cache_clear()
    with bench(found, FIRST, configuration, tmp_path) as made:
        command = CliRunner().invoke(claude_batch, ["doctor"], obj=Context(made.app))
    wrong = re.findall(r"\[claude_batch\.(E\d+)\]", command.output)
    if refused:
        assert command.exit_code == 1, command.output
        assert wrong[0] in ("E022", "E023"), command.output
    else:
        assert (command.exit_code, wrong) == (0, []), command.output
