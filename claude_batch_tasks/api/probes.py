"""Free calls that find out which server answers, and for which account."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from claude_batch_tasks.api.batches import BATCHES_PATH, read_page
from claude_batch_tasks.api.calls import account_of, error_from_status, mapped_errors, send_request
from claude_batch_tasks.api.clients import Account, Client
from claude_batch_tasks.api.sdk import anthropic
from claude_batch_tasks.errors import ApiError


def identify_account(client: Client, *, timeout: float) -> Account:
    """Ask the API, at no cost, whose account a client uses; a part that the API does not name is None."""
    with mapped_errors("list", client):
        response = send_request(client, "list", BATCHES_PATH, timeout, params={"limit": 1})
        return account_of(response.headers, client)


class ProbeAnswer(NamedTuple):
    """The result of a probe: what came back when the API was asked for one batch."""

    status: int
    headers: Mapping[str, str]
    error: ApiError | None
    is_page: bool
    """Whether the answer is a page of batches, as only the API gives it."""

    @property
    def account(self) -> Account:
        """The account that the API named."""
        return account_of(self.headers)


def probe_api(client: Client, *, timeout: float) -> ProbeAnswer:
    """Probe the API: ask for one batch, which costs nothing, and return whatever is answered.

    Raises:
        ApiError: nothing was answered.
    """
    with mapped_errors("list", client):
        try:
            response = send_request(client, "list", BATCHES_PATH, timeout, params={"limit": 1})
        except anthropic.APIStatusError as exc:
            return ProbeAnswer(exc.status_code, exc.response.headers, error_from_status("list", exc, client), False)
        try:
            read_page(response)
        except msgspec.DecodeError:
            return ProbeAnswer(response.status_code, response.headers, None, False)
        return ProbeAnswer(response.status_code, response.headers, None, True)


class Elsewhere(NamedTuple):
    """The answer of a route of the API other than those of batches."""

    status: int
    is_json: bool


def ask_elsewhere(client: Client, *, timeout: float) -> list[Elsewhere]:
    """Ask other routes of the API than those of batches, at no cost; return the answers, if there are any."""
    found = []
    for path, body in (("/v1/models", None), ("/v1/messages/count_tokens", b"{}")):
        post = None if body is None else (iter([body]), len(body))
        with contextlib.suppress(ApiError), mapped_errors("list", client):
            try:
                answer = send_request(client, "list", path, timeout, post=post)
            except anthropic.APIStatusError as exc:
                answer = exc.response
            found.append(Elsewhere(answer.status_code, _is_object(answer)))
    return found


def _is_object(answer: Any) -> bool:
    try:
        return isinstance(msgspec.json.decode(answer.content), dict)
    except Exception:  # noqa: BLE001 - an HTML page, a broken body
        return False
