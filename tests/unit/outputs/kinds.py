"""Types of answers, as applications define them, and checks."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, TypedDict

import msgspec
from pydantic import BaseModel, Field, field_validator


class Item(BaseModel):
    name: str
    price: Annotated[float, Field(ge=0)]


class Review(BaseModel):
    """A review."""

    title: str = Field(max_length=20)
    stars: int = Field(ge=1, le=5)
    mood: Literal["good", "bad"] = "good"
    items: list[Item] = []

    @field_validator("title")
    @classmethod
    def check_title(cls, title: str) -> str:
        if title == "missing":
            raise KeyError("a key of the application")
        if title == "refused":
            raise ValueError("this title is not allowed")
        return title

    class Inner(BaseModel):
        name: str


class Node(BaseModel):
    children: list[Node] = []


class Free(BaseModel):
    counts: dict[str, int]


class Anything(BaseModel):
    value: Any


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Place(TypedDict):
    name: str


class Packet(msgspec.Struct):
    size: int
    parts: list[int] = []


SCHEMA = {"type": "object", "properties": {"count": {"type": "integer", "minimum": 1}}, "required": ["count"]}

NULLS = {"additionalProperties": {"type": "null"}}

NO_SCHEMA = [1]

Local = dataclasses.make_dataclass("Elsewhere", [("x", int)])


def check_stars(review: Review) -> str | None:
    """Want more than one star."""
    return None if review.stars > 1 else "it has one star only"


def raise_error(review: Review) -> str | None:
    """Fail as a check with a mistake does."""
    raise LookupError(f"no such title: {review.title}" + "!" * 1000)


def return_bool(review: Review) -> Any:
    """Return what a check must not."""
    return review.stars > 1


async def check_later(review: Review) -> str | None:
    """Be a coroutine function, which no worker waits for."""
    return None


class Handle:
    """A class that no library knows."""


class Opaque(BaseModel, arbitrary_types_allowed=True):
    """A model that no JSON schema describes."""

    handle: Handle
