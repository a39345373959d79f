"""What happens in the run of one seed, all of it drawn from the seed: jobs, weather at the API, kills, what is lost.

The first seeds, as many as there are known crash points, kill a worker at one of these each, in weather in which that
point is passed; later seeds draw points, weather and moments at random.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal

from claude_batch_tasks.simulator import Behaviour, Fault, Outcome, ResultsStyle
from tests.chaos.asks import Asked, draw_asks, draw_refusals, is_about_asks

#: Neighbouring seeds share their workers, as long as these live.
BLOCK = 5

#: How long a create that is not answered is searched for, seconds. No simulated listing lags so long, no create is
#: stored so late: else sending it again would be right, and paying for it twice too.
SETTLE = 2.0

#: The model of all requests, its prices in dollars per million tokens, and how long its answers may be.
MODEL = "claude-haiku-4-5"
PRICES = {"input_mtok": 1.0, "output_mtok": 5.0}
MAX_TOKENS = 64

#: About what one of them costs as a message if it is as long as that, dollars. It is shorter: it costs a fourth.
_MOST = 0.00033

Victim = Literal["child", "group", "main"]
Follow = Literal["", "link", "chain"]

_HERE = Path(__file__).parent
_LIST = "points.txt"


@dataclass(frozen=True)
class Profile:
    """The workers of a seed."""

    options: tuple[str, ...]
    workers: int = 1
    visibility_timeout: float = 3.0
    recover_after: float = 2.0
    #: Too slow for more than a little work.
    light: bool = False
    #: So many of the workers are of the release before this one.
    released: int = 0


PROFILES = (
    Profile(("--concurrency=2",)),
    # A pool replaces its children but once a second.
    Profile(("--concurrency=6", "--max-tasks-per-child=1"), visibility_timeout=5.0, recover_after=4.0, light=True),
    Profile(("--concurrency=2",), workers=2, visibility_timeout=2.5),
    Profile(("--autoscale=4,1",)),
    # Here what died comes back by redelivery, before anybody misses it.
    Profile(("--concurrency=2",), recover_after=8.0),
    Profile(("--concurrency=4", "--max-tasks-per-child=20", "--prefetch-multiplier=4")),
)


@dataclass(frozen=True)
class Job:
    """One ``run_batch.delay``. Jobs of one seed use the same custom_ids, and often are of the same size."""

    number: int
    requests: int
    at: float
    options: dict[str, Any] = field(default_factory=dict)
    follow: Follow = ""
    cancel_at: float | None = None
    told: bool = False
    """Whether a task is called with the requests whose outcomes are final."""
    released: bool = False
    """Whether its caller is of the release before this one."""
    direct: bool = False
    """Whether its requests are not sent in a batch first."""
    hurried: bool = False
    """Whether its answers are wanted by a moment, so that its batch may be canceled."""

    @property
    def may_be_refused(self) -> bool:
        """Whether it is an ask that no create may have."""
        return False

    @property
    def retries(self) -> int:
        """How many smaller batches may follow."""
        return int(self.options.get("retries", 2))

    @property
    def limited(self) -> bool:
        """Whether it may run out of what it may spend."""
        return any(name in self.options for name in ("max_fallback_requests", "max_fallback_cost", "max_cost"))

    @property
    def batches(self) -> int:
        """How many it needs."""
        return -(-self.requests // int(self.options.get("max_requests_per_batch", self.requests)))

    @property
    def custom_ids(self) -> list[str]:
        """Those of its requests."""
        return [f"request {index} é\u2028" for index in range(self.requests)]

    def prompt(self, seed: int, index: int) -> str:
        """A text of its own for every request, by which the simulator's journal tells what was paid for it."""
        return f"seed {seed} job {self.number} request {index}"


def params(prompt: str) -> dict[str, Any]:
    """Those of a request."""
    return {"model": MODEL, "max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": prompt}]}


@dataclass(frozen=True)
class Crash:
    """A kill at the n-th passing of a crash point."""

    point: str
    number: int
    victim: Victim


@dataclass(frozen=True)
class Event:
    """Something that happens ``at`` seconds after the start of the run."""

    at: float
    #: ``kill child|group|main``, ``stop TERM|QUIT|INT``, ``redis kill|stop``, ``purge``, ``lose``, ``stranger N``.
    what: str


@dataclass(frozen=True)
class Schedule:
    """All that is done in the run of a seed."""

    seed: int
    weather: tuple[str, ...]
    profile: Profile
    behaviour: Behaviour
    faults: tuple[Fault, ...]
    jobs: tuple[Job, ...]
    crashes: tuple[Crash, ...] = ()
    events: tuple[Event, ...] = ()
    #: Messages that lie with a worker are put on the queue a second time, byte for byte; so many at most.
    copies: int = 0
    asks: tuple[Asked, ...] = ()

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {' + '.join(self.weather)}; {self.profile}", f"  {_only_set(self.behaviour)}"]
        parts = (*self.faults, *self.jobs, *self.asks, *self.crashes, *self.events)
        lines += [f"  {_only_set(part)}" for part in parts]
        return "\n".join([*lines, f"  copies of messages: {self.copies}"])

    def has(self, *kinds: str) -> bool:
        """Whether an event is of one of these kinds."""
        return any(event.what.split()[0] in kinds for event in self.events)


@dataclass
class Weather:
    """What one kind of trouble adds to a schedule."""

    behaviour: dict[str, Any] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    crashes: list[Crash] = field(default_factory=list)
    canceled: bool = False
    #: The most requests of a job, and the fewest.
    requests: int = 12
    fewest: int = 1


# -- weather


def calm(random: Random) -> Weather:
    """Nothing goes wrong."""
    return Weather()


def reported(random: Random) -> Weather:
    """404s from every endpoint a job needs, though what they are asked for exists."""
    first = tuple(range(1, random.randint(2, 4)))
    return Weather(
        faults=[
            Fault("create", "status", status=404, calls=first),
            Fault("retrieve", "status", status=404, calls=first),
            Fault("retrieve", "status", status=404, probability=0.3),
            Fault("results", "status", status=404, calls=first),
        ]
    )


def storm(random: Random) -> Weather:
    """Everything answers with errors now and then."""
    status = random.choice([429, 500, 503, 529])
    more = {"headers": {"retry-after": "0.3"}} if status == 429 else {}
    return Weather(
        faults=[
            Fault("create", "status", status=429, probability=0.3, headers={"retry-after": "0.2"}),
            Fault("retrieve", "status", status=status, probability=0.3, **more),
            Fault("retrieve", "drop", probability=0.1),
            Fault("list", "status", status=status, probability=0.3, **more),
            Fault("results", "status", status=status, probability=0.3, **more),
            Fault("results", "drop", probability=0.1),
        ]
    )


def unanswered(random: Random) -> Weather:
    """Creates whose answer is lost, before or after they were stored, and lists that lag."""
    faults = []
    for call in range(1, random.randint(2, 4)):
        stored = random.random() < 0.6
        if random.random() < 0.5:
            faults.append(Fault("create", "drop", commit=stored, calls=(call,)))
        else:
            # With its own 529 the API says that it has stored nothing, and then it has not.
            status = random.choice([500, 502, 504] if stored else [500, 502, 504, 529])
            faults.append(Fault("create", "status", status=status, commit=stored, calls=(call,)))
    faults.append(Fault("list", random.choice(["status", "drop"]), status=random.choice([404, 500]), calls=(1,)))
    return Weather(behaviour={"list_lag_seconds": random.choice([0.0, 0.3, 0.6])}, faults=faults)


def strangers(random: Random) -> Weather:
    """The same, on an account with another application's batches of the same size."""
    weather = unanswered(random)
    # Not stored, so that the stranger's is the only one there is to find.
    weather.faults.insert(0, Fault("create", "drop", calls=(1,)))
    weather.events += [Event(round(random.uniform(0, 1.0), 2), "stranger") for _ in range(random.randint(1, 2))]
    return weather


def cut(random: Random) -> Weather:
    """Result files that end early, each in another way, or are written in unfriendly ways."""
    ways = ["clean", "line", "close", "reset"]
    faults = [
        Fault("results", "cut", how=random.choice(ways), at=random.random(), calls=(call,))  # type: ignore[arg-type]
        for call in range(1, random.randint(2, 4))
    ]
    style = ResultsStyle(
        blank_lines=random.random() < 0.5,
        newline=random.choice(["\n", "\r\n"]),
        duplicates=random.randint(0, 2),
        foreign=random.randint(0, 2),
        chunk_bytes=random.choice([100, 65536]),
    )
    return Weather(behaviour={"results": style}, faults=faults)


def fallback(random: Random) -> Weather:
    """Requests that expire or fail for a passing reason, once, twice or always, and a Messages API that is not always
    well either."""
    outcomes = [
        Outcome("expired", count=random.randint(1, 3), attempts=random.randint(0, 2)),
        Outcome("errored", error="overloaded_error", probability=0.3, attempts=random.randint(0, 2)),
        Outcome("errored", error="invalid_request_error", probability=0.1),
        Outcome("errored", error="invalid_request_error", probability=0.1, via="messages"),
    ]
    # Few in a row, as the pauses after them double: where nothing comes through, a run would take minutes.
    faults = [
        Fault("messages", "status", status=404, probability=0.08),
        Fault("messages", "status", status=429, headers={"retry-after": "0.3"}, calls=(1,), probability=0.15),
        Fault("messages", "status", status=529, probability=0.08),
    ]
    if random.random() < 0.5:
        faults.append(Fault("messages", "drop", commit=random.random() < 0.5, per="server", calls=(2,)))
    # Where answers take a while, lanes have some of them under way side by side.
    behaviour = {"outcomes": tuple(outcomes), "messages_seconds": random.choice([0.0, 0.05, 0.3])}
    return Weather(behaviour=behaviour, faults=faults)


def limited(random: Random) -> Weather:
    """Much goes through a Messages API that lets few calls through."""
    behaviour = {
        "outcomes": (Outcome("expired", probability=0.7),),
        "messages_seconds": 0.1,
        "messages_per_minute": random.randint(20, 60),
        "input_tokens_per_minute": random.choice([None, 2000]),
        "messages_limit": random.choice(["bucket", "window"]),
        "minute_seconds": random.uniform(1.0, 3.0),
    }
    busy = Fault("messages", "status", status=529, probability=0.1)
    return Weather(behaviour=behaviour, faults=[busy], requests=30)


def unpaid(random: Random) -> Weather:
    """The account may not spend any more: nothing more is sent for whatever job meets that."""
    status, message = random.choice([(401, ""), (402, ""), (403, ""), (400, "Your credit balance is too low")])
    refusal = Fault("messages", "status", status=status, message=message, per="server", calls=(random.randint(1, 6),))
    behaviour = {"outcomes": (Outcome("expired", probability=0.7),), "messages_seconds": random.choice([0.0, 0.2])}
    return Weather(behaviour=behaviour, faults=[refusal], requests=30)


def refused(random: Random) -> Weather:
    """Creating answers 404 for good, so that everything goes through the Messages API."""
    return Weather(faults=[Fault("create", "status", status=404)], options={"create_not_found_limit": 2})


def canceled(random: Random) -> Weather:
    """Jobs that are canceled while they run."""
    faults = [Fault("cancel", "status", status=random.choice([404, 500, 429]), calls=(1,))]
    return Weather(behaviour={"processing_seconds": 2.5}, faults=faults, canceled=True)


def slow(random: Random) -> Weather:
    """Calls that take longer than the visibility timeout, so that a living worker's message is handed out again."""
    seconds = random.uniform(3.2, 4.2)
    return Weather(
        faults=[
            Fault("create", "delay", seconds=seconds, commit=True, calls=(1,)),
            Fault("retrieve", "delay", seconds=seconds, calls=(1,), per="server"),
            Fault("results", "delay", seconds=seconds, calls=(1,), per="server"),
            Fault("messages", "delay", seconds=seconds, commit=True, calls=(1,), per="server"),
        ],
        behaviour={"outcomes": (Outcome("expired", count=1),)},
        options=random.choice([{}, {"timeout": 1.0}]),
    )


def hidden(random: Random) -> Weather:
    """404s for longer than the grace: only listings tell that the batch is still there."""
    return Weather(
        faults=[
            Fault("retrieve", "status", status=404, after=0.2, before=2.0),
            Fault("results", "status", status=404, since="ended", before=1.5),
            Fault("list", "status", status=500, calls=(1,)),
        ],
        options={"not_found_grace": 0.8},
    )


def lossy(random: Random) -> Weather:
    """The broker loses what lies in its queue."""
    moments = sorted(random.uniform(0.1, 1.5) for _ in range(random.randint(1, 3)))
    weather = fallback(random)
    weather.events += [Event(round(at, 2), "purge") for at in moments]
    return weather


def crowded(random: Random) -> Weather:
    """Enough batches in flight to be looked at together, waits that are spent in the store, listings of all kinds."""
    faults = [
        Fault("list", random.choice(["status", "drop"]), status=random.choice([404, 429, 500]), calls=(call,))
        for call in random.sample(range(1, 5), random.randint(0, 1))
    ]
    return Weather(
        behaviour={"processing_seconds": (0.8, 2.5), "list_lag_seconds": random.choice([0.0, 0.0, 0.5])},
        faults=faults,
        options={"poll_min": 0.9, "poll_max": 1.3, "max_requests_per_batch": 1, "max_batches_in_flight": 12},
        fewest=8,
    )


def deadly(random: Random) -> Weather:
    """Deaths whose consequences have points of their own."""
    return Weather(
        crashes=[Crash("poll_batch: before api.retrieve_batch", random.randint(1, 2), "child")],
        events=[Event(round(random.uniform(0.3, 1.5), 2), "kill group")],
    )


WEATHERS: dict[str, Callable[[Random], Weather]] = {
    made.__name__: made
    for made in (
        calm,
        reported,
        storm,
        unanswered,
        strangers,
        cut,
        fallback,
        limited,
        unpaid,
        refused,
        canceled,
        slow,
        hidden,
        lossy,
        crowded,
        deadly,
    )
}


# -- schedules


@dataclass(frozen=True)
class Known:
    """A crash point, a weather in which it is passed, and how often in one run."""

    name: str
    #: Several with a plus between them, where no single one was enough.
    weather: str
    passed: int


def known_points(folder: Path = _HERE) -> list[Known]:
    """The list that ``python -m tests.chaos --points`` wrote."""
    rows = [line.split("\t") for line in (folder / _LIST).read_text().splitlines()]
    return [Known(name, weather, int(passed)) for name, weather, passed in rows]


def write_points(points: list[Known]) -> None:
    """Replace the list."""
    lines = (f"{point.name}\t{point.weather}\t{point.passed}\n" for point in sorted(points, key=lambda each: each.name))
    (_HERE / _LIST).write_text("".join(lines))


def quiet(weather: str) -> Schedule:
    """A run without kills of ours, to see which points it passes."""
    return _schedule(Random(f"quiet 0 {weather}"), 0, [weather], PROFILES[0], (), all_asks=True)


def wild(seed: int) -> Schedule:
    """A run in which anything may happen, wherever the list of points ends."""
    return _wild(Random(f"wild {seed}"), seed, PROFILES[seed % len(PROFILES)])


def of(seed: int) -> Schedule:
    """What a seed stands for."""
    random = Random(f"chaos {seed}")
    points = known_points()
    profile = PROFILES[seed // BLOCK % len(PROFILES)]
    if seed >= len(points):
        return _wild(random, seed, profile, points)
    return _at_point(random, seed, profile, points[seed])


def mixed(seed: int, released: list[Known]) -> Schedule:
    """What a seed stands for in a fleet of this tree and of the release before it, each with points of its own.

    Every other seed kills at one point, in weather in which that is passed: of the release, then of this tree. The
    others are wilder.
    """
    random = Random(f"mixed {seed}")
    both = [released, known_points()]
    profile = dataclasses.replace(PROFILES[seed // BLOCK % len(PROFILES)], workers=2, released=1)
    if seed % 2:
        schedule = _wild(random, seed, profile, random.choice(both))
    else:
        schedule = _at_point(random, seed, profile, random.choice(both[seed // 2 % 2]))
    jobs = tuple(dataclasses.replace(job, released=random.random() < 0.5) for job in schedule.jobs)
    # The release before this one does not know asks.
    return dataclasses.replace(schedule, jobs=jobs, asks=())


def _at_point(random: Random, seed: int, profile: Profile, point: Known) -> Schedule:
    crash = _crash(random, point)
    return _schedule(random, seed, point.weather.split("+"), profile, (crash,), all_asks=is_about_asks(point.name))


def _wild(random: Random, seed: int, profile: Profile, points: Sequence[Known] = ()) -> Schedule:
    weather = random.sample(sorted(WEATHERS), random.choice([1, 2, 2, 3]))
    picked = random.sample(points, min(random.randint(0, 3), len(points)))
    schedule = _schedule(random, seed, weather, profile, tuple(_crash(random, point) for point in picked))
    events = tuple(sorted((*schedule.events, *_events(random)), key=lambda event: event.at))
    return dataclasses.replace(schedule, events=events, copies=random.choice([0, 0, 30]))


def _crash(random: Random, point: Known) -> Crash:
    victims: list[Victim] = (
        ["group", "main"]
        if point.name.startswith(("worker", "recovery", "ticker", "pools", "revokes"))
        else ["child", "group"]
    )
    often = 1 if random.random() < 0.5 else random.randint(1, min(max(point.passed // 6, 1), 5))
    return Crash(point.name, often, random.choice(victims))


def _events(random: Random) -> list[Event]:
    """Kills, stops and losses at random times."""
    kinds = [
        *["kill child", "kill group", "kill main"] * 2,
        *["stop TERM", "stop QUIT", "stop INT"],
        *["redis kill", "redis stop"],
        *["purge", "lose"],
    ]
    picked = random.choices(kinds, k=random.choice([0, 1, 1, 2, 3]))
    return [Event(round(random.uniform(0.2, 3.0), 2), what) for what in picked]


def _schedule(
    random: Random,
    seed: int,
    names: list[str],
    profile: Profile,
    crashes: tuple[Crash, ...],
    *,
    all_asks: bool = False,
) -> Schedule:
    behaviour: dict[str, Any] = {"seed": seed, "processing_seconds": (0.2, 1.0)}
    faults: list[Fault] = []
    options: dict[str, Any] = {}
    events: list[Event] = []
    cancel, requests, fewest = False, 0, 1
    for name in names:
        weather = WEATHERS[name](random)
        outcomes = (*behaviour.get("outcomes", ()), *weather.behaviour.get("outcomes", ()))
        behaviour |= {**weather.behaviour, "outcomes": outcomes}
        faults += weather.faults
        options |= weather.options
        events += weather.events
        crashes = (*crashes, *weather.crashes)
        cancel |= weather.canceled
        requests, fewest = max(requests, weather.requests), max(fewest, weather.fewest)
    if profile.light:
        requests, fewest = 4, 1  # and as many lanes
    jobs = _jobs(random, options, cancel, fewest, requests)[: 2 if profile.light else None]
    # A stranger's batch is dangerous where it has the size of ours.
    sizes = [min(job.requests, job.options.get("max_requests_per_batch", job.requests)) for job in jobs]
    events = [
        Event(event.at, f"stranger {random.choice(sizes)}") if event.what == "stranger" else event for event in events
    ]
    own = Random(f"asks {seed} {' '.join(names)}")
    asks = draw_asks(own, options, few=profile.light, all_kinds=all_asks)
    return Schedule(
        seed,
        tuple(names),
        profile,
        Behaviour(**behaviour, **draw_refusals(own, asks)),
        tuple(faults),
        jobs,
        crashes,
        tuple(sorted(events, key=lambda event: event.at)),
        asks=asks,
    )


def _jobs(random: Random, options: dict[str, Any], cancel: bool, fewest: int, most: int) -> tuple[Job, ...]:
    count = random.randint(2, 5)
    same = random.randint(fewest, most)
    jobs = []
    for number in range(count):
        requests = same if random.random() < 0.6 else random.randint(fewest, most)
        own = dict(options)
        if requests > 2 and random.random() < 0.4:
            own["max_requests_per_batch"] = -(-requests // random.randint(2, 3))
            own["max_batches_in_flight"] = random.randint(1, 3)
        if random.random() < 0.15:
            own["fallback"] = "off"
        own |= _chances(random, requests)
        at = 0.0 if random.random() < 0.6 else round(random.uniform(0, 0.8), 2)
        follow: Follow = random.choice(["", "", "link", "chain"])  # type: ignore[assignment]
        stop = round(at + random.uniform(0.1, 2.0), 2) if cancel and random.random() < 0.7 else None
        jobs.append(Job(number, requests, at, own, follow, stop, told=random.random() < 0.4))
    return tuple(sorted(jobs, key=lambda job: job.at))


def _chances(random: Random, requests: int) -> dict[str, Any]:
    """How often a job's requests may be sent again, and for how much money."""
    options: dict[str, Any] = {}
    if (retries := random.choice([0, 0, 1, 2, None])) is not None:
        options["retries"] = retries
    if random.random() < 0.15:
        options["max_fallback_requests"] = random.randint(0, 3)
    if random.random() < 0.2:
        options["max_fallback_cost"] = random.choice([0.0, _MOST / 2, 1.2 * _MOST, 5 * _MOST])
    if random.random() < 0.15:
        # In a batch they cost half of it.
        options["max_cost"] = requests * _MOST / 2 * random.choice([0.2, 0.6, 1.5, 4.0])
    if random.random() < 0.2:
        options["max_messages_in_flight"] = random.randint(1, 3)
    if random.random() < 0.08:
        options["deadline"] = 0.05  # sooner than any batch ends
    return options


def _only_set(value: Any) -> str:
    """A value with the fields that are not at their default."""
    if dataclasses.is_dataclass(value):
        return repr(value)
    changed = {
        name: getattr(value, name)
        for name in value.__struct_fields__
        if getattr(value, name) != _default(type(value), name)
    }
    return f"{type(value).__name__}({', '.join(f'{name}={item!r}' for name, item in changed.items())})"


def _default(kind: Any, name: str) -> Any:
    fields = kind.__struct_fields__
    defaults = kind.__struct_defaults__
    place = fields.index(name) - (len(fields) - len(defaults))
    return defaults[place] if place >= 0 else None
