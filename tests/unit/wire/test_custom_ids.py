from __future__ import annotations

from hypothesis import given, strategies as st

from claude_batch_tasks.wire import custom_ids
from claude_batch_tasks.wire.custom_ids import Index


@given(st.lists(st.text(max_size=8), max_size=200))
def test_an_id_is_new_once(ids: list[str]) -> None:
    made, seen = Index(), set()
    for number, custom_id in enumerate(ids):
        assert made.add_id(custom_id, number) == (custom_id not in seen)
        seen.add(custom_id)


def test_every_id_is_found_at_its_index() -> None:
    made = Index()
    for number in range(50_000):
        assert made.add_id(f"review/{number}", number)
    parts = dict(made.list_parts())
    assert len(parts) == 256
    assert sum(map(len, parts.values())) == 12 * 50_000
    for number in range(0, 50_000, 7):
        custom_id = f"review/{number}"
        assert custom_ids.find_index(parts[custom_ids.part_number(custom_id)], custom_id) == number
    missing = [f"other/{number}" for number in range(5_000)]
    assert all(
        custom_ids.find_index(parts[custom_ids.part_number(custom_id)], custom_id) is None for custom_id in missing
    )


def test_what_only_looks_like_an_entry_is_none() -> None:
    """The digest of an id may also lie across two entries."""
    made = Index()
    made.add_id("a", 0)
    [(_, entry)] = made.list_parts()
    assert custom_ids.find_index(b"\0\0\0\0" + entry + b"\0" * 8, "a") is None
    assert custom_ids.find_index(b"\0\0\0\0" + entry + b"\0" * 8 + entry, "a") == 0


def test_an_id_that_is_not_unicode_is_not_there() -> None:
    assert custom_ids.find_index(b"", "\ud800") is None
    assert 0 <= custom_ids.part_number("\ud800") < 256
