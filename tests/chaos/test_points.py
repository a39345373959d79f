"""The list of crash points has what workers pass, and is passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import celery
import pytest

from tests.chaos import points, schedule
from tests.chaos.run import Bench

pytestmark = [
    pytest.mark.workers,
    pytest.mark.timeout(400),
    # Older ones end, workers and callers alike, when their Redis restarts at the wrong moment.
    pytest.mark.skipif(celery.VERSION[:2] < (5, 7), reason="bad weather is for the present Celery"),
]

#: As often as this in one run, and it is no coincidence.
OFTEN = 8

#: Operations that no worker passes in these runs, by why.
_WHY = {
    "callers resume, retry and ask": (
        *("store.jobs.resume_job", "store.pools.add_ask"),
        *("store.retries.create_retry", "store.retries.read_taken", "store.retries.extend_job"),
    ),
    "readers read, also in tasks of the caller's": (
        *(
            "store.results.find_request",
            "store.payloads.find_custom_id",
            "store.history.read_events",
            "store.schedule.due_times",
            "store.presence.list_workers",
            *("store.asks.listen", "store.asks.read_cost", "store.pools.list_pools"),
            "store.job_search.find_ids",
            "store.job_search.read_labels",
            "store.statistics.past_seconds",
        ),
    ),
    "callers ask how their job stands, and have answers handed over again": (
        *("store.deliveries.count_deliveries", "store.deliveries.read_delivered", "store.deliveries.record_call"),
    ),
    "tasks of the caller's end": ("store.deliveries.record_delivered", "store.deliveries.record_failed"),
    "no worker of these has instruments": (
        *("store.statistics.begin_statistics", "store.statistics.read_statistics", "store.statistics.save_statistics"),
        *("store.statistics.scan_batches", "store.statistics.scan_jobs", "store.schedule.scan_late"),
    ),
    "a worker that stops does that in a thread in which no point is": ("store.presence.remove_worker",),
    "no weather takes keys away from the store": (
        *("store.message_queue.list_known", "store.records.replace_batch", "store.results.restore_rows"),
        *("store.records.request_restore", "store.records.name_batch"),
    ),
    "no weather is a gateway, or hides whose an account is": ("api.ask_elsewhere", "api.identify_account"),
    "no queue is so long that messages are put off": ("store.schedule.wait_again",),
    "no broker goes without its store": ("store.pools.wait_again",),
    "every worker can make a job of every pool": ("store.pools.stop_sealing",),
}
NEVER_PASSED = {operation for operations in _WHY.values() for operation in operations}

#: Operations of a list call, which is made where many batches are in flight at a time: on a slow machine fewer are.
LISTING = {
    *(
        "api.list_pages",
        "store.in_flight.add_page",
        "store.in_flight.unlock_list_call",
        "store.in_flight.list_batches",
        "store.in_flight.lock_list_call",
    ),
    *("store.in_flight.record_list_call", "store.schedule.postpone_units"),
}


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """Redis and simulator for all runs."""
    with Bench() as made:
        yield made


def test_the_list_of_points_has_what_there_is() -> None:
    """``python -m tests.chaos --points`` writes it anew."""
    known = schedule.known_points()
    assert len(known) == len({point.name for point in known}) > 100
    assert {weather for point in known for weather in point.weather.split("+")} <= set(schedule.WEATHERS)
    listed = {points.operation_of(point.name) for point in known}
    ours = {operation for operation in listed if operation.startswith(("store.", "api."))}
    assert not ours & NEVER_PASSED, "they are passed after all"
    assert ours | NEVER_PASSED == points.operations()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_what_is_often_passed_without_kills_is_on_the_list_and_passed(bench: Bench) -> None:
    reports = [bench.run(schedule.quiet(weather)) for weather in schedule.WEATHERS]
    passed = Counter[str]()
    for report in reports:
        passed.update({name: n for name, n in report.hits.items() if not name.endswith(points.CALLED_BACK)})
    # On a busy machine answers come too late, and what is rare without kills is frequent. What a worker does every few
    # seconds is the more frequent the longer a run takes.
    listed = {point.name for point in schedule.known_points()}
    often_passed = {name for name, number in passed.items() if number >= OFTEN and not name.startswith("worker: ")}
    assert often_passed <= listed, "--points writes the list anew"
    known = {point.name: point.passed for point in schedule.known_points() if "+" not in point.weather}
    often = {name for name, number in known.items() if number >= OFTEN and points.operation_of(name) not in LISTING}
    assert often <= set(passed), "--points writes the list anew"
