"""What users give the SDK's ``client.messages.batches.create`` is taken and sent as the SDK sends it, or named."""

from __future__ import annotations

import enum
import io
import json
import pathlib
import re
import tempfile
import types
import uuid
from collections import ChainMap, OrderedDict, UserDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any, TypedDict

import anthropic
import pydantic
import pytest
from anthropic.types import Message, TextBlock, ToolUseBlock, Usage

from claude_batch_tasks.errors import InvalidRequests
from claude_batch_tasks.wire import batch_requests
from claude_batch_tasks.wire.custom_ids import Index
from tests.factories import make_params

PNG = b"\x89PNG\r\n\x1a\n\x00\xff"


class Block(TypedDict, total=False):
    type: str
    text: str


class Model(pydantic.BaseModel):
    type: str = "text"
    text: str
    cache: str | None = pydantic.Field(default=None, alias="cache_control")


class Named(str, enum.Enum):
    USER = "user"


class Number(enum.IntEnum):
    FEW = 16


class Plain(enum.Enum):
    USER = "user"


@dataclass
class Data:
    text: str


class Scalar:
    """As numpy has them: not numbers of Python's."""

    shape = ()

    def __init__(self, value: Any, kind: str) -> None:
        self._value, self.dtype = value, types.SimpleNamespace(kind=kind)

    def item(self) -> Any:
        return self._value


def sent(**params: Any) -> dict[str, Any]:
    """The params as they go on the wire."""
    own = {**make_params("x", model="m", max_tokens=1), **params}
    [piece] = batch_requests.cut_batches(
        [{"custom_id": "a", "params": own}], nonce="0" * 16, index=Index(), max_requests=9, max_bytes=10**6
    )
    found: dict[str, Any] = json.loads(piece.body)["params"]
    return found


def refused(*requests: Any) -> InvalidRequests:
    with pytest.raises(InvalidRequests) as caught:
        list(batch_requests.cut_batches(requests, nonce="0" * 16, index=Index(), max_requests=9, max_bytes=10**6))
    return caught.value


def wrong(**params: Any) -> tuple[str, str]:
    """Where the one thing is that is wrong, and what it is."""
    own = {**make_params("x", model="m", max_tokens=1), **params}
    [[_, _, field, text]] = refused({"custom_id": "a", "params": own}).problems
    return field, text


def by_sdk(params: Any) -> Any:
    """What the SDK sends of params; its error if it does not."""
    bodies: list[bytes] = []
    httpx: Any = pytest.importorskip("httpx2" if int(anthropic.__version__.split(".")[0]) else "httpx")

    def answer(request: Any) -> Any:
        bodies.append(request.read())
        return httpx.Response(400, json={})

    http_client = httpx.Client(transport=httpx.MockTransport(answer))
    client = anthropic.Anthropic(api_key="sk-ant-test", max_retries=0, http_client=http_client)
    try:
        client.messages.batches.create(requests=[{"custom_id": "a", "params": params}])
    except anthropic.BadRequestError:
        return json.loads(bodies[0])["requests"][0]["params"]
    except (TypeError, ValueError, RuntimeError, OSError) as exc:
        return exc


def image(data: Any) -> list[Any]:
    source = {"type": "base64", "media_type": "image/png", "data": data}
    return [{"role": "user", "content": [{"type": "text", "text": "?"}, {"type": "image", "source": source}]}]


IMAGE = "params.messages[0].content[1].source.data"


def generated() -> Iterator[dict[str, Any]]:
    yield {"role": "user", "content": (block for block in [{"type": "text", "text": "x"}])}


def answer() -> Message:
    return Message(
        id="msg_1",
        type="message",
        role="assistant",
        model="claude-x",
        content=[
            TextBlock(type="text", text="earlier", citations=None),
            ToolUseBlock(type="tool_use", id="toolu_1", name="n", input={"a": [1]}),
        ],
        usage=Usage(input_tokens=1, output_tokens=1),
    )


#: What may be given, made anew each time, as iterators are read once.
TAKEN: dict[str, Any] = {
    "omit at the top": lambda: {"system": anthropic.omit, "tools": anthropic.NOT_GIVEN, "top_k": anthropic.not_given},
    "omit inside": lambda: {
        "metadata": {"user_id": anthropic.omit},
        "tool_choice": {"type": "any", "x": {"y": anthropic.NOT_GIVEN}},
    },
    "a generator of messages": lambda: {"messages": generated()},
    "a tuple": lambda: {"stop_sequences": ("a", "b")},
    "a set": lambda: {"stop_sequences": {"a"}},
    "a frozenset": lambda: {"stop_sequences": frozenset("a")},
    "a deque": lambda: {"stop_sequences": deque("ab")},
    "a map": lambda: {"stop_sequences": map(str, range(3))},
    "the values of a dict": lambda: {"stop_sequences": {"x": "a"}.values()},
    "a range": lambda: {"metadata": {"n": range(3)}},
    "an ordered dict": lambda: {"metadata": OrderedDict(user_id="u")},
    "a user dict": lambda: {"metadata": UserDict(user_id=UserDict(x=1))},
    "a chain of maps": lambda: {"metadata": ChainMap({"user_id": "u"}, {"x": 1})},
    "a mapping proxy": lambda: {"metadata": types.MappingProxyType({"user_id": "u"})},
    "a typed dict": lambda: {"system": [Block(type="text", text="x")]},
    "a model": lambda: {"system": [Model(text="x", cache_control="y")]},
    "a model with what is not set": lambda: {"system": [Model.model_construct(text="x")]},
    "an answer's content": lambda: {"messages": [{"role": "assistant", "content": answer().content}]},
    "an answer's block": lambda: {"messages": [{"role": "assistant", "content": [answer().content[1]]}]},
    "a date": lambda: {"metadata": {"user_id": date(2026, 11, 29)}},
    "a moment": lambda: {"metadata": {"user_id": datetime(2026, 11, 29, 1, 2, 3, tzinfo=timezone.utc)}},
    "a text of a class": lambda: {"messages": [{"role": Named.USER, "content": "x"}]},
    "a number of a class": lambda: {"max_tokens": Number.FEW},
    "keys that are numbers": lambda: {"metadata": {7: "a", 1.5: "b", True: "c", None: "d"}},
    "a file in memory": lambda: {"messages": image(io.BytesIO(PNG))},
    "a text in memory": lambda: {"messages": image(io.StringIO("hello"))},
    "a long number": lambda: {"metadata": {"n": 2**70}},
}

#: What has no JSON form: where it is, and what is said of it.
REFUSED: dict[str, tuple[Any, str, str]] = {
    "bytes": (lambda: {"messages": image(PNG)}, IMAGE, "base64.b64encode"),
    "a bytearray": (lambda: {"messages": image(bytearray(PNG))}, IMAGE, "a bytearray"),
    "a path elsewhere": (lambda: {"system": pathlib.Path("x")}, "params.system", '"base64"'),
    "a file elsewhere": (lambda: {"system": io.BytesIO(PNG)}, "params.system", '"base64"'),
    "no such file": (lambda: {"messages": image(pathlib.Path("/no/such"))}, IMAGE, "No such file"),
    "a directory": (lambda: {"messages": image(pathlib.Path("/"))}, IMAGE, "Is a directory"),
    "a class": (lambda: {"tools": [Model]}, "params.tools[0]", "the class Model, not an instance"),
    "the class of omit": (lambda: {"system": anthropic.Omit}, "params.system", "the class Omit"),
    "omit in a list": (lambda: {"tools": [anthropic.omit]}, "params.tools[0]", "leave it out"),
    "a decimal": (lambda: {"temperature": Decimal("0.5")}, "params.temperature", "a Decimal"),
    "a uuid": (lambda: {"metadata": {"user_id": uuid.uuid4()}}, "params.metadata.user_id", "an? UUID"),
    "an enumeration": (
        lambda: {"messages": [{"role": Plain.USER, "content": "x"}]},
        "params.messages[0].role",
        ".value",
    ),
    "a dataclass": (lambda: {"system": [Data("x")]}, "params.system[0]", "dataclasses.asdict"),
    "an object": (lambda: {"metadata": {"a": [{"b": object()}]}}, "params.metadata.a[0].b", "an object"),
    "a function": (lambda: {"tools": [refused]}, "params.tools[0]", "a function"),
    "nan": (lambda: {"metadata": {"x": float("nan")}}, "params.metadata.x", "nan"),
    "infinity": (lambda: {"metadata": {"x": [float("-inf")]}}, "params.metadata.x[0]", "-inf"),
    "an odd key": (lambda: {"metadata": {"a b": {("x",): 1}}}, 'params.metadata["a b"]', "key that is a tuple"),
    "a key that has half a pair": (lambda: {"metadata": {"\ud800": 1}}, r'params.metadata["\\ud800"]', "surrogate"),
    "complex": (lambda: {"temperature": 1j}, "params.temperature", "a complex"),
    "a closed file": (lambda: {"messages": image(_closed())}, IMAGE, "closed file"),
}


def _closed() -> io.BytesIO:
    file = io.BytesIO(PNG)
    file.close()
    return file


class TestWhatTheSdkTakes:
    @pytest.mark.parametrize("name", TAKEN)
    def test_is_sent_as_the_sdk_sends_it(self, name: str) -> None:
        ours = sent(**TAKEN[name]())
        if int(anthropic.__version__.split(".")[0]) < 2:
            return  # which took less
        own = {**make_params("x", model="m", max_tokens=1), **TAKEN[name]()}
        assert ours == by_sdk(own)

    def test_is_a_path(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "a.png").write_bytes(PNG)
        with open(tmp_path / "a.png", "rb") as file:
            found = [sent(messages=image(given)) for given in (tmp_path / "a.png", file)]
        assert found[0] == found[1] == sent(messages=image(io.BytesIO(PNG)))

    def test_is_a_named_temporary_file(self) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(PNG)
            file.seek(0)
            assert sent(messages=image(file)) == sent(messages=image(io.BytesIO(PNG)))

    def test_is_an_answer_that_was_parsed(self) -> None:
        parsed = pytest.importorskip("anthropic.types.parsed_message")
        block = parsed.ParsedTextBlock[Model](type="text", text="{}", citations=None, parsed_output=Model(text="x"))
        content = sent(messages=[{"role": "assistant", "content": [block]}])["messages"][0]["content"]
        assert content == [{"type": "text", "text": "{}", "citations": None}]

    def test_is_a_model_of_params_and_of_a_request(self) -> None:
        class Params(pydantic.BaseModel):
            model: str
            max_tokens: int
            messages: list[dict[str, str]]
            system: str = "not set"

        class Request(pydantic.BaseModel):
            custom_id: str
            params: Params

        params = Params(model="m", max_tokens=1, messages=[{"role": "user", "content": "x"}])
        for request in (Request(custom_id="a", params=params), {"custom_id": "a", "params": params}):
            [piece] = batch_requests.cut_batches(
                [request], nonce="0" * 16, index=Index(), max_requests=9, max_bytes=10**6
            )
            assert json.loads(piece.body)["params"] == sent()
            assert piece.custom_ids == ["a"]

    @pytest.mark.parametrize(("value", "kind"), [(5, "i"), (5, "u"), (True, "b"), (0.5, "f")])
    def test_is_a_scalar_of_numpy_s_as_a_number(self, value: Any, kind: str) -> None:
        assert sent(metadata={"n": Scalar(value, kind)})["metadata"] == {"n": value}

    def test_is_a_count_of_numpy_s(self) -> None:
        assert sent(max_tokens=Scalar(5, "i"))["max_tokens"] == 5

    def test_is_given_once_more_in_another_place(self) -> None:
        shared = ({"type": "text", "text": "x"},)
        assert sent(system=[shared[0], *shared], metadata={"a": shared, "b": shared})

    def test_is_not_changed(self) -> None:
        given = {"system": anthropic.omit, "metadata": {"when": date(2026, 1, 1), "who": anthropic.omit}}
        before = {**given, "metadata": {**given["metadata"]}}
        sent(**given)
        assert given == before

    def test_is_the_body_of_a_create(self) -> None:
        own = make_params("x", model="m", max_tokens=1)
        given = {"requests": [{"custom_id": "a", "params": own}]}
        [piece] = batch_requests.cut_batches(given, nonce="0" * 16, index=Index(), max_requests=9, max_bytes=10**6)
        assert piece.custom_ids == ["a"]


class TestWhatHasNoJsonForm:
    @pytest.mark.parametrize("name", REFUSED)
    def test_is_named_by_its_place(self, name: str) -> None:
        make, place, text = REFUSED[name]
        own = make_params("x", model="m", max_tokens=1)
        error = refused({"custom_id": "a", "params": own}, {"custom_id": "b", "params": {**own, **make()}})
        [[index, custom_id, field, why]] = error.problems
        assert (index, custom_id, field) == (1, "b", place.replace("\\\\", "\\"))
        assert re.search(text, why)
        assert f"requests[1].{field} (custom_id 'b') {why}" in str(error)

    @pytest.mark.latest
    @pytest.mark.parametrize("name", sorted(set(REFUSED) - {"a key that has half a pair"}))
    def test_is_nothing_that_the_sdk_takes(self, name: str) -> None:
        own = {**make_params("x", model="m", max_tokens=1), **REFUSED[name][0]()}
        assert isinstance(by_sdk(own), Exception)

    def test_is_named_once_more_for_each_place(self) -> None:
        own = {
            "model": "m",
            "max_tokens": 1,
            "messages": image(PNG),
            "metadata": {"user_id": b"x"},
            "system": {"a": [1j]},
        }
        error = refused({"custom_id": "a", "params": own})
        assert [field for _, _, field, _ in error.problems] == [IMAGE, "params.metadata.user_id", "params.system.a[0]"]

    def test_is_a_file_that_was_read_before(self) -> None:
        file = io.BytesIO(PNG)
        own = {"model": "m", "max_tokens": 1, "messages": image(file)}
        error = refused({"custom_id": "a", "params": own}, {"custom_id": "b", "params": own})
        assert [problem[:3] for problem in error.problems] == [[1, "b", IMAGE]]
        assert "open it again" in str(error)

    def test_is_a_file_that_is_open_as_text(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "a.png").write_bytes(PNG)
        with open(tmp_path / "a.png", encoding="utf-8") as file:
            assert wrong(messages=image(file)) == (IMAGE, "is a file that is open as text; open it with mode 'rb'")

    def test_is_a_path_of_a_kind_that_may_be_anywhere(self) -> None:
        class Cloud:
            def __fspath__(self) -> str:
                raise AssertionError("it was fetched")

        assert "pathlib.Path" in wrong(messages=image(Cloud()))[1]

    def test_is_a_whole_answer_among_the_messages(self) -> None:
        field, text = wrong(messages=[answer()])
        assert field == "params.messages[0]"
        assert '{"role": "assistant", "content": answer.content}' in text

    def test_is_a_model_that_cannot_be_dumped(self) -> None:
        class Bad(pydantic.BaseModel):
            model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
            x: Any

        field, text = wrong(system=[Bad(x=object())])
        assert field.startswith("params.system[0]")
        assert "PydanticSerializationError" in text

    @pytest.mark.parametrize("kind", ["M", "U", "c", "O", None])
    def test_is_a_scalar_that_is_no_number(self, kind: Any) -> None:
        assert wrong(metadata={"n": Scalar(5, kind)})[0] == "params.metadata.n"

    @pytest.mark.parametrize("given", [Model, Data("x"), int, [1], "x"])
    def test_is_params_that_are_none(self, given: Any) -> None:
        [[index, custom_id, field, text]] = refused({"custom_id": "a", "params": given}).problems
        assert (index, custom_id, field) == (0, "a", "params")
        assert "must be an object, not" in text
        if isinstance(given, type):
            assert f"the class {given.__name__}" in text

    def test_is_one_request_in_place_of_a_list(self) -> None:
        with pytest.raises(InvalidRequests, match=r"is one request.* \[request\]"):
            list(
                batch_requests.cut_batches(
                    {"custom_id": "a", "params": {}}, nonce="0", index=Index(), max_requests=9, max_bytes=9
                )
            )


class TestFieldsOfOtherPlaces:
    @pytest.mark.parametrize(
        ("name", "value", "way"),
        [
            ("betas", ["output-300k-2026-03-24"], "betas="),
            ("extra_headers", {"anthropic-beta": "x"}, "default_headers="),
            ("extra_body", {"a": 1}, "into params"),
            ("extra_query", {"beta": "true"}, "default_query="),
            ("timeout", 60, "max_wait="),
            ("max_retries", 3, "retries="),
            ("fallbacks", "default", "leave it out"),
            ("output_format", {"type": "json_schema"}, "output_config="),
            ("output_format", Model, "output_config="),
            ("speed", "fast", "leave it out"),
            ("speed", "standard", "leave it out"),
            ("stream", True, "leave it out"),
            ("workspace_id", "wrkspc_1", "workspace_id="),
            ("anthropic_version", "bedrock-2023-05-31", "leave it out"),
            ("anthropic_beta", ["x"], "betas="),
            ("custom_id", "a", "beside params"),
        ],
    )
    def test_are_refused_with_the_way_to_do_it(self, name: str, value: Any, way: str) -> None:
        field, text = wrong(**{name: value})
        assert field == f"params.{name}"
        assert way in text

    def test_are_refused_by_the_value_where_that_counts(self) -> None:
        assert (
            wrong(billing_policy={"type": "billing_policy", "bill_to": "user_profile"})[0]
            == "params.billing_policy.bill_to"
        )
        assert sent(billing_policy={"type": "billing_policy", "bill_to": "self"})

    @pytest.mark.parametrize("name", ["stream", "speed", "fallbacks"])
    def test_may_be_there_without_a_value(self, name: str) -> None:
        assert sent(**{name: None})
        assert name not in sent(**{name: anthropic.omit})

    def test_may_be_omitted(self) -> None:
        assert "betas" not in sent(betas=anthropic.NOT_GIVEN, extra_headers=anthropic.omit)

    def test_are_told_beside_the_params_too(self) -> None:
        error = refused({"custom_id": "a", "betas": ["x"], "params": sent()})
        [[_, _, field, text]] = error.problems
        assert field == "betas"
        assert "betas=" in text

    @pytest.mark.latest
    def test_are_all_that_the_sdk_s_methods_take_and_do_not_send(self) -> None:
        import inspect
        import typing

        from anthropic.types import message_create_params
        from anthropic.types.beta import message_create_params as beta_params

        from claude_batch_tasks.wire import request_fields

        body = set(typing.get_type_hints(message_create_params.MessageCreateParamsNonStreaming))
        body |= set(typing.get_type_hints(beta_params.MessageCreateParamsNonStreaming))
        client = anthropic.Anthropic(api_key="sk-ant-test")
        taken: set[str] = set()
        for messages in (client.messages, client.beta.messages):
            for name in ("create", "stream", "parse", "tool_runner"):
                if (method := getattr(messages, name, None)) is not None:
                    taken |= set(inspect.signature(method).parameters)
        assert taken - body - request_fields.SPECIAL == set()
