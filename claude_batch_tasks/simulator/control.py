"""The control API under /__sim__: faults, behaviour, time, and the journal. `server.Control` is its client.

| call | body | answer |
|---|---|---|
| GET state | | `State` |
| GET journal?since=0&prompts=true | | `Journal` |
| GET invoice | | `Invoice`: what is charged so far, by model, and what is not |
| GET paid_twice | | the `PromptRecord` of every prompt that has repeated payments |
| GET scenarios | | every named `Scenario` |
| POST faults | `{"faults": [Fault], "replace": false}` | `State` |
| POST answers | `{"answers": [Answer], "replace": false}`: they come before those in force | `State` |
| POST behaviour | the fields of `Behaviour` to change | `State` |
| POST reset | `{}`, `{"scenario": "healthy"}` or `{"scenario": {Scenario}}` | `State` |
| POST advance | `{"seconds": 3600}`, `{"end": "*"}` or `{"expire": "msgbatch_..."}` | `State` |
| POST forget | `{"batch_id": "msgbatch_..."}`: from now on it does not exist for any endpoint | `State` |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .prompts import ApiError
from .scenarios import SCENARIOS, find_scenario
from .script import Answer, Behaviour, Fault, Scenario
from .world import World, choose_batches

T = TypeVar("T")


class NewFaults(Struct, forbid_unknown_fields=True):
    faults: tuple[Fault, ...]
    replace: bool = False


class NewAnswers(Struct, forbid_unknown_fields=True):
    answers: tuple[Answer, ...]
    #: In place of those in force, rather than before them.
    replace: bool = False


class Reset(Struct, forbid_unknown_fields=True):
    scenario: str | Scenario | None = None


class Advance(Struct, forbid_unknown_fields=True):
    #: Simulated seconds that pass at once.
    seconds: float = 0.0
    #: The id of a batch that ends now, with every request processed; `*` for all.
    end: str = ""
    #: The id of a batch that expires now, with the requests that are not processed yet; `*` for all.
    expire: str = ""


class Forget(Struct, forbid_unknown_fields=True):
    batch_id: str


def make_routes() -> list[Route]:
    return [
        _make_get("state", lambda request, world: world.state()),
        _make_get("journal", _read_journal),
        _make_get("invoice", lambda request, world: world.write_invoice()),
        _make_get("paid_twice", lambda request, world: world.read_journal().paid_twice()),
        _make_get("scenarios", lambda request, world: list(SCENARIOS.values())),
        _make_post("faults", NewFaults, lambda world, new: world.add_faults(new.faults, new.replace)),
        _make_post("answers", NewAnswers, _add_answers),
        _make_post("behaviour", dict[str, Any], _change_behaviour),
        _make_post("advance", Advance, _advance_clock),
        _make_post("forget", Forget, _forget_batches),
        _make_post("reset", Reset, None),
    ]


def _read_journal(request: Request, world: World) -> object:
    query = request.query_params
    return world.read_journal(int(query.get("since", "0")), query.get("prompts", "true") == "true")


def _change_behaviour(world: World, changes: dict[str, Any]) -> None:
    world.change_behaviour(msgspec.convert({**msgspec.to_builtins(world.behaviour), **changes}, Behaviour))


def _add_answers(world: World, new: NewAnswers) -> None:
    kept = () if new.replace else world.behaviour.answers
    world.change_behaviour(replace(world.behaviour, answers=new.answers + kept))


def _advance_clock(world: World, advance: Advance) -> None:
    now = world.now()
    for batch in choose_batches(world, advance.end) if advance.end else ():
        if not batch.has_ended(now):
            batch.seconds = now - batch.created
    for batch in choose_batches(world, advance.expire) if advance.expire else ():
        if not batch.has_ended(now):
            batch.expire_now()
    world.clock.advance(advance.seconds)


def _forget_batches(world: World, forget: Forget) -> None:
    for batch in choose_batches(world, forget.batch_id):
        batch.gone = True


def _make_get(name: str, answer: Callable[[Request, World], object]) -> Route:
    async def serve(request: Request) -> Response:
        return _json_response(answer(request, request.app.state.world))

    return Route(f"/__sim__/{name}", serve, methods=["GET"])


def _make_post(name: str, body: type[T], change: Callable[[World, T], None] | None) -> Route:
    """Return the route that changes the world; without `change`, it makes a new world."""

    async def serve(request: Request) -> Response:
        try:
            asked = msgspec.json.decode(await request.body() or b"{}", type=body)
            if isinstance(asked, Reset):
                request.app.state.world = World(_choose_scenario(asked, request.app.state.world))
            elif change is not None:
                change(request.app.state.world, asked)
        except (msgspec.DecodeError, LookupError, ApiError) as error:
            return _json_response({"error": str(error)}, 400)
        return _json_response(request.app.state.world.state())

    return Route(f"/__sim__/{name}", serve, methods=["POST"])


def _choose_scenario(reset: Reset, world: World) -> Scenario:
    if reset.scenario is None:
        return world.scenario
    return find_scenario(reset.scenario) if isinstance(reset.scenario, str) else reset.scenario


def _json_response(data: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(data), status, media_type="application/json")
