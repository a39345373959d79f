"""What 0.2.0 has written into the store is what the table says, and nothing of it has another name now."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.guards import redis_keys

UPGRADES = Path(__file__).parents[1] / "upgrades"
DUMPS = sorted(UPGRADES.glob("*.json.gz"))


def recorded(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    return found


def left(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Each key that was left, with its type and the names in it."""
    for entry in recorded(path)["redis"]:
        if entry["key"].startswith("claude_batch:"):
            named = entry["type"] in ("hash", "zset")
            names = [part[0] for part in entry["value"]] if named else entry["value"] if entry["type"] == "set" else []
            yield entry["key"], entry["type"], names


def of_0_2_0(seen: redis_keys.Seen) -> set[str]:
    """What was seen and is not of 0.2.0."""
    return seen.entries - redis_keys.entries(later=False)


def values(path: Path) -> Iterator[tuple[str, str | None, Any]]:
    """Each value that was left: of a field, or of a key."""
    for entry in recorded(path)["redis"]:
        if entry["type"] == "hash":
            yield from ((entry["key"], name, value) for name, value in entry["value"])
        elif entry["type"] == "list":
            yield from ((entry["key"], None, value) for value in entry["value"])
        else:
            yield entry["key"], None, entry["value"]


@pytest.mark.parametrize("path", DUMPS, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_values_that_a_release_left_have_their_forms(path: Path) -> None:
    assert list(redis_keys.strange_values(values(path))) == []


@pytest.mark.parametrize("path", DUMPS, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_what_a_release_left_is_in_the_table(path: Path) -> None:
    seen = redis_keys.see(left(path))
    assert len(seen.entries) > 50
    assert seen.strange == []
    assert of_0_2_0(seen) == set(), "of the table, marked as later than 0.2.0"


def test_what_0_2_0_left_and_named_in_its_commands_is_the_table() -> None:
    path = UPGRADES / "0.2.0.json.gz"
    named = [(key, kind, names) for key, kind, names in recorded(path)["touched"]]
    seen = redis_keys.see([*left(path), *named])
    assert seen.strange == []
    assert of_0_2_0(seen) == set(), "of the table, marked as later than 0.2.0"
    assert redis_keys.entries(later=False) - seen.entries == set(), "of the table, and not found"
