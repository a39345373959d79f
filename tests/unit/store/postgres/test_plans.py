"""Statements that each poll runs read no more rows where many jobs wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from claude_batch_tasks.store.postgres.statements import read_queries
from tests.unit.store.postgres.conftest import Database

_MANY = """
INSERT INTO claude_batch.units (job_id, batch, lane, due_at, waiting, account)
SELECT 'job-' || n, 0, -1, n, true, 'account' FROM generate_series(1, 5000) AS n
"""


def find_scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the parts of a plan that read a table or an index."""
    if plan["Node Type"].endswith("Scan") and "Relation Name" in plan:
        yield plan
    for each in plan.get("Plans", ()):
        yield from find_scans(each)


def test_batches_in_flight_are_counted_up_to_the_most_that_is_asked_for(database: Database) -> None:
    database.run(_MANY)
    database.run("ANALYZE claude_batch.units")
    query = read_queries("in_flight", database.schema)["count_batches"]
    with psycopg.connect(database.url, autocommit=True) as connection:
        values = {"account": "account", "most": 10}
        [[[explained]]] = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", values).fetchall()
    [scan] = find_scans(explained["Plan"])
    assert (scan["Node Type"], scan["Actual Rows"]) in [("Index Only Scan", 10), ("Index Scan", 10)]
