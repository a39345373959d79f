"""The README as PyPI shows it: with links and pictures that lead to the repository.

Hatchling runs this when it builds the package (``[tool.hatch.metadata.hooks.custom]`` in ``pyproject.toml``). In the
repository the links are relative, so that they work on GitHub and in a checkout.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^]]*)\]\((?!https?://|#)(?P<path>[^)]+)\)")
_COMMENT = re.compile(r"<!--.*?-->\n", re.DOTALL)


def absolute_links(text: str, repository: str, version: str) -> str:
    """Return a page with absolute links in place of relative ones, and without comments.

    Args:
        text: the page, in Markdown.
        repository: the address of the repository on GitHub.
        version: the version, whose tag the links lead to.
    """
    raw = repository.replace("https://github.com/", "https://raw.githubusercontent.com/")

    def lead(found: re.Match[str]) -> str:
        base = f"{raw}/v{version}" if found["picture"] else f"{repository}/blob/v{version}"
        return f"{found['picture']}[{found['text']}]({base}/{found['path']})"

    return _LINK.sub(lead, _COMMENT.sub("", text))


class ReadmeForPyPI(MetadataHookInterface):
    """The hook that hatchling calls."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the description of the package."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        repository = metadata["urls"]["Repository"]
        # Beside the repository itself, PyPI lists where to read, ask and see what changed.
        metadata["urls"] |= {
            "Documentation": f"{repository}/blob/main/docs/index.md",
            "Changelog": f"{repository}/blob/main/CHANGELOG.md",
            "Issues": f"{repository}/issues",
        }
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": absolute_links(text, repository, metadata["version"]),
        }
