"""Which versions of what are at work in this process."""

from __future__ import annotations

import platform
from importlib import metadata

from claude_batch_tasks._version import __version__

#: What a job goes through beside ourselves.
_PACKAGES = ("anthropic", "httpx", "httpx2", "celery", "kombu", "redis", "amqp", "msgspec")


def versions() -> dict[str, str]:
    """Of Python and of every package that is installed and that a job goes through."""
    found = {
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        # That which runs: of an editable installation the metadata may be an older release's.
        "claude-batch-tasks": __version__,
    }
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
