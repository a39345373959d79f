"""The table's rows that have a configuration of their own, on every lane."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.bench import LANES, Lane
from tests.conformance.suite import check, observations, parameters
from tests.conformance.table import Row

pytestmark = [pytest.mark.slow, pytest.mark.latest, pytest.mark.workers, pytest.mark.timeout(600)]

observations = pytest.fixture(scope="module")(observations)


@pytest.mark.parametrize(("lane", "row"), parameters(LANES, usual=False))
def test_it_is_as_the_table_says(lane: Lane, row: Row, observations: Callable[..., Any]) -> None:
    check(row, observations(lane, row))
