"""Processes that ask, and are killed: each of their asks ends once, and is paid once.

``CROWD="--producers 50 --asks 20000 --max-requests 1000 --max-wait 60 --patience 7200"`` is the whole size.
"""

from __future__ import annotations

import os
import shlex

import pytest

from tests.adversarial import crowd

pytestmark = [pytest.mark.slow, pytest.mark.latest, pytest.mark.workers, pytest.mark.timeout(600)]


def test_each_ask_of_a_crowd_ends_once_and_is_paid_once() -> None:
    assert crowd.run(crowd.parse(shlex.split(os.environ.get("CROWD", "")))) == []
