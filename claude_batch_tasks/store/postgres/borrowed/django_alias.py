"""Connections of a Django project: those of one alias in ``DATABASES``, in the middle of ``atomic`` blocks too."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.store.postgres.borrowed.views import view_connection
from claude_batch_tasks.store.postgres.sources import Connected

#: Seconds for which a connection stays open that was made for the store, at least: a worker's threads are neither
#: requests nor tasks, after which Django closes connections. ``CONN_MAX_AGE`` may be more.
_LEAST_AGE = 60.0


class _Opened:
    """A connection of Django that was made for the store; closed when its thread ends, so that a pool gets it back."""

    def __init__(self, wrapper: Any) -> None:
        self.wrapper, self.raw, self.since = wrapper, wrapper.connection, time.monotonic()

    def is_open(self) -> bool:
        """Return whether Django has it still."""
        return self.raw is not None and self.wrapper.connection is self.raw

    def __del__(self) -> None:
        with suppress(Exception):  # the program ends
            if self.is_open():
                self.wrapper.inc_thread_sharing()  # whichever thread removes what an ended one leaves
                self.wrapper.close()


#: Of all aliases, to be forgotten in a child process.
_sources: weakref.WeakSet[DjangoAlias] = weakref.WeakSet()


class DjangoAlias:
    """The connections that Django has for an alias, one a thread.

    Raises:
        InvalidSettings: there is no such alias, or it is not one of PostgreSQL with psycopg 3.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        _check_alias(alias)
        wrapper = self._wrapper
        address = "/".join(str(wrapper.settings_dict[part]) for part in ("HOST", "NAME") if wrapper.settings_dict[part])
        self.where = f"django://{alias} ({address})"
        self._of_thread = threading.local()
        _sources.add(self)

    @property
    def _wrapper(self) -> Any:
        from django.db import connections

        return connections[self._alias]

    def in_transaction(self) -> bool:
        """Return whether this thread is in an ``atomic`` block of the alias, or has turned autocommit off."""
        wrapper = self._wrapper
        return bool(wrapper.in_atomic_block or (wrapper.connection is not None and not wrapper.autocommit))

    @contextmanager
    def connect(self) -> Iterator[Connected]:
        from django.db import Error

        wrapper = self._wrapper
        try:
            self._open(wrapper)
        except Error as exc:
            raise (exc.__cause__ or exc) from None
        wrapper.validate_no_broken_transaction()
        try:
            yield view_connection(wrapper.connection)
        except psycopg.Error:
            wrapper.errors_occurred = True
            raise
        finally:
            if wrapper.connection is not None and wrapper.connection.closed:
                wrapper.close()  # Django makes a new one when it is asked next, or rolls its block back

    @contextmanager
    def listen(self) -> Iterator[Connected]:
        params = self._wrapper.get_connection_params()
        own = {name: value for name, value in params.items() if name not in ("context", "cursor_factory")}
        with psycopg.connect(**{"connect_timeout": 5, **own, "autocommit": True}) as connection:
            yield connection

    @property
    def _opened(self) -> _Opened | None:
        """The connection that was made for the store in this thread, if Django has it still."""
        found: _Opened | None = getattr(self._of_thread, "opened", None)
        return found if found is not None and found.is_open() else None

    def _open(self, wrapper: Any) -> None:
        """Have Django connect, if this thread has no connection, or one that is old or has failed."""
        if not self.in_transaction():
            self._close_old(wrapper)
        if wrapper.connection is None:
            wrapper.ensure_connection()
            self._of_thread.opened = _Opened(wrapper)

    def _close_old(self, wrapper: Any) -> None:
        if wrapper.connection is None:
            return
        age, opened = wrapper.settings_dict["CONN_MAX_AGE"], self._opened
        if opened is not None and age is not None and time.monotonic() - opened.since > max(age, _LEAST_AGE):
            wrapper.close()
        elif wrapper.errors_occurred:
            wrapper.close_if_unusable_or_obsolete()
        else:
            wrapper.close_if_health_check_failed()

    def forget(self) -> None:
        """Let go of the connection of the process of which this one is a copy, without a word to the server."""
        if (opened := self._opened) is not None:
            opened.wrapper.connection = opened.raw = None
        self._of_thread = threading.local()


def _check_alias(alias: str) -> None:
    try:
        from django.core.exceptions import ImproperlyConfigured
        from django.db import connections
    except ImportError:
        raise InvalidSettings(
            f"claude_batch_store_url = django://{alias} needs Django: pip install 'claude-batch-tasks[django]'"
        ) from None
    try:
        known = list(connections.settings)
    except ImproperlyConfigured as exc:
        raise InvalidSettings(
            f"claude_batch_store_url = django://{alias} needs a Django project; set DJANGO_SETTINGS_MODULE ({exc})"
        ) from None
    if alias not in known:
        raise InvalidSettings(
            f"claude_batch_store_url = django://{alias}: DATABASES has no {alias!r}; it has {', '.join(sorted(known))}"
        )
    try:
        wrapper = connections[alias]
    except ImproperlyConfigured as exc:
        raise InvalidSettings(f"claude_batch_store_url = django://{alias}: {exc}") from None
    driver = getattr(getattr(wrapper, "Database", None), "__name__", "")
    if wrapper.vendor != "postgresql" or driver != "psycopg":
        engine = wrapper.settings_dict["ENGINE"]
        raise InvalidSettings(
            f"claude_batch_store_url = django://{alias} needs PostgreSQL with psycopg 3, and DATABASES[{alias!r}] is "
            f"{engine} with {driver or 'no driver'}. pip install 'psycopg[binary]', or name another database"
        )


def _forget_all() -> None:
    for source in list(_sources):
        source.forget()


os.register_at_fork(after_in_child=_forget_all)
