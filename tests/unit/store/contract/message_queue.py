"""Requests on their way through the Messages API."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from claude_batch_tasks import rules
from claude_batch_tasks.records import Taken, Unit
from claude_batch_tasks.store import Store
from tests.unit.store.contract.samples import (
    JOB,
    LONG,
    OTHER_SENDER,
    PACE,
    SENDER,
    Contents,
    OpenStore,
    PassTime,
    answer_call,
    call_at_once,
    create_bare_job,
    take_request,
)

#: Requests of each of two batches.
MANY = 600


def create_sending_job(store: Store, job_id: str = JOB) -> str:
    """Create a job of two batches, all of whose requests are to be sent, by any of twelve senders."""
    create_bare_job(store, job_id, requests=2 * MANY, batches=2)
    for batch in range(2):
        store.message_queue.add_requests(job_id, batch, range(MANY))
    for number in range(12):
        store.leases.acquire_lease(Unit(job_id, 0, number), 0, "me", LONG)
    return job_id


def fill(store: Store, positions: itertools.count[int], **own: Any) -> dict[int, Taken]:
    """Take requests until no more may be in flight; return what was taken."""
    found: dict[int, Taken] = {}
    for position in itertools.islice(positions, 100):
        if (taken := take_request(store, position, **own)).state == "wait":
            return found
        found[position] = taken
    raise AssertionError("there is no end to what may be in flight")


class Sending:
    """What the classes below have in common."""

    @pytest.fixture
    def job(self, store: Store) -> str:
        return create_sending_job(store)


class TestARequestThatIsTaken(Sending):
    def test_is_gone_for_others(self, store: Store, job: str) -> None:
        assert take_request(store, 0).state == "taken"
        assert take_request(store, 0, OTHER_SENDER) == Taken("gone")
        assert take_request(store, 0) == Taken("gone")

    def test_was_entered(self, store: Store, job: str) -> None:
        assert take_request(store, MANY) == Taken("gone")

    def test_is_sent_by_whoever_has_the_senders_lease(self, store: Store, job: str) -> None:
        assert take_request(store, 0, owner="you") == take_request(store, 0, Unit(job, 0, 99)) == Taken("taken_over")
        store.leases.acquire_lease(SENDER, 1, "you", 600)
        assert take_request(store, 0) == Taken("taken_over")
        assert take_request(store, 0, owner="you").state == "taken"

    def test_may_go_out_while_it_is_still_the_senders(self, store: Store, job: str) -> None:
        """The last question before its last byte: whoever slept meanwhile has lost it."""
        take_request(store, 0)
        assert store.message_queue.confirm_request(SENDER, "me", 0, 600)
        assert not store.message_queue.confirm_request(SENDER, "me", 1, 600), "it was never taken"
        assert not store.message_queue.confirm_request(OTHER_SENDER, "me", 0, 600), "another sender has it"
        store.message_queue.save_outcome(SENDER, 0, b"lost")
        assert not store.message_queue.confirm_request(SENDER, "me", 0, 600), "somebody has dealt with it"
        take_request(store, 2)
        store.leases.acquire_lease(SENDER, 1, "you", 600)
        assert not store.message_queue.confirm_request(SENDER, "me", 2, 600), "somebody has taken the sender over"

    def test_renews_the_lease_when_it_goes_out(self, store: Store, job: str, pass_time: PassTime) -> None:
        sender = Unit(job, 0, 20)
        store.leases.acquire_lease(sender, 0, "me", 0.2)
        take_request(store, 0, sender)
        assert store.message_queue.confirm_request(sender, "me", 0, 600)
        pass_time(0.3)
        assert store.leases.acquire_lease(sender, 0, "you", 600).state == "busy"

    def test_has_no_outcome(self, store: Store, job: str) -> None:
        store.message_queue.save_outcome(SENDER, 0, b"x")
        assert store.message_queue.count_unfinished(job, 0) == MANY - 1
        store.message_queue.add_requests(job, 0, [0])
        assert take_request(store, 0) == Taken("gone")

    def test_is_no_other_senders_too(self, open_store: OpenStore, store: Store, job: str) -> None:
        def run(store: Store, number: int) -> list[int]:
            sender, mine = Unit(job, 0, number), []
            for _ in range(MANY):
                if not (positions := store.message_queue.list_due(job, 0, 16)[0]):
                    break
                for position in positions:
                    if (taken := take_request(store, position, sender, cap=MANY)).state == "taken":
                        mine.append(position)
                        answer_call(store, position, taken, sender, cap=MANY)
            return mine

        senders = call_at_once(open_store, run, range(rules.SENDERS))
        assert sorted(itertools.chain(*senders)) == list(range(MANY))
        assert [
            sorted(store.message_queue.list_abandoned(Unit(job, 0, number))) for number in range(rules.SENDERS)
        ] == [sorted(positions) for positions in senders]

    @pytest.mark.parametrize(
        ("change", "state"),
        [
            ({"stopped": "no credit"}, "stopped"),
            ({"cancel_requested": True}, "canceled"),
            ({"stopped": "no credit", "cancel_requested": True}, "stopped"),
            ({"state": "revoked"}, "canceled"),
        ],
    )
    def test_is_of_a_job_that_may_go_on(self, store: Store, job: str, change: dict[str, Any], state: str) -> None:
        store.jobs.update_job(job, **change)
        assert take_request(store, 0) == Taken(state)  # type: ignore[arg-type]
        assert store.message_queue.list_abandoned(SENDER) == []
        store.jobs.update_job(job, stopped=None, cancel_requested=False, state="running")
        assert take_request(store, 0).state == "taken"

    @pytest.mark.parametrize("limits", [{"limit": 100}, {"total": 100}])
    def test_has_a_price_where_its_cost_is_limited(self, store: Store, job: str, limits: dict[str, Any]) -> None:
        assert take_request(store, 0, least=None, most=None, **limits) == Taken("price")
        assert take_request(store, 0, least=None, most=None).state == "taken"

    def test_is_under_way_until_it_has_its_outcome(self, store: Store, job: str) -> None:
        take_request(store, 0)
        assert store.message_queue.count_unfinished(job, 0) == MANY
        store.message_queue.save_outcome(SENDER, 0, b"x")
        assert store.message_queue.count_unfinished(job, 0) == MANY - 1
        assert store.message_queue.count_unfinished(job, 1) == MANY
        assert store.message_queue.count_unfinished("nobody", 0) == 0

    def test_is_left_behind_by_its_sender_alone(self, store: Store, job: str) -> None:
        for position, number in ((3, 1), (4, 11), (5, 1), (6, 1), (7, 1)):
            take_request(store, position, Unit(job, 0, number), limit=100)
        store.message_queue.save_outcome(OTHER_SENDER, 5, b"x")
        store.message_queue.put_back(OTHER_SENDER, 6, 0.0, 9)
        assert sorted(store.message_queue.list_abandoned(OTHER_SENDER)) == [3, 7]
        assert store.message_queue.list_abandoned(Unit(job, 0, 11)) == [4]
        assert store.message_queue.list_abandoned(SENDER) == store.message_queue.list_abandoned(Unit(job, 1, 1)) == []


class TestTheCallsInFlight(Sending):
    def test_are_few_at_first_and_never_more_than_the_cap(self, store: Store, job: str) -> None:
        positions = itertools.count()
        assert len(fill(store, positions, cap=5)) == 5
        assert len(fill(store, positions)) == rules.FIRST_IN_FLIGHT - 5
        assert take_request(store, next(positions)) == Taken("wait", 0.25)

    def test_of_other_paces_are_their_own(self, store: Store, job: str) -> None:
        positions = itertools.count()
        fill(store, positions)
        assert take_request(store, next(positions), pace="a1b2:messages:claude-y").state == "taken"

    def test_of_all_jobs_are_counted_together(self, store: Store, job: str) -> None:
        create_sending_job(store, "job-2")
        fill(store, itertools.count())
        assert take_request(store, 0, Unit("job-2", 0, 0)).state == "wait"

    def test_make_room_as_they_are_answered(self, store: Store, job: str) -> None:
        positions = itertools.count()
        [(position, taken)] = fill(store, positions, cap=1).items()
        answer_call(store, position, taken, cap=1)
        assert len(fill(store, positions, cap=1)) == 1

    def test_count_no_longer_when_nobody_says_that_they_still_are(
        self, store: Store, job: str, pass_time: PassTime
    ) -> None:
        take_request(store, 0, ttl=2.0, cap=2)
        take_request(store, 1, ttl=2.0, cap=2)
        store.message_queue.renew_calls(SENDER, {0: PACE, 5: PACE}, 600)  # 5 is not in flight, and does not come to be
        assert take_request(store, 2, cap=2).state == "wait"
        pass_time(2.05)
        assert len(fill(store, itertools.count(3), cap=2)) == 1
        assert store.message_queue.list_abandoned(SENDER)[:2] == [0, 1], "whether they are answered or not"

    def test_double_until_a_refusal_halves_them_and_then_grow_one_by_one(self, store: Store, job: str) -> None:
        positions, first = itertools.count(), rules.FIRST_IN_FLIGHT
        for position, taken in fill(store, positions).items():
            answer_call(store, position, taken)
        taken_now = fill(store, positions)
        assert len(taken_now) == 2 * first
        for position, taken in taken_now.items():  # refused together, so halved once
            answer_call(store, position, taken, refused=True)
        for expected in (first, first, first + 1):
            taken_now = fill(store, positions)
            assert len(taken_now) == expected
            for position, taken in taken_now.items():
                answer_call(store, position, taken)

    def test_are_one_at_least(self, store: Store, job: str, pass_time: PassTime) -> None:
        answer_call(store, 0, take_request(store, 0), cap=2)
        answer_call(store, 1, take_request(store, 1), refused=True)
        pass_time(1.05)
        answer_call(store, 2, take_request(store, 2), refused=True)
        held = take_request(store, 3)
        assert (held.state, 0 < held.seconds <= 2) == ("wait", True), "two in a row: a pause as well"
        pass_time(2.05)
        assert len(fill(store, itertools.count(3))) == 1

    def test_pause_only_where_nothing_comes_through_in_between(
        self, store: Store, job: str, pass_time: PassTime
    ) -> None:
        for position, refused in enumerate((True, False, True)):
            answer_call(store, position, take_request(store, position), refused=refused)
            pass_time(1.05)
        assert take_request(store, 3).state == "taken"

    def test_grow_up_to_the_cap(self, store: Store, job: str) -> None:
        positions = itertools.count()
        for _ in range(2):
            for position, taken in fill(store, positions, cap=10).items():
                answer_call(store, position, taken, cap=10)
        assert len(fill(store, positions)) == 10


class TestAPace(Sending):
    """What calls have in common that are limited together."""

    def test_is_held_back_for_as_long_as_an_answer_asks(self, store: Store, job: str, pass_time: PassTime) -> None:
        first, second = take_request(store, 0), take_request(store, 1)
        answer_call(store, 0, first, hold=2.0)
        answer_call(store, 1, second, hold=0.1)  # which makes it no shorter
        waits = take_request(store, 2)
        assert waits.state == "wait"
        assert 0.3 < waits.seconds <= 2.0
        assert take_request(store, 2, pace="a1b2:messages:claude-y").state == "taken"
        pass_time(2.05)
        assert take_request(store, 3).state == "taken"

    @pytest.mark.parametrize(
        ("name", "left"), [("requests", 3), ("input-tokens", 35), ("output-tokens", 15), ("tokens", 45)]
    )
    def test_has_what_the_last_answer_left_less_what_was_sent_since(
        self, store: Store, job: str, name: str, left: int
    ) -> None:
        answer_call(store, 0, take_request(store, 0), output=5)
        first = take_request(store, 1)
        take_request(store, 2)
        answer_call(store, 1, first, limits={name: (600, left)})
        assert len(fill(store, itertools.count(3))) == 2

    @pytest.mark.parametrize(
        ("name", "left", "fit"),
        [("requests", 2, 2), ("input-tokens", 35, 3), ("output-tokens", 11, 2), ("tokens", 45, 3)],
    )
    def test_is_limited_in_each_way_that_an_answer_names(
        self, store: Store, job: str, name: str, left: int, fit: int
    ) -> None:
        """Ten tokens in, estimated, and five out, as is usual by the answers so far."""
        answer_call(store, 0, take_request(store, 0), limits={name: (600, left)}, output=5)
        assert len(fill(store, itertools.count(1))) == fit
        assert len(fill(store, itertools.count(50), pace="another")) == rules.FIRST_IN_FLIGHT

    def test_learns_slowly_how_long_answers_are(self, store: Store, job: str) -> None:
        for position, output in enumerate((100, 200)):  # 100, then 110 tokens are usual
            answer_call(store, position, take_request(store, position), output=output)
        answer_call(store, 2, take_request(store, 2), limits={"output-tokens": (6000, 221)})
        assert len(fill(store, itertools.count(3))) == 2

    def test_is_waited_for_until_as_much_comes_in(self, store: Store, job: str) -> None:
        first, _ = take_request(store, 0), take_request(store, 1)
        answer_call(store, 0, first, limits={"requests": (100, 1), "input-tokens": (60_000, 15)})
        assert take_request(store, 2).seconds == pytest.approx(0.6)
        assert take_request(store, 2, tokens=2_000).seconds == pytest.approx(2)
        assert take_request(store, 2, tokens=10**9).seconds == pytest.approx(60), "a minute fills it in any case"

    def test_may_be_asked_for_more_than_it_ever_has(self, store: Store, job: str) -> None:
        """What is read from a cache counts for nothing, and nobody knows before how much that is."""
        answer_call(store, 0, take_request(store, 0), limits={"input-tokens": (1000, 1000)})
        assert take_request(store, 1, tokens=5_000).state == "taken"
        assert take_request(store, 2, tokens=5_000) == Taken("wait", 60.0)

    def test_that_seems_used_up_is_tried_by_one_call_after_that(
        self, store: Store, job: str, pass_time: PassTime
    ) -> None:
        answer_call(store, 0, take_request(store, 0), limits={"requests": (300, 0)})
        pass_time(0.25)
        one = take_request(store, 1)
        assert one.state == "taken"
        assert take_request(store, 2) == Taken("wait", 0.2), "its answer is to say more"
        answer_call(store, 1, one)  # which says nothing, so another one tries
        two = take_request(store, 2)
        assert two.state == "taken"
        answer_call(store, 2, two, limits={"requests": (300, 2)})
        assert len(fill(store, itertools.count(3))) == 2

    def test_heeds_no_answer_after_one_to_a_later_call(self, store: Store, job: str) -> None:
        calls = [take_request(store, position) for position in range(4)]
        answer_call(store, 2, calls[2], limits={"requests": (60, 3)})
        answer_call(store, 0, calls[0], limits={"requests": (60, 50)})
        answer_call(store, 1, calls[1], limits={"input-tokens": (60, 0)})
        assert len(fill(store, itertools.count(4))) == 2, "three were left, and the fourth was on its way"

    def test_is_not_known_any_more_a_minute_after_the_last_answer(
        self, store: Store, job: str, pass_time: PassTime
    ) -> None:
        first, _ = take_request(store, 0), take_request(store, 1)
        answer_call(store, 0, first, limits={"requests": (1, 0)})
        assert take_request(store, 2).seconds == 60
        pass_time(61)
        assert take_request(store, 2).state == "taken"

    def test_takes_an_answer_to_what_it_has_forgotten(self, store: Store, job: str, pass_time: PassTime) -> None:
        store.jobs.persist_job(job)
        call = take_request(store, 0)
        pass_time(4000)
        answer_call(store, 0, call, limits={"requests": (60, 0)})
        assert take_request(store, 1).state == "taken"


class TestWhatWaitsToBeSent(Sending):
    def test_is_found_some_at_a_time(self, store: Store, job: str) -> None:
        store.message_queue.drop_waiting(job, 0)
        store.message_queue.add_requests(job, 0, range(40))
        found = [store.message_queue.list_due(job, 0, 8) for _ in range(20)]
        assert all(
            0 < len(positions) <= 8 and set(positions) <= set(range(40)) and wait == 0 for positions, wait in found
        )

    def test_is_known_until_it_has_its_outcome_and_then_as_well(self, store: Store, job: str) -> None:
        store.message_queue.drop_waiting(job, 0)
        store.message_queue.add_requests(job, 0, [0, 1, 2])
        take_request(store, 1)
        store.message_queue.save_outcome(SENDER, 2, b"x")
        assert store.message_queue.list_known(job, 0) == {0, 1, 2}
        assert store.message_queue.list_known("nobody", 0) == set()

    def test_is_entered_once_though_many_enter_it(self, open_store: OpenStore, store: Store, job: str) -> None:
        store.message_queue.drop_waiting(job, 0)
        call_at_once(open_store, lambda store, _: store.message_queue.add_requests(job, 0, range(50)), range(16))
        assert store.message_queue.count_unfinished(job, 0) == 50

    def test_is_nothing_or_comes_later(self, store: Store, job: str, pass_time: PassTime) -> None:
        assert store.message_queue.list_due("nobody", 0, 16) == ([], None)
        store.message_queue.drop_waiting(job, 0)
        store.message_queue.add_requests(job, 0, [0, 1])
        for position, seconds in ((0, 2.0), (1, 60)):
            take_request(store, position)
            store.message_queue.put_back(SENDER, position, seconds, 9)
        positions, wait = store.message_queue.list_due(job, 0, 16)
        assert (positions, 0.3 < (wait or 0) <= 2.0) == ([], True)
        pass_time(2.05)
        assert store.message_queue.list_due(job, 0, 16) == ([0], 0.0)

    def test_is_dropped_at_once_but_for_what_was_sent(self, store: Store, job: str) -> None:
        take_request(store, 7)
        assert store.message_queue.drop_waiting(job, 0) == MANY - 1
        assert store.message_queue.drop_waiting(job, 0) == 0
        assert (store.message_queue.count_unfinished(job, 0), store.message_queue.count_unfinished(job, 1)) == (1, MANY)
        assert take_request(store, 8) == Taken("gone")

    def test_is_not_what_was_sent_or_has_its_outcome_already(self, store: Store, job: str) -> None:
        """``fall_back`` may die after it has entered them, and enters them again when senders are through with them."""
        store.message_queue.drop_waiting(job, 0)
        store.message_queue.add_requests(job, 0, [0, 1, 2])
        for position in (0, 1):
            take_request(store, position)
        store.message_queue.save_outcome(SENDER, 0, b"x")
        store.message_queue.add_requests(job, 0, [0, 1, 2])
        assert store.message_queue.list_due(job, 0, 16) == ([2], 0.0)
        assert store.message_queue.count_unfinished(job, 0) == 2

    def test_that_is_entered_again_waits_no_less(self, store: Store, job: str) -> None:
        store.message_queue.drop_waiting(job, 0)
        store.message_queue.add_requests(job, 0, [0])
        take_request(store, 0)
        store.message_queue.put_back(SENDER, 0, 60, 9)
        store.message_queue.add_requests(job, 0, [0])
        assert store.message_queue.list_due(job, 0, 16) == ([], pytest.approx(60, abs=10))


class TestARefusedRequest(Sending):
    def test_is_sent_again_as_often_as_allowed(self, store: Store, job: str) -> None:
        for times in (1, 2):
            take_request(store, 0)
            assert (
                store.message_queue.put_back(SENDER, 0, 0.0, 3)
                == store.message_queue.count_refusals(SENDER, 0)
                == times
            )
        take_request(store, 0)
        assert store.message_queue.put_back(SENDER, 0, 0.0, 3) == 3
        assert take_request(store, 0) == Taken("gone")
        assert store.message_queue.list_abandoned(SENDER) == [0]
        assert store.message_queue.count_refusals(SENDER, 1) == 0

    def test_that_somebody_else_has_dealt_with_stays_as_it_is(self, store: Store, job: str) -> None:
        take_request(store, 0)
        store.message_queue.save_outcome(SENDER, 0, b"x")
        assert store.message_queue.put_back(SENDER, 0, 0.0, 3) == store.message_queue.count_refusals(SENDER, 0) == 0
        assert take_request(store, 0) == Taken("gone")

    def test_of_a_job_that_is_over_is_not_sent_again(self, store: Store, job: str) -> None:
        take_request(store, 0)
        store.jobs.update_job(job, state="revoked")
        assert store.message_queue.put_back(SENDER, 0, 0.0, 9) == 0
        assert (store.message_queue.list_abandoned(SENDER), store.message_queue.count_refusals(SENDER, 0)) == ([0], 0)

    def test_of_a_job_that_is_gone_leaves_nothing(self, store: Store, job: str, contents: Contents) -> None:
        take_request(store, 0, limit=100)
        store.storage.delete_job(job)
        assert store.message_queue.put_back(SENDER, 0, 0.0, 3) == 0
        assert not store.message_queue.save_outcome(SENDER, 0, b"x", spent=1)
        assert contents() == set()


@pytest.mark.parametrize("pool", ["limit", "total"])
class TestALimitOfWhatMessagesCost(Sending):
    def test_counts_what_may_still_be_spent(self, store: Store, job: str, pool: str) -> None:
        bounds: dict[str, Any] = {"least": 10, "most": 40, pool: 100}
        assert [take_request(store, position, **bounds).state for position in range(3)] == [
            "taken",
            "taken",
            "reserved",
        ]
        assert take_request(store, 2, **bounds) == Taken("reserved", 2.0)
        assert take_request(store, 2, **{**bounds, "most": 20}).state == "taken", "a cheaper one fits"
        store.message_queue.save_outcome(SENDER, 0, b"x", spent=11)
        assert take_request(store, 3, **{**bounds, "most": 30}).state == "reserved"
        assert take_request(store, 3, **{**bounds, "most": 29}).state == "taken"

    def test_lets_one_alone_cost_more_than_is_left(self, store: Store, job: str, pool: str) -> None:
        bounds: dict[str, Any] = {"least": 30, "most": 80, pool: 100}
        for position, spent in ((0, 70), (1, 1)):
            assert take_request(store, position, **bounds).state == "taken"
            assert take_request(store, 2, **bounds).state == "reserved"
            store.message_queue.save_outcome(SENDER, position, b"x", spent=spent)
        assert take_request(store, 2, **bounds) == Taken("budget"), "29 do not cover its input"
        assert take_request(store, 2, **{**bounds, "least": 29}).state == "taken"

    def test_is_used_up_for_good_by_what_is_spent_and_not_by_what_is_reserved(
        self, store: Store, job: str, pool: str
    ) -> None:
        limited: dict[str, Any] = {pool: 100}
        assert take_request(store, 0, least=1, most=100, **limited).state == "taken"
        assert take_request(store, 1, least=100, most=100, **limited).state == "reserved"
        assert take_request(store, 1, least=101, most=101, **limited) == Taken("budget")
