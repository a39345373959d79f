"""An API with several organizations and workspaces, told apart by the token of a call, and a client of every kind.

A token is ``tok-<case>-<organization>-<workspace>-<serial>``. Which one a case's client has stands in a file, so that
workers that start later have another.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anthropic

from tests.adversarial.server import Account, Manners, UnfriendlyServer

FOLDER = "TENANTS_FOLDER"

#: What is not in the oldest SDK.
NEWER = set() if hasattr(anthropic, "CredentialsError") else {"provider", "profile", "federation", "google"}

#: Clients that have a secret of their own, and those that ask somebody for a token.
WITH_SECRET = ["key", "bearer", "header", "workspace"]
WITHOUT = [kind for kind in ("provider", "profile", "federation", "sigv4", "google") if kind not in NEWER]

_TOKEN = re.compile(r"tok-(\w+)-([A-Z])-(\w+)-(\d+)")


class TenantServer(UnfriendlyServer):
    """Each organization and workspace of a case is an account of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.manners: dict[str, Manners] = {}
        self.silent: set[str] = set()
        """Cases behind a gateway that strips the headers which name the account."""
        self.revoked: set[str] = set()
        self.revoked_for_messages: set[str] = set()
        self.exchanges: list[str] = []
        self.headers: dict[str, list[dict[str, str]]] = {}

    def account(self, name: str = "default") -> Account:
        with self.lock:
            case = name.partition("/")[0]
            if name not in self.accounts:
                self.accounts[name] = Account(self.manners.setdefault(case, Manners()))
            return self.accounts[name]

    def whose(self, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        found = _TOKEN.search(f"{headers.get('authorization')} {headers.get('x-api-key')}")
        assert found, dict(headers)
        case, organization, workspace, _ = found.groups()
        workspace = headers.get("anthropic-workspace-id", f"wrkspc_{workspace}").removeprefix("wrkspc_")
        with self.lock:
            self.headers.setdefault(case, []).append({name.lower(): value for name, value in headers.items()})
        told = {"anthropic-organization-id": f"org-{organization}", "anthropic-workspace-id": f"wrkspc_{workspace}"}
        return f"{case}/{organization}/{workspace}", {} if case in self.silent else told

    def refuses(self, headers: Mapping[str, str]) -> bool:
        found = _TOKEN.search(f"{headers.get('authorization')} {headers.get('x-api-key')}")
        if found is None:
            return False
        # Only a create and a call of the Messages API have a body.
        posts = bool(int(headers.get("content-length") or 0))
        return found[0] in self.revoked or (posts and found[0] in self.revoked_for_messages)

    def exchange(self, body: bytes) -> dict[str, Any]:
        assertion = json.loads(body)["assertion"]
        self.exchanges.append(assertion)
        return {"access_token": assertion, "expires_in": 3600, "token_type": "Bearer"}


def write(folder: Path, case: str, organization: str = "A", workspace: str = "w1", serial: int = 1) -> None:
    """Give the clients of a case a token."""
    token = f"tok-{case}-{organization}-{workspace}-{serial}"
    (folder / case).write_text(token)
    for name, text in (
        ("configs", json.dumps({"authentication": {"type": "user_oauth"}})),
        ("credentials", json.dumps({"access_token": token})),
    ):
        (folder / name).mkdir(exist_ok=True, mode=0o700)
        path = folder / name / f"{case}.json"
        path.write_text(text)
        path.chmod(0o600)


def read(case: str) -> str:
    return (Path(os.environ[FOLDER]) / case).read_text()


def make(case: str) -> anthropic.Anthropic:
    """A client of the kind with which the case's name begins."""
    kind, token = case.partition("_")[0], read(case)
    _, _, organization, workspace, _ = token.split("-")
    if kind == "key":
        return anthropic.Anthropic(api_key=token)
    if kind == "bearer":
        return anthropic.Anthropic(auth_token=token)
    if kind == "header":
        return anthropic.Anthropic(api_key=None, default_headers={"Authorization": f"Bearer {token}"})
    if kind == "workspace":
        token = f"tok-{case}-{organization}-default-1"
        return anthropic.Anthropic(api_key=token, default_headers={"anthropic-workspace-id": f"wrkspc_{workspace}"})
    if kind == "foundry":
        from anthropic.lib.foundry import AnthropicFoundry

        return AnthropicFoundry(api_key=token, resource="resource")
    if kind == "provider":
        from anthropic.lib.credentials import AccessToken

        def provider(*, force_refresh: bool = False) -> AccessToken:
            return AccessToken(read(case))

        return anthropic.Anthropic(credentials=provider)
    if kind == "profile":
        with _environment(ANTHROPIC_CONFIG_DIR=os.environ[FOLDER]):
            return anthropic.Anthropic(profile=case)
    if kind == "federation":
        with _environment(
            ANTHROPIC_API_KEY=None,
            ANTHROPIC_IDENTITY_TOKEN_FILE=str(Path(os.environ[FOLDER]) / case),
            ANTHROPIC_FEDERATION_RULE_ID="fdrl_1",
            ANTHROPIC_ORGANIZATION_ID=f"org-{organization}",
        ):
            return anthropic.Anthropic()
    if kind == "sigv4":
        from anthropic.lib.aws import AnthropicAWS, _auth

        # Not botocore: it needs an installation of its own, and the server does not verify.
        _auth.get_auth_headers = lambda **call: {"Authorization": f"AWS4-HMAC-SHA256 Credential={signer(call)}"}
        return AnthropicAWS(
            aws_region="us-east-1",
            workspace_id=f"wrkspc_{workspace}",
            base_url=os.environ["ANTHROPIC_BASE_URL"],
            default_headers={"x-signed-for": case},
        )
    from anthropic.lib.google_cloud import AnthropicGoogleCloud

    return AnthropicGoogleCloud(token_provider=lambda: read(case), base_url=os.environ["ANTHROPIC_BASE_URL"])


def signer(call: Mapping[str, Any]) -> str:
    assert call["method"] == "GET" or call["data"], "the body is a part of what is signed"
    return read(call["headers"]["x-signed-for"])


@contextlib.contextmanager
def _environment(**values: str | None) -> Iterator[None]:
    before = dict(os.environ)
    for name, value in values.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def __getattr__(name: str) -> Callable[[], anthropic.Anthropic]:
    if name.startswith("__"):
        raise AttributeError(name)
    return lambda: make(name)
