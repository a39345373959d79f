"""The SQL of the store, from its files, with the name of the deployment's schema in the place of ``claude_batch``."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

_FOLDER = Path(__file__).parent / "sql"

#: The name that all files have for the schema; longer names that begin so are others.
SCHEMA = "claude_batch"
_SCHEMA = re.compile(rf"\b{SCHEMA}\b")

#: What begins each statement of a file of queries, with its name.
_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def with_schema(text: str, schema: str) -> str:
    """Return SQL for a schema of that name."""
    quoted = '"' + schema.replace('"', '""') + '"'
    return _SCHEMA.sub(lambda _: quoted, text)


@functools.cache
def read_queries(part: str, schema: str) -> dict[str, str]:
    """Return the statements of a part of the store by their names, for a schema."""
    text = with_schema((_FOLDER / "queries" / f"{part}.sql").read_text(), schema)
    _, *found = _NAME.split(text)
    return dict(zip(found[::2], map(str.strip, found[1::2]), strict=True))


def read_tables(schema: str) -> Iterator[str]:
    """Yield what creates the tables of a new schema, file by file."""
    for path in sorted((_FOLDER / "tables").glob("*.sql")):
        yield with_schema(path.read_text(), schema)


def read_functions(schema: str) -> Iterator[str]:
    """Yield what creates or replaces each function, one a file."""
    for path in sorted((_FOLDER / "functions").glob("*.sql")):
        yield with_schema(path.read_text(), schema)
