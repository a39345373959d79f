"""The page on fastapi, from zero."""

from __future__ import annotations

import shutil

import pytest

from tests.docs.conftest import Read

pytestmark = [
    pytest.mark.slow,
    pytest.mark.latest,
    pytest.mark.workers,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("curl") is None, reason="no curl, with which the page tries the app"),
]


def test_the_page_is_true_from_top_to_bottom(read: Read) -> None:
    read("docs/howto/fastapi.md")
