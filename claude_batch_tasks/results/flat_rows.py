"""Outcomes as flat rows: the columns of CSV and Parquet files, and of data frames."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from claude_batch_tasks.results.reader import as_result
from claude_batch_tasks.results.stored.outcomes import Outcome, count_attempts, message_json
from claude_batch_tasks.wire import lenient_json, token_usage

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

#: The columns, in their order; new ones come last.
COLUMNS = (
    *("custom_id", "type", "source", "text", "stop_reason", "model"),
    *token_usage.USAGE,
    *("error_type", "error_message", "message"),
    *("incomplete", "attempts", "parse_error"),
)

#: Those that are integers; all others are texts or empty.
INTEGERS = (*token_usage.USAGE, "attempts")

#: Rows of one part of an Arrow table or a Parquet file, and characters of the messages in it.
_GROUP = 5_000
_GROUP_SIZE = 64_000_000


def flatten_outcomes(outcomes: Iterable[tuple[str, Outcome]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each outcome."""
    for custom_id, outcome in outcomes:
        yield flatten_outcome(custom_id, outcome)


class _Block(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None


class _Message(msgspec.Struct, gc=False):
    content: list[_Block]
    model: str | None = None
    stop_reason: str | None = None
    usage: token_usage.Usage | None = None


class _Result(msgspec.Struct, gc=False):
    type: Literal["succeeded"]
    message: msgspec.Raw


class _Line(msgspec.Struct, gc=False):
    result: _Result


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_message = msgspec.json.Decoder(_Message).decode


def flatten_outcome(custom_id: str, outcome: Outcome) -> dict[str, Any]:
    """Return one outcome as a row, without what is not known; ``message`` is the whole message as JSON."""
    try:
        encoded = bytes(_decode_line(outcome.line).result.message)
        message, whole = _decode_message(encoded), encoded.decode()
    except lenient_json.REFUSED:
        return _flatten_any(custom_id, outcome)
    usage, row = message.usage, outcome.row
    return {
        **({name: getattr(usage, name) for name in token_usage.USAGE} if usage is not None else {}),
        "custom_id": _clean_text(custom_id),
        "type": outcome.type,
        "source": outcome.source,
        "text": "".join([block.text for block in message.content if block.type == "text" and block.text]),
        "stop_reason": message.stop_reason,
        "model": message.model,
        # In JSON these characters stand only between values.
        "message": whole.replace("\n", " ").replace("\r", " "),
        "incomplete": row.incomplete,
        "attempts": count_attempts(outcome),
        "parse_error": _clean_text(row.invalid),
    }


def _flatten_any(custom_id: str, outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as a row that is no answer, or is not spelled as answers are."""
    result = as_result(custom_id, outcome)
    message, error = result.message or {}, result.error or {}
    return {
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
        "incomplete": outcome.row.incomplete,
        "attempts": count_attempts(outcome),
        "parse_error": _clean_text(outcome.row.invalid),
    }


def _clean_text(value: Any) -> str | None:
    """Return the text in a form that Arrow accepts: without lone surrogates, which an answer may hold."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else None


def arrow_schema() -> pyarrow.Schema:
    """Return the Arrow schema of the rows.

    Raises:
        ImportError: pyarrow is not installed.
    """
    try:
        import pyarrow
    except ImportError:
        raise _missing_package("pyarrow", "arrow") from None
    text = pyarrow.string()
    return pyarrow.schema([(name, pyarrow.int64() if name in INTEGERS else text) for name in COLUMNS])


def to_arrow(outcomes: Iterable[tuple[str, Outcome]]) -> pyarrow.Table:
    """Return an Arrow table with a row for each outcome.

    Raises:
        ImportError: pyarrow is not installed.
    """
    schema = arrow_schema()
    import pyarrow

    parts = [make_batch(rows, schema) for rows in group_rows(flatten_outcomes(outcomes))]
    return pyarrow.Table.from_batches(parts, schema)


def group_rows(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield rows in groups that are held in memory."""
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row["message"] or "")
        if len(group) == _GROUP or size >= _GROUP_SIZE:
            yield group
            group, size = [], 0
    if group:
        yield group


def make_batch(rows: Sequence[dict[str, Any]], schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    """Return rows as an Arrow batch, made column by column."""
    import pyarrow

    columns = [
        pyarrow.array(values, field.type) if field.name in INTEGERS else _make_texts(values)
        for field in schema
        for values in [[row.get(field.name) for row in rows]]
    ]
    return pyarrow.RecordBatch.from_arrays(columns, schema=schema)


def _make_texts(values: Sequence[str | None]) -> pyarrow.StringArray:
    """Return a column of texts in no more memory than they need: Arrow's own builder takes twice as much."""
    import pyarrow

    encoded = [b"" if value is None else value.encode() for value in values]
    ends = array("i", accumulate(map(len, encoded), initial=0))
    known = pyarrow.array([value is not None for value in values], pyarrow.bool_()).buffers()[1]
    return pyarrow.StringArray.from_buffers(
        len(values), pyarrow.py_buffer(ends), pyarrow.py_buffer(b"".join(encoded)), known, values.count(None)
    )


def to_pandas(outcomes: Iterable[tuple[str, Outcome]]) -> pandas.DataFrame:
    """Return a pandas DataFrame with a row for each outcome.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise _missing_package("pandas", "pandas") from None
    # Rows without an answer have no counts, which pandas' plain integers cannot say.
    return pandas.DataFrame(_collect_columns(outcomes)).astype(dict.fromkeys(INTEGERS, "Int64"))


def to_polars(outcomes: Iterable[tuple[str, Outcome]]) -> polars.DataFrame:
    """Return a Polars DataFrame with a row for each outcome.

    Raises:
        ImportError: Polars is not installed.
    """
    try:
        import polars
    except ImportError:
        raise _missing_package("polars", "polars") from None
    types = {name: polars.Int64 if name in INTEGERS else polars.String for name in COLUMNS}
    return polars.DataFrame(_collect_columns(outcomes), schema=types)


def _collect_columns(outcomes: Iterable[tuple[str, Outcome]]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for row in flatten_outcomes(outcomes):
        for name, values in columns.items():
            values.append(row.get(name))
    return columns


def _missing_package(package: str, extra: str) -> ImportError:
    return ImportError(f"this needs {package}: pip install 'claude-batch-tasks[{extra}]'")
