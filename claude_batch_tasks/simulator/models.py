"""The catalog of models: names, limits, and what each of them takes.

As Anthropic documents them in November 2026. `Behaviour.models` adds to it and has precedence.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from msgspec import Struct

Thinking: TypeAlias = Literal["adaptive", "between_tools", "disabled", "enabled"]
Effort: TypeAlias = Literal["low", "medium", "high", "xhigh", "max"]

EFFORTS: tuple[Effort, ...] = ("low", "medium", "high", "xhigh", "max")


class Model(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One model. A name that is declared without more is a model that takes everything.

    >>> Behaviour(models=(Model("claude-mine-1", aliases=("claude-mine",), max_tokens=4096), "claude-plain"))
    """

    id: str
    #: Other names that mean this model; answers name its `id`.
    aliases: tuple[str, ...] = ()
    #: Default: made from the id.
    display_name: str = ""
    #: The most output tokens, and with the beta header `output-300k-2026-03-24` in a batch.
    max_tokens: int = 128_000
    max_batch_tokens: int = 300_000
    #: The context window.
    max_input_tokens: int = 1_000_000
    #: The values of `thinking.type` that it takes.
    thinking: tuple[Thinking, ...] = ("adaptive", "between_tools", "disabled", "enabled")
    #: The values of `output_config.effort` that it takes.
    effort: tuple[Effort, ...] = EFFORTS
    batch: bool = True
    structured_outputs: bool = True
    vision: bool = True
    #: Whether a last turn of the assistant may begin the answer.
    prefill: bool = True
    #: Whether `tool_choice` may force a tool.
    forced_tools: bool = True
    #: Whether it takes `temperature`, `top_p` and `top_k` other than the defaults, in API versions that have them.
    sampling: bool = True
    lifecycle: Literal["active", "deprecated", "retired"] = "active"
    #: Dates such as `2026-10-07`; an empty one is not known, or there is none.
    released: str = ""
    deprecated: str = ""
    retires: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.id, *self.aliases)

    @property
    def shown_name(self) -> str:
        """The display name: as declared, or `Claude Mine 1` for `claude-mine-1`."""
        return self.display_name or self.id.replace("-", " ").title()

    @property
    def line(self) -> str | None:
        return next((line for line in ("haiku", "sonnet", "opus", "fable", "mythos") if line in self.id), None)


def _model(id_: str, released: str, **fields: Any) -> Model:
    """Return a model of the generations since 4.6: without prefill, with adaptive thinking, without a dated id."""
    _, line, *version = id_.split("-")
    name = f"Claude {line.title()} {'.'.join(version)}"
    defaults: dict[str, Any] = {"prefill": False, "sampling": False, "thinking": ("adaptive", "disabled")}
    return Model(id_, released=released, display_name=name, **{**defaults, **fields})


def _older(id_: str, name: str, **fields: Any) -> Model:
    """Return a model of the generations up to 4.5, whose alias is its id without the date."""
    alias, _, day = id_.rpartition("-")
    defaults: dict[str, Any] = {
        "aliases": (alias,),
        "released": f"{day[:4]}-{day[4:6]}-{day[6:]}",
        "max_tokens": 64_000,
        "max_batch_tokens": 64_000,
        "max_input_tokens": 200_000,
        "thinking": ("disabled", "enabled"),
        "effort": (),
    }
    return Model(id_, display_name=f"Claude {name}", **{**defaults, **fields})


def _retired(id_: str, name: str, retired: str, **fields: Any) -> Model:
    return _older(id_, name, lifecycle="retired", structured_outputs=False, retires=retired, **fields)


_ALWAYS: dict[str, Any] = {"thinking": ("adaptive",)}
_ALWAYS_UNFORCED: dict[str, Any] = {**_ALWAYS, "forced_tools": False}
_BOTH: dict[str, Any] = {"thinking": ("adaptive", "disabled", "enabled"), "sampling": True}
_FIRST_EFFORTS: tuple[Effort, ...] = ("low", "medium", "high")

CATALOG: tuple[Model, ...] = (
    _model("claude-fable-5-2", "2026-11-12", **_ALWAYS_UNFORCED),
    _model("claude-mythos-5-2", "2026-11-12", **_ALWAYS_UNFORCED),
    _model("claude-haiku-5-5", "2026-10-07"),
    _model("claude-opus-5-5", "2026-10-07", **_ALWAYS_UNFORCED),
    _model("claude-sonnet-5-5", "2026-10-07", thinking=("adaptive", "between_tools"), forced_tools=False),
    _model("claude-fable-5-1", "2026-09-01", **_ALWAYS_UNFORCED),
    _model("claude-mythos-5-1", "2026-09-01", **_ALWAYS_UNFORCED),
    _model("claude-opus-5", "2026-07-24"),
    _model("claude-sonnet-5", "2026-06-30"),
    _model("claude-fable-5", "2026-06-09", **_ALWAYS),
    _model("claude-mythos-5", "2026-06-09", **_ALWAYS),
    _model("claude-opus-4-8", "2026-05-28"),
    _model("claude-opus-4-7", "2026-04-16"),
    _model("claude-mythos-preview", "2026-04-07", **_BOTH, lifecycle="retired", retires="2026-06-30"),
    _model("claude-sonnet-4-6", "2026-02-17", **_BOTH, effort=("low", "medium", "high", "max")),
    _model("claude-opus-4-6", "2026-02-05", **_BOTH, effort=("low", "medium", "high", "max")),
    _older(
        "claude-opus-4-5-20251101",
        "Opus 4.5",
        effort=_FIRST_EFFORTS,
        lifecycle="deprecated",
        deprecated="2026-11-23",
        retires="2027-01-22",
    ),
    _older("claude-haiku-4-5-20251001", "Haiku 4.5"),
    _older("claude-sonnet-4-5-20250929", "Sonnet 4.5", lifecycle="deprecated", retires="2026-11-30"),
    _retired("claude-opus-4-1-20250805", "Opus 4.1", "2026-08-05", max_tokens=32_000),
    _retired("claude-opus-4-20250514", "Opus 4", "2026-06-15", max_tokens=32_000, aliases=("claude-opus-4-0",)),
    _retired("claude-sonnet-4-20250514", "Sonnet 4", "2026-06-15", aliases=("claude-sonnet-4-0",)),
    _retired("claude-3-7-sonnet-20250219", "Sonnet 3.7", "2026-02-19", aliases=("claude-3-7-sonnet-latest",)),
    _retired(
        "claude-3-5-haiku-20241022",
        "Haiku 3.5",
        "2026-02-19",
        max_tokens=8_192,
        thinking=("disabled",),
        aliases=("claude-3-5-haiku-latest",),
    ),
    _retired("claude-3-haiku-20240307", "Haiku 3", "2026-04-20", max_tokens=4_096, thinking=("disabled",), aliases=()),
)


@lru_cache(maxsize=16)
def read_catalog(declared: tuple[Model | str, ...] = ()) -> dict[str, Model]:
    """Return all models by each of their names; `declared` ones, as in `Behaviour.models`, have precedence."""
    own = [Model(model) if isinstance(model, str) else model for model in declared]
    return {name: model for model in (*reversed(CATALOG), *own) for name in model.names}


def find_model(name: str, declared: Sequence[Model | str] = ()) -> Model | None:
    """Return the model of this name, of those that can be used; None: there is none, or it is retired."""
    model = read_catalog(tuple(declared)).get(name)
    return None if model is None or model.lifecycle == "retired" else model
