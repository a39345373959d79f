"""Answers of a job into rows of a model, many at a time: for the task that a project names as ``on_result``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from django.core.exceptions import ValidationError
from django.db import connections, router
from django.db.utils import NotSupportedError

from claude_batch_tasks.jobs.batch_job import BatchJob
from claude_batch_tasks.results.reader import RequestResult

if TYPE_CHECKING:
    from celery import Celery
    from django.db.models import Model

#: What a field gets: the name of an attribute of the result, or what a function makes of the result.
Source: TypeAlias = str | Callable[[RequestResult], Any]

#: The attributes of a result that are objects.
_OBJECTS = ("attempts", "parsed")

#: Rows of one statement.
BATCH_SIZE = 500


def save_results(
    job_id: str,
    custom_ids: Iterable[str] | None,
    model: type[Model],
    *,
    fields: Mapping[str, Source] | Callable[[RequestResult], Mapping[str, Any]],
    key: str = "custom_id",
    to_key: Callable[[str], Any] | None = None,
    job_field: str | None = None,
    using: str | None = None,
    batch_size: int = BATCH_SIZE,
    app: Celery | None = None,
) -> int:
    """Write the outcomes of requests into rows of a model, a few statements for a thousand of them.

    A second call with the same ids writes the same rows: nothing is doubled, so a task that is retried, or called
    twice, may call this again. The model's ``save()`` and signals are not called, as with all of Django's bulk methods.

    Args:
        job_id, custom_ids: what ``on_result`` is called with; None: all requests of the job, in constant memory.
        model: its rows get the outcomes.
        fields: for each field of the model the name of an attribute of ``RequestResult`` (``"text"``, ``"type"``,
            ``"incomplete"``; ``"parsed"`` and ``"attempts"`` as JSON) or a function of one; or one function that
            returns the values of all fields.
        key: the field that has the custom_id. ``"pk"``, or the name of the primary key: rows that exist are updated.
            Any other: rows are inserted, or updated where there is one with this key, which must be unique.
        to_key: returns the value of that field for a custom_id; default: the custom_id.
        job_field: the field that has the job's id, where custom_ids are unique in one job only.
        using: the alias of the database; default: where the model is written.
        batch_size: rows of one statement.
        app: the Celery app whose settings say where the store is; default: the current one.

    Returns:
        The number of rows that were written.

    Raises:
        ValueError: a name is wrong, the key is not unique, or a custom_id is no key.
        NotSupportedError: the database cannot do this with this model.
        JobNotFound, ResultsMissing: as of ``BatchJob.results()``.
    """
    alias = using or router.db_for_write(model)
    table = _Table(model, alias, key, to_key, job_id, job_field)
    make_values = fields if callable(fields) else _check_sources(fields)
    written, results = 0, BatchJob(job_id, app).results(ids=custom_ids)
    while chunk := list(islice(results, batch_size)):
        written += table.write(chunk, make_values, batch_size)
    return written


class _Table:
    """The rows of a model, found by a key."""

    def __init__(
        self,
        model: type[Model],
        alias: str,
        key: str,
        to_key: Callable[[str], Any] | None,
        job_id: str,
        job_field: str | None,
    ) -> None:
        self._model, self._to_key, self._alias = model, to_key, alias
        self._key = model._meta.pk if key == "pk" else model._meta.get_field(key)
        self._exists = bool(self._key.primary_key)
        self._job = {job_field: job_id} if job_field else {}
        self._names = [*self._job, key]
        if not self._exists:
            _check_unique(model, {self._key.name, *(model._meta.get_field(name).name for name in self._job)}, alias)

    def write(
        self, results: list[RequestResult], make_values: Callable[[RequestResult], Mapping[str, Any]], batch_size: int
    ) -> int:
        """Write some results; return the number of rows."""
        found = {self._key_of(result.custom_id): make_values(result) for result in results}
        names = list(next(iter(found.values())))
        if any(set(values) != set(names) for values in found.values()):
            raise ValueError("fields must return the same names for each result")
        # In one order: two tasks that write the same rows at once would wait for each other.
        rows = [self._make_row(key, found[key]) for key in sorted(found)]
        names += [field.name for field in self._model._meta.concrete_fields if getattr(field, "auto_now", False)]
        manager = self._model._base_manager.using(self._alias)
        if self._exists:
            return int(manager.bulk_update(rows, names, batch_size=batch_size))
        has_target = connections[self._alias].features.supports_update_conflicts_with_target
        return len(
            manager.bulk_create(
                rows,
                batch_size=batch_size,
                update_conflicts=True,
                update_fields=names,
                unique_fields=self._names if has_target else None,
            )
        )

    def _key_of(self, custom_id: str) -> Any:
        value = custom_id if self._to_key is None else self._to_key(custom_id)
        try:
            return self._key.to_python(value)
        except ValidationError:
            name = f"{self._model.__name__}.{self._key.name}"
            raise ValueError(
                f"{value!r} is no value of {name}: pass a function that makes a key of a custom_id"
            ) from None

    def _make_row(self, key: Any, values: Mapping[str, Any]) -> Model:
        own = {} if self._exists else self._job
        row = self._model(**own, **{self._key.attname: key}, **{name: _storable(each) for name, each in values.items()})
        if self._exists:
            for field in self._model._meta.concrete_fields:
                if getattr(field, "auto_now", False):
                    field.pre_save(row, False)
        return row


def _check_sources(fields: Mapping[str, Source]) -> Callable[[RequestResult], Mapping[str, Any]]:
    """Return what makes the values of the fields of a result."""
    if not fields:
        raise ValueError("fields names no field")
    for source in fields.values():
        if not callable(source) and not hasattr(RequestResult, str(source)):
            raise ValueError(f"RequestResult has no attribute {source!r}")

    def make_values(result: RequestResult) -> Mapping[str, Any]:
        return {
            name: source(result) if callable(source) else _read_attribute(result, source)
            for name, source in fields.items()
        }

    return make_values


def _read_attribute(result: RequestResult, name: str) -> Any:
    """Return an attribute of a result; of objects, what JSON has for them."""
    return result.asdict()[name] if name in _OBJECTS else getattr(result, name)


def _check_unique(model: type[Model], names: set[str], alias: str) -> None:
    """Check that no two rows may have the same key.

    Raises:
        ValueError: they may; MariaDB would insert a row at each call.
        NotSupportedError: the database takes a row with another unique field of the same value for the same row.
    """
    unique = list(_unique_names(model))
    if names not in unique:
        what = " and ".join(sorted(names))
        raise ValueError(
            f"{model.__name__} may have several rows with the same {what}: make it unique (unique=True, or a "
            "UniqueConstraint without a condition), or name the key of rows that exist with key="
        )
    others = [each for each in unique if each and each not in (names, {model._meta.pk.name})]
    if others and not connections[alias].features.supports_update_conflicts_with_target:
        raise NotSupportedError(
            f"{connections[alias].vendor} updates a row with the same {' or '.join(sorted(others[0]))} as well, which "
            f"is unique in {model.__name__} too"
        )


def _unique_names(model: type[Model]) -> Iterator[set[str]]:
    meta = model._meta
    yield from ({field.name} for field in meta.concrete_fields if field.unique)
    yield from (set(names) for names in meta.unique_together)
    yield from (set(constraint.fields) for constraint in meta.total_unique_constraints)


def _storable(value: Any) -> Any:
    """Return a value without what databases refuse in a text: NUL characters and half surrogate pairs."""
    if isinstance(value, str):
        if "\x00" in value:
            value = value.replace("\x00", "\ufffd")
        return value if value.isascii() else value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_storable(name): _storable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_storable(each) for each in value]
    return value
