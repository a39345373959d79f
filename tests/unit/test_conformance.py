"""The documentation's page about Celery's contract says what the table says, and where it was seen."""

from __future__ import annotations

import inspect

import pytest
from celery import Task
from celery.app.amqp import AMQP
from celery.app.defaults import DEFAULTS

from tests.conformance import asks, page
from tests.conformance.bench import LANES, Lane
from tests.conformance.suite import required, runs
from tests.conformance.table import LEFT_OUT, ROWS

pytestmark = pytest.mark.latest

WHOLE = " ".join([*(f"{row.part} {row.name}" for row in ROWS), *LEFT_OUT])


def test_names_are_unique() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_the_page_has_these_rows_and_expectations() -> None:
    text = page.PAGE.read_text()
    assert page.updated(text) == text, "run: make conformance"


@pytest.mark.parametrize("lane", LANES, ids=str)
def test_each_row_was_seen_where_it_has_to_be(lane: Lane) -> None:
    seen = page.results()
    assert [row.name for row in runs(lane) if required(row, lane) and str(lane) not in seen.get(row.name, {})] == []


@pytest.mark.parametrize("lane", LANES, ids=str)
def test_each_row_was_as_expected(lane: Lane) -> None:
    seen = page.results()
    wrong = {row.name: text for row in ROWS if (text := seen.get(row.name, {}).get(str(lane)))}
    assert wrong == {}


def test_each_row_was_seen_of_ask_and_as_expected() -> None:
    seen = page.results()
    rows = [row.name for row in ROWS if asks.runs(row, asks.LANE)]
    assert len(rows) > 100
    assert {name: seen.get(name, {}).get("ask", "not seen") for name in rows} == dict.fromkeys(rows, "")
    assert {*asks.EXPECTED, *asks.LEFT_OUT} <= {row.name for row in ROWS}
    assert [name for name, each in asks.EXPECTED.items() if not each.reason] == []


def test_whatever_is_not_the_same_has_a_reason() -> None:
    assert [row.name for row in ROWS if row.expected != "same" and not row.reason] == []


def _parameters(*functions: object) -> set[str]:
    found = {name for function in functions for name in inspect.signature(function).parameters}  # type: ignore[arg-type]
    return found - {"self", "args", "kwargs", "options"}


#: Of ``as_task_v2``, by other names.
ALIASES = {"task_id", "name", "callbacks", "errbacks", "create_sent_event"}


@pytest.mark.parametrize("option", sorted(_parameters(Task.apply_async, AMQP.as_task_v2) - ALIASES))
def test_every_option_of_apply_async_is_there(option: str) -> None:
    assert f"{option}=" in WHOLE or option == "stamped_headers"


#: Settings that rows name, or whose prefix ``LEFT_OUT`` has.
PREFIXES = sorted({name.strip("`").rstrip("*") for names in LEFT_OUT for name in names.split(", ") if "*" in name})


@pytest.mark.parametrize("setting", sorted(DEFAULTS))
def test_every_setting_is_there(setting: str) -> None:
    assert setting in WHOLE or setting.startswith(tuple(each.split("*")[0] for each in PREFIXES))


def _attributes() -> list[str]:
    inner = ("run", "app", "request_stack", "name", "bind", "abstract", "from_config", "annotate", "add_around")
    public = [name for name in vars(Task) if not name.startswith("_") and name not in inner]
    return sorted(
        name for name in public if not callable(getattr(Task, name)) and not isinstance(vars(Task)[name], property)
    )


@pytest.mark.parametrize("attribute", _attributes())
def test_every_attribute_of_a_task_is_there(attribute: str) -> None:
    assert attribute in WHOLE
