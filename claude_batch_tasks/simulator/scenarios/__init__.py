"""The named scenarios, which `claude-batch simulator --list-scenarios` lists."""

from __future__ import annotations

from ..script import Scenario
from .gateways import GATEWAYS
from .reported import REPORTED

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in (*REPORTED, *GATEWAYS)}


def find_scenario(name: str) -> Scenario:
    """Return the scenario of this name.

    Raises:
        LookupError: there is no such scenario; the text has the names that exist.
    """
    try:
        return SCENARIOS[name]
    except KeyError:
        raise LookupError(f"no scenario {name!r}; there are {', '.join(SCENARIOS)}") from None
