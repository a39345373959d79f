"""Clients of the SDK: factories make them, and they are cached as long as their credential is accepted."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from claude_batch_tasks.api import identity
from claude_batch_tasks.api.sdk import anthropic
from claude_batch_tasks.api.simulated import simulated_client
from claude_batch_tasks.errors import (
    ApiError,
    BatchesUnsupported,
    BatchTasksError,
    InvalidSettings,
    PermanentError,
)

#: The code of our error for a client whose key or header has a form that cannot be right.
MALFORMED = "malformed_credential"

#: The least number of characters in a key.
_SHORTEST_KEY = 8

#: What all of Anthropic's keys and tokens look like.
_KEY = re.compile(r"sk-ant-[\w-]+")
_HIDDEN = "[key]"


class Account(NamedTuple):
    """The account that an answer came from, as its headers name it."""

    organization: str | None = None
    workspace: str | None = None


def ignore_account(account: Account) -> None:
    """Accept any account: it is compared with nothing."""


@dataclass(frozen=True, eq=False)
class Caller:
    """A client as a job uses it, with the headers that the job adds to its calls.

    ``answered`` is called with the account that each answer to a free call names, errors included. For calls that spend
    money (``create``, ``create_message``) the account comes with the value or the error, so that what was paid for is
    stored first.
    """

    client: anthropic.Anthropic
    workspace_id: str | None = None
    user_profile_id: str | None = None
    betas: tuple[str, ...] = ()
    answered: Callable[[Account], None] = ignore_account


Client: TypeAlias = "anthropic.Anthropic | Caller"


def default_client() -> anthropic.Anthropic:
    """Return a client with the key, token, profile or workload identity that the SDK finds in the environment."""
    return anthropic.Anthropic()


def get_client(alias: str, factories: Mapping[str, str]) -> anthropic.Anthropic:
    """Return the client of an alias, the same one until its factory or the environment, which factories read, changes.

    Clients are cached by process id, because a client that was used before a fork answers with another task's response.

    Raises:
        InvalidSettings: the factory cannot be imported or does not return a client.
        PermanentError: the factory raised an exception, most often because there are no credentials.
    """
    if (simulated := simulated_client()) is not None:
        return simulated
    if alias not in factories:
        raise InvalidSettings(f"client {alias!r} is not in this worker's claude_batch_client_factories")
    slot = _client(alias, factories[alias], os.getpid())
    with _one_at_a_time():
        made_of = slot.would_be_made_of()
        if (found := slot.client) is None or slot.made_of != made_of:
            found = slot.client = _make_client(alias, factories[alias])
            slot.made_of = made_of
        return found


#: Held while a factory runs and while the environment is compared. A factory may change the environment for a moment,
#: and a client made by another thread meanwhile would have the wrong key.
_turn = threading.RLock()

#: Seconds for which a factory may keep others waiting: one that hangs must not stop the jobs of other accounts.
_LONGEST_TURN = 30.0


def _renew_turn() -> None:
    """Make a new lock in a forked process, where the thread that held the old one does not exist."""
    global _turn
    _turn = threading.RLock()


os.register_at_fork(after_in_child=_renew_turn)


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Wait until no other thread runs a factory, or one has run for too long."""
    turn = _turn
    held = turn.acquire(timeout=_LONGEST_TURN)
    try:
        yield
    finally:
        if held:
            turn.release()


class _Slot:
    """The place of an alias's client until its credential is refused or its factory would make another client."""

    def __init__(self, alias: str, factory: str) -> None:
        self.alias, self.factory = alias, factory
        self.client: anthropic.Anthropic | None = None
        self.made_of: Any = None

    def would_be_made_of(self) -> Any:
        """Return a value that stays equal as long as the factory would make the same client.

        It consists of the factory itself, and of the environment as a hash.
        """
        module, _, name = self.factory.rpartition(".")
        with contextlib.suppress(Exception):
            # A module's ``__getattr__`` may make a new factory on each access; it then has no entry in ``vars``, and
            # counts as unchanged.
            return vars(importlib.import_module(module)).get(name), hash(frozenset(os.environ.items()))
        return None


_slots: weakref.WeakSet[_Slot] = weakref.WeakSet()

#: When a client's token was discarded because it was refused, by ``time.perf_counter``; kept until a call succeeds.
_renewed: weakref.WeakKeyDictionary[anthropic.Anthropic, float] = weakref.WeakKeyDictionary()

#: Clients that were replaced by new ones from their factory, with another key.
_replaced: weakref.WeakSet[anthropic.Anthropic] = weakref.WeakSet()


@functools.lru_cache(maxsize=256)
def _client(alias: str, factory: str, pid: int) -> _Slot:
    slot = _Slot(alias, factory)
    _slots.add(slot)
    return slot


def _make_client(alias: str, factory: str) -> anthropic.Anthropic:
    try:
        make = _import_factory(factory)
    except (ImportError, AttributeError) as exc:
        raise InvalidSettings(
            f"the client factory {factory!r} of {alias!r} cannot be imported: {hide_secrets(str(exc))}"
        ) from None
    try:
        made = make()
    except Exception as exc:  # noqa: BLE001 - the user's code, which may raise anything
        raise PermanentError(f"the client factory {factory!r} of {alias!r} failed: {hide_secrets(str(exc))}") from None
    if reason := identity.why_no_batches(made):
        raise BatchesUnsupported(f"client {alias!r} cannot be used: {reason}")
    if not isinstance(made, anthropic.Anthropic):
        raise InvalidSettings(f"the client factory {factory!r} of {alias!r} returned no anthropic.Anthropic")
    if reason := identity.why_malformed(made):
        failure = PermanentError(f"client {alias!r} cannot be used, and nothing was sent with it: {reason}")
        failure.code = MALFORMED
        raise failure
    return made


def sdk_client(client: Client) -> anthropic.Anthropic:
    return client.client if isinstance(client, Caller) else client


def renew_credential(client: Client, since: float) -> bool:
    """Make the next call sign in again after a 401; return whether that may help.

    A token that was refused is discarded once. If the next token is refused as well, or if it was a key, the client's
    factory makes a new client. A client with another key may help; otherwise the client is forgotten.

    Args:
        since: when the refused call began.
    """
    sdk = sdk_client(client)
    before = _renewed.get(sdk)
    if sdk in _replaced or (before is not None and since < before):
        return True  # the call was made with a credential that was discarded meanwhile
    if identity.drop_token(sdk) and before is None:
        _renewed[sdk] = time.perf_counter()
        return True
    _renewed.pop(sdk, None)
    for slot in [slot for slot in _slots if slot.client is sdk]:
        slot.client = None
        with contextlib.suppress(BatchTasksError), _one_at_a_time():
            made = _make_client(slot.alias, slot.factory)
            if identity.keyed_hash(made, "") != identity.keyed_hash(sdk, ""):
                slot.client = made
                _replaced.add(sdk)
    return sdk in _replaced


def keep_credential(client: Client, since: float) -> None:
    """Record that the credential was not refused in a call.

    Args:
        since: when the call began.
    """
    sdk = sdk_client(client)
    if (before := _renewed.get(sdk)) is not None and since >= before:
        _renewed.pop(sdk, None)


def _import_factory(factory: str) -> Any:
    module, _, name = factory.rpartition(".")
    return getattr(importlib.import_module(module), name)


def why_unusable(factory: str) -> str | None:
    """Return why a client factory cannot be imported or called, else None; the factory is not called."""
    try:
        return None if callable(_import_factory(factory)) else "it is not callable"
    except Exception as exc:  # noqa: BLE001 - the user's module, which may raise anything
        return f"{type(exc).__name__}: {hide_secrets(str(exc))}"


def hash_credential(client: anthropic.Anthropic, key: str) -> str:
    """Return a keyed hash of a client's address and its key or token; neither can be computed from it.

    It is computed as in 0.2.0. See ``identity.keyed_hash`` for what else distinguishes accounts.
    """
    return identity.hash_texts([str(client.base_url), client.api_key or "", client.auth_token or ""], key)


def account_name(
    client: anthropic.Anthropic, *, alias: str = "", workspace: str | None = None, account: Account | None = None
) -> str:
    """Return the store's name for the account of a client: a hash, for data that all jobs on the account share.

    The client's own headers distinguish accounts as well: one of them may name a workspace, or a tenant of a gateway. A
    client without a secret of its own is identified by the account that the API named, and before that is known by its
    alias.

    Args:
        alias: the client's alias, and the path of its factory.
        workspace: the workspace that a job's calls name in place of the client's own.
        account: the account that the API named.
    """
    own = sorted(f"{name.lower()}: {value}" for name, value in getattr(client, "_custom_headers", {}).items())
    parts = [hash_credential(client, "account"), *own]
    if not identity.has_secret(client):
        named = account is not None and account.organization is not None
        parts += [repr(tuple(account or ())) if named else f"{alias} {identity.keyed_hash(client, 'account')}"]
    if workspace is not None:
        parts.append(f"workspace {workspace}")
    return identity.hash_texts(parts)


def host_of(client: anthropic.Anthropic) -> str:
    """Return the host that a client calls."""
    return client.base_url.netloc.decode()


def without_credentials(error: ApiError) -> bool:
    """Return whether a client could not be made, or did not call, because it has no key."""
    return "authentication method" in str(error) or "api_key" in str(error)


def hide_secrets(text: str, client: Client | None = None) -> str:
    """Hide the keys in a foreign text: some gateways quote the key that they refuse."""
    for secret in identity.to_hide(sdk_client(client)) if client is not None else ():
        # A placeholder such as "x" is not a secret, and occurs in many words.
        text = text.replace(secret, _HIDDEN) if len(secret) >= _SHORTEST_KEY else text
    # No store and no log accepts half a surrogate pair.
    return _KEY.sub(_HIDDEN, text).encode(errors="replace").decode()
