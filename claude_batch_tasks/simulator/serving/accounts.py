"""The accounts of the callers: who a call is from, and what its requests are checked against."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from starlette.requests import Request

from ..models import read_catalog
from ..prompts import ApiError
from ..script import Endpoint
from ..validation import Terms
from ..world import World


class Account(NamedTuple):
    """A key and a workspace, to which batches and files belong."""

    name: str
    organization: str
    workspace: str

    @property
    def headers(self) -> dict[str, str]:
        return {"anthropic-organization-id": self.organization, "anthropic-workspace-id": self.workspace}


def identify_account(request: Request) -> Account:
    """Return the account of a call.

    Raises:
        ApiError: the call has no key or no API version.
    """
    key = request.headers.get("x-api-key") or ""
    authorization = request.headers.get("authorization", "")
    if not key and authorization.lower().startswith("bearer "):
        key = authorization[len("bearer ") :].strip()
    if not key:
        raise ApiError("authentication_error", "x-api-key header is required")
    if not request.headers.get("anthropic-version"):
        raise ApiError("invalid_request_error", "anthropic-version: header is required")
    name = hashlib.sha256(key.encode()).hexdigest()
    organization = f"{name[:8]}-{name[8:12]}-4{name[13:16]}-8{name[17:20]}-{name[20:32]}"
    workspace = request.headers.get("anthropic-workspace-id")
    return Account(
        f"key-{name[:8]}" + (f"/{workspace}" if workspace else ""), organization, workspace or f"wrkspc_01{name[32:54]}"
    )


def read_terms(request: Request, endpoint: Endpoint, world: World, account: Account) -> Terms:
    """Return what the requests of a call are checked against."""
    betas = ",".join(request.headers.getlist("anthropic-beta")).split(",")
    return Terms(
        request.headers["anthropic-version"],
        read_catalog(world.behaviour.models),
        frozenset(beta.strip() for beta in betas if beta.strip()),
        in_batch=endpoint == "create",
        counting=endpoint == "count_tokens",
        files=world.files[account.name],
    )
