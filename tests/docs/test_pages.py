"""What the documents show is what happens: every block of every page is run."""

from __future__ import annotations

import pytest

from tests.docs.conftest import Read
from tests.docs.pages import PAGES, ROOT, blocks

pytestmark = pytest.mark.latest

#: Pages that begin from zero, and start their own servers and workers; each has a file of tests of its own.
WALKS = {"tutorial", "django", "django_admin", "flask", "fastapi", "rabbitmq", "testing", "test_double", "simulator"}

#: What a page may leave to be believed. Each says why.
NOT_RUN = 29


@pytest.mark.workers
@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in PAGES if page.stem not in WALKS])
def test_what_a_page_shows_happens(page: str, read_beside_a_worker: Read) -> None:
    read_beside_a_worker(page)


def test_every_walk_has_a_test_of_its_own() -> None:
    assert {page.stem for page in PAGES} >= WALKS
    for name in WALKS:
        assert list((ROOT / "tests" / "docs").glob(f"test_{name}*.py")), name


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    left = [block for page in PAGES for block in blocks(page) if block.not_run is not None and not block.newcomer]
    assert all(block.not_run for block in left)
    assert len(left) <= NOT_RUN, "\n".join(map(str, left))
