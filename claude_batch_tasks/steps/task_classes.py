"""Task classes made for each app: ours around the app's own class, which a project may have set for its tasks.

The app's class (Django's, Flask's, a project's own) comes between two of ours. The outer one guards the call and
advances a step; the app's ``__call__`` surrounds the whole step; the inner one makes the real call, and the real
publication.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from celery import Celery, Task, _state
from celery.local import Proxy
from celery.result import AsyncResult
from kombu.utils.imports import symbol_by_name

from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.steps import publishing

if TYPE_CHECKING:
    _Task = Task[Any, Any]
else:
    _Task = Task

log = get_logger(__name__)

_T = TypeVar("_T")
_B = TypeVar("_B", bound="Task[Any, Any]")


class RefusesCalls:
    """The methods of a Celery task that call it as a function, refused: none can be where answers come with a batch."""

    name: str

    #: What to write in their place.
    instead = ""

    def map(self, it: Any) -> NoReturn:
        """Refuse.

        Raises:
            TypeError: always.
        """
        self._refuse_method("map")

    def starmap(self, it: Any) -> NoReturn:
        """Refuse.

        Raises:
            TypeError: always.
        """
        self._refuse_method("starmap")

    def chunks(self, it: Any, n: int) -> NoReturn:
        """Refuse.

        Raises:
            TypeError: always.
        """
        self._refuse_method("chunks")

    def _refuse_method(self, method: str) -> NoReturn:
        raise TypeError(
            f"{self.name.rpartition('.')[2]}.{method}() cannot be: Celery calls a task as a function for it. "
            f"{self.instead}. Nothing was stored or sent"
        )


class InnerTask(_Task):
    """The class that stands behind the app's own task class."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.request.called_directly:
            return super().__call__(*args, **kwargs)
        # In eager mode, Celery's own would put an empty request over that of the task.
        return self.run(*args, **kwargs)

    def apply_async(
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None, *more: Any, **options: Any
    ) -> AsyncResult[Any]:
        """Send as Celery does, but in bounded time; whatever keeps the broker from taking it is an OperationalError."""
        if not self.app.conf.task_always_eager:
            options.setdefault("serializer", publishing.choose_serializer(self.app))
        with publishing.bounded_options(self.app, {**options, **by_name(more)}) as bounded:
            sent: AsyncResult[Any] = super().apply_async(args, kwargs, task_id=task_id, **bounded)
            return sent


def by_name(more: tuple[Any, ...]) -> dict[str, Any]:
    """Return the arguments of ``apply_async`` after the first three as options."""
    return dict(zip(("producer", "link", "link_error", "shadow"), more, strict=False))


def _class_beside(app: Celery, base: Any, name: str) -> type:
    """Return the app's task class; Celery's if attributes of the app's class and of ours have the same names."""
    ours, theirs = (
        {own for cls in made.__mro__ if not issubclass(Task, cls) for own in vars(cls)} for made in (base, app.Task)
    )
    clash = sorted(own for own in ours & theirs if not own.startswith("__") and not hasattr(Task, own))
    if not clash:
        return app.Task
    text = "%s does not use the app's task class, %s: some of its attributes have the names of ours (%s). Rename them"
    log.warning(text, name, app.Task.__mro__[1].__qualname__, ", ".join(clash))
    return type("Task", (Task,), {"abstract": True})


def _request_class(base: Any, theirs: Any) -> dict[str, Any]:
    """Return the class that holds a message in a worker, if the app's task class has one of its own."""
    if theirs.Request == Task.Request:
        return {}
    ours, own = symbol_by_name(base.Request), symbol_by_name(theirs.Request)
    return {"Request": type(ours.__name__, (ours, own), {})}


def call_as_task(app: Celery, fun: Callable[[], _T]) -> _T:
    """Call a function; if it fails, call it again inside the ``__call__`` of the app's task class, as in a task."""
    try:
        return fun()
    except Exception:
        inside: list[_T] = []
        made: Any = type(
            "CallAsTask",
            (app.Task,),
            {"name": f"{__name__}.call_as_task", "run": staticmethod(lambda: inside.append(fun()))},
        )
        with suppress(Exception):  # then the first failure is raised
            made.bind(app)
            made()()
        if not inside:
            raise
        return inside[0]


def job_task(*, base: type[_B], name: str, **options: Any) -> Callable[[Callable[..., Any]], _B]:
    """Make a function a task in every app, as ``celery.shared_task`` does, with a class that is also the app's own.

    Args:
        base: the outer class; its ``inner`` is the inner one.
        name: the task's name.
        options: more attributes of the task.
    """

    def make_task(fun: Callable[..., Any], app: Celery) -> None:
        ours: Any = base
        theirs = type("AppTask", (_class_beside(app, base, name),), {"abstract": True, "__module__": __name__})
        own = {"abstract": True, "__module__": base.__module__, "app_class": theirs, **_request_class(base, theirs)}
        made: type = type(str(base.__name__), (base, theirs, ours.inner), own)
        task: Any = app._task_from_fun(fun, name=name, base=made, bind=True, **options)
        if "body" not in vars(task):
            # The app's class may call ``run`` itself.
            task.body, task.run = task.run, task.drive

    def register_task(fun: Callable[..., Any]) -> _B:
        _state.connect_on_app_finalize(lambda app: make_task(fun, app))
        for app in _state._get_active_apps():  # type: ignore[attr-defined]
            if app.finalized:
                with app._finalize_mutex:
                    make_task(fun, app)
        task: Any = Proxy(lambda: _state.get_current_app().tasks[name])
        return task  # type: ignore[no-any-return]

    return register_task
