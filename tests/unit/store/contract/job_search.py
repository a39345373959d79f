"""Jobs are found by the beginning of their ids, and by a few fields."""

from __future__ import annotations

from claude_batch_tasks.records import JobLabels
from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import (
    PassTime,
    create_bare_job,
)


class TestFindingJobs:
    def test_is_by_the_beginning_of_their_ids(self, store: Store) -> None:
        for job_id in ("abcd1", "abcd2", "abce", "x-abcd"):
            create_bare_job(store, job_id)
        assert sorted(store.job_search.find_ids("abcd", 5)) == ["abcd1", "abcd2"]
        assert len(store.job_search.find_ids("abc", 2)) == 2
        assert store.job_search.find_ids("x-abcd", 5) == ["x-abcd"]
        assert store.job_search.find_ids("nosuch", 5) == []

    def test_takes_signs_as_they_are(self, store: Store) -> None:
        for job_id in ("a*b[1]", "a-b1", "a\\b?", "é:1"):
            create_bare_job(store, job_id)
        found = {"a*": ["a*b[1]"], "a?": [], "a*b[": ["a*b[1]"], "a\\b": ["a\\b?"], "é": ["é:1"]}
        assert {beginning: store.job_search.find_ids(beginning, 5) for beginning in found} == found

    def test_leaves_out_those_that_are_gone(self, store: Store, pass_time: PassTime) -> None:
        store.jobs.expire_job(create_bare_job(store, "gone 1"), 1)
        create_bare_job(store, "gone 2")
        store.storage.delete_job("gone 2")
        pass_time(1.5)
        assert store.job_search.find_ids("gone", 5) == []
        assert store.job_search.read_labels(["gone 1", "gone 2"]) == [None, None]

    def test_knows_each_of_many_once(self, store: Store) -> None:
        for number in range(300):
            create_bare_job(store, f"job {number}")
        assert sorted(store.job_search.find_ids("job", 1000)) == sorted(f"job {number}" for number in range(300))

    def test_reads_by_what_they_are_filtered(self, store: Store) -> None:
        create_bare_job(store, "a", label="nightly", metadata={"team": "search"})
        create_bare_job(store, "b", state="staged")
        found = store.job_search.read_labels(["a", "nosuch", "b"])
        assert found == [JobLabels("running", "nightly", {"team": "search"}), None, JobLabels("staged", None, {})]
        assert store.job_search.read_labels([]) == []
