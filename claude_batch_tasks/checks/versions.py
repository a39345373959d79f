"""The versions of Python and of the packages in this process."""

from __future__ import annotations

import platform
from importlib import metadata

from claude_batch_tasks._version import __version__

#: The packages besides ours that a job goes through.
_PACKAGES = ("anthropic", "httpx", "httpx2", "celery", "kombu", "redis", "amqp", "msgspec")


def list_versions() -> dict[str, str]:
    """Return the versions of Python, of this package, and of each installed package that a job goes through."""
    found = {
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        # The version of the code that runs: an editable installation may have the metadata of an older release.
        "claude-batch-tasks": __version__,
    }
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
