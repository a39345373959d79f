"""The export of a job's outcomes to a file: JSON lines, or Parquet for pandas, Arrow, DuckDB and the like."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from claude_batch_tasks.results.reader import Order, Reader, Type, as_line, as_result, message_json
from claude_batch_tasks.wire import token_usage

#: Rows of one row group of a Parquet file, and bytes of the messages in it; these are held in memory.
_GROUP = 5_000
_GROUP_BYTES = 64_000_000


def write_jsonl(readers: Iterator[Reader], file: IO[bytes], only: Type | None, order: Order) -> int:
    """Write a line for each outcome: Anthropic's own result line under your custom_id, and its ``source``.

    Returns:
        The number of lines.
    """
    count = 0
    for reader in readers:
        for outcome in reader.read_outcomes(only, order):
            file.write(as_line(reader.custom_id(outcome), outcome) + b"\n")
            count += 1
    return count


def write_parquet(readers: Iterator[Reader], file: IO[bytes], only: Type | None, order: Order) -> int:
    """Write a Parquet file with one flat row for each outcome; ``message`` is the whole message as JSON.

    Returns:
        The number of rows.

    Raises:
        ImportError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    except ImportError:
        raise ImportError("Parquet needs pyarrow: pip install 'claude-batch-tasks[arrow]'") from None
    if isinstance(file, _Text):
        raise TypeError("a Parquet file is binary; open it with 'wb'")
    text = pyarrow.string()
    types = {name: pyarrow.int64() if name in token_usage.USAGE else text for name in _COLUMNS}
    schema = pyarrow.schema(list(types.items()))
    found = (_flatten_outcomes(reader, only, order) for reader in readers)
    rows = (row for some in found for row in some)
    count = 0
    with ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _group_rows(rows):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))
            count += len(group)
    return count


def _group_rows(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row["message"] or "")
        if len(group) == _GROUP or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


#: The supported formats.
FORMATS: dict[str, Callable[[Iterator[Reader], IO[bytes], Type | None, Order], int]] = {
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}


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


_COLUMNS = (
    *("custom_id", "type", "source", "text", "stop_reason", "model"),
    *token_usage.USAGE,
    *("error_type", "error_message", "message"),
)


def _flatten_outcomes(reader: Reader, only: Type | None, order: Order) -> Iterator[dict[str, Any]]:
    for outcome in reader.read_outcomes(only, order):
        result = as_result(reader.custom_id(outcome), outcome)
        message, error = result.message or {}, result.error or {}
        yield {
            **token_usage.usage_of(message.get("usage")),
            "custom_id": _clean_text(result.custom_id),
            "type": result.type,
            "source": result.source,
            "text": _clean_text(result.text if message else None),
            "stop_reason": _clean_text(message.get("stop_reason")),
            "model": _clean_text(message.get("model")),
            "error_type": _clean_text(error.get("type")),
            "error_message": _clean_text(error.get("message")),
            "message": message_json(outcome).decode() if message else None,
        }


def _clean_text(value: Any) -> str | None:
    """Return the text in a form that Arrow accepts: without lone surrogates, which an answer may hold."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else None
