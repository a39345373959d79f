"""The page on scripts and the control API of the simulator, from zero."""

from __future__ import annotations

import pytest

from claude_batch_tasks.simulator import Answer
from tests.docs.conftest import Read
from tests.docs.pages import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.latest, pytest.mark.workers, pytest.mark.timeout(300)]


def test_the_page_is_true_from_top_to_bottom(read: Read) -> None:
    read("docs/reference/simulator.md")


def test_the_page_has_every_field_of_an_answer() -> None:
    rows = [line for line in (ROOT / "docs/reference/simulator.md").read_text().splitlines() if line.startswith("| `")]
    fields = [name.strip("` ") for row in rows for name in row.split("|")[1].split(",")]
    assert not set(Answer.__struct_fields__) - set(fields)
