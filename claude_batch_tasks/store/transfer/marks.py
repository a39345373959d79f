"""The error of a process that begins to use a store which is marked."""

from __future__ import annotations

from claude_batch_tasks.errors import StoreMoved
from claude_batch_tasks.formatting import format_time
from claude_batch_tasks.store.transfer.items import Mark

#: On top of what a process must know to work on a store, while the store is marked: no release knows as much.
CLOSED = 1_000_000


def describe_mark(mark: Mark | None, where: str) -> StoreMoved:
    """Return the error for a store that is marked so; None: it is not known why it is closed."""
    if mark is not None and mark.state == "filling":
        return StoreMoved(
            f"the jobs of the store at {mark.other} are being copied into the store at {where} since "
            f"{format_time(mark.at)}, and not all of them are there. Nothing was read or changed. Run `claude-batch "
            "copy-store` again with the same stores; it continues where it ended"
        )
    target = f" to {mark.other} on {format_time(mark.at)}" if mark is not None else ""
    return StoreMoved(
        f"the jobs of the store at {where} were moved{target}. Nothing was read or changed. Set "
        "`claude_batch_store_url` to that store here too: what is sent from both is paid twice"
    )
