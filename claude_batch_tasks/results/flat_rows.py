"""Outcomes as flat rows: the columns of CSV and Parquet files, and of data frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from claude_batch_tasks.results.reader import as_result
from claude_batch_tasks.results.stored.outcomes import Outcome, count_attempts, message_json
from claude_batch_tasks.wire import token_usage

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

#: Rows that become one part of an Arrow table.
_CHUNK = 5_000


def flatten_outcomes(outcomes: Iterable[tuple[str, Outcome]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each outcome."""
    for custom_id, outcome in outcomes:
        yield flatten_outcome(custom_id, outcome)


def flatten_outcome(custom_id: str, outcome: Outcome) -> dict[str, Any]:
    """Return one outcome as a row, without what is not known; ``message`` is the whole message as JSON."""
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

    parts, rows = [], []
    for row in flatten_outcomes(outcomes):
        rows.append(row)
        if len(rows) == _CHUNK:
            parts.append(pyarrow.RecordBatch.from_pylist(rows, schema))
            rows = []
    parts.append(pyarrow.RecordBatch.from_pylist(rows, schema))
    return pyarrow.Table.from_batches(parts, schema)


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
