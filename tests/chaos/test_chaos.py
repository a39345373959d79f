"""Some seeds of the chaos suite; ``make chaos SEEDS=1000`` runs many.

``CHAOS_SEEDS=20`` runs so many, spread over all crash points and beyond them; ``CHAOS_SEED=17`` runs that one again.
A few more run with workers and callers of the last release.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random

import celery
import pytest

from tests.chaos import schedule
from tests.chaos.released import ReleaseMissing
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
    known = len(schedule.known_points())
    random = Random("spread")
    return sorted([*random.sample(range(known), min(count // 2, known)), *range(known, known + count - count // 2)])


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """Redis and simulator for all seeds, and workers that live on where they can."""
    with Bench() as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds())
def test_no_request_is_lost_and_none_is_paid_twice(seed: int, bench: Bench) -> None:
    report = bench.run(bench.schedule(seed))
    if report.problems:
        pytest.fail(failure(report), pytrace=False)


@pytest.fixture(scope="module")
def mixed_bench() -> Iterator[Bench]:
    """The same with a worker and a caller of the release before this one."""
    try:
        with Bench(mixed=True) as made:
            yield made
    except ReleaseMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [int(os.environ["CHAOS_SEED"])] if "CHAOS_SEED" in os.environ else range(6))
def test_the_same_holds_beside_workers_and_callers_of_the_last_release(seed: int, mixed_bench: Bench) -> None:
    report = mixed_bench.run(mixed_bench.schedule(seed))
    if report.problems:
        pytest.fail(failure(report), pytrace=False)


def test_a_seed_always_stands_for_the_same_schedule() -> None:
    for seed in (0, 7, 1000, 1001):
        assert str(schedule.of(seed)) == str(schedule.of(seed))
        released = schedule.known_points()
        assert str(schedule.mixed(seed, released)) == str(schedule.mixed(seed, released))
