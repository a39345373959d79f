"""Scenarios of what stands between a client and the API: proxies, gateways, connections that stay silent.

The statuses, headers and forms are those that users of the API have reported.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..script import Behaviour, Endpoint, Fault, Scenario

_PAGE = (
    "<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1><p>{text}</p>"
    "<p>Cloudflare Ray ID: 0123456789abcdef</p></body></html>"
)
_CLOUDFLARE = {"server": "cloudflare", "cf-ray": "0123456789abcdef-FRA", "cache-control": "private, max-age=0"}
_ENVOY = {"server": "envoy"}
_PROBLEM = {"content-type": "application/problem+json"}


def _strike_first(**how: Any) -> tuple[Fault, ...]:
    """Return faults that strike the first create and list, and the first call of each other kind for each batch."""
    endpoints: tuple[Endpoint, ...] = ("create", "list", "retrieve", "results", "messages")
    return tuple(Fault(endpoint, effect="status", calls=(1,), proxy=True, **how) for endpoint in endpoints)


def _write_page(title: str, text: str) -> str:
    return _PAGE.format(title=title, text=text)


def _strike_batches(status: int, answer: dict[str, Any], headers: dict[str, str]) -> tuple[Fault, ...]:
    body = msgspec.json.encode(answer).decode()
    return (
        Fault("batches", "status", status=status, body=body, headers=headers, proxy=True, name=f"no batches {status}"),
    )


_STATUSES = (
    Scenario(
        "cloudflare-403",
        "The first call of each kind gets Cloudflare's challenge page (403, HTML); nothing was executed.",
        faults=_strike_first(
            name="challenge page",
            status=403,
            headers={**_CLOUDFLARE, "cf-mitigated": "challenge"},
            body=_write_page("Just a moment...", "Enable JavaScript and cookies to continue"),
        ),
    ),
    Scenario(
        "forbidden-403",
        'The first call of each kind gets 403 {"error": {"type": "forbidden", ...}}; the next one is answered.',
        faults=_strike_first(
            name="forbidden",
            status=403,
            body='{"error":{"type":"forbidden","message":"Request not allowed"}}',
        ),
    ),
    Scenario(
        "cloudflare-520",
        "The first call of each kind is executed and answered 520: creates with an empty body, others with HTML.",
        faults=(
            Fault("create", "status", status=520, body="", headers=_CLOUDFLARE, proxy=True, commit=True, calls=(1,)),
            *_strike_first(
                name="520 after the work",
                status=520,
                commit=True,
                headers=_CLOUDFLARE,
                body=_write_page("520: Web server is returning an unknown error", "Please try again in a few minutes."),
            )[1:],
        ),
    ),
    Scenario(
        "cloudflare-522",
        "The first call of each kind gets 522, a problem document: the API was not reached.",
        faults=_strike_first(
            name="522 not reached",
            status=522,
            headers=_CLOUDFLARE | _PROBLEM,
            body='{"type":"about:blank","title":"Error 522: Connection timed out","status":522,'
            '"detail":"The initial connection between Cloudflare\'s network and the origin web server timed out."}',
        ),
    ),
    Scenario(
        "cloudflare-524",
        "The first call of each kind is executed, and answered late with 524 (HTML).",
        faults=(
            *(Fault(endpoint, "delay", seconds=1.0, calls=(1,)) for endpoint in ("create", "messages")),
            *_strike_first(
                name="524 after the work",
                status=524,
                commit=True,
                headers=_CLOUDFLARE,
                body=_write_page("524: A timeout occurred", "The origin web server did not answer in time."),
            ),
        ),
    ),
    Scenario(
        "envoy-503",
        "The first call of each kind is executed, and answered with Envoy's 503 (connection termination).",
        faults=_strike_first(
            name="503 after the work",
            status=503,
            commit=True,
            headers=_ENVOY,
            body="upstream connect error or disconnect/reset before headers. reset reason: connection termination",
        ),
    ),
)

_STREAMS = (
    Scenario(
        "stream-done",
        "Every stream of the Messages API is followed by `data: [DONE]`, as some gateways send it.",
        faults=(Fault("messages", "append", body="data: [DONE]\n\n", name="[DONE]"),),
    ),
    Scenario(
        "stream-empty",
        "Every stream of the Messages API is followed by frames with empty data.",
        faults=(Fault("messages", "append", body="data:\n\ndata: \n\n", name="empty data"),),
    ),
    Scenario(
        "stream-spliced",
        "In the middle of the first stream for each prompt, the message begins again under another id.",
        faults=(Fault("messages", "splice", calls=(1,), name="second message_start"),),
    ),
)

_SILENCE = (
    Scenario(
        "half-open",
        "The first create is stored and never answered, the first retrieve and message are never answered, the first"
        " download stops in the middle; the connections stay open.",
        Behaviour(processing_seconds=1.0),
        (
            Fault("create", "stall", commit=True, calls=(1,), name="create stored, silence"),
            Fault("retrieve", "stall", calls=(1,), name="silence"),
            Fault("results", "cut", how="stall", calls=(1,), name="silence in the body"),
            Fault("messages", "stall", calls=(1,), name="silence"),
        ),
    ),
)

_NO_BATCHES = (
    Scenario(
        "no-batches-404",
        'A gateway without batches: 404 {"message": ...} on all their paths, as AWS and Kong send it.',
        faults=_strike_batches(404, {"message": "no Route matched with those values"}, {"server": "kong"}),
    ),
    Scenario(
        "no-batches-405",
        'A gateway without batches: 405 {"detail": ...} on all their paths, as FastAPI sends it.',
        faults=_strike_batches(405, {"detail": "Method Not Allowed"}, {"server": "uvicorn"}),
    ),
    Scenario(
        "no-batches-501",
        "A gateway without batches: 501 with a problem document on all their paths.",
        faults=_strike_batches(
            501,
            {
                "type": "about:blank",
                "title": "Not Implemented",
                "status": 501,
                "detail": "Message batches are not available through this gateway.",
            },
            _PROBLEM,
        ),
    ),
)

GATEWAYS = (*_STATUSES, *_STREAMS, *_SILENCE, *_NO_BATCHES)
