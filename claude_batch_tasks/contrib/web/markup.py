"""HTML as the progress page writes it: every text is escaped, unless it is markup that was made here."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

#: What an element may contain: text, which is escaped, markup, nothing, or several of these.
Content: TypeAlias = "str | int | Iterable[Content] | None"

#: The elements that have no end tag.
_VOID = frozenset({"input", "link", "meta"})


class Markup(str):
    """HTML that is used as it is."""

    __slots__ = ()


def join_content(*content: Content) -> Markup:
    """Return markup and texts, one after the other, as markup."""
    return Markup("".join(_write_content(content)))


def html_tag(name: str, /, *content: Content, **attributes: str | int | bool | None) -> Markup:
    """Return an element.

    Args:
        attributes: those that are None or False are left out; ``class_`` means ``class``, ``data_live`` ``data-live``.
    """
    written = "".join(
        f" {_attribute_name(key)}" if value is True else f' {_attribute_name(key)}="{_escape_text(str(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join_content(*content)}</{name}>")


def _attribute_name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _write_content(content: Iterable[Content]) -> Iterable[str]:
    for each in content:
        if isinstance(each, Markup):
            yield each
        elif isinstance(each, (str, int)):
            yield _escape_text(str(each))
        elif each is not None:
            yield from _write_content(each)


def _escape_text(text: str) -> str:
    # A foreign text may hold half a surrogate pair, which no answer can be encoded with.
    return escape(text.encode(errors="replace").decode() if not text.isascii() else text)
