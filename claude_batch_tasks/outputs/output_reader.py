"""How answers are read: as the type of their job, or by the schema that was stored when it was submitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded

from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.outputs import checks, schema_validation, schemas
from claude_batch_tasks.outputs.answer_json import Answer, NoAnswer, OtherCall, read_answer
from claude_batch_tasks.outputs.import_paths import import_path
from claude_batch_tasks.outputs.output_types import find_kind, make_reader
from claude_batch_tasks.outputs.problem_texts import describe_exception, join_problem, shorten_reason


class OutputReader:
    """A reader of the answers of one job.

    Args:
        spec: what ``describe_output`` has returned.

    Attributes:
        notice: why answers are checked by the stored schema, and not by the type; None: they are checked by the type.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.notice: str | None = None
        self._is_schema = spec["kind"] == "schema"
        self._decode: Callable[[bytes], Any] | None = None
        self._validate: Callable[[Any], str | None] | None = None
        self._check_path: str | None = spec.get("check")
        self._check: Callable[[Any], str | None] | None = None
        if not self._is_schema:
            self._load_type(str(spec["path"]), spec)
        if self._is_schema or self.notice is not None:
            self._validate = _load_validator(spec["schema"])

    @classmethod
    def load(cls, spec: Mapping[str, Any]) -> OutputReader:
        """Return the reader of a job's answers."""
        return cls(spec)

    def find_problem(self, content: bytes) -> str | None:
        """Return what is wrong with an answer, as ``path: reason``; None: it is right, or a call of another tool.

        Args:
            content: the content of its message, as JSON.

        Raises:
            OutputUnusable: the job's check cannot be run here.
        """
        try:
            answer = read_answer(content)
            if self._validate is not None and (problem := self._validate(answer.value)) is not None:
                return problem
        except OtherCall:
            return None
        except NoAnswer as exc:
            return join_problem((), str(exc))
        if self.notice is not None and self._check_path is None:
            return None
        value, problem = self._make_value(answer)
        if problem is None:
            return None if self._check_path is None else self._run_check(self._check_path, value)
        if self.notice is None:
            return problem
        raise checks.OutputUnusable(f"run_batch option check needs the type of an answer, and {self.notice}")

    def check_paid(self, content: bytes) -> str | None:
        """Return what ``find_problem`` does; an answer that cannot be checked counts as invalid, and is not lost."""
        try:
            return self.find_problem(content)
        except checks.OutputUnusable as exc:
            return join_problem((), f"it could not be checked: {exc}")

    def parse(self, content: bytes | list[Any]) -> tuple[Any, str | None]:
        """Return the object that an answer holds, or what is wrong with it; the job's check is not run.

        Args:
            content: the content of its message, as JSON or decoded.
        """
        try:
            answer = read_answer(content)
            if self._validate is not None and (problem := self._validate(answer.value)) is not None:
                return None, problem
        except (NoAnswer, checks.OutputUnusable) as exc:
            return None, join_problem((), str(exc))
        value, problem = self._make_value(answer)
        if problem is not None and self.notice is not None:
            problem = f"{self.notice}; {problem}" if self._decode else self.notice
        return value, problem

    def _load_type(self, path: str, spec: Mapping[str, Any]) -> None:
        try:
            found = import_path(path, "output")
            kind = find_kind(found)
            if kind is None or kind == "schema":
                raise InvalidSettings("it is no type of answers")
            decode, schema = make_reader(found, kind)
        except Exception as exc:  # noqa: BLE001 - of the application's module, of pydantic or msgspec
            reason = str(exc).partition(". Nothing was stored")[0].partition("\n")[0]
            self.notice = f"the type {path} cannot be used here ({shorten_reason(reason)})"
            return
        self._decode = decode
        if schemas.hash_schema(schema) != spec["hash"]:
            self.notice = f"the type {path} has another schema here than when the job was submitted"

    def _make_value(self, answer: Answer) -> tuple[Any, str | None]:
        """Return the object in an answer, or what is wrong with the answer."""
        if self._is_schema:
            return answer.value, None
        if self._decode is None:
            return None, "$: there is no type"
        try:
            return self._decode(answer.text), None
        except (SoftTimeLimitExceeded, MemoryError):  # these say nothing about the answer
            raise
        except Exception as exc:  # noqa: BLE001 - of pydantic or msgspec, or of the type's own validators
            return None, _describe_failure(answer, exc)

    def _run_check(self, path: str, value: Any) -> str | None:
        if self._check is None:
            self._check = checks.load_check(path)
        return self._check(value)


def _load_validator(schema: dict[str, Any]) -> Callable[[Any], str | None]:
    """Return a function that says what is wrong with a value by a schema, which was one where the job was submitted."""
    try:
        return schema_validation.make_validator(schema)
    except ValueError as exc:
        reason = shorten_reason(str(exc))

    def refuse_value(value: Any) -> str | None:
        raise checks.OutputUnusable(f"this version of jsonschema-rs cannot read the job's schema ({reason})")

    return refuse_value


def _describe_failure(answer: Answer, exc: Exception) -> str:
    """Return what is wrong with an answer that its type refuses: it is not JSON, or it does not fit."""
    try:
        answer.value  # noqa: B018 - it is read only where it is needed, for speed
    except NoAnswer as no_json:
        return join_problem((), str(no_json))
    return describe_exception(exc)
