"""The URL of an object store, in the setting ``payload_url``."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from claude_batch_tasks.errors import InvalidSettings

#: Schemes, and what the part after ``//`` is called.
_SCHEMES = {"s3": "bucket", "gs": "bucket", "az": "container"}

_FORMS = "s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder"

#: What stays as it is in every kind of URL and path.
_BUCKET, _PREFIX = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII), re.compile(r"[\w./=-]*", re.ASCII)


def check_payload_url(url: str) -> str:
    """Return the URL without a slash at its end.

    Raises:
        InvalidSettings: it is none, or holds more than the place; the text does not show it, for the same reason.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidSettings(
            f"claude_batch_payload_url must be {_FORMS}, and nothing more: credentials and options come from the "
            "environment, as the SDK of each cloud reads them (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...)"
        )
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/"):
            raise InvalidSettings(
                "claude_batch_payload_url must name a folder by its whole path, with three slashes: file:///var/lib/"
                f"claude-batch; not {url!r}"
            )
    elif parts.scheme not in _SCHEMES:
        raise InvalidSettings(f"claude_batch_payload_url must be {_FORMS}; not {url!r}")
    elif not _BUCKET.fullmatch(parts.netloc):
        raise InvalidSettings(f"claude_batch_payload_url must name a {_SCHEMES[parts.scheme]}: {_FORMS}; not {url!r}")
    path = parts.path.rstrip("/")
    if not _PREFIX.fullmatch(path) or {"", ".", ".."} & set(path.split("/")[1:]):
        raise InvalidSettings(
            f"claude_batch_payload_url may have letters, digits, and . _ - = / in its path; not {url!r}"
        )
    return f"{parts.scheme}://{parts.netloc}{path}"
