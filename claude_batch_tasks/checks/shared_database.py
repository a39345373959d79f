"""Jobs in the store's database that begin with another prefix: another project's, or this one's by mistake."""

from __future__ import annotations

from typing import Any

from claude_batch_tasks.store.prefixed import glob_escaped
from claude_batch_tasks.store.schema import PREFIX

#: Pages of key names that are looked through, and how many each is of.
_PAGES, _PAGE = 100, 1000

#: Seconds by which what another prefix's workers have to do is late before nobody seems to do it.
_LATE = 600


def neglected_prefixes(client: Any, ours: str) -> list[str]:
    """Return the other prefixes under which there are jobs that a mistake about the prefix would explain.

    There is nothing yet under ours, or nobody does what is due under theirs.

    Args:
        client: one without a prefix.
        ours: the prefix of this app.
    """
    end = f"{PREFIX}:due"
    found, cursor = set[str](), 0
    for _ in range(_PAGES):
        cursor, keys = client.scan(cursor, match=f"*{glob_escaped(end)}", count=_PAGE)
        found |= {key.decode(errors="replace")[: -len(end)] for key in keys}
        if not cursor:
            break
    ours_is_new = not client.exists(f"{ours}{PREFIX}:jobs")
    before = client.time()[0] - _LATE
    return [
        prefix for prefix in sorted(found - {ours}) if ours_is_new or client.zcount(f"{prefix}{end}", "-inf", before)
    ]
