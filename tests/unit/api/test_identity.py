"""What a client is of, and how it signs in, whatever its kind."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from claude_batch_tasks import api, errors
from claude_batch_tasks.api import clients, identity
from tests.unit.api.test_api import BATCH, PARAMS, Server, answer, failure

newer = pytest.mark.skipif(not hasattr(anthropic, "CredentialsError"), reason="this SDK has keys and tokens only")

URL = "http://127.0.0.1:9"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def client_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., anthropic.Anthropic]]:
    """``client_of(factory)``: as a worker has it, under the alias ``a``."""
    module = type(sys)("identity_clients")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    clients._client.cache_clear()

    def client_of(factory: Callable[[], Any]) -> anthropic.Anthropic:
        module.make = factory  # type: ignore[attr-defined]
        return api.get_client("a", {"a": "identity_clients.make"})

    yield client_of
    clients._client.cache_clear()


def provider(token: str = "a token of one hour", expires_at: int | None = None) -> Any:
    from anthropic.lib.credentials import AccessToken

    def give(*, force_refresh: bool = False) -> AccessToken:
        give.asked.append(force_refresh)  # type: ignore[attr-defined]
        return AccessToken(give.token, expires_at)  # type: ignore[attr-defined]

    give.asked, give.token = [], token  # type: ignore[attr-defined]
    return give


def other_provider(*, force_refresh: bool = False) -> Any:
    raise AssertionError("nobody asks")


class TestTheNameOfAnAccount:
    """What rate limits and listings are shared by."""

    def test_is_that_of_the_first_release_for_a_key(self) -> None:
        """Workers of both share what they know of the limits."""
        import hashlib

        client = anthropic.Anthropic(base_url=URL, api_key="a key", default_headers={"X-Tenant": "b"})
        whole = "\n".join([api.hash_credential(client, "account"), "x-tenant: b"])
        expected = hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()
        assert api.account_name(client) == api.account_name(client, alias="a", account=api.Account("o")) == expected

    @newer
    def test_tells_clients_without_a_key_apart(self) -> None:
        from anthropic.lib.credentials import InMemoryConfig, WorkloadIdentityCredentials

        def federation(**own: Any) -> anthropic.Anthropic:
            given = {"federation_rule_id": "f", "organization_id": "o", "service_account_id": "s", **own}
            found = WorkloadIdentityCredentials(identity_token_provider=lambda: "jwt", **given)
            return anthropic.Anthropic(base_url=URL, credentials=found)

        def config(**own: Any) -> anthropic.Anthropic:
            given = {
                "type": "oidc_federation",
                "federation_rule_id": "f",
                "identity_token": {"source": "file", "path": "x"},
            }
            found = InMemoryConfig({"organization_id": "o", "authentication": given, **own})
            return anthropic.Anthropic(base_url=URL, credentials=found)

        clients = [
            anthropic.Anthropic(base_url=URL, credentials=provider()),
            anthropic.Anthropic(base_url=URL, credentials=other_provider),
            federation(),
            federation(organization_id="p"),
            federation(federation_rule_id="g"),
            federation(workspace_id="w"),
            config(),
            config(organization_id="p"),
            anthropic.Anthropic(base_url=URL, credentials=provider(), default_headers={identity.WORKSPACE: "w"}),
        ]
        names = [api.account_name(client) for client in clients]
        assert len(set(names)) == len(clients)

    @newer
    def test_is_the_one_that_the_api_gave_it_once_that_is_known(self) -> None:
        mine = anthropic.Anthropic(base_url=URL, credentials=provider())
        other = anthropic.Anthropic(base_url=URL, credentials=other_provider)
        name = functools.partial(api.account_name, mine, alias="a")
        assert name() != api.account_name(mine, alias="b")
        assert name(account=api.Account()) == name()
        assert name(account=api.Account("o", "w")) == api.account_name(other, alias="b", account=api.Account("o", "w"))
        assert (
            len({name(account=api.Account(*told)) for told in (("o", "w"), ("o", "v"), ("p", "w"), ("o", None))}) == 4
        )

    def test_is_another_in_another_workspace(self) -> None:
        client = anthropic.Anthropic(base_url=URL, api_key="a key")
        assert len({api.account_name(client, workspace=workspace) for workspace in (None, "a", "b")}) == 3


class TestTheIdentityOfAClient:
    def test_is_not_another_for_headers_that_say_nothing_of_the_account(self) -> None:
        def keyed(**headers: str) -> str:
            own = {name.replace("_", "-"): value for name, value in headers.items()}
            client = anthropic.Anthropic(base_url=URL, api_key="a key", default_headers=own)
            return identity.keyed_hash(client, "n")

        assert keyed() == keyed(anthropic_beta="x") == keyed(x_build="17")
        told = [keyed(x_tenant="a"), keyed(x_tenant="b"), keyed(anthropic_workspace_id="w"), keyed(x_gateway_key="k")]
        assert len({keyed(), *told}) == 5

    def test_is_the_same_for_a_workspace_of_the_job_as_for_one_of_the_client(self) -> None:
        mine = anthropic.Anthropic(base_url=URL, api_key="a key", default_headers={identity.WORKSPACE: "w"})
        assert identity.keyed_hash(mine, "n") == identity.keyed_hash(
            anthropic.Anthropic(base_url=URL, api_key="a key"), "n", "w"
        )

    @pytest.mark.parametrize(
        "make",
        [
            lambda: anthropic.Anthropic(base_url=URL, api_key="a key"),
            lambda: anthropic.Anthropic(base_url=URL, auth_token="a token"),
            lambda: anthropic.Anthropic(base_url=URL, default_headers={"Authorization": "Bearer x"}, api_key="unused"),
        ],
    )
    def test_is_certain_with_a_secret_of_its_own(self, make: Callable[[], anthropic.Anthropic]) -> None:
        assert identity.has_secret(make())

    def test_is_not_that_of_a_key_which_is_never_sent(self) -> None:
        class Signed(anthropic.Anthropic):
            @property
            def auth_headers(self) -> dict[str, str]:
                return {"Authorization": "Bearer whatever the vault has"}

        assert not identity.has_secret(Signed(base_url=URL, api_key="unused"))

    @newer
    def test_is_not_certain_with_a_provider(self) -> None:
        from anthropic.lib.credentials import StaticToken

        assert not identity.has_secret(anthropic.Anthropic(base_url=URL, credentials=provider()))
        assert identity.has_secret(anthropic.Anthropic(base_url=URL, credentials=StaticToken("a token")))

    @newer
    def test_shows_no_secret(self) -> None:
        client = anthropic.Anthropic(base_url=URL, credentials=provider("sk-secret-token-never-to-be-seen"))
        assert client._token_cache is not None
        client._token_cache.get_token()
        assert "never-to-be-seen" not in identity.describe_client(client)
        assert "[key]" in clients.hide_secrets("refused: sk-secret-token-never-to-be-seen", client)


class TestAClient:
    """Whatever its constructor: it makes one attempt."""

    def test_may_be_a_subclass_with_another_constructor(self, server: Server, client_of: Any) -> None:
        class Tenant(anthropic.Anthropic):
            def __init__(self, tenant: str) -> None:
                super().__init__(base_url=server.url, api_key=f"key of {tenant}")

        server.answers = [failure(503, retry_after="0"), answer(body=BATCH)]
        with pytest.raises(errors.TransientError):
            api.retrieve_batch(client_of(lambda: Tenant("b")), "msgbatch_1", timeout=10)
        assert len(server.seen) == 1
        assert "key of b" in str(server.seen[0].headers)

    def test_without_batches_is_refused_with_the_reason(self, client_of: Any) -> None:
        from anthropic.lib.foundry import AnthropicFoundry

        for make in (
            lambda: AnthropicFoundry(api_key="x", resource="r"),
            lambda: anthropic.AnthropicBedrock(aws_region="us-east-1", aws_access_key="a", aws_secret_key="b"),
        ):
            clients._client.cache_clear()
            with pytest.raises(errors.BatchesUnsupported, match=r"Anthropic(Foundry|Bedrock) has no Message Batches"):
                client_of(make)

    def test_whose_key_was_refused_has_the_one_that_its_factory_gives_now(self, server: Server, client_of: Any) -> None:
        keys = iter(["a key that was revoked", "the key of today", "the key of today", "the key of today"])

        def make() -> anthropic.Anthropic:
            return anthropic.Anthropic(base_url=server.url, api_key=next(keys))

        refused = failure(401, "authentication_error")
        server.answers = [refused, refused, answer(body=BATCH), refused]
        first = client_of(make)
        for _ in range(2):  # calls are made side by side, and each of them is refused
            with pytest.raises(errors.TransientError):
                api.retrieve_batch(first, "msgbatch_1", timeout=10)
        api.retrieve_batch(client_of(make), "msgbatch_1", timeout=10)
        assert "the key of today" in str(server.seen[-1].headers)
        with pytest.raises(errors.PermanentError):
            api.retrieve_batch(client_of(make), "msgbatch_1", timeout=10)

    def test_is_not_asked_twice_with_the_same_key(self, server: Server, client_of: Any) -> None:
        server.answers = [failure(401, "authentication_error")]
        with pytest.raises(errors.PermanentError):
            api.retrieve_batch(
                client_of(lambda: anthropic.Anthropic(base_url=server.url, api_key="a key")), "msgbatch_1", timeout=10
            )
        assert len(server.seen) == 1


@newer
class TestARefusedToken:
    @pytest.fixture
    def given(self) -> Any:
        return provider("one")

    @pytest.fixture
    def client(self, server: Server, given: Any, client_of: Any) -> Callable[[], anthropic.Anthropic]:
        def factory() -> anthropic.Anthropic:
            return anthropic.Anthropic(base_url=server.url, credentials=given)

        return lambda: client_of(factory)

    def retrieve(self, client: anthropic.Anthropic) -> api.Batch:
        return api.retrieve_batch(client, "msgbatch_1", timeout=10)

    def test_is_replaced_for_the_next_try(self, server: Server, given: Any, client: Any) -> None:
        server.answers = [failure(401, "authentication_error"), answer(body=BATCH)]
        with pytest.raises(errors.TransientError) as caught:
            self.retrieve(client())
        assert caught.value.status == 401
        given.token = "two"
        self.retrieve(client())
        assert server.seen[-1].headers["authorization"] == "Bearer two"
        assert given.asked == [False, True]

    def test_is_replaced_once_and_again_after_a_success(self, server: Server, given: Any, client: Any) -> None:
        refused = failure(401, "authentication_error")
        server.answers = [refused, refused]
        with pytest.raises(errors.TransientError):
            self.retrieve(client())
        with pytest.raises(errors.PermanentError):
            self.retrieve(client())
        server.answers = [refused, answer(body=BATCH), refused, answer(body=BATCH)]
        for _ in range(2):
            with pytest.raises(errors.TransientError):
                self.retrieve(client())
            self.retrieve(client())

    def test_does_not_stay_with_the_next_job(self, server: Server, given: Any, client: Any) -> None:
        server.answers = [failure(401, "authentication_error")]
        first = client()
        for error in (errors.TransientError, errors.PermanentError):
            with pytest.raises(error):
                self.retrieve(client())
        assert client() is not first
        server.answers = [answer(body=BATCH)]
        given.token = "three"
        self.retrieve(client())
        assert server.seen[-1].headers["authorization"] == "Bearer three"

    def test_of_a_call_that_began_before_says_nothing_of_the_new_one(self, server: Server, client: Any) -> None:
        """Calls are made side by side, and each of them is refused."""
        made = client()
        assert clients.renew_credential(made, 0.0)
        assert clients.renew_credential(made, 0.0)
        assert client() is made

    def test_that_cannot_be_had_was_not_sent(self, server: Server, client_of: Any) -> None:
        def vault(*, force_refresh: bool = False) -> Any:
            raise OSError("the vault does not answer")

        made = client_of(lambda: anthropic.Anthropic(base_url=server.url, credentials=vault))
        for call in (
            lambda: api.create_batch(made, [b"{}"], 2),
            lambda: api.create_message(made, PARAMS),
            lambda: self.retrieve(made),
        ):
            with pytest.raises(errors.TransientError, match="the vault does not answer"):
                call()
        assert server.seen == []

    def test_is_not_had_while_the_exchange_fails(self, server: Server, client_of: Any) -> None:
        from anthropic.lib.credentials import WorkloadIdentityCredentials

        def make() -> anthropic.Anthropic:
            given = WorkloadIdentityCredentials(
                identity_token_provider=lambda: "jwt", federation_rule_id="f", organization_id="o"
            )
            return anthropic.Anthropic(base_url=server.url, credentials=given)

        for status, error in ((503, errors.TransientError), (429, errors.TransientError), (400, errors.PermanentError)):
            server.answers = [failure(status)]
            with pytest.raises(error, match="Token exchange failed"):
                api.create_batch(client_of(make), [b"{}"], 2)


class TestWhatAJobAdds:
    @pytest.fixture
    def heard(self) -> list[api.Account]:
        return []

    @pytest.fixture
    def caller(self, server: Server, heard: list[api.Account]) -> api.Caller:
        own = {"anthropic-beta": "of-the-client", "Anthropic-Workspace-Id": "of-the-client"}
        client = anthropic.Anthropic(base_url=server.url, api_key="a key", default_headers=own)
        return api.Caller(client, "wrkspc_1", "uprof_1", ("one", "two"), heard.append)

    def test_goes_to_each_call_that_takes_it(self, server: Server, caller: api.Caller) -> None:
        server.answers = [answer(body={**BATCH, "data": []})]
        calls: dict[str, Callable[[], Any]] = {
            "create": lambda: api.create_batch(caller, [b"{}"], 2),
            "messages": lambda: api.create_message(caller, PARAMS),
            "retrieve": lambda: api.retrieve_batch(caller, "msgbatch_1", timeout=10),
            "cancel": lambda: api.cancel_batch(caller, "msgbatch_1", timeout=10),
            "list": lambda: list(api.list_pages(caller, timeout=10)),
            "results": lambda: api.open_results(caller, "msgbatch_1", timeout=10).__enter__(),
        }
        for endpoint, call in calls.items():
            call()
            seen = server.seen[-1].headers
            assert seen["anthropic-workspace-id"] == "wrkspc_1", endpoint
            assert seen["anthropic-beta"] == "of-the-client,one,two", endpoint
            profile = "uprof_1" if endpoint in ("create", "messages") else None
            assert seen.get("anthropic-user-profile-id") == profile, endpoint

    def test_hears_whose_each_answer_is_where_nothing_is_paid(
        self, server: Server, caller: api.Caller, heard: list[api.Account]
    ) -> None:
        told = {"anthropic_organization_id": "o", "anthropic_workspace_id": "w"}
        server.answers = [
            answer(body=BATCH, **told),
            failure(404, **told),
            answer(body={"data": []}, **told),
            answer(body=BATCH, **told),
            failure(429, **told),
            answer(body=json.dumps({"type": "message"}).encode(), **told),
        ]
        api.retrieve_batch(caller, "msgbatch_1", timeout=10)
        with pytest.raises(errors.NotFoundError) as caught:
            api.retrieve_batch(caller, "msgbatch_1", timeout=10)
        list(api.list_pages(caller, timeout=10))
        assert heard == [api.Account("o", "w")] * 3
        assert (caught.value.organization, caught.value.workspace) == ("o", "w")
        created = api.create_batch(caller, [b"{}"], 2)
        assert created.account == api.Account("o", "w")
        with pytest.raises(errors.TransientError) as refused:
            api.create_batch(caller, [b"{}"], 2)
        assert (refused.value.organization, refused.value.workspace) == ("o", "w")
        apart: list[api.Account] = []
        api.create_message(caller, PARAMS, on_account=apart.append)
        assert apart == [api.Account("o", "w")]
        assert len(heard) == 3
