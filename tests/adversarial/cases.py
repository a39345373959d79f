"""What an API may do and be right, one job each: how it behaves, and how the job must end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from claude_batch_tasks import errors, rules
from tests.adversarial.server import (
    CHALLENGED,
    CONNECTION_ENDED,
    DROP,
    HTML,
    NOT_ALLOWED,
    NOT_FOUND,
    OVERLOADED,
    Account,
    Answer,
    Manners,
    html,
    refusal,
)


@dataclass
class Case:
    """Default: every request succeeds through the batch, and is paid once."""

    manners: Manners
    count: int = 12
    options: dict[str, Any] = field(default_factory=dict)
    types: dict[str, int] | None = None
    """Outcomes by type; default: all succeeded."""
    sources: dict[str, int] | None = None
    """Outcomes by source; default: all batch."""
    error: type[Exception] | None = None
    says: tuple[str, ...] = ()
    """What the error's text must name."""
    calls: dict[str, int] = field(default_factory=dict)
    """Exact numbers of calls by endpoint."""
    sent: int | None = 1
    """How often each prompt may have been accepted; None: not checked."""
    prepare: Callable[[Account], None] | None = None
    after_submit: Callable[[Any], None] | None = None
    check: Callable[[Any], None] | None = None


def separators(prompt: str) -> str:
    return f"Echo: {prompt} a\u2028b\u2029c\u0085d\x0be\x1cf é 漢字 😀\r\n\n\t\x7f"


def expired_or(index: int, prompt: str) -> dict[str, Any]:
    return {"type": "expired"} if index % 3 == 0 else {"type": "succeeded"}


def overloaded_or(index: int, prompt: str) -> dict[str, Any]:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_x"}
    return {"type": "errored", "error": error} if index % 3 == 0 else {"type": "succeeded"}


def invalid_or(index: int, prompt: str) -> dict[str, Any]:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "bad"}, "request_id": "req_x"}
    return {"type": "errored", "error": error} if index % 3 == 0 else {"type": "succeeded"}


def unknown_or(index: int, prompt: str) -> dict[str, Any]:
    return {"type": "paused", "until": None} if index % 3 == 0 else {"type": "succeeded"}


def bare_error_or(index: int, prompt: str) -> dict[str, Any]:
    shapes: list[Any] = [None, "text", {}, {"type": "api_error", "message": "flat"}]
    return {"type": "errored", "error": shapes[index]} if index < len(shapes) else {"type": "succeeded"}


def seconds_from_now(seconds: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).strftime("%a, %d %b %Y %H:%M:%S GMT")


def duplicated(lines: list[bytes], download: int) -> list[bytes]:
    return [line for line in lines for _ in range(2)]


def foreign(lines: list[bytes], download: int) -> list[bytes]:
    other = b'{"custom_id":"cbt-0000000000000000-1","result":{"type":"expired"}}'
    return [other, *lines, other.replace(b"-1", b"-999999999999")]


def missing(times: int) -> Callable[[list[bytes], int], list[bytes]]:
    return lambda lines, download: lines[:-2] if download <= times else lines


def page_instead(lines: list[bytes], download: int) -> list[bytes]:
    return [HTML] if download <= 2 else lines


PING = {"ping": {"deep": [None, {"a": 1.5}]}, "": "empty name", "null": None}
BLOCKS = [
    {"type": "thinking", "thinking": "hm", "signature": "s"},
    {"type": "hologram", "text": "not to be read", "data": {"x": [1]}},
    {"type": "text", "text": "first "},
    {"type": "server_tool_use", "id": "srv", "name": "web", "input": {}},
    {"type": "text", "text": "second", "citations": []},
]

_SHAPES = {
    "reversed_order": Manners(order="reversed"),
    "shuffled_order": Manners(order="shuffled"),
    "crlf": Manners(eol=b"\r\n"),
    "crlf_in_single_bytes": Manners(eol=b"\r\n", chunks=[1], text=separators),
    "no_final_newline": Manners(final_newline=False),
    "no_final_newline_crlf": Manners(final_newline=False, eol=b"\r\n", chunks=[7]),
    "blank_lines": Manners(blanks=[b"", b"  ", b"\t", b"\r"]),
    "gzip": Manners(coding="gzip", text=separators),
    "gzip_in_sevens": Manners(coding="gzip", chunks=[7]),
    "deflate": Manners(coding="deflate"),
    "raw_deflate": Manners(coding="raw deflate", chunks=[7]),
    "sevens": Manners(chunks=[7], text=separators),
    "single_bytes": Manners(chunks=[1], text=separators),
    "line_separators_in_texts": Manners(text=separators),
    "long_lines": Manners(text=lambda prompt: separators(prompt) * 12_000, chunks=[65_521, 1]),
    "escaped_surrogates": Manners(text=lambda prompt: f"Echo: {prompt} \ud83d", ascii=True),
    "escaped_everything": Manners(
        line=lambda line: b'{ "custom_id" :' + line.split(b":", 1)[1].replace(b"cbt-", b"\\u0063bt\\u002d", 1)
    ),
    "unknown_fields": Manners(extra=PING),
    "unknown_blocks": Manners(message={"content": BLOCKS}),
    "odd_blocks": Manners(message={"content": [{"type": "text"}, {"type": "text", "text": None}, {"type": None}, 7]}),
    "no_blocks": Manners(message={"content": None, "usage": None}),
    "odd_usage": Manners(message={"usage": {"input_tokens": None, "output_tokens": 5.0, "cache": "x"}}),
    "nan": Manners(message={"confidence": float("nan"), "limit": float("inf"), "big": 10**40}),
    "byte_order_mark": Manners(lines=lambda lines, download: [b"\xef\xbb\xbf" + lines[0], *lines[1:]]),
    "duplicates": Manners(lines=duplicated),
    "foreign_lines": Manners(lines=foreign),
    "missing_at_first": Manners(lines=missing(2)),
    "page_for_results": Manners(lines=page_instead),
    "cut_at_a_line": Manners(cut=["boundary", "boundary"]),
    "cut_in_a_line": Manners(cut=["middle", "middle"]),
    "cut_below_the_length": Manners(cut=["short", "short"]),
    "cut_gzip": Manners(cut=["short", "reset"], coding="gzip"),
    "reset": Manners(cut=["reset", "reset"]),
    "trickle": Manners(chunks=[97], trickle=0.02),
    "close_says": Manners(close="says", looks=3),
    "close_quietly": Manners(close="quietly", looks=3),
    "odd_headers": Manners(odd_headers=True, coding="gzip"),
    "no_request_id": Manners(request_id=False),
    "counts_all_zero": Manners(counts=lambda counts: dict.fromkeys(counts, 0)),
    "counts_wrong": Manners(counts=lambda counts: {**counts, "succeeded": 3, "expired": 1}),
    "counts_extra": Manners(counts=lambda counts: {**counts, "paused": 0, "total": sum(counts.values())}),
    "counts_odd": Manners(counts=lambda counts: {**counts, "paused": None, "by_model": {"x": 1}, "share": 0.5}),
    "counts_missing": Manners(counts=lambda counts: {name: n for name, n in counts.items() if n}),
    "counts_null": Manners(counts=lambda counts: None),
    "stamp_z": Manners(stamp=lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ")),
    "stamp_offset": Manners(stamp=lambda at: at.strftime("%Y-%m-%dT%H:%M:%S+00:00")),
    "stamp_nanoseconds": Manners(stamp=lambda at: at.strftime("%Y-%m-%dT%H:%M:%S.%f789Z")),
    "stamp_other_zone": Manners(
        stamp=lambda at: at.astimezone(timezone(timedelta(hours=-7))).isoformat(timespec="milliseconds")
    ),
    "null_dates": Manners(batch={"expires_at": None, "ended_at": None, "results_url": None}),
    "no_dates": Manners(batch={"expires_at": ..., "ended_at": ..., "results_url": ..., "archived_at": ...}),
    "results_url_relative": Manners(batch={"results_url": "/v1/nowhere"}),
    "results_url_odd": Manners(batch={"results_url": {"href": "//x"}}),
    "unknown_status": Manners(status_word="validating", looks=3),
    "ended_in_create": Manners(looks=-1),
}

CASES: dict[str, Case] = {name: Case(manners) for name, manners in _SHAPES.items()}


def _text_is(expected: str) -> Callable[[Any], None]:
    def check(given: Any) -> None:
        assert {row.text for row in given.job.results()} == {expected}

    return check


CASES["unknown_blocks"].check = _text_is("first second")
CASES["odd_blocks"].check = _text_is("")
CASES["no_blocks"].check = _text_is("")


def _usage_of_ends(given: Any) -> None:
    assert given.get()["usage"]["input_tokens"] == 120


CASES["unknown_fields"].check = _usage_of_ends

# -- answers that are not the API's, each endpoint, first one or two calls

for _endpoint in ("create", "retrieve", "results"):
    for _status in (502, 503, 504):
        CASES[f"html_{_status}_on_{_endpoint}"] = Case(Manners(script={_endpoint: [html(_status)]}))
    CASES[f"html_200_on_{_endpoint}"] = Case(Manners(script={_endpoint: [html(200)]}))
    CASES[f"empty_200_on_{_endpoint}"] = Case(Manners(script={_endpoint: [Answer(200)]}))
    CASES[f"null_200_on_{_endpoint}"] = Case(Manners(script={_endpoint: [Answer(200, b"null")]}))
    CASES[f"html_404_on_{_endpoint}"] = Case(Manners(script={_endpoint: [html(404)] * 3}))
    CASES[f"empty_404_on_{_endpoint}"] = Case(Manners(script={_endpoint: [Answer(404)] * 3}))
    CASES[f"dropped_{_endpoint}"] = Case(Manners(script={_endpoint: [DROP]}))
    CASES[f"odd_statuses_on_{_endpoint}"] = Case(
        Manners(script={_endpoint: [Answer(425), Answer(409), Answer(429, b"[]"), Answer(408), Answer(529, b'"x"')]})
    )
for _endpoint in ("retrieve", "results"):
    CASES[f"redirected_{_endpoint}"] = Case(
        Manners(script={_endpoint: [Answer(307, to_trap=True), Answer(301, to_trap=True)]})
    )
for _status in (301, 302, 307, 308):
    CASES[f"create_redirected_{_status}"] = Case(
        Manners(forever={"create": Answer(_status, to_trap=True)}),
        error=errors.PermanentError,
        says=(str(_status), "requests()"),
        calls={"create": 1},
    )

for _name, _headers in {
    "seconds": {"retry_after": "1"},
    "fraction": {"retry_after": "1.5"},
    "milliseconds": {"retry_after_ms": "1200", "retry_after": "3000"},
    "date": {"retry_after": seconds_from_now(2)},
    "nonsense": {"retry_after": "soon"},
    "negative": {"retry_after": "-3"},
}.items():
    CASES[f"retry_after_{_name}"] = Case(
        Manners(
            script={
                endpoint: [refusal(429, "rate_limit_error", "slow down", **_headers)]
                for endpoint in ("create", "retrieve", "results")
            }
        ),
        # Create, one look still running, one look that finds the end; each refused once, none repeated by the SDK.
        calls={"create": 2, "retrieve": 3, "results": 2},
    )

# -- create

CASES["create_404_then_fine"] = Case(Manners(script={"create": [NOT_FOUND] * 4}), calls={"create": 5})
CASES["create_404_forever"] = Case(
    Manners(forever={"create": NOT_FOUND}),
    options={"create_not_found_limit": 2},
    sources={"messages": 12},
    calls={"create": 2, "messages": 12},
)
CASES["create_404_forever_no_fallback"] = Case(
    Manners(forever={"create": NOT_FOUND}),
    options={"create_not_found_limit": 2, "fallback": "off"},
    error=errors.CreateNotFound,
    says=("404", "Not found", "req_404", "Stored", "requests()", "fallback='messages'"),
    calls={"create": 2, "messages": 0},
)
for _n, (_status, _kind) in enumerate(
    [
        (401, "authentication_error"),
        (400, "invalid_request_error"),
        (413, "request_too_large"),
        (403, "permission_error"),
        (402, "billing_error"),
    ]
):
    CASES[f"create_{_status}"] = Case(
        Manners(forever={"create": refusal(_status, _kind, "what is wrong", request_id="req_perm")}),
        error=errors.PermanentError,
        says=(
            str(_status),
            "what is wrong",
            "req_perm",
            "Stored",
            "requests()",
            "resume()" if _status in (401, 402, 403) else "submit",
        ),
        calls={"create": 1, "messages": 0},
    )
CASES["create_400_in_html"] = Case(
    Manners(forever={"create": html(400)}, request_id=False),
    error=errors.PermanentError,
    says=("400", "Stored", "requests()"),
    calls={"create": 1},
)
CASES["create_401_in_odd_json"] = Case(
    Manners(forever={"create": Answer(401, b'{"error":"nope","message":["x"]}')}),
    error=errors.PermanentError,
    says=("401", "req_header", "requests()"),
    calls={"create": 1},
)
CASES["retrieve_401"] = Case(
    Manners(forever={"retrieve": refusal(401, "authentication_error", "key revoked", request_id="req_r")}),
    error=errors.PermanentError,
    says=("401", "key revoked", "req_r", "was not canceled", "requests()"),
    calls={"retrieve": 1},
)
CASES["create_overloaded"] = Case(
    # Known to have done nothing: it is sent again, and not searched for.
    Manners(script={"create": [OVERLOADED, OVERLOADED, Answer(522)]}),
    calls={"create": 4, "list": 0},
)
CASES["create_challenged"] = Case(Manners(script={"create": [CHALLENGED, NOT_ALLOWED]}), calls={"create": 3})
CASES["create_challenged_for_ever"] = Case(
    Manners(forever={"create": CHALLENGED}),
    options={"proxy_error_grace": 6, "create_settle": 0.2, "listings": 1},
    error=errors.PermanentError,
    says=("403", "Just a moment...", "Nothing of this batch was created", "resume()", "Stored", "requests()"),
)
CASES["stored_but_challenged"] = Case(Manners(script={"create": [replace(CHALLENGED, acts=True)]}), calls={"create": 1})
CASES["stored_but_413_in_html"] = Case(Manners(script={"create": [html(413, acts=True)]}), calls={"create": 1})
for _endpoint in ("retrieve", "results"):
    CASES[f"challenged_{_endpoint}"] = Case(
        Manners(script={_endpoint: [CHALLENGED, NOT_ALLOWED, html(401), html(400), Answer(407), html(503)]}),
        calls={"create": 1},
    )
    CASES[f"challenged_{_endpoint}_for_ever"] = Case(
        Manners(forever={_endpoint: NOT_ALLOWED}),
        options={"proxy_error_grace": 1},
        error=errors.PermanentError,
        says=(_endpoint, "403", "Request not allowed", "proxy_error_grace", "was not canceled", "resume()"),
        calls={"create": 1, "messages": 0},
        check=lambda given: _not_the_key(given),
    )
    CASES[f"html_404_on_{_endpoint}_past_grace"] = Case(
        # Whoever has no such page knows nothing of the batch: that is no reason to look for it, or to give it up.
        Manners(script={_endpoint: [None, *[html(404)] * 8] if _endpoint == "retrieve" else [html(404)] * 8}),
        options={"not_found_grace": 0.3, "listings": 1},
        calls={"create": 1, "list": 0, "messages": 0},
    )
CASES["list_challenged"] = Case(
    Manners(script={"create": [Answer(500, acts=True)], "list": [CHALLENGED, NOT_ALLOWED, html(404), html(401)]}),
    calls={"create": 1},
)
CASES["stored_but_500"] = Case(Manners(script={"create": [Answer(500, b"oops", acts=True)]}), calls={"create": 1})
CASES["stored_but_html_200"] = Case(Manners(script={"create": [html(200, acts=True)]}), calls={"create": 1})
CASES["stored_but_dropped"] = Case(Manners(script={"create": [Answer(drop=True, acts=True)]}), calls={"create": 1})
CASES["stored_but_529_with_retry_after"] = Case(
    Manners(script={"create": [Answer(529, b"", {"retry-after": "1"}, acts=True)]}), calls={"create": 1}
)
CASES["stored_while_the_list_lags"] = Case(
    Manners(script={"create": [Answer(drop=True, acts=True)]}, lag=3),
    options={"create_settle": 6.0, "listings": 4},
    calls={"create": 1},
)
CASES["stored_list_without_last_id"] = Case(
    Manners(script={"create": [Answer(500, acts=True)]}, last_id=False, page=2),
    calls={"create": 1},
    prepare=lambda account: [account.add_foreign(5) for _ in range(7)] and None,
)
CASES["stored_list_small_pages"] = Case(
    Manners(script={"create": [Answer(500, acts=True)]}, page=1),
    calls={"create": 1},
    prepare=lambda account: [account.add_foreign(5, age=-2) for _ in range(7)] and None,
)
CASES["stored_list_ignores_limit"] = Case(
    Manners(script={"create": [Answer(500, acts=True)]}, page=100_000, extra=PING),
    calls={"create": 1},
    prepare=lambda account: [account.add_foreign(5, age=i) for i in range(30)] and None,
)
CASES["stored_list_fails_at_first"] = Case(
    Manners(
        script={
            "create": [Answer(500, acts=True)],
            "list": [html(502), html(200), Answer(200), NOT_FOUND, Answer(429), DROP, Answer(200, b'{"data":null}')],
        }
    ),
    calls={"create": 1},
)
CASES["stored_counts_extra"] = Case(
    Manners(
        script={"create": [Answer(500, acts=True)]},
        counts=lambda counts: {**counts, "total": sum(counts.values())},
    ),
    calls={"create": 1},
)
CASES["stored_beside_a_stranger"] = Case(
    # The stranger's batch has the same size and is older: it is adopted first, and must be given back.
    Manners(script={"create": [Answer(500, acts=True)]}),
    calls={"create": 1},
    prepare=lambda account: account.add_foreign(12, age=3) and None,
)
CASES["not_stored_beside_a_stranger"] = Case(
    Manners(script={"create": [Answer(500)]}),
    calls={"create": 2},
    prepare=lambda account: account.add_foreign(12, age=3) and None,
)


CASES["stored_beside_a_stranger_that_is_deleted"] = Case(
    # Adopted by mistake, then 404 and in no list: that says nothing of our own batch, which may still run.
    Manners(script={"create": [Answer(500, acts=True)]}, strangers_stay=1, looks=4),
    options={"not_found_grace": 0.3},
    calls={"create": 1, "messages": 0},
    prepare=lambda account: account.add_foreign(12, age=3, looks=10**6) and None,
)
CASES["stored_but_the_list_breaks_off"] = Case(
    # has_more, but an empty page: not a complete listing, so nothing may be concluded from it.
    Manners(
        script={"create": [Answer(500, acts=True)]},
        list_page=lambda page, call: {**page, "data": [], "last_id": None, "has_more": True} if call <= 8 else page,
    ),
    calls={"create": 1},
)
CASES["stored_but_the_list_repeats_itself"] = Case(
    # The cursor is ignored for a while, so that the same first page comes again and again.
    Manners(
        script={"create": [Answer(500, acts=True)]},
        list_page=lambda page, call: (
            {**page, "data": page["data"][:1], "last_id": page["data"][0]["id"], "has_more": True}
            if call <= 12 and page["data"]
            else page
        ),
        page=10**6,
    ),
    calls={"create": 1},
    prepare=lambda account: account.add_foreign(5, age=-30) and None,
)

# -- a batch that seems to be gone

CASES["results_404_for_a_while"] = Case(
    Manners(script={"results": [NOT_FOUND] * 6}),
    options={"not_found_grace": 0.3},
    check=lambda given: _at_least(given, "list", 1),
)
CASES["retrieve_404_past_grace"] = Case(
    Manners(script={"retrieve": [None, *[NOT_FOUND] * 6]}, looks=1),
    options={"not_found_grace": 0.3},
    check=lambda given: _at_least(given, "list", 1),
)
CASES["results_short_forever"] = Case(
    Manners(lines=missing(10**6)),
    options={"results_limit": 3},
    error=errors.ResultsMissing,
    says=("10 of 12", "10 outcomes", "requests()"),
    types={"succeeded": 10},
    sources={"batch": 10},
    calls={"results": 3, "create": 1, "messages": 0},
)
CASES["archived"] = Case(
    Manners(batch={"archived_at": "2026-01-01T00:00:00Z"}),
    options={"fallback": "off"},
    error=errors.BatchArchived,
    says=("archived", "requests()"),
)


def _not_the_key(given: Any) -> None:
    assert "key" not in str(given.result.result), "nobody's key is wrong"


def _at_least(given: Any, endpoint: str, number: int) -> None:
    assert given.account.calls[endpoint] >= number


# -- outcomes and the Messages API

CASES["unknown_results"] = Case(
    Manners(result=unknown_or), types={"succeeded": 8, "errored": 4}, calls={"messages": 0, "results": 1}
)
CASES["invalid_stays"] = Case(Manners(result=invalid_or), types={"succeeded": 8, "errored": 4}, calls={"messages": 0})
CASES["bare_errors"] = Case(
    Manners(result=bare_error_or),
    options={"retries": 0},
    types={"succeeded": 9, "errored": 3},
    sources={"batch": 11, "messages": 1},
    calls={"messages": 1},
    sent=2,
)
CASES["expired_off"] = Case(
    Manners(result=expired_or),
    options={"retries": 0, "fallback": "off"},
    types={"succeeded": 8, "expired": 4},
    calls={"messages": 0},
)
CASES["expired_then_fine"] = Case(
    Manners(result=expired_or),
    options={"retries": 0},
    sources={"batch": 8, "messages": 4},
    sent=2,
    calls={"messages": 4},
)
CASES["overloaded_then_429_then_fine"] = Case(
    Manners(
        result=overloaded_or,
        script={"messages": [refusal(429, "rate_limit_error", "slow", retry_after="1")] * 3 + [html(404), OVERLOADED]},
    ),
    options={"retries": 0},
    sources={"batch": 8, "messages": 4},
    sent=2,
    calls={"messages": 9},
)
CASES["expired_little_budget"] = Case(
    Manners(result=expired_or),
    options={"retries": 0, "max_fallback_requests": 3},
    types={"succeeded": 11, "expired": 1},
    sources={"batch": 9, "messages": 3},
    sent=2,
    calls={"messages": 3},
    check=lambda given: _skipped(given, 1),
)
CASES["expired_no_budget"] = Case(
    Manners(result=expired_or),
    options={"retries": 0, "max_fallback_requests": 0},
    types={"succeeded": 8, "expired": 4},
    calls={"messages": 0},
    check=lambda given: _skipped(given, 4),
)
CASES["messages_dropped"] = Case(
    Manners(result=expired_or, forever={"messages": Answer(drop=True, acts=True)}),
    options={"retries": 0},
    types={"succeeded": 8, "expired": 4},
    sent=2,
    calls={"messages": 4},
)
CASES["messages_html_200"] = Case(
    Manners(result=expired_or, forever={"messages": html(200, acts=True)}),
    options={"retries": 0},
    types={"succeeded": 8, "expired": 4},
    sent=2,
    calls={"messages": 4},
)
CASES["messages_gateway_timeout"] = Case(
    # The page of a proxy that gave up waiting: the answer behind it is paid.
    Manners(result=expired_or, forever={"messages": html(504, acts=True)}),
    options={"retries": 0},
    types={"succeeded": 8, "expired": 4},
    sent=2,
    calls={"messages": 4},
)
for _name, _answer in {
    "520": html(520),
    "520_empty": Answer(520),
    "524": html(524),
    "503": Answer(503, CONNECTION_ENDED, {"Content-Type": "text/plain"}),
    "529": html(529),
    "408_empty": Answer(408),
    "403": CHALLENGED,
    "499": Answer(499, b'{"message": "client closed request"}'),
    "api_error": refusal(500, "api_error", "Internal server error"),
    "timeout_error": refusal(504, "timeout_error", "Request timed out"),
}.items():
    CASES[f"messages_billed_but_{_name}"] = Case(
        Manners(result=expired_or, forever={"messages": replace(_answer, acts=True)}),
        options={"retries": 0},
        types={"succeeded": 8, "expired": 4},
        sent=2,
        calls={"messages": 4},
        check=lambda given: _may_be_billed(given),
    )
CASES["messages_not_reached"] = Case(
    Manners(
        result=expired_or,
        script={"messages": [Answer(522), html(429), OVERLOADED, refusal(408, "timeout_error", "no"), Answer(522)]},
    ),
    options={"retries": 0},
    sources={"batch": 8, "messages": 4},
    sent=2,
    calls={"messages": 9},
)
CASES["messages_escaped_surrogates"] = Case(
    Manners(result=expired_or, text=lambda prompt: f"Echo: {prompt} \ud83d", ascii=True),
    options={"retries": 0},
    sources={"batch": 8, "messages": 4},
    sent=2,
    calls={"messages": 4},
)
CASES["messages_separators"] = Case(
    Manners(result=expired_or, text=separators, extra=PING),
    options={"retries": 0},
    sources={"batch": 8, "messages": 4},
    sent=2,
)
CASES["messages_redirected"] = Case(
    Manners(result=expired_or, forever={"messages": Answer(307, to_trap=True)}),
    options={"retries": 0},
    types={"succeeded": 8, "expired": 4},
    calls={"messages": 4},
    sent=None,
)
CASES["messages_401"] = Case(
    # What is under way when the first answer comes is refused as well, and nothing more is sent.
    Manners(result=expired_or, forever={"messages": refusal(401, "authentication_error", "no")}, message_seconds=0.1),
    count=180,
    options={"retries": 0},
    types={"succeeded": 120, "expired": 60},
    sources={"batch": 180},
    check=lambda given: _stopped(given, "401", calls=rules.FIRST_IN_FLIGHT),
    sent=None,
)
CASES["messages_400"] = Case(
    Manners(result=expired_or, forever={"messages": refusal(400, "invalid_request_error", "too old")}),
    options={"retries": 0},
    types={"succeeded": 8, "errored": 4},
    sources={"batch": 8, "messages": 4},
    calls={"messages": 4},
    sent=None,
)


def _stopped(given: Any, why: str, *, calls: int) -> None:
    assert why in given.get()["stopped"]
    assert 1 <= given.account.calls["messages"] <= calls


def _may_be_billed(given: Any) -> None:
    notes = [row.note for row in given.job.results() if row.type == "expired"]
    assert all("it may have been billed, so it is not sent again" in str(note) for note in notes), notes


def _skipped(given: Any, number: int) -> None:
    assert given.get()["fallback_skipped"] == number


# -- options

CASES["many_batches"] = Case(
    Manners(order="shuffled"), count=40, options={"max_requests_per_batch": 7}, calls={"create": 6, "results": 6}
)
CASES["many_batches_by_bytes"] = Case(Manners(), count=40, options={"max_bytes_per_batch": 1500})
CASES["many_batches_some_fall_back"] = Case(
    Manners(result=expired_or),
    count=40,
    options={"retries": 0, "max_requests_per_batch": 7, "max_fallback_requests": 5},
    types={"succeeded": 28, "expired": 12},
    sources={"batch": 35, "messages": 5},
    sent=2,
    check=lambda given: _skipped(given, 12),
)
CASES["many_batches_one_refused"] = Case(
    Manners(script={"create": [None, refusal(400, "invalid_request_error", "what is wrong", request_id="req_perm")]}),
    count=20,
    options={"max_requests_per_batch": 10},
    types={"succeeded": 10},
    sources={"batch": 10},
    error=errors.PermanentError,
    says=("400", "what is wrong", "req_perm", "of 2", "10 outcomes", "requests()"),
)
CASES["waits_too_long"] = Case(
    Manners(looks=10**6),
    # Longer than the first create of 152 jobs that share a worker may have to wait.
    options={"max_wait": 25},
    types={},
    sources={},
    error=errors.WaitExceeded,
    says=("max_wait", "the last reason to wait: in progress", "was not canceled", "requests()"),
    check=lambda given: _not_canceled(given),
)
CASES["waits_too_long_for_create"] = Case(
    Manners(forever={"create": Answer(429)}),
    options={"max_wait": 10},
    error=errors.WaitExceeded,
    says=("max_wait", "requests()"),
)


def _not_canceled(given: Any) -> None:
    assert given.account.calls["cancel"] == 0


# -- cancel


def _cancel(given: Any) -> None:
    given.job.cancel()


CASES["canceled_at_once"] = Case(
    Manners(looks=10**6),
    after_submit=_cancel,
    types={"canceled": 12},
    sources={"batch": 12},
    sent=None,
)
CASES["canceled_but_cancel_fails"] = Case(
    # The cancel endpoint never works; the batch ends by itself, and the job must notice.
    Manners(looks=3, forever={"cancel": html(502)}),
    after_submit=_cancel,
    sent=None,
    types=None,
    sources=None,
)
CASES["canceled_but_cancel_404"] = Case(
    Manners(looks=3, forever={"cancel": NOT_FOUND}), after_submit=_cancel, sent=None
)
CASES["canceled_but_cancel_html_200"] = Case(
    Manners(looks=3, forever={"cancel": html(200)}), after_submit=_cancel, sent=None
)
