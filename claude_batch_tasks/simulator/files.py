"""The files that were uploaded: what is remembered of each, and the reading of an upload."""

from __future__ import annotations

import mimetypes
from email.message import Message
from typing import Any

from msgspec import Struct

from .batch import new_id
from .prompts import ApiError

#: The largest file.
MAX_FILE_BYTES = 500_000_000


class StoredFile(Struct):
    """A file, without its content."""

    filename: str
    mime_type: str
    size_bytes: int
    #: As clients are shown it.
    created_at: str | None
    id: str = ""

    def __post_init__(self) -> None:
        self.id = self.id or new_id("file_")

    def as_json(self) -> dict[str, Any]:
        """Return the metadata as the API shows them."""
        return {
            "type": "file",
            "id": self.id,
            "filename": self.filename,
            "mime_type": self.mime_type,
            "size_bytes": self.size_bytes,
            "created_at": self.created_at,
            "downloadable": False,
            "expires_at": None,
        }


def read_upload(body: bytes | bytearray, content_type: str, created_at: str | None) -> StoredFile:
    """Return the file in the body of an upload, a form of several parts.

    Raises:
        ApiError: there is none.
    """
    form = Message()
    form["content-type"] = content_type
    boundary = form.get_boundary()
    if form.get_content_type() != "multipart/form-data" or boundary is None:
        raise ApiError("invalid_request_error", "Expected a multipart/form-data body")
    for part in bytes(body).split(b"--" + boundary.encode("latin-1")):
        head, found, content = part.partition(b"\r\n\r\n")
        fields = _read_head(head)
        if found and fields.get_param("name", header="content-disposition") == "file":
            name = (fields.get_filename() or "unnamed").replace("\\", "/").rpartition("/")[2]
            given = fields.get("content-type") or mimetypes.guess_type(name)[0] or "application/octet-stream"
            # The line break before the next boundary is none of the file's.
            return StoredFile(name, given.partition(";")[0].strip(), len(content) - 2, created_at)
    raise ApiError("invalid_request_error", "file: Field required")


def _read_head(head: bytes) -> Message:
    fields = Message()
    for line in head.decode("utf-8", "replace").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields[name.strip()] = value.strip()
    return fields
