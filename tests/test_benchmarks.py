"""The benchmarks run, and memory does not grow with the number of records. How fast they are is no test's business."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.__main__ import GROUPS
from benchmarks.measure import run
from benchmarks.servers import servers
from benchmarks.store_tables import TITLES
from benchmarks.stores import compare_stores

pytestmark = [pytest.mark.release, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def urls() -> Iterator[tuple[str, str]]:
    with servers() as urls:
        yield urls


#: What is in flight takes its time, and what is read has to be fetched before.
ALONE = [name for name in GROUPS if name not in ("in_flight", "read")]


@pytest.mark.workers
@pytest.mark.parametrize("name", ALONE)
def test_every_case_runs(name: str, urls: tuple[str, str]) -> None:
    cases = [*GROUPS[name].cases, *(GROUPS["read"].cases if name == "fetch" else ())]
    for case in cases:
        if case != "end_to_end.batchwizard":  # it would have to be installed from the network
            measured = run(case, 240, *urls)
            assert measured.seconds > 0 or "prepare" in case, case


def test_stores_are_compared_in_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    found = compare_stores([12], 240, 1, markdown=True)
    ledgers = ["Redis", "PostgreSQL"]
    for case in TITLES:
        stores = ledgers if case.startswith("many_jobs") else [*ledgers, "Redis + S3", "PostgreSQL + S3"]
        assert {store for _, of, store in found.measured if of == case} == set(stores), case
        load = found.measured[12, case, "PostgreSQL"].values
        assert case.startswith("read") or min(load["wal"], load["transactions"]) > 0, case
    for case in ("submit.ours", "fetch.ours"):
        assert all(found.sizes[12, case, server] > 100 for server in (*ledgers, "S3")), case
    printed = capsys.readouterr().out
    assert printed.count("| --- |") >= 4
    assert all(title in printed for title in TITLES.values())


def test_memory_does_not_grow_with_the_records(urls: tuple[str, str]) -> None:
    """With 30,000 records of 1.8 KB, which are 54 MB."""
    preparing = {"world.prepare", "create.prepare"}
    ours = ["submit.ours", "create.ours", "fetch.ours", "read.ours", "read.in_order", "read.errored", "read.export"]
    for case in preparing:
        run(case, 30_001, *urls)
    peaks = {case: run(case, 30_001, *urls).peak_mb for case in ours}
    assert all(peak < 40 for peak in peaks.values()), peaks
