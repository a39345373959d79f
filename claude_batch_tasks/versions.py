"""Which versions of what are at work in this process."""

from __future__ import annotations

import platform
from importlib import metadata

#: What a job goes through.
_PACKAGES = ("claude-batch-tasks", "anthropic", "httpx", "httpx2", "celery", "kombu", "redis", "amqp", "msgspec")


def versions() -> dict[str, str]:
    """Of Python and of every package that is installed and that a job goes through."""
    found = {"Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}"}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
