"""How ``ask`` is called, in the process of the caller: with which arguments, and what is returned."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from celery.utils import uuid

from claude_batch_tasks.current_app import configured_app
from claude_batch_tasks.lifecycle.pools import revoking
from claude_batch_tasks.outputs import name_options
from claude_batch_tasks.results.ask_result import AskResult, EagerAskResult
from claude_batch_tasks.steps import BatchTask, RefusesCalls, by_name
from claude_batch_tasks.tasks.asks.checking import check_ask, read_arguments, refuse_limits
from claude_batch_tasks.tasks.asks.send_ask import SendAsk, checked_ask
from claude_batch_tasks.wire import plain_json

if TYPE_CHECKING:
    from celery.canvas import Signature
    from typing_extensions import Unpack

    from claude_batch_tasks.results.answers_by_reference import Answer
    from claude_batch_tasks.settings.job_options import AskOptions
    from claude_batch_tasks.tasks.asks.call_types import AskArguments, NamedAskArguments, Params
    from claude_batch_tasks.tasks.call_types import SendOptions


class JoinedAsks:
    """``ask`` as ``using()`` returns it: its asks are a part of the transaction of a connection."""

    def __init__(self, task: AskCalls, connection: Any) -> None:
        self._task, self._connection = task, connection

    def delay(self, params: Params, **options: Unpack[AskOptions]) -> AskResult:
        """Ask as ``ask.delay`` does.

        Raises:
            InvalidSettings: the connection is not one of the store's database, or is in no transaction.
        """
        return self.apply_async((params,), options)

    def apply_async(
        self,
        args: AskArguments | None = None,
        kwargs: AskOptions | NamedAskArguments | None = None,
        task_id: str | None = None,
        *more: Any,
        **options: Unpack[SendOptions],
    ) -> AskResult:
        """Ask as ``ask.apply_async`` does.

        Raises:
            InvalidSettings: the connection is not one of the store's database, or is in no transaction.
        """
        with self._task.store.transactions.join(self._connection):
            return self._task.apply_async(args, kwargs, task_id, *more, **options)


class AskCalls(RefusesCalls, BatchTask):
    """The part of ``ask`` that callers see."""

    abstract = True
    inner = SendAsk
    instead = "Write group(ask.s(params) for params in ...), or run_batch.delay(requests)"
    ignore_result = False

    if TYPE_CHECKING:  # Celery's own, or the app's task class's, is what is called

        def delay(self, params: Params, **options: Unpack[AskOptions]) -> AskResult: ...

        def s(self, params: Params = ..., **options: Unpack[AskOptions]) -> Signature[Answer]: ...

        def si(self, params: Params, **options: Unpack[AskOptions]) -> Signature[Answer]: ...

        # Where the app's task class is Django's.
        def delay_on_commit(self, params: Params, **options: Unpack[AskOptions]) -> None: ...

        def apply_async_on_commit(
            self,
            args: AskArguments | None = None,
            kwargs: AskOptions | NamedAskArguments | None = None,
            task_id: str | None = None,
            *more: Any,
            **options: Unpack[SendOptions],
        ) -> None: ...

    def signature(  # type: ignore[override]
        self,
        args: AskArguments | None = None,
        kwargs: AskOptions | NamedAskArguments | None = None,
        *more: Any,  # as Celery's ``retry`` gives them
        **options: Any,
    ) -> Signature[Answer]:
        """Return a signature of the ask that a message can carry: ``output`` and ``check`` are import paths in it.

        Raises:
            InvalidSettings: workers could not import them.
        """
        given: Any = args
        return super().signature(given, name_options(kwargs or {}), *more, **options)

    subtask = signature  # type: ignore[assignment]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.request.called_directly:
            raise TypeError(
                "ask cannot be called as a function: its answer comes with a batch. Write ask.delay(params), or "
                "ask.apply_async((params,), {...}). Nothing was stored or sent"
            )
        return super().__call__(*args, **kwargs)

    def apply_async(  # type: ignore[override]  # an ask takes its params, and what AskOptions has
        self,
        args: AskArguments | None = None,
        kwargs: AskOptions | NamedAskArguments | None = None,
        task_id: str | None = None,
        *more: Any,
        **options: Unpack[SendOptions],
    ) -> AskResult:
        """Check the params and the options; then have the app's task class put the ask into its pool.

        A class that sends after a commit does it then; after a rollback, nothing was stored.

        Returns:
            The return value of the app's task class: the ask's AsyncResult, unless the class sends later.

        Raises:
            InvalidRequests, InvalidSettings: the text says what is wrong; nothing was stored or sent.
            BudgetSpent: the asks of this pool's name may cost no more for now; nothing was stored or sent.
            StoreUnavailable: the store does not answer.
        """
        given, named = tuple(args or ()), dict(kwargs or {})
        sending: dict[str, Any] = {**options, **by_name(more)}
        if self.app.main == "default":
            # Celery's implicit app, in a program that configured none: the ready-made app knows broker and settings.
            ask: Any = configured_app().tasks[self.name]
            return cast("AskResult", ask.apply_async(args, kwargs, task_id, **sending))
        refuse_limits(sending)
        task_id = str(task_id or uuid())  # a UUID is an id to Celery
        checked = check_ask(self.app, task_id, given, named)
        if self.app.conf.task_always_eager:
            params, own = read_arguments(given, named)
            plain, _, _ = plain_json.encode_plain(params, "params")  # Celery puts it into a message and reads it back
            return cast("AskResult", super().apply_async((plain,), name_options(own), task_id=task_id, **sending))
        token = checked_ask.set(checked)
        try:
            return cast("AskResult", super().apply_async(given, named, task_id=task_id, **sending))
        finally:
            checked_ask.reset(token)

    def using(self, connection: Any) -> JoinedAsks:
        """Return the task as it is called in a transaction: commit makes the ask, and after a rollback there is none.

        Args:
            connection: as for ``run_batch.using``.
        """
        task: Any = configured_app().tasks[self.name] if self.app.main == "default" else self
        return JoinedAsks(task, connection)

    async def adelay(self, params: Params, **options: Unpack[AskOptions]) -> AskResult:
        """Do what ``delay`` does, in a thread, while the event loop continues.

        Raises:
            InvalidRequests, InvalidSettings: the text says what is wrong; nothing was stored or sent.
            BudgetSpent: the asks of this pool's name may cost no more for now; nothing was stored or sent.
            StoreUnavailable: the store does not answer.
        """
        return await asyncio.to_thread(self.delay, params, **options)

    def apply(  # type: ignore[override]
        self,
        args: AskArguments | None = None,
        kwargs: AskOptions | NamedAskArguments | None = None,
        *more: Any,
        **options: Any,
    ) -> EagerAskResult:
        """Run the ask in this process, as a job of its own, and return how it ended."""
        given: Any = args
        named: Any = kwargs
        found: Any = super().apply(given, named, *more, **options)
        return EagerAskResult.of(found, self.app)

    def revoke_asks(self, ask_ids: Sequence[str]) -> list[bool]:
        """Take asks out of their pools; return of each whether it will never be sent."""
        return revoking.revoke_asks(self.app, ask_ids)

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AskResult:
        """Return the ask's AsyncResult, whose ``get()`` returns the answer itself."""
        app, backend = self.app, self.app.backend
        return AskResult(task_id, backend, self.name, app=app, expected=False, **kwargs)
