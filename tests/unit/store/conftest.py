"""What tests of all stores have in common."""

from __future__ import annotations

import pytest

from claude_batch_tasks.store.objects import helper


@pytest.fixture(autouse=True)
def _no_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """That another test has forked this process is no reason to have another one call the object store of these."""
    monkeypatch.setattr(helper, "_has_forked", False)
