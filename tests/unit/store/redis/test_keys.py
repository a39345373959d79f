"""The one map of keys and fields: what is in it, and that no script has its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from claude_batch_tasks.records import BatchRecord, Flight, JobRecord, LaneRecord, Unit
from claude_batch_tasks.store import record_encoding
from claude_batch_tasks.store.redis import keys, scripts
from tests.guards import redis_keys

SCRIPTS = sorted((Path(scripts.__file__).parent).glob("*.lua"))

#: What scripts spell out: the words of JSON, and a bound of Redis.
PLAIN = {"true", "null", "-inf"}


def code_of(script: Path) -> str:
    return re.sub(r"--.*", "", script.read_text())


def in_the_table() -> dict[str, str]:
    """Keys and their types, as the docstring has them."""
    head, *rows = re.split(r"^=[ =]+$", keys.__doc__ or "", flags=re.MULTILINE)[2].splitlines()
    assert head == ""
    cells = [row.split()[:2] for row in rows if row and not row.startswith(" ")]
    return {f"claude_batch:{key}": kind for key, kind in cells}


def test_the_table_has_all_keys_that_releases_share() -> None:
    known = {pattern: key.kind for pattern, key in redis_keys.KEYS.items() if key.names or not key.asked}
    assert in_the_table() == known


@pytest.mark.parametrize(
    ("namespaces", "pattern"),
    [
        ({"JOB": "", "JOB_LEASE": ""}, "claude_batch:{JOB}:job"),
        ({"BATCH": "", "LEASE": ""}, "claude_batch:{JOB}:batch:BATCH"),
        ({"LANE": "LANE:", "LEASE": "LANE:"}, "claude_batch:{JOB}:batch:BATCH:lanes"),
        ({"ASKED": "QUEUE"}, "claude_batch:account:ACCOUNT:asked"),
    ],
)
def test_fields_are_those_that_releases_share(namespaces: dict[str, str], pattern: str) -> None:
    key = redis_keys.KEYS[pattern]
    known = {before + field for name, before in namespaces.items() for field in keys.FIELDS[name].values()}
    # ``flights`` is a batch's; leases of jobs and senders are asked for it. What else a release left is in the table.
    left = {"lease:failures", "lease:due_at", "LANE:task_id"}
    left |= {"retry:NUMBER"}  # which requests a retry took; ``taken_field`` spells it
    assert known - key.asked == (key.names | key.added) - left


@pytest.mark.parametrize(
    "record",
    [
        JobRecord(nonce="n", requests=1, batches=2, submitted_at=3.0),
        BatchRecord(first=1, count=2, body_bytes=3),
        LaneRecord(missing_since=1.0),
    ],
)
def test_a_record_reads_what_it_has_written(record: Any) -> None:
    written = record_encoding.whole_record(record)
    fields = dict(zip(written[::2], written[1::2], strict=True))
    assert record_encoding.read_record(type(record), fields) == record


def test_a_name_in_python_is_one_field() -> None:
    """What is changed by name has the same field in whichever record."""
    names = [pair for cls in (JobRecord, BatchRecord, LaneRecord) for pair in keys.stored_names(cls).items()]
    assert len(set(names)) == len(dict(names))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_spells_no_field_and_no_key(script: Path) -> None:
    words = {text for text in re.findall(r"'([^']*)'", code_of(script)) if re.search("[a-z]{2}", text)}
    assert words - PLAIN == set()
    accessed = set(re.findall(r"(\w+)\.\w", re.sub(r"'[^']*'|\d\.\d", "", code_of(script))))
    assert {name for name in accessed if name.islower()} <= {"redis", "string", "math", "table", "cjson"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_names_in_a_script_stand_for_something(script: Path) -> None:
    assert not re.search(
        r"\b(?!KEYS\b|ARGV\b)[A-Z][A-Z_]*\.\w", re.sub(r"--.*", "", scripts.with_values(script.read_text()))
    )


def test_a_name_that_stands_for_nothing_is_an_error() -> None:
    assert scripts.with_values("HGET JOB.state JOB_LEASE.ends FLIGHT.deadline -- JOB.x\n") == (
        "HGET 'state' 'lease:until' 7 -- JOB.x\n"
    )
    with pytest.raises(KeyError):
        scripts.with_values("JOB.stat")


def test_positions_in_a_packed_array_are_its_structs() -> None:
    flight = Flight(batch_id="b", created_at=1, expires_at=2, requests=3, poll_min=4, poll_max=5, deadline=6)
    packed = msgspec.json.decode(msgspec.json.encode(flight))
    for name, place in keys.PLACES["FLIGHT"].items():
        assert packed[place - 1] == getattr(flight, name)


@pytest.mark.parametrize("unit", [Unit("a:b"), Unit("{x}:job", 3), Unit("", 0, 12)])
def test_a_unit_is_known_by_what_an_index_calls_it(unit: Unit) -> None:
    assert keys.unit_of(keys.member(unit)) == unit
    assert keys.job_of(keys.job_key(unit.job_id)) == unit.job_id
