"""Jobs are found by the first characters of their ids."""

from __future__ import annotations

import pytest
from celery import Celery

from claude_batch_tasks import errors
from claude_batch_tasks.jobs.job_ids import find_job_id, short_id
from claude_batch_tasks.store import Store, open_store_at
from tests.unit.store.contract.samples import create_bare_job

IDS = ("4f0c2a8e-6d0b-4a53", "4f0c2a8e-7d0b-4a53", "4f0c9999-0000", "abc", "nightly")


@pytest.fixture
def store(app: Celery, redis_url: str) -> Store:
    store = open_store_at(redis_url)
    for job_id in IDS:
        create_bare_job(store, job_id)
    return store


def test_a_short_id_is_the_beginning_of_one() -> None:
    assert short_id("4f0c2a8e-6d0b-4a53-9c55-2f1b6c6b0a11") == "4f0c2a8e"
    assert short_id("abc") == "abc"


@pytest.mark.parametrize(
    ("prefix", "job_id"),
    [
        ("4f0c2a8e-6", IDS[0]),
        ("4f0c9", IDS[2]),
        ("4f0c9999-0000", IDS[2]),
        ("abc", "abc"),
        ("nigh", "nightly"),
        ("nightly", "nightly"),
    ],
)
def test_a_beginning_stands_for_the_job_that_alone_has_it(app: Celery, store: Store, prefix: str, job_id: str) -> None:
    assert find_job_id(prefix, app) == job_id


def test_an_id_that_another_begins_with_is_that_job(app: Celery, store: Store) -> None:
    create_bare_job(store, "nightly 2")
    assert find_job_id("nightly", app) == "nightly"


@pytest.mark.parametrize("prefix", ["4f0", "abd", "", "nightlx", "4f0c*", "4f0c2a8e-6d0b-4a53-9"])
def test_others_are_not_found(app: Celery, store: Store, prefix: str) -> None:
    with pytest.raises(errors.JobNotFound, match=r"no job .* in the store"):
        find_job_id(prefix, app)


def test_a_beginning_of_several_names_them(app: Celery, store: Store) -> None:
    with pytest.raises(errors.AmbiguousJobId) as caught:
        find_job_id("4f0c", app)
    assert caught.value.candidates == sorted(IDS[:3])
    assert str(caught.value) == (
        f"several jobs have ids that begin with 4f0c: {', '.join(sorted(IDS[:3]))}; write more of the id"
    )


def test_of_many_only_some_are_named(app: Celery, store: Store) -> None:
    for number in range(9):
        create_bare_job(store, f"many {number}")
    with pytest.raises(errors.AmbiguousJobId, match=" and more; write more of the id") as caught:
        find_job_id("many", app)
    assert len(caught.value.candidates) == 5


def test_no_record_is_read(app: Celery, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(store.jobs), "read_job", None)
    assert find_job_id("4f0c9", app) == IDS[2]
