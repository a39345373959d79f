"""Some seeds of the chaos suite; ``make chaos SEEDS=1000`` runs many.

``CHAOS_SEEDS=20`` runs so many, spread over all crash points and beyond them; ``CHAOS_SEED=17`` runs that one again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random

import celery
import pytest

from tests.chaos import schedule
from tests.chaos.run import Bench, failure

pytestmark = [
    pytest.mark.workers,
    pytest.mark.timeout(400),
    # Older ones end, workers and callers alike, when their Redis restarts at the wrong moment.
    pytest.mark.skipif(celery.VERSION[:2] < (5, 7), reason="bad weather is for the present Celery"),
]


def seeds() -> list[int]:
    """Half of them kill at one of the known points each, half are wilder."""
    if "CHAOS_SEED" in os.environ:
        return [int(os.environ["CHAOS_SEED"])]
    count = int(os.environ.get("CHAOS_SEEDS", "2"))
    points = len(schedule.known_points())
    random = Random("spread")
    return sorted([*random.sample(range(points), min(count // 2, points)), *range(points, points + count - count // 2)])


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """Redis and simulator for all seeds, and workers that live on where they can."""
    with Bench() as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds())
def test_no_request_is_lost_and_none_is_paid_twice(seed: int, bench: Bench) -> None:
    report = bench.run(schedule.of(seed))
    if report.problems:
        pytest.fail(failure(report), pytrace=False)


def test_every_weather_and_point_of_the_list_exists() -> None:
    known = schedule.known_points()
    assert len(known) == len({point.name for point in known}) > 100
    assert {point.weather for point in known} <= set(schedule.WEATHERS)


def test_a_seed_always_stands_for_the_same_schedule() -> None:
    for seed in (0, 7, 1000, 1001):
        assert str(schedule.of(seed)) == str(schedule.of(seed))
