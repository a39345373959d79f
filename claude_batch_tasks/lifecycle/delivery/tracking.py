"""The header of a call of ``on_result`` that says of which requests it is, and which of its tasks carry that header.

The header has the job's id and positions of requests in the job: no custom_id and no answer. Celery sends it again with
each retry of a task, and does not hand it on to other tasks.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

#: The name of the header. ``message_headers`` keeps what begins like this to itself.
HEADER = "claude_batch_delivery"

#: The number of a task of a call that is followed by others: its end is not the call's, but its failure is.
BEFORE_END = -1

#: The most bytes of a header for one call, without the job's id.
LONGEST = 4_096


class Tracked(NamedTuple):
    """What a header says."""

    job_id: str
    runs: list[tuple[int, int]]
    """The positions of the requests in the job, as runs: the first of each, and how many follow one another."""
    part: int
    """Which of the call's last tasks has it, or ``BEFORE_END``."""
    parts: int
    """How many last tasks the call has."""


def encode_header(job_id: str, runs: Iterable[tuple[int, int]], part: int, parts: int) -> str:
    """Return the header's text: JSON, in which the runs are numbers of seven bits a byte, each from the end of the one
    before."""
    packed, end = bytearray(), 0
    for first, count in runs:
        _pack_number(packed, first - end)
        _pack_number(packed, count)
        end = first + count
    return json.dumps([job_id, part, parts, base64.b64encode(packed).decode()], separators=(",", ":"))


def decode_header(text: Any) -> Tracked | None:
    """Return what a header says; None: it is not one that this release can read."""
    try:
        job_id, part, parts, packed, *_ = json.loads(text)
        numbers = _unpack_numbers(base64.b64decode(packed))
        runs, end = [], 0
        for skipped, count in zip(numbers, numbers, strict=True):
            runs.append((end + skipped, count))
            end += skipped + count
        return Tracked(str(job_id), runs, int(part), int(parts))
    except (TypeError, ValueError):
        return None


def find_header(request: Any) -> Any:
    """Return the header of a task's request, wherever Celery, its eager mode or a tracer has put it."""
    nested = getattr(request, "headers", None)
    return getattr(request, HEADER, None) or (nested.get(HEADER) if isinstance(nested, Mapping) else None)


def count_ends(signature: Mapping[str, Any]) -> int:
    """Return how many last tasks a signature has: the members of a group that comes last, else one."""
    return sum(1 for _, last in walk_tasks(signature) if last)


def walk_tasks(signature: Mapping[str, Any], *, last: bool = True) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield the single tasks of a signature, each with whether it ends the call when it ends well.

    Args:
        signature: as JSON has it.
        last: whether the end of the signature itself is the end of the call.
    """
    if signature.get("subtask_type") in ("chain", "group", "chord"):
        for task, ends in _list_members(signature):
            yield from walk_tasks(task, last=last and ends)
    elif isinstance(signature, dict) and signature.get("task"):
        yield signature, last


def _list_members(signature: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], bool]]:
    """Return the members of a canvas, each with whether the canvas ends with it."""
    inner = signature.get("kwargs") or {}
    if signature["subtask_type"] == "chord":
        header = inner.get("header") or []
        return [(task, False) for task in ([header] if isinstance(header, Mapping) else header)] + [
            (inner.get("body") or {}, True)
        ]
    tasks = inner.get("tasks") or []
    return [(task, signature["subtask_type"] == "group" or task is tasks[-1]) for task in tasks]


def _pack_number(packed: bytearray, number: int) -> None:
    while number > 0x7F:
        packed.append(number & 0x7F | 0x80)
        number >>= 7
    packed.append(number)


def _unpack_numbers(packed: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in packed:
        number |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            yield number
            number = shift = 0
