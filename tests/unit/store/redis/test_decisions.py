"""Scripts decide as ``rules`` say: both are asked the same, at a time that the test sets."""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec
import pytest
import redis
from hypothesis import example, given, settings, strategies as st

from claude_batch_tasks import rules
from claude_batch_tasks.records import Flight, Lost, Need, Taken, Unit
from claude_batch_tasks.store.redis import RedisStore, keys, scripts

JOB, BATCH, LANE = Unit("j"), Unit("j", 0), Unit("j", 0, 0)
START = 2_000_000_000
CLOCK = "test:clock"

#: Puts a time that the test sets in the place of the server's.
AT_THE_TESTS_TIME = f"""
local server = redis
local redis = {{call = function(name, ...)
  if name == 'TIME' then
    local seconds, microseconds = string.match(server.call('GET', '{CLOCK}'), '^(%d+) (%d+)$')
    return {{seconds, microseconds}}
  end
  return server.call(name, ...)
end}}
"""

#: Moments that are compared with the one at which scripts run: among them the same one.
NOW = START + 0.25
MOMENTS = st.sampled_from([NOW + seconds for seconds in (-900, -60, -10, -5, -1.5, -1, 0, 0.25, 5, 700)])
SELDOM = st.none() | st.none() | MOMENTS
#: For what depends on many things.
MANY = settings(max_examples=400)

SMALL = st.integers(0, 4)
OWNERS = st.sampled_from([None, "me", "you"])


class Case:
    """An empty store at a certain time."""

    def __init__(self, store: RedisStore) -> None:
        self.store, self.client = store, store._redis
        self.client.flushall()
        self.client.set(CLOCK, f"{START} 250000")

    def fields(self, key: str, **values: Any) -> None:
        if known := {name: value for name, value in values.items() if value is not None}:
            self.client.hset(key, mapping=known)

    def scored(self, key: str, member: str, moment: float | None) -> None:
        if moment is not None:
            self.client.zadd(key, {member: moment})

    def number(self, value: bytes | None) -> float | None:
        return None if value is None else float(value)


@pytest.fixture
def store(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> RedisStore:
    text = scripts.script_text
    monkeypatch.setattr(scripts, "script_text", lambda *names: AT_THE_TESTS_TIME + text(*names))
    return RedisStore(redis_client, "the test's server")


def near(value: float, tolerance: float = 0.001) -> Any:
    """Return what equals a number but for what a script rounds."""
    return pytest.approx(value, rel=0, abs=tolerance)


class TestLeases:
    @given(
        position=SMALL, current=st.none() | SMALL, holder=OWNERS, ends=MOMENTS,
        due=st.none() | MOMENTS, late=st.none() | st.sampled_from([0.5, 20, 500, 700]), resent=st.booleans(),
        before=SMALL,
    )  # fmt: skip
    def test_are_given(
        self, store: RedisStore, position: int, current: int | None, holder: str | None, ends: float,
        due: float | None, late: float | None, resent: bool, before: int,
    ) -> None:  # fmt: skip
        case = Case(store)
        key, _ = keys.unit_key(BATCH)
        until = None if holder is None else ends
        case.fields(key, count=1, position=current, owner=holder, until=until, resent=1 if resent else None)
        case.fields(key, step_failures=before)
        case.scored(keys.DUE, keys.member(BATCH), due)
        if late is not None:
            case.client.set(keys.LATE, late)
        state = rules.lease_state(
            position, "me", current=-1 if current is None else current, holder=holder, ends=until or 0, now=NOW
        )
        lease = store.leases.acquire_lease(BATCH, position, "me", 600)
        assert lease.state == state
        if state.startswith("taken"):
            assert lease.failures == rules.count_interruptions(
                position, current=-1 if current is None else current, taken_over=state == "taken_over", before=before
            )
        assert lease.remaining == (math.ceil((ends - NOW) * 1000) / 1000 if state == "busy" else 0)
        usual = rules.usual_lateness(NOW - (due or NOW), late or 0)
        if state != "taken" or resent:
            assert case.number(case.client.get(keys.LATE)) == late
        else:
            assert case.number(case.client.get(keys.LATE)) == near(usual, 0.001)

    @given(
        after=st.sampled_from([0.0, 1.0, 5.0]), due=MOMENTS, ends=SELDOM,
        resent=st.sampled_from([None, 1, 15, 16]), resent_at=st.none() | MOMENTS,
        late=st.none() | st.sampled_from([0.25, 2, 100]),
    )  # fmt: skip
    def test_without_a_message_are_found(
        self, store: RedisStore, after: float, due: float, ends: float | None, resent: int | None,
        resent_at: float | None, late: float | None,
    ) -> None:  # fmt: skip
        case = Case(store)
        key, _ = keys.unit_key(BATCH)
        case.fields(key, count=1, position=3, until=ends, resent=resent, resent_at=resent_at)
        case.scored(keys.DUE, keys.member(BATCH), due)
        if late is not None:
            case.client.set(keys.LATE, late)
        known = {"due": due, "ends": ends or 0, "resent_at": resent_at or 0}
        lost = rules.seems_lost(after, **known, lateness=late or 0, now=NOW)
        assert store.schedule.find_lost(BATCH, after) == (Lost(3, due) if lost else None)
        again = NOW + rules.next_copy_after(after, (resent or 0) + 1) if lost and after else due
        assert case.client.zscore(keys.DUE, keys.member(BATCH)) == near(again, 0.001)


MONEY = st.sampled_from([0, 1, 5, 10, 11, 10**15])
COSTS = st.tuples(MONEY, MONEY)


class TestMoney:
    @MANY
    @given(spent=MONEY, reserved=MONEY, limit=MONEY, least=MONEY, more=MONEY)
    def test_of_a_batch(self, store: RedisStore, spent: int, reserved: int, limit: int, least: int, more: int) -> None:
        case = Case(store)
        case.fields(keys.job_key("j"), nonce='"n"', money=1)
        case.fields(keys.money_key("j"), begun=1, spent=spent, reserved=reserved)
        answer = rules.judge_spending(limit, spent=spent, reserved=reserved, least=least, most=least + more)
        assert store.budget.reserve_cost(BATCH, 1, least, least + more, limit) == answer
        taken = least + more if answer == "yes" else 0
        assert int(case.client.hget(keys.money_key("j"), "reserved")) == reserved + taken

    @given(
        steps=st.lists(
            st.tuples(st.sampled_from(["reserve", "settle"]), st.integers(0, 1), MONEY, MONEY), min_size=1, max_size=8
        )
    )
    def test_of_batches_one_after_the_other(self, store: RedisStore, steps: list[tuple[str, int, int, int]]) -> None:
        case = Case(store)
        case.fields(keys.job_key("j"), nonce='"n"')
        limit, reserved, settled = 20, dict[int, int](), dict[int, int]()
        for step, turn, least, more in steps:
            if step == "settle":
                store.budget.record_cost(BATCH, turn, least)
                if turn in reserved or turn in settled:
                    reserved.pop(turn, None)
                    settled[turn] = least
                continue
            answer: Literal["yes", "wait", "no"] = "yes"
            if turn not in reserved:
                # It was given up, and proved never to have been created.
                settled.pop(turn, None)
                sums = {"spent": sum(settled.values()), "reserved": sum(reserved.values())}
                answer = rules.judge_spending(limit, **sums, least=least, most=least + more)
            assert store.budget.reserve_cost(BATCH, turn, least, least + more, limit) == answer
            if answer == "yes":
                reserved.setdefault(turn, least + more)
            known = [int(n or 0) for n in case.client.hmget(keys.money_key("j"), "spent", "reserved")]
            assert known == [sum(settled.values()), sum(reserved.values())]


TOKENS = st.sampled_from([0, 5, 10, 11, 100])
LEFT = st.dictionaries(st.sampled_from(rules.RATE_LIMITS), st.tuples(TOKENS, TOKENS), max_size=3)


class TestCallsOfTheMessagesApi:
    @given(
        paused=SELDOM, allowed=st.sampled_from([None, 2.5, 8.75]), at=st.none() | MOMENTS,
        usual=st.sampled_from([None, 3.5]), left=LEFT, in_flight=st.sampled_from([0, 0, 1, 2, 8]),
        over=st.sampled_from([0, 1]), cap=st.sampled_from([1, 4, 64]), tokens=TOKENS,
        limit=st.none() | MONEY, total=st.none() | MONEY, cost=st.none() | COSTS | COSTS | COSTS,
        sums=st.tuples(MONEY, MONEY, MONEY, MONEY), state=st.sampled_from(["running"] * 8 + ["failed", "stopped"]),
    )  # fmt: skip
    @example(
        paused=None, allowed=None, at=NOW - 60, usual=None, left={"tokens": (10, 0)}, in_flight=1, over=0, cap=64,
        tokens=5, limit=None, total=None, cost=None, sums=(0, 0, 0, 0), state="running",
    )  # fmt: skip
    @MANY
    def test_are_made(
        self, store: RedisStore, paused: float | None, allowed: float | None, at: float | None,
        usual: float | None, left: dict[str, tuple[int, int]], in_flight: int, over: int, cap: int, tokens: int,
        limit: int | None, total: int | None, cost: tuple[int, int] | None, sums: tuple[int, int, int, int], state: str,
    ) -> None:  # fmt: skip
        case = Case(store)
        pace, calls = keys.pace_keys("p")
        fallback = {"fallback_spent": sums[2], "fallback_reserved": sums[3]}
        case.fields(keys.money_key("j"), begun=1, spent=sums[0], reserved=sums[1], **fallback)
        running = '"running"' if state == "stopped" else f'"{state}"'
        stopped = '"no credit"' if state == "stopped" else None
        case.fields(keys.job_key("j"), nonce='"n"', money=1, state=running, stopped=stopped)
        case.fields(keys.unit_key(LANE)[0], **{"0:owner": "me"})
        case.fields(pace, allowed=allowed, at=at, usual_output=usual)
        for name, (most, rest) in left.items():
            case.fields(pace, **{f"limit:{name}": most, f"left:{name}": rest})
        for number in range(in_flight + over):
            case.scored(calls, f"c{number}", NOW + (100 if number < in_flight else -5))
        case.scored(keys.HELD, "p", paused)
        case.client.zadd(keys.batch_key("j", 0, "to_send"), {keys.position_field(0): 0})

        least, more = cost or (0, 0)
        known = rules.RateLimit(
            allowed,
            at or 0,
            usual or 0,
            {n: most for n, (most, _) in left.items()},
            {n: r for n, (_, r) in left.items()},
        )
        wait = rules.send_wait(known, tokens=tokens, in_flight=in_flight, cap=cap, paused_until=paused or 0, now=NOW)
        costs = {"least": least, "most": least + more}
        affordable = rules.affordable_twice(
            rules.judge_spending(limit, spent=sums[2], reserved=sums[3], **costs),
            rules.judge_spending(total, spent=sums[0], reserved=sums[1], **costs),
        )
        limited = limit is not None or total is not None
        if state != "running":
            expected = Taken("stopped" if state == "stopped" else "canceled")
        elif limited and cost is None:
            expected = Taken("price")
        elif wait > 0:
            expected = Taken("wait", math.ceil(wait * 1000) / 1000)
        elif affordable == "no":
            expected = Taken("budget")
        elif affordable == "wait":
            expected = Taken("reserved", rules.RESERVED_WAIT)
        else:
            expected = Taken("taken")
        need = Need(tokens, *(costs.values() if cost else (None, None)))
        taken = store.message_queue.take_request(LANE, "me", 0, "p", need, 60, cap=cap, limit=limit, total=total)
        assert taken._replace(mark="") == expected
        if taken.state == "taken":
            needs = rules.calls_need(tokens, usual or 0)
            for name, (_, rest) in left.items():
                assert case.number(case.client.hget(pace, f"left:{name}")) == near(rest - needs[name])

    @given(
        allowed=st.sampled_from([None, 1.0, 1.5, 8.0, 63.5]), cut_at=st.none() | MOMENTS,
        in_a_row=st.sampled_from([None, 1, 3, 9]), refused=st.booleans(), cap=st.sampled_from([4, 64]),
        usual=st.sampled_from([None, 10.0]), output=st.none() | TOKENS,
    )  # fmt: skip
    def test_are_more_or_fewer_after_an_answer(
        self, store: RedisStore, allowed: float | None, cut_at: float | None, in_a_row: int | None,
        refused: bool, cap: int, usual: float | None, output: int | None,
    ) -> None:  # fmt: skip
        case = Case(store)
        pace, _ = keys.pace_keys("p")
        case.fields(pace, allowed=allowed, cut_at=cut_at, in_a_row=in_a_row, usual_output=usual)
        store.message_queue.record_answer(
            LANE, 0, "p", "1 1 1", limits={}, refused=refused, hold=None, cap=cap, output=output
        )
        before = rules.FIRST_IN_FLIGHT if allowed is None else allowed
        after = rules.calls_allowed(before, refused=refused, cut_at=cut_at, cap=cap, now=NOW)
        found = [case.number(value) for value in case.client.hmget(pace, "allowed", "in_a_row", "usual_output")]
        assert found[0] == near(after, 0.001)
        counts = refused and (cut_at or 0) + rules.REFUSED_TOGETHER < NOW
        times = None if not refused else (in_a_row or 0) + counts or None
        assert found[1] == times
        pause = rules.refused_pause(times or 0) if counts else 0
        assert (case.client.zscore(keys.HELD, "p") or 0) == near(NOW + pause if pause else 0)
        assert found[2] == (usual if output is None else near(rules.usual_output(output, usual), 0.1))


class TestBatchesThatAreDue:
    @given(
        state=st.sampled_from(["running", "running", "failed"]), deadline=SELDOM,
        paused=SELDOM, list_paused=SELDOM, listing=st.sampled_from([False, False, False, True]),
        in_flight=st.sampled_from([1, rules.LIST_CALL_FROM - 1, *[rules.LIST_CALL_FROM] * 4]),
        asked=st.none() | st.tuples(MOMENTS, SMALL, st.booleans()),
    )  # fmt: skip
    @example(
        state="running", deadline=NOW + 5, paused=NOW + 700, list_paused=None, listing=False, in_flight=1, asked=None,
    )  # fmt: skip
    @MANY
    def test_are_handed_out_or_wait(
        self, store: RedisStore, state: str, deadline: float | None, paused: float | None,
        list_paused: float | None, listing: bool, in_flight: int, asked: tuple[float, int, bool] | None,
    ) -> None:  # fmt: skip
        case = Case(store)
        name = keys.member(BATCH)
        flights = keys.account_key("a", keys.FLIGHTS)
        case.fields(keys.job_key("j"), state=f'"{state}"', queue='"q"')
        case.fields(keys.batch_key("j", 0), flights=flights)
        times: dict[str, Any] = {"created_at": 1.0, "expires_at": None, "poll_min": 1.0, "poll_max": 2.0}
        flight = Flight(batch_id="b", requests=1, deadline=deadline, **times)
        case.fields(flights, **{name: msgspec.json.encode(flight)})
        for number in range(in_flight - 1):
            case.fields(flights, **{f"{number}::another": b"[]"})
        for index in (keys.DUE, keys.WAITING):
            case.scored(index, name, NOW - 2000)
        case.scored(keys.HELD, "a", paused)
        case.scored(keys.HELD, "a:list", list_paused)
        if listing:
            case.client.set(keys.account_key("a", keys.LISTING), "somebody")
        if asked is not None:
            values = {"member": "7::other", "at": f"{asked[0]:.3f}", "in_vain": asked[1]}
            case.fields(keys.account_key("a", keys.ASKED), **{f'"q":{field}': value for field, value in values.items()})
            case.scored(keys.DUE, "7::other", NOW + 60 if asked[2] else asked[0])
        known = rules.Asked() if asked is None else rules.Asked(asked[0], asked[1], asked[2])
        until = rules.spared_until(
            running=state == "running", deadline=deadline, paused_until=paused or 0,
            in_flight=in_flight, list_paused_until=list_paused or 0, listing=listing, asked=known, now=NOW,
        )  # fmt: skip
        units, _ = store.schedule.take_due(10)
        assert units == ([BATCH] if until is None else [])
        member, in_vain = case.client.hmget(keys.account_key("a", keys.ASKED), '"q":member', '"q":in_vain')
        assert member != name.encode() or int(in_vain) == rules.asks_for_list_call(known, NOW)[1]
        waits = case.client.zscore(keys.WAITING, name)
        assert waits == (None if until is None else near(until, 0.001))

    @given(out=st.sampled_from([0, 1, 97, 98, 99, 100, 150]), limit=st.sampled_from([1, 2, 10]))
    def test_are_few_where_many_wait_for_workers(self, store: RedisStore, out: int, limit: int) -> None:
        case = Case(store)
        if out:
            case.client.zadd(keys.DUE, {f"{number}::out": START - 1 for number in range(out)})
        due = {keys.member(Unit("j", number)): START - 2000 for number in range(20)}
        for index in (keys.DUE, keys.WAITING):
            case.client.zadd(index, due)
        assert len(store.schedule.take_due(limit)[0]) == rules.handed_out_at_most(limit, out)
