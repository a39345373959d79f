"""The check for jobs in the store's database under another prefix: another project's, or this one's by mistake."""

from __future__ import annotations

from typing import Any

from claude_batch_tasks.store.redis.keys import DUE, JOBS
from claude_batch_tasks.store.redis.prefixing import glob_escaped

#: How many pages of key names are read at most, and how many names a page has.
_PAGES, _PAGE = 100, 1000

#: Seconds by which work under another prefix must be overdue before it seems that no worker does it.
_LATE = 600


def neglected_prefixes(client: Any, ours: str) -> list[str]:
    """Return the other prefixes whose jobs may be there because of a wrong prefix.

    This is likely if there is no job yet under our prefix, or if work under the other prefix is overdue.

    Args:
        client: a Redis client without a prefix.
        ours: the prefix of this app.
    """
    end = DUE
    found, cursor = set[str](), 0
    for _ in range(_PAGES):
        cursor, keys = client.scan(cursor, match=f"*{glob_escaped(end)}", count=_PAGE)
        found |= {key.decode(errors="replace")[: -len(end)] for key in keys}
        if not cursor:
            break
    ours_is_new = not client.exists(f"{ours}{JOBS}")
    before = client.time()[0] - _LATE
    return [
        prefix for prefix in sorted(found - {ours}) if ours_is_new or client.zcount(f"{prefix}{end}", "-inf", before)
    ]
