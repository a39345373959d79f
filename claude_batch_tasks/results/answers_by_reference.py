"""The result of an ask as messages and result back ends carry it: two ids, and the answer when it is read.

``import claude_batch_tasks`` loads this module, so that every process that has the package can read such a reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.utils.json import register_type

if TYPE_CHECKING:
    from celery import Celery

    from claude_batch_tasks.results.reader import RequestResult

    # An answer has every attribute of the result that it leads to.
    _Answer = RequestResult
else:
    _Answer = object

#: The name of the type in JSON.
MARKER = "claude_batch_answer"


class Answer(_Answer):
    """A reference to what became of one request: it behaves as the ``RequestResult``, read from the store on first use.

    It is what ``ask`` returns as a task: the result in the back end, and the argument of the task that follows. Pass it
    on freely: a message carries only its two ids.

    Args:
        job_id: the job.
        custom_id: the request in it.
        app: the Celery app whose settings say where the store is; default: the current one.
    """

    __slots__ = ("_app", "_result", "custom_id", "job_id")

    job_id: str
    _app: Celery | None
    _result: RequestResult | None

    if not TYPE_CHECKING:  # what a Struct is made with is not what this is made with

        def __init__(self, job_id: str, custom_id: str, app: Celery | None = None) -> None:
            self.job_id, self.custom_id = job_id, custom_id
            self._app, self._result = app, None

        def __getattr__(self, name: str) -> Any:
            # Names of protocols, such as ``__json__``, are tried on every object.
            if name.startswith("_") or name == "result":
                raise AttributeError(name)
            return getattr(self.result, name)

    else:

        def __init__(self, job_id: str, custom_id: str, app: Celery | None = None) -> None: ...

    @property
    def result(self) -> RequestResult:
        """The result itself.

        Raises:
            JobNotFound, RequestNotFound: the store does not have it (any more).
            StoreUnavailable: the store does not answer.
        """
        if self._result is None:
            self._result = _read_result(self.job_id, self.custom_id, self._app)
        return self._result

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Answer):
            return NotImplemented
        return (self.job_id, self.custom_id) == (other.job_id, other.custom_id)

    def __hash__(self) -> int:
        return hash((self.job_id, self.custom_id))

    def __repr__(self) -> str:
        return f"Answer({self.job_id!r}, {self.custom_id!r})"

    def __reduce__(self) -> tuple[type[Answer], tuple[str, str]]:
        return Answer, (self.job_id, self.custom_id)


def _read_result(job_id: str, custom_id: str, app: Celery | None) -> RequestResult:
    # Only here: every process that has the package loads this module.
    from claude_batch_tasks.current_app import configured_app
    from claude_batch_tasks.results.job_results import JobResults
    from claude_batch_tasks.settings import Settings
    from claude_batch_tasks.store import open_store

    settings = Settings.of(app or configured_app())
    return JobResults(open_store(settings), job_id, settings.price_list).find_result(custom_id)


register_type(Answer, MARKER, lambda answer: [answer.job_id, answer.custom_id], lambda value: Answer(*value))
