"""The object behind the pytest fixture ``claude_batch``: jobs in memory, with scripted answers."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

from celery import Celery
from celery.app import backends
from typing_extensions import Self, Unpack

from claude_batch_tasks.api import clients
from claude_batch_tasks.api.sdk import load_sdk
from claude_batch_tasks.jobs.batch_job import BatchJob
from claude_batch_tasks.results.stored.sent_ids import load_custom_ids
from claude_batch_tasks.settings import Settings, redis_urls, store_urls
from claude_batch_tasks.store import open_store_at
from claude_batch_tasks.testing import answers
from claude_batch_tasks.testing.answers import Rule, Selected, Selector, SentRequest
from claude_batch_tasks.testing.memory_api import MemoryAPI
from claude_batch_tasks.testing.process_state import reset

_FACTORY = f"{__name__}.open_client"

#: Where the store seems to be; nothing connects there.
_STORE_URL = "redis://memory.invalid/0"

_current: ClaudeBatch | None = None


def open_client() -> Any:
    """Return a client whose calls the fixture answers; the app's client factories lead here while it is used."""
    if _current is None:
        raise RuntimeError("the fixture claude_batch is not in use")
    return _current.api.open_client()


class ClaudeBatch:
    """Jobs in memory: ``run_batch`` runs where it is called, its answers are scripted, nothing leaves the process.

    Needs no server, no worker and no key. The rule that was added last comes first; a request that no rule takes is
    answered with a value that fits its schema or tool, else with its own text.

    Args:
        app: the Celery app that the tested code uses.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.api = MemoryAPI(self._find_request, self._decide_result)
        self._rules: list[Rule] = []

    def answer(
        self,
        answer: Any,
        *,
        stop_reason: str | None = None,
        usage: Mapping[str, Any] | None = None,
        **selected: Unpack[Selected],
    ) -> None:
        """Answer requests with a text.

        Args:
            answer: the text; or a value that is sent as JSON (or as the input of the tool that the request forces),
                also a dataclass, a pydantic model or a Struct; or a function of the ``SentRequest`` that returns one
                of these.
            stop_reason: why the model stopped; without it: ``end_turn``, or ``tool_use`` for a tool's input.
            usage: token counts that differ from those of the text.
            selected: ``custom_id``, ``prompt``, ``model``, ``attempt`` and ``times``: only such requests, as
                ``Selected`` says.
        """
        self._add_rule(lambda sent: answers.make_answer(sent, answer, stop_reason, usage), selected)

    def use_tool(
        self,
        name: str,
        input: Mapping[str, Any],
        **selected: Unpack[Selected],
    ) -> None:
        """Answer requests with the call of a tool; which requests: as ``answer()`` says."""
        self.message([answers.tool_call(name, dict(input))], stop_reason="tool_use", **selected)

    def refuse(
        self,
        text: str = "",
        *,
        category: str | None = None,
        explanation: str | None = None,
        **selected: Unpack[Selected],
    ) -> None:
        """Refuse requests as a model does: the result is ``succeeded``, with ``stop_reason: refusal``.

        Args:
            text: what the model wrote before it refused; without it there is no content.
            category, explanation: what ``stop_details`` says.
            selected: which requests, as ``Selected`` says.
        """
        details = {"type": "refusal", "category": category, "explanation": explanation}
        content = [{"type": "text", "text": text}] if text else []
        self.message(content, stop_reason="refusal", stop_details=details, **selected)

    def message(
        self,
        content: Sequence[Mapping[str, Any]],
        *,
        stop_reason: str = "end_turn",
        stop_details: Mapping[str, Any] | None = None,
        usage: Mapping[str, Any] | None = None,
        **selected: Unpack[Selected],
    ) -> None:
        """Answer requests with a whole message: content blocks as the API spells them; which: as ``answer()`` says."""
        blocks = [dict(block) for block in content]
        self._add_rule(lambda sent: answers.message_result(sent, blocks, stop_reason, usage, stop_details), selected)

    def error(
        self,
        type: str = "invalid_request_error",
        message: str = "Invalid request",
        **selected: Unpack[Selected],
    ) -> None:
        """Have requests fail with an error of the API.

        An error that passes, such as ``overloaded_error``, has them sent again as it does in production; ``times=1``
        makes it pass.

        Args:
            type: the error's type as the API spells it.
            message: the error's message.
            selected: which requests, as ``Selected`` says.
        """
        self._add_rule(lambda _: answers.error_result(type, message), selected)

    def expire(
        self,
        **selected: Unpack[Selected],
    ) -> None:
        """Have requests expire, as after 24 hours; which: as ``answer()`` says.

        They are sent again, if the job's options allow that.
        """
        self._add_rule(lambda _: {"type": "expired"}, selected)

    @property
    def requests(self) -> list[SentRequest]:
        """All requests that were sent, in their order, also those that were sent again."""
        return list(self.api.requests)

    @property
    def jobs(self) -> list[BatchJob]:
        """All jobs, the newest first."""
        store = open_store_at(_STORE_URL)
        return [BatchJob(job_id, self.app) for job_id in store.jobs.job_ids(math.inf)]

    def sent(self, custom_id: str) -> SentRequest:
        """Return the request with a custom_id as it was sent last.

        Raises:
            AssertionError: none was sent.
        """
        for request in reversed(self.api.requests):
            if request.custom_id == custom_id:
                return request
        raise AssertionError(f"no request {custom_id!r} was sent; sent: {self._list_sent()}")

    def assert_sent(
        self,
        count: int | None = None,
        *,
        custom_id: Selector | None = None,
        prompt: Selector | None = None,
        model: str | None = None,
        attempt: int | None = None,
    ) -> None:
        """Check that requests were sent.

        Args:
            count: exactly so many; None: at least one.
            custom_id, prompt, model, attempt: only those that match, as in ``answer()``.

        Raises:
            AssertionError: they were not; the text lists what was sent.
        """
        wanted = Rule(make=answers.echo_prompt, custom_id=custom_id, prompt=prompt, model=model, attempt=attempt)
        found = sum(map(wanted.takes, self.api.requests))
        if found != count if count is not None else not found:
            expected = "at least one request" if count is None else f"{count} requests"
            raise AssertionError(f"expected {expected}, found {found}; sent: {self._list_sent()}")

    def _list_sent(self) -> str:
        ids = [request.custom_id for request in self.api.requests]
        return ", ".join(map(repr, ids[:20])) + (f" and {len(ids) - 20} more" if len(ids) > 20 else "") or "nothing"

    def _add_rule(self, make: Callable[[SentRequest], dict[str, Any]], selected: Selected) -> None:
        self._rules.append(Rule(make=make, **selected))

    def _decide_result(self, request: SentRequest) -> dict[str, Any]:
        for rule in reversed(self._rules):
            if rule.takes(request):
                if rule.times is not None:
                    rule.times -= 1
                return rule.make(request)
        return answers.default_answer(request)

    def _find_request(self, sent: str) -> tuple[str, str]:
        """Return the job and the caller's custom_id for a custom_id that was sent; no job, if it belongs to none."""
        store = open_store_at(_STORE_URL)
        for job_id in store.jobs.job_ids(math.inf):
            job = store.jobs.read_job(job_id)
            if job is None or not sent.startswith(f"cbt-{job.nonce}-"):
                continue
            index = int(sent.rpartition("-")[2])
            for number, batch in enumerate(store.records.read_batches(job_id)):
                if batch.first <= index < batch.first + batch.count:
                    return job_id, load_custom_ids(store, job_id, job, number, batch)[index - batch.first]
        return "", sent

    @contextlib.contextmanager
    def installed(self) -> Iterator[Self]:
        """Have jobs run here until the end of the block.

        Raises:
            ImportError: fakeredis is not installed.
        """
        global _current
        read_settings = Settings.of
        client = _memory_client()
        load_sdk()  # takes a second, which the first job would wait for

        def settings_in_memory(app: Celery) -> Settings:
            settings = read_settings(app)
            factories = dict.fromkeys(settings.client_factories, _FACTORY)
            return dataclasses.replace(
                settings, store_url=_STORE_URL, store_prefix="", encryption_key=None, client_factories=factories
            )

        reset()
        eager = self.app.conf.task_always_eager
        with (
            mock.patch.object(Settings, "of", settings_in_memory),
            mock.patch.object(store_urls, "default_store_url", return_value=_STORE_URL),
            mock.patch.object(redis_urls, "connect_redis", return_value=client),
            mock.patch.object(type(self.app), "backend", _memory_backend(self.app)),
            mock.patch.object(clients, "simulated_client", return_value=None),
        ):
            _current = self
            self.app.conf.task_always_eager = True
            try:
                yield self
            finally:
                self.app.conf.task_always_eager = eager
                _current = None
                reset()


def _memory_backend(app: Celery) -> Any:
    """Return a result back end that is in memory."""
    found: Any = backends
    kind, url = found.by_url("cache+memory://", app.loader)
    return kind(app=app, url=url)


def _memory_client() -> Any:
    """Return a Redis client whose server is in memory.

    Raises:
        ImportError: fakeredis is not installed.
    """
    try:
        import fakeredis
    except ImportError:
        raise ImportError("the fixture needs fakeredis: pip install 'claude-batch-tasks[testing]'") from None
    return fakeredis.FakeRedis(server=fakeredis.FakeServer())
