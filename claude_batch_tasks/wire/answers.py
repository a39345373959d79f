"""Whether an answer is complete, and if not, why: judged by its stop reason and its content."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import get_args

import msgspec

from claude_batch_tasks.formatting import shorten_text
from claude_batch_tasks.records import IncompleteReason

#: Why an answer is not complete. The first four are stop reasons of Anthropic's.
INCOMPLETE: tuple[str, ...] = get_args(IncompleteReason)

#: Stop reasons of answers that are not complete.
_CUT = frozenset(INCOMPLETE[:4])

#: Stop reasons of answers that are complete whatever they hold.
_COMPLETE = frozenset({"stop_sequence", "tool_use"})

#: The most stop reasons of one batch that are not known and are counted apart, and what the others are called.
MAX_TYPES, OTHER = 20, "other"

#: The most characters of a stop reason that is not known.
_LONGEST = 64

#: A text that is not blank, which nearly all answers have. Within a JSON text, a quote has a backslash before it.
#: Some of the bytes that are left out here begin a space of Unicode's; these few are decoded.
_TEXT = re.compile(rb'"text"\s*:\s*"\s*[^\x00-\x20"\\\xc2\xe1-\xe3]')

#: The same where the first block is a text, as nearly always: this is found without a search.
_BEGINS_WITH_TEXT = re.compile(rb'\[\s*\{(?:\s*"type"\s*:\s*"text"\s*,)?\s*' + _TEXT.pattern)

#: Blocks that are not part of an answer by themselves.
_THOUGHTS = frozenset({"thinking", "redacted_thinking"})


class _Block(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None

    @property
    def says_something(self) -> bool:
        if self.type == "text":
            return bool(self.text and self.text.strip())
        return self.type not in _THOUGHTS


_decode_blocks = msgspec.json.Decoder(list[_Block] | None).decode


def judge_answer(stop_reason: str | None, content: bytes | memoryview) -> IncompleteReason | None:
    """Return why an answer is not complete; None: it is, or its stop reason is not known.

    Args:
        content: the blocks of the message, as JSON; empty if it has none.
    """
    if stop_reason in _CUT:
        return stop_reason  # type: ignore[return-value]
    if stop_reason in (None, "end_turn") and not _says_something(content):
        return "empty"
    return None


def begins_with_text(content: bytes | memoryview) -> bool:
    """Return whether the first block of a message is a text that is not blank; False too where that is not clear."""
    return _BEGINS_WITH_TEXT.match(content) is not None


def has_output(content: bytes | memoryview) -> bool:
    """Return whether a message has anything but blank texts: a refusal that has nothing is not billed."""
    if bytes(content).strip(b"[] \t\r\n") in (b"", b"null"):
        return False
    try:
        blocks = _decode_blocks(content)
    except msgspec.MsgspecError:
        return True
    return any(block.type in _THOUGHTS or block.says_something for block in blocks or ())


def _says_something(content: bytes | memoryview) -> bool:
    if _TEXT.search(content):
        return True
    try:
        blocks = _decode_blocks(content) if content else None
    except msgspec.MsgspecError:  # not in the form of the API's: the reader decides
        return True
    return any(block.says_something for block in blocks or ())


def find_unknown(stop_reason: str | None) -> str | None:
    """Return the name under which a stop reason is counted that is not known; None: it is known."""
    if stop_reason is None or stop_reason == "end_turn" or stop_reason in _COMPLETE or stop_reason in _CUT:
        return None
    return shorten_text(stop_reason, _LONGEST)


def add_reason(counts: Counter[str], reason: str, number: int = 1) -> None:
    """Count answers that are not complete for a reason, or have a stop reason that is not known."""
    if reason not in INCOMPLETE and reason not in counts and len(counts.keys() - INCOMPLETE) >= MAX_TYPES:
        reason = OTHER
    counts[reason] += number


def merge_reasons(*parts: Mapping[str, int]) -> dict[str, int]:
    """Add up counts of answers by reason, without those that are zero."""
    found: Counter[str] = Counter()
    for part in parts:
        for reason, number in part.items():
            add_reason(found, reason, number)
    return {reason: number for reason, number in found.items() if number}
