"""What the refusal of a create says about the requests in it: which of them it names, or that it is about all alike."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: The most requests of one refusal that are set apart because it names them.
MOST_NAMED = 20

#: The most requests of one pool that are searched for one after the other. Where there are more, each half of what was
#: refused is created: that takes fewer creates then.
MOST_SEARCHES = 3

#: Seconds for which asks wait for the end of a search that nobody carries on; a create of theirs may be refused then.
LONGEST_SEARCH = 3600.0

#: How a refusal names a request: by its place in the batch, or by its custom_id, which ends with that.
_NAMED = re.compile(r"\brequests(?:\.|\[)(\d{1,6})\b")
_WIRE_ID = r"\bcbt-{nonce}-(\d{{1,6}})\b"

#: What all requests of a job have in common.
_ABOUT_ALL = re.compile(r"anthropic-(beta|version|workspace|user)|\bheaders?\b|user_profile", re.IGNORECASE)


def find_named(message: str, nonce: str, count: int) -> list[int]:
    """Return the positions of the requests that a refused create's error names, ascending; none if it names all.

    Args:
        message: the error's text.
        nonce: the part of the wire ids by which those of this batch are recognized.
        count: number of requests in the batch.
    """
    texts = _NAMED.findall(message) + re.findall(_WIRE_ID.format(nonce=re.escape(nonce)), message)
    found = sorted({int(text) for text in texts if int(text) < count})
    return found[:MOST_NAMED] if len(found) < count else []


def concerns_all(message: str) -> bool:
    """Return whether the error of a refused create is about what all requests of a job have in common."""
    return bool(_ABOUT_ALL.search(message))


def halve(positions: Sequence[int], swap: bool) -> tuple[list[int], list[int]]:
    """Divide positions into the half whose create is tried, and the other.

    Args:
        swap: whether the second half is tried. Refused ones often stand together; who always tries the first half may
            see no create succeed.
    """
    middle = (len(positions) + 1) // 2
    first, second = list(positions[:middle]), list(positions[middle:])
    return (second, first) if swap else (first, second)
