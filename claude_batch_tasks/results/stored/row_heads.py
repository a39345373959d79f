"""The heads of rows: whose result a line is, and its type, read without decoding the line.

A head is read where it is spelled as nearly all are: ``custom_id``, ``result`` and ``type`` come first, in that order
and without escapes. Any other line is decoded to find out the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from claude_batch_tasks.wire.result_rows import OUTCOMES, OutcomeType

_HEAD = rb'\s*\{\s*"custom_id"\s*:\s*"%s"\s*,\s*"result"\s*:\s*\{\s*"type"\s*:\s*"(%s)"\s*[,}]'

#: The types of rows, as they are in the second group of a head.
TYPES: dict[bytes, OutcomeType] = {name.encode(): name for name in OUTCOMES}

#: Finds a head at the beginning of a line; its first group is as the function says that made it.
MatchHead = Callable[[bytes], "re.Match[bytes] | None"]


def match_indexes(nonce: str) -> MatchHead:
    """Return what finds the heads of rows of a job; the first group is the index in the wire id.

    Args:
        nonce: the job's nonce in the round of the rows.
    """
    return _match(rb"cbt-%s-(0|[1-9][0-9]{0,8})" % re.escape(nonce.encode()))


def match_ids() -> MatchHead:
    """Return what finds the heads of any rows; the first group is the custom_id, in ASCII."""
    return _match(rb"([ !#-\[\]-~]+)")


def _match(custom_id: bytes) -> MatchHead:
    return re.compile(_HEAD % (custom_id, b"|".join(TYPES))).match
