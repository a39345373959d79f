"""The table on Redis, with gevent: rows that need no configuration of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.bench import Lane
from tests.conformance.suite import check, observations, parameters
from tests.conformance.table import Row

pytestmark = [pytest.mark.slow, pytest.mark.latest, pytest.mark.workers, pytest.mark.timeout(600)]

observations = pytest.fixture(scope="module")(observations)


@pytest.mark.parametrize(("lane", "row"), parameters([Lane("redis", "gevent")], usual=True))
def test_it_is_as_the_table_says(lane: Lane, row: Row, observations: Callable[..., Any]) -> None:
    check(row, observations(lane, row))
