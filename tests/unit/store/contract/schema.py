"""What must be in a store's database before it can be used."""

from __future__ import annotations

from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import create_staged_job


class TestTheSchema:
    def test_of_a_store_in_use_is_current(self, store: Store) -> None:
        assert store.schema.is_current()
        assert list(store.schema.list_statements()) == []
        assert store.schema.migrate() is False

    def test_says_which_rights_workers_need(self, store: Store) -> None:
        assert all(line.startswith(("GRANT ", "ALTER ", "--")) for line in store.schema.describe_rights().splitlines())

    def test_is_not_removed_with_a_job_in_it(self, store: Store) -> None:
        job_id = create_staged_job(store)
        store.schema.drop()
        assert store.jobs.read_job(job_id) is not None
