"""The HTTP surface besides batches and messages: headers of every answer, errors, tokens, models, files."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from typing import Any

import anthropic
import pytest

from claude_batch_tasks.simulator import Fault, Model, Simulator

from .conftest import Raw, call, request, requests
from .test_shapes import BATCHES, strictly

pytestmark = pytest.mark.latest
httpx2 = pytest.importorskip("httpx2")

PARAMS = request("")["params"]
HEADERS = {"x-api-key": "key-a", "anthropic-version": "2023-06-01"}
UNKNOWN = "msgbatch_018nobody"


class TestHeaders:
    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", BATCHES, 200),
            ("GET", f"{BATCHES}/{UNKNOWN}", 404),
            ("POST", "/v1/messages", 400),
            ("GET", "/v1/nothing", 404),
            ("PUT", BATCHES, 405),
        ],
    )
    def test_of_every_answer(self, simulator: Simulator, method: str, path: str, status: int) -> None:
        answer = call(simulator, method, path)
        assert answer.status == status
        assert re.fullmatch(r"req_011C\w{20}", answer.headers["request-id"])
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", answer.headers["traceresponse"])
        assert answer.headers["x-should-retry"] == (None if status == 200 else "false")

    def test_that_name_the_account(self, simulator: Simulator) -> None:
        one, other = (call(simulator, "GET", BATCHES, headers={**HEADERS, "x-api-key": key}).headers for key in "ab")
        for name, form in (("organization", "[0-9a-f-]{36}"), ("workspace", r"wrkspc_01\w{22}")):
            assert re.fullmatch(form, one[f"anthropic-{name}-id"])
            assert one[f"anthropic-{name}-id"] != other[f"anthropic-{name}-id"]
        asked = call(simulator, "GET", BATCHES, headers={**HEADERS, "anthropic-workspace-id": "wrkspc_7"})
        assert asked.headers["anthropic-workspace-id"] == "wrkspc_7"

    @pytest.mark.parametrize(("status", "retried"), [(429, "true"), (500, "true"), (529, "true"), (404, "false")])
    def test_that_say_whether_to_try_again(self, simulator: Simulator, status: int, retried: str) -> None:
        simulator.faults(Fault("list", "status", status=status))
        answer = call(simulator, "GET", BATCHES)
        assert (answer.status, answer.headers["x-should-retry"]) == (status, retried)

    def test_a_proxy_does_not_have_them(self, simulator: Simulator) -> None:
        simulator.faults(Fault("list", "status", status=503, body="no", proxy=True))
        answer = call(simulator, "GET", BATCHES)
        for name in ("request-id", "traceresponse", "x-should-retry", "anthropic-workspace-id"):
            assert answer.headers[name] is None


class TestBatches:
    def test_a_running_one_says_when_to_ask_again(self, simulator: Simulator) -> None:
        def wait(**behaviour: Any) -> str | None:
            simulator.behave(**behaviour)
            created = call(simulator, "POST", BATCHES, {"requests": requests(1)})
            assert created.headers["retry-after"] is None
            found: str | None = call(simulator, "GET", f"{BATCHES}/{created.json['id']}").headers["retry-after"]
            return found

        assert wait(processing_seconds=3600) == "10"
        assert wait(retry_after_seconds=3) == "3"
        assert wait(retry_after_seconds=0) is None
        assert wait(retry_after_seconds=60, processing_seconds=50) in ("48", "49")
        # In real seconds.
        assert wait(processing_seconds=3600, clock_speed=100) in ("34", "35")
        assert wait(processing_seconds=0.9, clock_speed=1) is None
        assert wait(processing_seconds=0) is None

    def test_results_before_the_end(self, simulator: Simulator, client: anthropic.Anthropic) -> None:
        batch = client.messages.batches.create(requests=requests(1))
        early = call(simulator, "GET", f"{BATCHES}/{batch.id}/results")
        assert early.error == (404, "not_found_error", f"Message Batch {batch.id} has no available results.")
        assert early.headers["x-should-retry"] == "false"
        simulator.end()
        results = call(simulator, "GET", f"{BATCHES}/{batch.id}/results")
        assert results.headers["content-disposition"] == f'attachment; filename="{batch.id}_results.jsonl"'

    def test_a_row_that_is_errored_has_details(self, simulator: Simulator, client: anthropic.Anthropic) -> None:
        batch = client.messages.batches.create(requests=[request("a", max_tokens=100_000)])
        simulator.end()
        [row] = map(json.loads, call(simulator, "GET", f"{BATCHES}/{batch.id}/results").body.splitlines())
        assert row == {
            "custom_id": "a",
            "result": {
                "type": "errored",
                "error": {
                    "type": "error",
                    "error": {
                        "details": {"error_visibility": "user_facing"},
                        "type": "invalid_request_error",
                        "message": "max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens"
                        " for claude-haiku-4-5-20251001",
                    },
                    "request_id": None,
                },
            },
        }


class TestErrors:
    def test_the_messages_api_refuses_at_once(self, simulator: Simulator, client: anthropic.Anthropic) -> None:
        with pytest.raises(anthropic.NotFoundError, match="model: claude-nobody"):
            client.messages.create(**{**PARAMS, "model": "claude-nobody"})
        with pytest.raises(anthropic.BadRequestError, match="64001 > 64000, which is the maximum allowed"):
            client.messages.create(**{**PARAMS, "max_tokens": 64_001}, timeout=9)
        with pytest.raises(anthropic.BadRequestError, match="telepathy: Extra inputs are not permitted"):
            client.messages.create(**PARAMS, extra_body={"telepathy": True})

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("PUT", BATCHES, {"GET", "HEAD", "POST"}),
            ("POST", f"{BATCHES}/{UNKNOWN}", {"GET", "HEAD", "DELETE"}),
            ("GET", "/v1/messages", {"POST"}),
            ("DELETE", f"{BATCHES}/{UNKNOWN}/results", {"GET", "HEAD"}),
        ],
    )
    def test_a_method_that_a_path_does_not_have(
        self, simulator: Simulator, method: str, path: str, allowed: set[str]
    ) -> None:
        answer = call(simulator, method, path)
        assert answer.error == (405, "invalid_request_error", "Method Not Allowed")
        assert set(answer.headers["allow"].split(", ")) == allowed
        [last] = simulator.journal().unserved()
        assert (last.method, last.path, last.status, last.reason) == (method, path, 405, "not served: no such method")

    def test_declared_models_are_known_at_once(self, simulator: Simulator) -> None:
        params = {**PARAMS, "model": "claude-x", "max_tokens": 5}
        assert call(simulator, "POST", "/v1/messages", params).status == 404
        simulator.behave(models=["claude-x", {"id": "claude-y", "max_tokens": 4}])
        assert call(simulator, "POST", "/v1/messages", params).status == 200
        assert call(simulator, "POST", "/v1/messages", {**params, "model": "claude-y"}).status == 400
        assert simulator.state().behaviour.models == ("claude-x", Model("claude-y", max_tokens=4))


class TestCountingTokens:
    def test_the_sdk_gets_a_number(self, simulator: Simulator, client: anthropic.Anthropic) -> None:
        from anthropic.types import MessageTokensCount

        params = {name: PARAMS[name] for name in ("model", "messages")}
        few = client.messages.count_tokens(**params)
        strictly(MessageTokensCount, few.to_json().encode())
        more = client.messages.count_tokens(**params, system="x" * 4000)
        assert 900 < more.input_tokens - few.input_tokens < 1100
        assert simulator.journal().totals.paid_messages == 0

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"max_tokens": 5}, "max_tokens: Extra inputs are not permitted"),
            ({"messages": []}, "messages: at least one message is required"),
            ({"model": "gpt"}, "model: gpt"),
        ],
    )
    def test_is_refused_like_a_message(self, simulator: Simulator, changes: Any, message: str) -> None:
        params = {"model": PARAMS["model"], "messages": PARAMS["messages"], **changes}
        answer = call(simulator, "POST", "/v1/messages/count_tokens", params)
        assert answer.error[2] == message


class TestModels:
    def test_the_list_is_newest_first_and_without_retired_ones(
        self, simulator: Simulator, client: anthropic.Anthropic
    ) -> None:
        from anthropic.types import ModelInfo

        models = list(client.models.list(limit=5))
        ids = [model.id for model in models]
        assert ids.index("claude-opus-5-5") < ids.index("claude-haiku-4-5-20251001") < len(ids)
        assert "claude-3-haiku-20240307" not in ids
        assert sorted((m.created_at for m in models), reverse=True) == [m.created_at for m in models]
        retired = list(client.models.list(lifecycle=["retired"]))
        assert "claude-3-haiku-20240307" in [model.id for model in retired]
        page = call(simulator, "GET", "/v1/models?limit=2").json
        assert (page["has_more"], page["first_id"], page["last_id"]) == (True, ids[0], ids[1])
        for entry in call(simulator, "GET", "/v1/models?limit=1000").json["data"]:
            strictly(ModelInfo, json.dumps(entry))

    def test_one_by_its_alias(self, client: anthropic.Anthropic) -> None:
        model = client.models.retrieve("claude-opus-4-5")
        assert (model.id, model.display_name) == ("claude-opus-4-5-20251101", "Claude Opus 4.5")
        assert (model.max_tokens, model.max_input_tokens, model.line) == (64_000, 200_000, "opus")
        assert (model.lifecycle, model.retires_at) == ("deprecated", datetime(2027, 1, 22, tzinfo=timezone.utc))
        capabilities = model.capabilities
        assert capabilities is not None
        assert capabilities.batch.supported
        assert capabilities.structured_outputs.supported
        assert capabilities.thinking.types.enabled.supported
        assert not capabilities.thinking.types.adaptive.supported
        with pytest.raises(anthropic.NotFoundError, match="model: gpt"):
            client.models.retrieve("gpt")


class TestFiles:
    def test_from_upload_to_deletion(self, simulator: Simulator, client: anthropic.Anthropic) -> None:
        from anthropic.types import FileMetadata

        content = b"%PDF\r\n\x00\xff--not a boundary\n"
        stored = client.files.upload(file=("folder/brief.pdf", content, "application/pdf"))
        assert re.fullmatch(r"file_01\w{22}", stored.id)
        shown = call(simulator, "GET", f"/v1/files/{stored.id}")
        found = strictly(FileMetadata, shown.body)
        assert (found.filename, found.mime_type, found.size_bytes) == ("brief.pdf", "application/pdf", len(content))
        block = {"type": "document", "source": {"type": "file", "file_id": stored.id}}
        params = {**PARAMS, "messages": [{"role": "user", "content": [block, {"type": "text", "text": "sum up"}]}]}
        assert call(simulator, "POST", "/v1/messages", params).json["content"][0]["text"] == "Echo: sum up"
        assert client.files.delete(stored.id).id == stored.id
        for answer in (
            call(simulator, "GET", f"/v1/files/{stored.id}"),
            call(simulator, "POST", "/v1/messages", params),
        ):
            assert answer.error == (404, "not_found_error", f"File not found: {stored.id}")

    def test_belong_to_an_account(self, simulator: Simulator, client: anthropic.Anthropic) -> None:
        ids = [client.files.upload(file=(f"{n}.txt", b"x")).id for n in range(5)]
        assert [found.id for found in client.files.list(limit=2)] == ids[::-1]
        other = {**HEADERS, "x-api-key": "key-b"}
        assert call(simulator, "GET", f"/v1/files/{ids[0]}", headers=other).status == 404
        assert call(simulator, "GET", "/v1/files", headers=other).json["data"] == []
        assert call(simulator, "GET", f"/v1/files/{ids[0]}").json["mime_type"] == "text/plain"
        assert call(simulator, "GET", f"/v1/files/{ids[0]}/content").error[0] == 400

    def test_an_upload_by_another_client(self, simulator: Simulator) -> None:
        with httpx2.Client(base_url=simulator.url, headers=HEADERS) as client:
            sent = client.post("/v1/files", files={"file": ("naïve.bin", b"\r\n\r\n")})
            assert (sent.status_code, sent.json()["filename"], sent.json()["size_bytes"]) == (200, "naïve.bin", 4)
            for refused in (client.post("/v1/files", data={"x": "y"}), client.post("/v1/files", files={"x": b"y"})):
                assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")


def test_a_plain_client_goes_from_create_to_results(simulator: Simulator) -> None:
    with httpx2.Client(base_url=simulator.url, headers=HEADERS) as client:
        batch = client.post(BATCHES, json={"requests": requests(2)}).json()
        assert client.get(f"{BATCHES}/{batch['id']}").json()["processing_status"] == "in_progress"
        simulator.end()
        ended = client.get(f"{BATCHES}/{batch['id']}").json()
        rows = client.get(ended["results_url"]).text.splitlines()
        assert sorted(json.loads(row)["custom_id"] for row in rows) == ["r-0", "r-1"]
        assert client.delete(f"{BATCHES}/{batch['id']}").json()["type"] == "message_batch_deleted"


def test_faults_strike_the_other_endpoints_too(simulator: Simulator) -> None:
    simulator.faults(Fault("models", "status", status=529, calls=(1,)), Fault("any", "status", status=500, calls=(2,)))

    def ask(path: str) -> Raw:
        return call(simulator, "GET", path)

    assert [ask("/v1/models").status, ask("/v1/models").status, ask("/v1/files").status] == [529, 500, 200]
    assert [found.endpoint for found in simulator.journal().calls] == ["models", "models", "files"]
