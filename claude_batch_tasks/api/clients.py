"""Clients of the SDK: made by factories, kept while their credential is accepted, and named without it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import os
import re
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from claude_batch_tasks.api import identity
from claude_batch_tasks.api.sdk import anthropic
from claude_batch_tasks.errors import (
    ApiError,
    BatchesUnsupported,
    BatchTasksError,
    InvalidSettings,
    PermanentError,
)

#: The code of an error of ours: a key or a header of a client has a form that cannot be right.
MALFORMED = "malformed_credential"

#: Characters that a key has at least.
_SHORTEST_KEY = 8

#: Anthropic's keys and tokens look like this, whoever's they are.
_KEY = re.compile(r"sk-ant-[\w-]+")
_HIDDEN = "[key]"


class Account(NamedTuple):
    """Whose account an answer came from, as its headers name it."""

    organization: str | None = None
    workspace: str | None = None


def ignore_account(account: Account) -> None:
    """What an answer says of its account is compared with nothing."""


@dataclass(frozen=True, eq=False)
class Caller:
    """A client as a job uses it: what the job's calls carry besides, and who hears of which account each answer is.

    ``answered`` is called with every answer, errors included, of calls that are free. Of those that spend money
    (``create``, ``create_message``) the account comes with the value or the error: what is paid is kept first.
    """

    client: anthropic.Anthropic
    workspace_id: str | None = None
    user_profile_id: str | None = None
    betas: tuple[str, ...] = ()
    answered: Callable[[Account], None] = ignore_account


Client: TypeAlias = "anthropic.Anthropic | Caller"


def default_client() -> anthropic.Anthropic:
    """Return a client with what the SDK finds in the environment: a key, a token, a profile or a workload identity."""
    return anthropic.Anthropic()


def client(alias: str, factories: Mapping[str, str]) -> anthropic.Anthropic:
    """The client of an alias, kept for as long as its factory and the environment, which that reads, stay the same.

    Cached by process id because a client used before a fork answers with another task's response.

    Raises:
        InvalidSettings: the factory cannot be imported or does not return a client.
        PermanentError: the factory raised; most often there are no credentials.
    """
    if alias not in factories:
        raise InvalidSettings(f"client {alias!r} is not in this worker's claude_batch_client_factories")
    slot = _client(alias, factories[alias], os.getpid())
    made_of = slot.would_be_made_of()
    if (found := slot.client) is None or slot.made_of != made_of:
        found = slot.client = _make(alias, factories[alias])
        slot.made_of = made_of
    return found


class _Slot:
    """Where the client of an alias is kept until its credential is refused, or would be another's."""

    def __init__(self, alias: str, factory: str) -> None:
        self.alias, self.factory = alias, factory
        self.client: anthropic.Anthropic | None = None
        self.made_of: Any = None

    def would_be_made_of(self) -> Any:
        """Return what tells whether the factory would make the same client: itself, and the environment, as a hash."""
        module, _, name = self.factory.rpartition(".")
        with contextlib.suppress(Exception):
            # A module may also make one each time it is asked; such ones are all the same.
            return vars(importlib.import_module(module)).get(name), hash(frozenset(os.environ.items()))
        return None


_slots: weakref.WeakSet[_Slot] = weakref.WeakSet()

#: When a client's token was thrown away because it was refused, by ``time.perf_counter``, until a call succeeds again.
_renewed: weakref.WeakKeyDictionary[anthropic.Anthropic, float] = weakref.WeakKeyDictionary()

#: Clients in whose place their factory has made others, with another key.
_replaced: weakref.WeakSet[anthropic.Anthropic] = weakref.WeakSet()


@functools.lru_cache(maxsize=256)
def _client(alias: str, factory: str, pid: int) -> _Slot:
    slot = _Slot(alias, factory)
    _slots.add(slot)
    return slot


def _make(alias: str, factory: str) -> anthropic.Anthropic:
    try:
        make = _import(factory)
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
    """Have the next call sign in anew after a 401; whether that may help.

    A token that was refused is thrown away once. If what comes in its place is refused as well, or if it was a key, the
    client's factory is asked for another: one with another key may help, and else the client is forgotten.

    Args:
        since: when the call that was refused began.
    """
    sdk = sdk_client(client)
    before = _renewed.get(sdk)
    if sdk in _replaced or (before is not None and since < before):
        return True  # the call was made with what has been thrown away since
    if identity.drop_token(sdk) and before is None:
        _renewed[sdk] = time.perf_counter()
        return True
    _renewed.pop(sdk, None)
    for slot in [slot for slot in _slots if slot.client is sdk]:
        slot.client = None
        with contextlib.suppress(BatchTasksError):
            made = _make(slot.alias, slot.factory)
            if identity.keyed_hash(made, "") != identity.keyed_hash(sdk, ""):
                slot.client = made
                _replaced.add(sdk)
    return sdk in _replaced


def keep_credential(client: Client, since: float) -> None:
    """The credential of a call that began then was not refused."""
    sdk = sdk_client(client)
    if (before := _renewed.get(sdk)) is not None and since >= before:
        _renewed.pop(sdk, None)


def _import(factory: str) -> Any:
    module, _, name = factory.rpartition(".")
    return getattr(importlib.import_module(module), name)


def unusable(factory: str) -> str | None:
    """Why a client factory cannot be imported or called, if so; it is not called."""
    try:
        return None if callable(_import(factory)) else "it is not callable"
    except Exception as exc:  # noqa: BLE001 - the user's module, which may raise anything
        return f"{type(exc).__name__}: {hide_secrets(str(exc))}"


def credential(client: anthropic.Anthropic, key: str) -> str:
    """A keyed hash of a client's address and of the key or token it has; neither can be had from it.

    It is as 0.2.0 computed it. For what else tells accounts apart see ``identity.keyed_hash``.
    """
    parts = (str(client.base_url), client.api_key or "", client.auth_token or "")
    return hashlib.blake2b("\n".join(parts).encode(), key=key.encode(), digest_size=16).hexdigest()


def account_name(
    client: anthropic.Anthropic, *, alias: str = "", workspace: str | None = None, account: Account | None = None
) -> str:
    """What the store calls the account of a client: a hash, for what all jobs on it have in common.

    Headers of the client's own tell accounts apart as well: one of them may name a workspace, or a tenant of a gateway.
    A client without a secret of its own goes by what the API called its account, and until that is known by its alias.

    Args:
        alias: the client's, and where its factory is.
        workspace: the one that a job's calls name in place of the client's own.
        account: what the API called it.
    """
    own = sorted(f"{name.lower()}: {value}" for name, value in getattr(client, "_custom_headers", {}).items())
    parts = [credential(client, "account"), *own]
    if not identity.has_secret(client):
        named = account is not None and account.organization is not None
        parts += [repr(tuple(account or ())) if named else f"{alias} {identity.keyed_hash(client, 'account')}"]
    if workspace is not None:
        parts.append(f"workspace {workspace}")
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def host(client: anthropic.Anthropic) -> str:
    """Where a client calls."""
    return client.base_url.netloc.decode()


def without_credentials(error: ApiError) -> bool:
    """Whether a client could not be made, or did not call, because it has no key."""
    return "authentication method" in str(error) or "api_key" in str(error)


def hide_secrets(text: str, client: Client | None = None) -> str:
    """A text of somebody else's without keys: there are gateways that quote the one they refuse."""
    for secret in identity.to_hide(sdk_client(client)) if client is not None else ():
        # A placeholder, such as "x", is no secret, and stands in many words.
        text = text.replace(secret, _HIDDEN) if len(secret) >= _SHORTEST_KEY else text
    # No store and no log takes half a surrogate pair.
    return _KEY.sub(_HIDDEN, text).encode(errors="replace").decode()
