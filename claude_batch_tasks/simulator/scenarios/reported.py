"""Scenarios of the report on 404s, and of what clients of the API must expect in general."""

from __future__ import annotations

from ..script import Behaviour, Fault, Outcome, ResultsStyle, Scenario

#: The report's times are divided by this: its 2 min 41 s become 16 s.
ISSUE_1432_SCALE = 10

_CREATE_404 = (Fault("create", "status", status=404, calls=(1, 2), name="create 404"),)

# The report: created; retrieve 404 at +1 s, in progress at +41 s, 404 again at +121 s, ended at +161 s.
# A poll between those is answered like its neighbour. The counted faults are for clients that poll so rarely
# that they would miss a window: every client meets each 404 at least once.
_RETRIEVE_404 = (
    Fault("retrieve", "status", status=404, before=20 / ISSUE_1432_SCALE, name="retrieve 404 after create"),
    Fault("retrieve", "status", status=404, calls=(1,), name="retrieve 404 at first poll"),
    Fault(
        "retrieve",
        "status",
        status=404,
        after=100 / ISSUE_1432_SCALE,
        before=140 / ISSUE_1432_SCALE,
        name="retrieve 404 in progress",
    ),
    Fault(
        "retrieve",
        "status",
        status=404,
        after=100 / ISSUE_1432_SCALE,
        calls=(1,),
        name="retrieve 404 again",
    ),
)
# A plain client's first retrieve after the end says "ended"; its second is hidden in the SDK's results().
_RESULTS_404 = (
    Fault("retrieve", "status", status=404, since="ended", calls=(2,), name="hidden retrieve 404"),
    Fault("results", "status", status=404, since="ended", before=30 / ISSUE_1432_SCALE, name="results 404"),
    Fault("results", "status", status=404, since="ended", calls=(1,), name="results 404 at first"),
)
_TIMES = Behaviour(processing_seconds=160 / ISSUE_1432_SCALE)


REPORTED: tuple[Scenario, ...] = (
    Scenario("healthy", "Nothing goes wrong; batches take a second."),
    Scenario(
        "issue-1432",
        "All three cases of the report at 1/10 of its times: create 404 twice; retrieve 404 for 2 s after"
        " create and from 10 to 14 s; ended at 16 s; results (and the SDK's hidden retrieve) 404 for 3 s.",
        _TIMES,
        _CREATE_404 + _RETRIEVE_404 + _RESULTS_404,
    ),
    Scenario(
        "issue-1432-created",
        "Create is healthy; the rest is as in issue-1432: 404s of retrieve and results, at 1/10 of the times.",
        _TIMES,
        _RETRIEVE_404 + _RESULTS_404,
    ),
    Scenario("create-404", "The first two creates answer 404.", faults=_CREATE_404),
    Scenario(
        "create-404-always",
        "Every create answers 404.",
        faults=(Fault("create", "status", status=404, name="create 404"),),
    ),
    Scenario(
        "retrieve-404",
        "Case 1 of the report at 1/10 of its times: retrieve 404 until 2 s and from 10 to 14 s.",
        _TIMES,
        _RETRIEVE_404,
    ),
    Scenario(
        "results-404",
        "Case 2 of the report at 1/10 of its times: results (and the SDK's hidden retrieve) 404 for 3 s.",
        Behaviour(processing_seconds=1.0),
        _RESULTS_404,
    ),
    Scenario(
        "lost",
        "Batches are created and then never seen again: retrieve answers 404, lists do not show them.",
        Behaviour(list_lag_seconds=1e9),
        (Fault("retrieve", "status", status=404, name="retrieve 404"),),
    ),
    Scenario(
        "storm",
        "Random 404s, 429s, 5xx, HTML errors, lost answers, broken and short downloads, by the seed.",
        Behaviour(processing_seconds=(1.0, 4.0)),
        (
            Fault("create", "status", status=404, probability=0.2),
            Fault("create", "drop", probability=0.1, name="create drop before"),
            Fault("create", "drop", commit=True, probability=0.1, name="create drop after"),
            Fault("create", "status", status=500, commit=True, probability=0.1, name="create stored, 500"),
            Fault("retrieve", "status", status=404, probability=0.2),
            Fault("results", "status", status=404, probability=0.2),
            Fault("results", "cut", how="clean", probability=0.1, name="results short"),
            Fault("results", "cut", how="line", probability=0.1, name="results end mid-line"),
            Fault("results", "cut", how="reset", probability=0.1, name="results reset"),
            Fault("any", "status", status=529, probability=0.05),
            Fault("any", "status", status=429, headers={"retry-after": "1"}, probability=0.05),
            Fault(
                "any",
                "status",
                status=502,
                body="<html><h1>502 Bad Gateway</h1></html>",
                probability=0.05,
            ),
            Fault("any", "drop", probability=0.05, name="drop before"),
            Fault("any", "delay", seconds=0.5, probability=0.1),
        ),
    ),
    Scenario(
        "partial",
        "Of every batch, three requests expire, three are overloaded, one is invalid.",
        Behaviour(
            outcomes=(
                Outcome("expired", count=3),
                Outcome("errored", error="overloaded_error", count=3),
                Outcome("errored", error="invalid_request_error", count=1),
            )
        ),
    ),
    Scenario(
        "unfriendly",
        "Nothing fails, but results come with CRLF, blank lines, unknown fields and blocks, no final"
        " newline, compressed, in odd chunks.",
        Behaviour(
            results=ResultsStyle(
                newline="\r\n",
                final_newline=False,
                blank_lines=True,
                gzip=True,
                chunk_bytes=61,
                unknown_fields=True,
            )
        ),
    ),
)
