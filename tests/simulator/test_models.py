"""The catalog of models."""

from __future__ import annotations

import pytest

from claude_batch_tasks.simulator import Model
from claude_batch_tasks.simulator.models import CATALOG, find_model, read_catalog


@pytest.mark.latest
def test_every_model_that_the_sdk_names_is_in_the_catalog() -> None:
    from typing import get_args

    from anthropic.types import ModelParam

    names = get_args(get_args(ModelParam)[0])
    assert len(names) > 20
    assert set(names) <= set(read_catalog())


def test_no_name_means_two_models() -> None:
    names = [name for model in CATALOG for name in model.names]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize(
    ("name", "id_", "shown"),
    [
        ("claude-haiku-4-5", "claude-haiku-4-5-20251001", "Claude Haiku 4.5"),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5-20251001", "Claude Haiku 4.5"),
        ("claude-opus-5-5", "claude-opus-5-5", "Claude Opus 5.5"),
    ],
)
def test_a_name_is_resolved(name: str, id_: str, shown: str) -> None:
    model = find_model(name)
    assert model is not None
    assert (model.id, model.shown_name) == (id_, shown)


@pytest.mark.parametrize("name", ["claude-nonsense", "gpt-4o", "", "claude-3-haiku-20240307", "claude-opus-4-0"])
def test_unknown_and_retired_models_are_not_found(name: str) -> None:
    assert find_model(name) is None


def test_declared_models_have_precedence() -> None:
    own = (Model("claude-haiku-4-5", max_tokens=7), "claude-x")
    assert find_model("claude-haiku-4-5", own) == own[0]
    plain = find_model("claude-x", own)
    assert plain is not None
    assert (plain.shown_name, plain.max_tokens, plain.prefill) == ("Claude X", 128_000, True)
    assert find_model("claude-x") is None
