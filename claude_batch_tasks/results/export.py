"""The export of a job's outcomes to a file: JSON lines, CSV, or Parquet for Arrow, DuckDB and the like."""

from __future__ import annotations

import csv
import io
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePath
from typing import IO, Any

from claude_batch_tasks.results import flat_rows
from claude_batch_tasks.results.stored.outcomes import Outcome, as_line

#: Characters of CSV that are held in memory.
_CSV_CHARACTERS = 1_000_000


#: An outcome with the caller's custom_id.
NamedOutcome = tuple[str, Outcome]


def write_jsonl(outcomes: Iterable[NamedOutcome], file: IO[bytes]) -> int:
    """Write a line for each outcome: Anthropic's own result line under your custom_id, and its ``source``.

    Returns:
        The number of lines.
    """
    count = 0
    for custom_id, outcome in outcomes:
        file.write(as_line(custom_id, outcome) + b"\n")
        count += 1
    return count


def write_csv(outcomes: Iterable[NamedOutcome], file: IO[bytes]) -> int:
    """Write a CSV file in UTF-8 with a header and one row for each outcome; ``message`` is the whole message as JSON.

    Returns:
        The number of rows, without the header.
    """
    lines = io.StringIO(newline="")
    writer = csv.writer(lines)
    writer.writerow(flat_rows.COLUMNS)
    count = 0
    for custom_id, outcome in outcomes:
        row = flat_rows.flatten_outcome(custom_id, outcome)
        writer.writerow([row.get(name) for name in flat_rows.COLUMNS])
        count += 1
        if lines.tell() > _CSV_CHARACTERS:
            _move_text(lines, file)
    _move_text(lines, file)
    return count


def _move_text(lines: io.StringIO, file: IO[bytes]) -> None:
    """Write what the buffer holds to the file, and empty the buffer."""
    file.write(lines.getvalue().encode())
    lines.seek(0)
    lines.truncate()


def write_parquet(outcomes: Iterable[NamedOutcome], file: IO[bytes]) -> int:
    """Write a Parquet file with one flat row for each outcome; ``message`` is the whole message as JSON.

    Returns:
        The number of rows.

    Raises:
        ImportError: pyarrow is not installed.
    """
    schema = flat_rows.arrow_schema()
    from pyarrow.parquet import ParquetWriter

    if isinstance(file, _Text):
        raise TypeError("a Parquet file is binary; open it with 'wb'")
    count = 0
    with ParquetWriter(file, schema, compression="zstd") as writer:
        for group in flat_rows.group_rows(flat_rows.flatten_outcomes(outcomes)):
            writer.write_batch(flat_rows.make_batch(group, schema))
            count += len(group)
    return count


#: The supported formats.
FORMATS: dict[str, Callable[[Iterable[NamedOutcome], IO[bytes]], int]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "parquet": write_parquet,
}

_SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}
#: Suffixes of formats that are not supported. A file with such a name must not hold something else.
_OTHER_FORMATS = frozenset((".gz", ".bz2", ".xz", ".zip", ".zst", ".xls", ".xlsx", ".feather", ".arrow", ".tsv", ".db"))


def choose_format(file: Any, format: str | None) -> str:
    """Return the format to write: the given one, else the one that the path's suffix names, else ``jsonl``.

    Raises:
        ValueError: there is no such format, or the suffix is that of a format that is not supported.
    """
    known = " or ".join(map(repr, FORMATS))
    if format is not None:
        if format not in FORMATS:
            raise ValueError(f"format must be {known}, not {format!r}")
        return format
    if not isinstance(file, (str, os.PathLike)):
        return "jsonl"
    suffix = PurePath(os.fsdecode(file)).suffix.lower()
    if suffix in _OTHER_FORMATS:
        raise ValueError(f"files of type {suffix} cannot be written; give a format ({known}) or another file name")
    return _SUFFIXES.get(suffix, "jsonl")


@contextmanager
def open_output(file: Any) -> Iterator[IO[bytes]]:
    """Open a file for bytes; one given by its path is created or replaced only when everything is written."""
    if not isinstance(file, (str, os.PathLike)):
        # All kinds of text files have an encoding, even those that are no TextIOBase.
        binary: Any = _Text(file) if hasattr(file, "encoding") or isinstance(file, io.TextIOBase) else file
        yield binary
        return
    path = os.path.realpath(file)
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe, a device
        with open(path, "wb") as special:
            yield special
        return
    part = f"{path}.{uuid.uuid4().hex[:8]}.part"
    try:
        with open(part, "xb") as whole:
            yield whole
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


class _Text(io.RawIOBase):
    """A text file wrapped as one that accepts the bytes of whole lines."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._file.write(bytes(data).decode())
        return len(data)
