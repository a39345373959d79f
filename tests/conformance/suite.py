"""Runs the table on a lane, and says of each row whether what was seen is what it expects."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection

from tests.conformance import asks, project
from tests.conformance.bench import RABBITMQ, Configuration, Lane, Servers, bench, observe, servers
from tests.conformance.table import ROWS, USUAL, Row

Seen = dict[str, dict[str, dict[str, Any]]]


def runs(lane: Lane) -> list[Row]:
    """Return the rows that mean anything on a lane, those of one configuration together."""
    order = list(dict.fromkeys(each.configuration for each in ROWS))
    return sorted((each for each in ROWS if each.runs_on(lane)), key=lambda each: order.index(each.configuration))


#: Where rows run that have a configuration of their own.
FIRST, SECOND = Lane("redis", "prefork"), Lane("rabbitmq", "prefork")


def required(row: Row, lane: Lane) -> bool:
    """Whether the documentation's page has to say what was seen there: where the option may make a difference."""
    if not row.runs_on(lane):
        return False
    return row.everywhere or lane == FIRST or (lane == SECOND and (row.by_broker or row.only == "rabbitmq"))


def marks(row: Row, lane: Lane) -> list[pytest.MarkDecorator]:
    """Return what keeps it out of ``make test``, and out of CI as well."""
    if lane == FIRST and (row.everywhere or row.quick):
        return []
    return [pytest.mark.release]


def verdict_of_ask(row: Row, seen: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what is wrong with what was seen of ``ask``; an empty text if nothing is."""
    expected, found = asks.EXPECTED.get(row.name, asks.SAME), asks.translate(seen[project.ASK])
    return _compare(seen[project.PLAIN], found, expected.refused, expected.differs)


def verdict(row: Row, seen: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what is wrong with what was seen; an empty text if nothing is."""
    return _compare(seen[project.PLAIN], seen[project.BATCH], row.refused, row.differs)


def _compare(plain: Mapping[str, Any], ours: Mapping[str, Any], refused: str, differs: Mapping[str, Any]) -> str:
    if "raised" in plain and (refused or differs):
        return f"the plain task raised {plain['raised']}"
    if refused:
        text = str(ours.get("raised", f"taken: {ours}"))
        return "" if re.search(refused, text) else f"not refused as expected: {text}"
    wrong = []
    for key in sorted({*plain, *ours}):
        expected = differs.get(key, plain.get(key))
        if key in differs and plain.get(key) == expected:
            wrong.append(f"{key}: the plain task does the same, {expected!r}")
        elif ours.get(key) != expected:
            wrong.append(f"{key}: expected {expected!r}, seen {ours.get(key)!r}")
    return "; ".join(wrong)


def run(found: Servers, lane: Lane, rows: Iterable[Row], folder: Path) -> Iterator[tuple[Row, Mapping[str, Any]]]:
    """Run rows on a lane, a worker for each configuration; yield each with what was seen."""
    grouped: dict[Configuration, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.configuration, []).append(row)
    for number, (configuration, together) in enumerate(grouped.items()):
        with bench(found, lane, configuration, folder / str(number)) as made:
            asked = {row.name for row in together if asks.runs(row, lane)}
            seen = observe(made, {row.name: row.run for row in together}, asked)
            gc.collect()  # results unsubscribe when they are collected, for which their servers must still be there
        for row in together:
            yield row, seen[row.name]


def why_not(lane: Lane) -> str | None:
    """Return why a lane cannot be run here; None if it can."""
    if lane.broker == "rabbitmq":
        try:
            with Connection(RABBITMQ, connect_timeout=3) as connection:
                connection.connect()
        except OSError as exc:
            return f"no RabbitMQ at {RABBITMQ} ({exc}); set TEST_RABBITMQ_URL"
    return None


class Observations:
    """What was seen on a lane; a configuration's rows run when the first of them is asked for."""

    def __init__(self, lane: Lane, rows: list[Row], folder: Path) -> None:
        self._lane, self._rows, self._folder = lane, rows, folder
        self._stack = ExitStack()
        self._servers: Servers | None = None
        self._seen: dict[str, Mapping[str, Any]] = {}
        self._failed: dict[Configuration, Exception] = {}

    def of(self, row: Row) -> Mapping[str, Any]:
        """Return what was seen of a row."""
        if row.configuration in self._failed:
            raise self._failed[row.configuration]
        if row.name not in self._seen:
            self._servers = self._servers or self._stack.enter_context(servers())
            together = [each for each in self._rows if each.configuration == row.configuration]
            folder = self._folder / str(len(self._seen))
            try:
                for each, seen in run(self._servers, self._lane, together, folder):
                    self._seen[each.name] = seen
            except Exception as exc:
                self._failed[row.configuration] = exc
                raise
        return self._seen[row.name]

    def close(self) -> None:
        """Stop the servers."""
        self._stack.close()


def observations(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Lane, Row], Mapping[str, Any]]]:
    """Yield what runs the rows of a lane that this module tests, and says what was seen of one of them."""
    lanes: dict[Lane, Observations] = {}

    def of(lane: Lane, row: Row) -> Mapping[str, Any]:
        if lane not in lanes:
            if why := why_not(lane):
                pytest.skip(why)
            here = [item for item in request.session.items if item.module is request.module]  # type: ignore[attr-defined]
            asked = [item.callspec.params for item in here]  # type: ignore[attr-defined]
            rows = [each["row"] for each in asked if each.get("lane", lane) == lane]
            lanes[lane] = Observations(lane, rows, tmp_path_factory.mktemp(str(lane)))
        return lanes[lane].of(row)

    yield of
    for each in lanes.values():
        each.close()


def parameters(lanes: Iterable[Lane], *, usual: bool) -> list[Any]:
    """Return lanes and rows: those that need no configuration of their own, or the others."""
    return [
        pytest.param(lane, row, id=f"{lane} {row.name}", marks=marks(row, lane))
        for lane in lanes
        for row in runs(lane)
        if (row.configuration == USUAL) == usual
    ]


def check(row: Row, seen: Mapping[str, Any]) -> None:
    """Fail where what was seen is not as the table says."""
    wrong = [verdict(row, seen)]
    if project.ASK in seen:
        wrong.append(verdict_of_ask(row, seen))
    if any(wrong):
        pytest.fail("; ask: ".join(wrong), pytrace=False)
