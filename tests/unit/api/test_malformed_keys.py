"""A key, a token or a header that cannot be right is recognised before any call, and never shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from claude_batch_tasks import api, errors
from claude_batch_tasks.api import clients, identity

KEY = "sk-ant-never-to-be-seen-1234"
VARIABLES = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")


def made() -> anthropic.Anthropic:
    return anthropic.Anthropic(**GIVEN)


GIVEN: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    GIVEN.clear()
    clients._client.cache_clear()
    yield
    clients._client.cache_clear()


def refused() -> str:
    with pytest.raises(errors.PermanentError) as caught:
        api.get_client("a", {"a": f"{__name__}.made"})
    said = str(caught.value)
    assert caught.value.code == api.MALFORMED
    assert "nothing was sent with it" in said
    assert "never-to-be-seen" not in said + repr(caught.value.args)
    assert not api.without_credentials(caught.value)
    return said


FAULTS = [
    (KEY + "\n", "line break at its end"),
    (KEY + "\r\n", "line break at its end"),
    ("\n" + KEY, "line break at its end or its beginning"),
    (KEY[:12] + "\n" + KEY[12:], "line break in it"),
    (f'"{KEY}"', "quotation marks"),
    (f"'{KEY}'", "quotation marks"),
    (f"\u201c{KEY}\u201d", "quotation marks"),
    (f'{KEY}"', "quotation marks"),
    ("\ufeff" + KEY, "byte order mark"),
    (" " + KEY, "begins or ends with a space"),
    (KEY + "\t", "begins or ends with a space"),
    (KEY + "\u00a0", "begins or ends with a space"),
    (KEY[:12] + " " + KEY[12:], "has a space in it"),
    (KEY + "\u200b", "not ASCII"),
    (KEY + "\x00", "control character"),
    ("Bearer " + KEY, "begins with 'Bearer'"),
    ("ANTHROPIC_API_KEY=" + KEY, "name of a variable"),
    ("   ", "is blank"),
]


@pytest.mark.parametrize(("value", "fault"), FAULTS)
@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("by", ["environment", "factory"])
def test_a_key_of_a_form_that_none_has(
    value: str, fault: str, variable: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by == "factory":
        GIVEN["api_key" if variable == VARIABLES[0] else "auth_token"] = value
    elif "\0" in value:
        return  # no environment has it
    else:
        monkeypatch.setenv(variable, value)
    said = refused()
    assert fault in said
    assert variable in said


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_variable_that_is_set_and_empty(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "")
    said = refused()
    assert "empty" in said
    assert variable in said


def test_an_empty_variable_beside_a_key_that_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older releases of the SDK send it along, and no call leaves."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "")
    if int(anthropic.__version__.split(".")[0]):
        assert api.get_client("a", {"a": f"{__name__}.made"})
    else:
        assert "ANTHROPIC_AUTH_TOKEN" in refused()


@pytest.mark.parametrize(
    ("headers", "fault"),
    [
        ({"X-Tenant": "a\nb"}, "header x-tenant has a line break"),
        ({"X-Tenant": "a "}, "header x-tenant begins or ends with a space"),
        ({"X-Tenant": "\ufeffa"}, "header x-tenant has a byte order mark"),
        ({"X-Tenant": "é"}, "not ASCII"),
        ({"X Tenant": "a"}, "the name of its header 'x tenant'"),
        ({"X-Tenant:": "a"}, "the name of its header"),
        ({"X-Tenant": None}, "header x-tenant is NoneType, not a text"),
        ({"X-Tenant": 5}, "header x-tenant is int, not a text"),
        ({"Authorization": f"Bearer {KEY}\n"}, "line break at its end"),
        ({"X-Api-Key": f'"{KEY}"'}, "quotation marks"),
    ],
)
def test_a_header_that_cannot_be_sent(headers: dict[str, Any], fault: str) -> None:
    GIVEN.update(api_key=KEY, default_headers=headers)
    assert fault in refused()


@pytest.mark.parametrize(
    "given",
    [
        {"api_key": KEY},
        {"auth_token": KEY},
        {"api_key": "x"},
        {"api_key": "not needed"},
        {"api_key": "YWJj="},
        {"api_key": KEY, "default_headers": {"X-Tenant": "a b", "X-Empty": "", "X-Tab": "a\tb"}},
        {"api_key": KEY, "default_headers": {"X-Api-Key": anthropic.Omit()}},
    ],
)
def test_what_may_be_right_is_no_fault(given: dict[str, Any]) -> None:
    assert identity.why_malformed(anthropic.Anthropic(**given)) is None


def test_no_key_at_all_is_another_thing() -> None:
    assert identity.why_malformed(anthropic.Anthropic()) is None
