"""The page on Django's admin, from zero."""

from __future__ import annotations

import pytest

from tests.docs.conftest import Read

pytestmark = [pytest.mark.slow, pytest.mark.latest, pytest.mark.workers, pytest.mark.timeout(600)]


def test_the_page_is_true_from_top_to_bottom(read: Read) -> None:
    read("docs/howto/django_admin.md")
