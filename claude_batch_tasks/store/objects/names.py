"""How objects are named, and the references to them that the ledger keeps in place of payloads.

::

    LEDGER/HH/JOB/NONCE/index/TOKEN              the index of the job's custom_ids
    LEDGER/HH/JOB/NONCE/BATCH/requests/TOKEN/…   bodies, ids
    LEDGER/HH/JOB/NONCE/BATCH/ATTEMPT/TOKEN/…    rows, places, and an adopted job's index

``LEDGER`` is the identity of the ledger, so that two deployments may share a bucket. ``HH`` is a byte of the digest of
the job's id: a sweep checks one of these folders at a time. The nonce makes the folder one of this job alone, though
its id may be used again. Each object has a name that no other ever had, and is written once.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import NamedTuple
from urllib.parse import quote, unquote

import msgspec

#: Folders among which the jobs of a ledger are divided.
SHARDS = 256

#: Characters of a name in a path: file systems take 255 bytes.
_LONGEST = 200

#: What a reference begins with: no request, no row and no list of positions does.
_MAGIC = b"claude-batch-objects:1:"


class Reference(msgspec.Struct, frozen=True):
    """Where objects are that the ledger has no more than this of."""

    url: str
    path: str
    """Of the object, or of the folder that it is in with others."""

    def encode(self) -> bytes:
        """Return the reference as it is stored in the ledger."""
        return _MAGIC + msgspec.json.encode(self)


_decode = msgspec.json.Decoder(Reference).decode


def read_reference(kept: bytes) -> Reference | None:
    """Return the reference that is stored in place of a payload; None: it is a payload."""
    return _decode(kept[len(_MAGIC) :]) if kept.startswith(_MAGIC) else None


def as_ids(reference: Reference) -> list[str]:
    """Return the reference as it is stored in place of custom_ids, of which none is empty."""
    return ["", reference.encode().decode()]


def read_ids_reference(ids: list[str]) -> Reference | None:
    """Return the reference that is stored in place of custom_ids; None: these are custom_ids."""
    return read_reference(ids[1].encode()) if len(ids) == 2 and not ids[0] else None


def make_token() -> str:
    """Return a name that no other object has."""
    return secrets.token_hex(8)


def shard_folder(ledger: str, shard: int) -> str:
    """Return one of the folders among which the jobs of a ledger are divided."""
    return f"{ledger}/{shard:02x}"


def job_folder(ledger: str, job_id: str, nonce: str) -> str:
    """Return the folder of a job's objects."""
    shard = blake2b(job_id.encode(errors="surrogatepass"), digest_size=1).digest()[0]
    quoted = quote_name(job_id)
    parts = [quoted[start : start + _LONGEST] for start in range(0, len(quoted), _LONGEST)]
    return "/".join([shard_folder(ledger, shard), *parts, quote_name(nonce)])


def index_path(folder: str) -> str:
    """Return a new name for the index of a job's custom_ids, given the job's folder."""
    return f"{folder}/index/{make_token()}"


def folder_of_index(path: str) -> str:
    """Return the folder of the job that has this index."""
    return path.rsplit("/", 2)[0]


def requests_path(folder: str, batch: int) -> str:
    """Return a new name for the folder of a batch's requests."""
    return f"{folder}/{batch}/requests/{make_token()}"


def attempt_path(folder: str, batch: int, attempt: int, token: str) -> str:
    """Return the folder of one download of an attempt."""
    return f"{folder}/{batch}/{attempt}/{token}"


class Owner(NamedTuple):
    """Whose an object is."""

    job_id: str
    nonce: str


def find_owner(path: str) -> Owner | None:
    """Return whose the object with this path is; None: it is none of a job."""
    parts = path.split("/")
    if len(parts) > 5 and parts[-2] == "index" and len(parts[-1]) == 16:
        job, nonce = parts[2:-3], parts[-3]
    elif len(parts) > 7:
        job, nonce = parts[2:-5], parts[-5]
    else:
        return None
    return Owner(_unquote("".join(job)), _unquote(nonce))


def quote_name(text: str) -> str:
    """Return a text as letters, digits, ``_``, ``-`` and ``=``: every store and file system takes these as they are."""
    return quote(text, safe="", errors="surrogatepass").replace(".", "%2E").replace("~", "%7E").replace("%", "=")


def _unquote(text: str) -> str:
    return unquote(text.replace("=", "%"), errors="surrogatepass")
