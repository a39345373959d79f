"""The tables know every parameter, block and tool that the SDK has types for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest

from claude_batch_tasks.simulator.validation.blocks import BETA_BLOCKS, BLOCKS
from claude_batch_tasks.simulator.validation.fields import make_fields
from claude_batch_tasks.simulator.validation.kinds import Shape
from claude_batch_tasks.simulator.validation.tools import make_tools

pytestmark = pytest.mark.latest


def shapes_of(union: Any) -> Iterator[tuple[str, set[str]]]:
    """The type and the fields of each member of a union of params."""
    for member in get_args(union):
        if not hasattr(member, "__required_keys__"):
            yield from shapes_of(member)
            continue
        hints = {name: plain(hint) for name, hint in get_type_hints(member).items()}
        types = (
            get_args(hints["type"]) if get_origin(hints["type"]) is Literal else get_args(get_args(hints["type"])[0])
        )
        for type_ in types:
            yield type_, set(hints)


def plain(hint: Any) -> Any:
    while get_origin(hint) is Annotated or getattr(get_origin(hint), "__name__", "") == "Required":
        hint = get_args(hint)[0]
    return hint


def test_parameters() -> None:
    from anthropic.types.beta.message_create_params import MessageCreateParamsBase as Beta
    from anthropic.types.message_create_params import MessageCreateParamsBase as Plain

    # These go in headers.
    headers = {"betas", "user_profile_id", "workspace_id"}
    assert set(Plain.__annotations__) - headers <= set(make_fields(False, False).fields)
    assert set(Beta.__annotations__) - headers <= set(make_fields(False, True).fields)


def test_blocks_and_their_fields() -> None:
    from anthropic.types import ContentBlockParam
    from anthropic.types.beta import BetaContentBlockParam

    known = dict(shapes_of(ContentBlockParam))
    assert set(known) == set(BLOCKS)
    assert {type_ for type_, _ in shapes_of(BetaContentBlockParam)} == {*BLOCKS, *BETA_BLOCKS}
    for type_, fields in known.items():
        assert fields == fields_of(BLOCKS[type_]), type_


@pytest.mark.parametrize("beta", [False, True])
def test_tools_and_their_fields(beta: bool) -> None:
    from anthropic.types import ToolUnionParam
    from anthropic.types.beta import BetaToolUnionParam

    known = dict(shapes_of(BetaToolUnionParam if beta else ToolUnionParam))
    shapes = make_tools(beta).shapes
    assert set(known) == set(shapes)
    for type_, fields in known.items():
        if type_ != "mcp_toolset":
            assert fields == fields_of(shapes[type_]), type_


def fields_of(shape: object) -> set[str]:
    assert isinstance(shape, Shape)
    return set(shape.fields)
