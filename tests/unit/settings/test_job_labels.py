"""What a job's label and metadata may be, and which jobs have them."""

from __future__ import annotations

from typing import Any

import pytest

from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.settings import check_label, check_metadata, has_labels


@pytest.mark.parametrize("label", [None, "nightly", "x" * 100, "Überblick, 7 % (neu)", "日本"])
def test_a_label_is_a_short_text(label: str | None) -> None:
    assert check_label(label) == label


@pytest.mark.parametrize("label", ["", "x" * 101, "two\nlines", "\x1b[31mred", "\ud800", 7, True, b"x", ["x"]])
def test_other_labels_are_refused(label: Any) -> None:
    with pytest.raises(InvalidSettings, match="job option label must be a text of 1 to 100 printable characters, not "):
        check_label(label)


def test_metadata_are_texts() -> None:
    given = {"team": "search", "run": 7, "share": 0.5, "paid": True, "new": False, "empty": "", "k" * 64: "v" * 500}
    found = check_metadata(given)
    assert found == {**given, "run": "7", "share": "0.5", "paid": "true", "new": "false"}
    assert check_metadata(found) == found
    assert check_metadata(None) == check_metadata({}) == {}
    assert len(check_metadata({f"key {n}": n for n in range(16)})) == 16


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"team": "x" * 501}, r"metadata\['team'\] must be a text of at most 500 printable characters, a number, True"),
        ({"team": "two\nlines"}, r"metadata\['team'\] must be a text"),
        ({"team": None}, r"metadata\['team'\] must be a text of .*, not None"),
        ({"team": ["a"]}, r"metadata\['team'\] must be a text of .*, not \['a'\]"),
        ({"k" * 65: "x"}, "metadata must be a mapping whose keys are texts of 1 to 64 printable characters, not 'kkk"),
        ({"": "x"}, "whose keys are texts of 1 to 64"),
        ({7: "x"}, "whose keys are texts of 1 to 64 printable characters, not 7"),
        ({str(n): n for n in range(17)}, "metadata must have at most 16 keys, not 17"),
        (["team"], r"metadata must be a mapping of names to texts, such as \{'team': 'search'\}, not \['team'\]"),
        ("team=search", "metadata must be a mapping of names to texts"),
    ],
)
def test_other_metadata_are_refused_with_their_key(metadata: Any, said: str) -> None:
    with pytest.raises(InvalidSettings, match=said) as caught:
        check_metadata(metadata)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("label", "metadata", "found"),
    [
        (None, {}, True),
        ("nightly", {}, True),
        ("other", {}, False),
        (None, {"team": "search"}, True),
        ("nightly", {"team": "search", "run": "7"}, True),
        (None, {"team": "search", "run": "8"}, False),
        (None, {"nosuch": "search"}, False),
    ],
)
def test_a_job_has_what_is_wanted_of_it(label: str | None, metadata: dict[str, str], found: bool) -> None:
    has = {"team": "search", "run": "7"}
    assert has_labels("nightly", has, wanted_label=label, wanted=metadata) is found
