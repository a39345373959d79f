"""The stores next to each other in one run: Redis, PostgreSQL, and each with its payloads in S3.

    python -m benchmarks stores                                   # with 10, 1,000 and 100,000 jobs in flight
    python -m benchmarks stores --jobs 1000 --records 2000        # quickly
    python -m benchmarks stores --repeat 3 --markdown             # the tables of docs/explanation/performance.md

``--records`` is the number of requests of the job that is submitted, fetched and read, beside those in flight.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from benchmarks.measure import Measured, run
from benchmarks.store_servers import ComparedStore, StoreServers, store_servers
from benchmarks.store_tables import Comparison, list_lines, list_tables

#: What each store is measured at, in this order.
_PAYLOADS = ("submit.ours", "world.prepare", "fetch.ours", "read.ours", "read.one")

#: Likewise of each ledger: nothing of it reads or writes payloads elsewhere.
_LEDGERS = ("many_jobs.submit", "many_jobs.poll_all", "many_jobs.poll_each", "many_jobs.recover")

#: Jobs of which a round of polls takes so long that it is not repeated.
_MANY = 10_000

#: After which it is seen what each of the records takes on disk.
_STORED = ("submit.ours", "fetch.ours")


def compare_stores(jobs: Iterable[int], records: int, repeat: int, *, markdown: bool) -> Comparison:
    """Measure all stores, and print what was found."""
    found = Comparison()
    for count in jobs:
        with store_servers() as servers:
            _measure(servers, count, records, repeat, found)
        if not markdown:
            print("\n".join(list_lines(found, count)))
        sys.stdout.flush()
    if markdown:
        print("\n".join(list_tables(found)))
    return found


def _measure(servers: StoreServers, jobs: int, records: int, repeat: int, found: Comparison) -> None:
    before = servers.measure_bytes()
    dumped = servers.dump_redis()
    for ledger in servers.ledgers:
        _run(servers, ledger, "many_jobs.flying", jobs)
    after = servers.measure_bytes()
    for ledger in servers.ledgers:
        found.sizes[jobs, "job", ledger.name] = (after[ledger.name] - before[ledger.name]) / jobs
    found.sizes[jobs, "job", "Redis on disk"] = (servers.dump_redis() - dumped) / jobs
    for ledger in servers.ledgers:
        _run(servers, ledger, "many_jobs.lost", jobs)
    for number in range(repeat):
        for case in _PAYLOADS:
            for store in servers.stores:
                _add(servers, found, store, case, (jobs, records, number))
        for case in _LEDGERS if not number or jobs < _MANY else ():
            for ledger in servers.ledgers:
                _add(servers, found, ledger, case, (jobs, jobs, number))


def _add(
    servers: StoreServers, found: Comparison, store: ComparedStore, case: str, sizes: tuple[int, int, int]
) -> None:
    """Run a case, and add what it has measured; sizes: jobs in flight, ``records`` of the case, number of the round."""
    jobs, records, number = sizes
    waits, before = servers.count_lock_waits(), servers.measure_bytes() if case in _STORED else {}
    measured = _run(servers, store, case, records, f"-{number}-{store.name.replace(' + ', '-')}")
    if measured.seconds:
        found.add(jobs, store.name, measured, servers.count_lock_waits() - waits)
    if before:
        server = store.name if store.payload_url is None else "S3"
        found.sizes[jobs, case, server] = (servers.measure_bytes()[server] - before[server]) / records


def _run(servers: StoreServers, store: ComparedStore, case: str, records: int, suffix: str = "") -> Measured:
    env = {**servers.environment(store), "BENCHMARK_SUFFIX": suffix}
    return run(case, records, servers.broker_url, servers.api_url, env)
