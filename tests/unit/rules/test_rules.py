from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import anthropic
import pytest
from hypothesis import given, strategies as st

from claude_batch_tasks import errors, rules

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=timezone.utc).timestamp()
ENDPOINTS = ("create", "retrieve", "list", "results", "cancel", "messages")
READING = ("retrieve", "list", "results", "cancel")


TRANSIENT, PERMANENT = errors.TransientError, errors.PermanentError
AMBIGUOUS, NOT_FOUND = errors.AmbiguousError, errors.NotFoundError
STATUSES = (None, *range(200, 210), *range(300, 310), *range(400, 432), 451, 460, 499, *range(500, 532), 598, 599)


def expected(endpoint: str, status: int | None, error_type: str | None) -> type[errors.ApiError]:
    """What is known to be not executed, stated once more and apart."""
    own, pays = error_type is not None, endpoint in ("create", "messages")
    if status in (429, 522):
        return TRANSIENT
    if status == 404:
        return NOT_FOUND
    if status == 501 and endpoint == "create":
        return errors.BatchesUnsupported
    if own and status is not None and 400 <= status < 500:
        return TRANSIENT if status in (408, 409, 425) else PERMANENT
    if status == 529 and error_type == "overloaded_error":
        return TRANSIENT
    if not pays:
        return TRANSIENT
    return PERMANENT if status in (301, 302, 307, 308) else AMBIGUOUS


class TestWhatAnAnswerMeans:
    @pytest.mark.parametrize("endpoint", ENDPOINTS)
    def test_a_request_that_never_left_may_be_sent_again(self, endpoint: Any) -> None:
        assert rules.classify_answer(endpoint, None, sent=False) is TRANSIENT

    @pytest.mark.parametrize("endpoint", ENDPOINTS)
    @pytest.mark.parametrize("error_type", [None, "overloaded_error", "api_error", "an_unheard_of_error"])
    def test_is_decided_for_every_status_and_form(self, endpoint: Any, error_type: str | None) -> None:
        for status in STATUSES:
            found = rules.classify_answer(endpoint, status, own=error_type is not None, error_type=error_type)
            assert found is expected(endpoint, status, error_type), status

    @pytest.mark.parametrize("endpoint", ["create", "messages"])
    @pytest.mark.parametrize(
        "status", [None, 303, 400, 401, 403, 408, 409, 413, 499, 500, 502, 503, 504, 520, 524, 529]
    )
    def test_what_is_not_the_apis_own_form_may_have_been_paid(self, endpoint: Any, status: int | None) -> None:
        assert rules.classify_answer(endpoint, status) is AMBIGUOUS

    @pytest.mark.parametrize("endpoint", ["create", "messages"])
    @pytest.mark.parametrize(
        ("status", "error_type"), [(500, "api_error"), (503, "api_error"), (504, "timeout_error"), (529, "api_error")]
    )
    def test_the_apis_own_word_that_it_failed_is_not_that_it_did_nothing(
        self, endpoint: Any, status: int, error_type: str
    ) -> None:
        assert rules.classify_answer(endpoint, status, own=True, error_type=error_type) is AMBIGUOUS

    @pytest.mark.parametrize("endpoint", ["create", "messages"])
    def test_overloaded_in_the_apis_own_words_did_nothing(self, endpoint: Any) -> None:
        assert rules.classify_answer(endpoint, 529, own=True, error_type="overloaded_error") is TRANSIENT

    @pytest.mark.parametrize("endpoint", READING)
    @pytest.mark.parametrize("status", [301, 400, 401, 403, 407, 413])
    def test_a_proxys_refusal_passes_where_nothing_is_spent(self, endpoint: Any, status: int) -> None:
        assert rules.classify_answer(endpoint, status) is TRANSIENT
        assert rules.is_foreign_refusal(status, None), "up to a limit"

    @pytest.mark.parametrize("endpoint", READING)
    @pytest.mark.parametrize("status", [400, 401, 402, 403, 405, 410, 413, 422])
    def test_the_apis_own_refusal_does_not_pass(self, endpoint: Any, status: int) -> None:
        assert rules.classify_answer(endpoint, status, own=True, error_type="some_error") is PERMANENT
        assert not rules.is_foreign_refusal(status, "some_error")

    @pytest.mark.parametrize("status", [None, 200, 408, 409, 425, 429, 500, 502, 520, 529])
    def test_what_passes_by_itself_has_no_limit(self, status: int | None) -> None:
        assert not rules.is_foreign_refusal(status, None)

    @given(
        endpoint=st.sampled_from(ENDPOINTS),
        status=st.none() | st.integers(100, 599),
        own=st.booleans(),
        sent=st.booleans(),
    )
    def test_every_status_means_something(self, endpoint: Any, status: int | None, own: bool, sent: bool) -> None:
        error = rules.classify_answer(endpoint, status, own=own, error_type="x_error" if own else None, sent=sent)
        assert issubclass(error, errors.ApiError)
        assert issubclass(error, errors.Retryable) or own or status in (301, 302, 307, 308)


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, None),
            ({"retry-after": "7"}, 7.0),
            ({"retry-after": " 7 "}, 7.0),
            ({"retry-after": "0.25"}, 0.25),
            ({"retry-after": "0"}, 0.0),
            ({"retry-after-ms": "1500"}, 1.5),
            ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
            ({"retry-after": format_datetime(datetime(2026, 11, 22, 12, 1, 30, tzinfo=timezone.utc), True)}, 90.0),
            ({"retry-after": "Sun, 22 Nov 2026 13:01:30 +0100"}, 90.0),
        ],
    )
    def test_is_read_in_each_of_its_forms(self, headers: dict[str, str], seconds: float | None) -> None:
        assert rules.read_retry_after(headers, NOW) == seconds

    @pytest.mark.parametrize("value", ["-5", "Sun, 22 Nov 2026 11:00:00 GMT", "-inf"])
    def test_in_the_past_is_now(self, value: str) -> None:
        assert rules.read_retry_after({"retry-after": value}, NOW) == 0.0

    @pytest.mark.parametrize("value", ["1e9", "inf", "4294967", "Sun, 22 Nov 2099 12:00:00 GMT"])
    def test_never_asks_for_more_than_ten_minutes(self, value: str) -> None:
        assert rules.read_retry_after({"retry-after": value}, NOW) == rules.LONGEST_PAUSE

    @pytest.mark.parametrize("value", ["", "soon", "nan", "12 parsecs", "Sun, 99 Nov 2026 11:00:00 GMT"])
    @pytest.mark.parametrize("name", ["retry-after", "retry-after-ms"])
    def test_that_is_unreadable_asks_for_nothing(self, name: str, value: str) -> None:
        assert rules.read_retry_after({name: value}, NOW) is None

    @given(value=st.text(max_size=40), name=st.sampled_from(["retry-after", "retry-after-ms"]))
    def test_is_never_an_error(self, name: str, value: str) -> None:
        seconds = rules.read_retry_after({name: value}, NOW)
        assert seconds is None or 0 <= seconds <= rules.LONGEST_PAUSE

    @given(when=st.datetimes(timezones=st.timezones()), text=st.sampled_from(["{}", "{} (comment)"]))
    def test_as_any_date_is_never_an_error(self, when: datetime, text: str) -> None:
        seconds = rules.read_retry_after({"retry-after": text.format(format_datetime(when))}, NOW)
        assert seconds is None or 0 <= seconds <= rules.LONGEST_PAUSE


class TestBackoff:
    @pytest.mark.parametrize(
        ("failures", "ceiling"),
        [(0, 2.0), (1, 2.0), (2, 4.0), (3, 8.0), (7, 128.0), (8, 256.0), (9, 300.0), (10_000, 300.0)],
    )
    def test_doubles_up_to_the_maximum(self, failures: int, ceiling: float) -> None:
        nearly_one = 1 - 2**-53
        waits = rules.retry_countdown(failures, retry_min=2, retry_max=300, at_least=None, rand=nearly_one)
        assert waits == pytest.approx(ceiling)

    def test_has_full_jitter(self) -> None:
        assert rules.retry_countdown(3, retry_min=2, retry_max=300, at_least=None, rand=0.0) == 0.0
        assert rules.retry_countdown(3, retry_min=2, retry_max=300, at_least=None, rand=0.5) == 4.0

    def test_never_comes_back_before_the_other_side_asked_for(self) -> None:
        assert rules.retry_countdown(1, retry_min=2, retry_max=300, at_least=60, rand=0.9) == 60
        assert rules.retry_countdown(9, retry_min=2, retry_max=300, at_least=1, rand=0.9) == 270

    @given(
        failures=st.integers(0, 10**9),
        low=st.floats(0.01, 1e6),
        high=st.floats(0.01, 1e6),
        at_least=st.none() | st.floats(0, 86_400),
        rand=st.floats(0, 1, exclude_max=True),
    )
    def test_stays_within_its_bounds(
        self, failures: int, low: float, high: float, at_least: float | None, rand: float
    ) -> None:
        wait = rules.retry_countdown(failures, retry_min=low, retry_max=high, at_least=at_least, rand=rand)
        assert (at_least or 0) <= wait <= max(high, at_least or 0)


class TestTheIntervalBetweenLooks:
    @pytest.mark.parametrize(("age", "interval"), [(0, 5), (30, 5), (600, 60), (1200, 120), (86_400, 120)])
    def test_grows_with_the_age_of_the_batch(self, age: float, interval: float) -> None:
        assert rules.poll_interval(age, poll_min=5, poll_max=120, rand=0.5) == interval

    def test_spreads_out(self) -> None:
        intervals = [rules.poll_interval(600, poll_min=5, poll_max=120, rand=n / 10) for n in range(10)]
        assert len(set(intervals)) == 10
        assert min(intervals) == pytest.approx(54)
        assert max(intervals) < 66

    @given(age=st.floats(-1e6, 1e9), rand=st.floats(0, 1, exclude_max=True))
    def test_stays_within_its_bounds_even_if_clocks_differ(self, age: float, rand: float) -> None:
        assert 5 <= rules.poll_interval(age, poll_min=5, poll_max=120, rand=rand) <= 120

    def test_is_longer_at_first_where_batches_of_this_size_take_long(self) -> None:
        known = {"poll_min": 5.0, "poll_max": 120.0, "rand": 0.5, "usual": 180.0}
        assert rules.poll_interval(0, **known) == 90
        assert rules.poll_interval(80, **known) == 10
        assert rules.poll_interval(89, **known) == pytest.approx(8.9)
        assert rules.poll_interval(0, **{**known, "usual": 3600.0}) == 120, "and still never longer than poll_max"

    def test_looks_right_after_the_batch_must_have_ended_and_then_densely(self) -> None:
        known = {"poll_min": 5.0, "poll_max": 120.0, "rand": 0.5}
        assert rules.poll_interval(86_390, **known, overdue=-10) == 15
        assert rules.poll_interval(86_200, **known, overdue=-200) == 120
        assert rules.poll_interval(86_400, **known, overdue=0) == 5
        assert rules.poll_interval(86_500, **known, overdue=100) == 10
        assert rules.poll_interval(90_000, **known, overdue=3600) == 120

    @given(
        age=st.floats(0, 1e6),
        rand=st.floats(0, 1, exclude_max=True),
        overdue=st.none() | st.floats(-1e6, 1e6),
        usual=st.none() | st.floats(0, 1e6),
    )
    def test_stays_within_its_bounds_whatever_is_known(
        self, age: float, rand: float, overdue: float | None, usual: float | None
    ) -> None:
        assert 5 <= rules.poll_interval(age, poll_min=5, poll_max=120, rand=rand, overdue=overdue, usual=usual) <= 120

    @pytest.mark.parametrize("duration", [7, 120, 3600, 86_000])
    def test_notices_every_end_within_a_tenth_of_it_or_the_bounds(self, duration: float) -> None:
        for rand in (0.0, 0.3, 0.999):
            at = 0.0
            while at < duration:
                at += rules.poll_interval(at, poll_min=5, poll_max=120, rand=rand)
            assert at - duration <= min(max(duration * 0.11, 5), 120)

    @pytest.mark.parametrize(("visibility_timeout", "hop"), [(6, 1.5), (2400, 600), (3600, 600), (86_400, 600)])
    def test_is_taken_in_hops_the_broker_can_hold(self, visibility_timeout: float, hop: float) -> None:
        assert rules.longest_countdown(visibility_timeout) == hop


class TestWhatIsKnownOfPastBatches:
    def test_is_nothing_before_there_are_some(self) -> None:
        assert rules.usual_batch_seconds([], 100) is None
        assert rules.usual_batch_seconds([(100, 60.0)] * 4, 100) is None
        assert rules.usual_batch_seconds([(100, 60.0)] * 5, 100) == 60

    def test_is_how_long_the_quickest_of_about_the_same_size_took(self) -> None:
        past = [(100, 60.0 + n) for n in range(9)] + [(100_000, 3000.0 + n) for n in range(9)]
        assert (
            rules.usual_batch_seconds(past, 100)
            == rules.usual_batch_seconds(past, 30)
            == rules.usual_batch_seconds(past, 400)
            == 60
        )
        assert rules.usual_batch_seconds(past, 100_000) == 3000
        assert rules.usual_batch_seconds(past, 5_000) is None


class TestWhatHoldsCallsBack:
    def test_is_a_429_for_as_long_as_it_says(self) -> None:
        assert rules.pause_of_account(429, {"retry-after": "7"}, NOW) == 7
        assert rules.pause_of_account(429, {}, NOW) == rules.DEFAULT_PAUSE
        assert rules.pause_of_account(429, {"retry-after": "0"}, NOW) == rules.SHORTEST_PAUSE, (
            "and it is not asked in a loop"
        )
        assert rules.pause_of_account(429, {"retry-after": "86400"}, NOW) == rules.LONGEST_PAUSE

    def test_is_an_answer_after_which_no_request_is_left(self) -> None:
        reset = datetime.fromtimestamp(NOW + 9, timezone.utc).isoformat().replace("+00:00", "Z")
        headers = {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": reset}
        assert rules.pause_of_account(200, headers, NOW) == 9
        assert rules.pause_of_account(200, {**headers, "anthropic-ratelimit-requests-remaining": "1"}, NOW) is None
        assert rules.pause_of_account(200, {**headers, "anthropic-ratelimit-requests-reset": "soon"}, NOW) is None
        assert rules.pause_of_account(200, headers, NOW + 60) == 0

    @pytest.mark.parametrize("status", [200, 404, 500, 529])
    def test_is_nothing_else(self, status: int) -> None:
        assert rules.pause_of_account(status, {"retry-after": "7"}, NOW) is None


class TestWhatA404Means:
    DAY = 86_400.0

    def means(self, **known: float) -> str:
        own: dict[str, Any] = {"now": NOW, "created_at": NOW - 3600, "last_sighting": NOW - 60, "grace": 900.0}
        return rules.judge_not_found(**{**own, "absences": 0, "absences_limit": 3, **known})

    def test_soon_after_the_batch_was_seen_it_is_propagation(self) -> None:
        assert self.means() == "propagation"
        assert self.means(last_sighting=NOW - 899.9) == "propagation"

    def test_soon_after_the_batch_was_seen_it_is_propagation_whatever_listings_said_before(self) -> None:
        assert self.means(absences=99) == "propagation"

    def test_later_only_a_listing_may_tell(self) -> None:
        assert self.means(last_sighting=NOW - 900) == "ask_list"
        assert self.means(last_sighting=NOW - 900, absences=2) == "ask_list"

    def test_after_enough_listings_without_it_the_batch_is_lost(self) -> None:
        assert self.means(last_sighting=NOW - 900, absences=3) == "lost"

    def test_without_a_grace_the_first_404_is_looked_into(self) -> None:
        assert self.means(last_sighting=NOW, grace=0.0) == "ask_list"

    @pytest.mark.parametrize(("days", "meaning"), [(28.9, "propagation"), (29.1, "lost")])
    def test_beyond_retention_counted_from_its_creation_it_is_lost_at_once(self, days: float, meaning: str) -> None:
        assert self.means(created_at=NOW - days * self.DAY, last_sighting=NOW - 1) == meaning

    def test_a_clock_that_runs_behind_does_not_lose_a_batch(self) -> None:
        ahead = (datetime.fromtimestamp(NOW, timezone.utc) + timedelta(minutes=10)).timestamp()
        assert self.means(created_at=ahead, last_sighting=ahead) == "propagation"


@pytest.mark.parametrize(
    ("outcome", "error_type", "again"),
    [
        ("succeeded", None, False),
        ("expired", None, True),
        ("canceled", None, False),
        ("errored", "overloaded_error", True),
        ("errored", "api_error", True),
        ("errored", "timeout_error", True),
        ("errored", "rate_limit_error", True),
        ("errored", "invalid_request_error", False),
        ("errored", "authentication_error", False),
        ("errored", "billing_error", False),
        ("errored", "permission_error", False),
        ("errored", "not_found_error", False),
        ("errored", "request_too_large", False),
        ("errored", "unknown_result_type", False),
        ("errored", "an_error_of_next_year", False),
        ("errored", None, False),
        ("canceled", "overloaded_error", False),
    ],
)
def test_only_what_failed_for_a_passing_reason_deserves_another_chance(
    outcome: str, error_type: str | None, again: bool
) -> None:
    assert rules.deserves_resubmission(outcome, error_type) is again
    assert rules.may_fall_back(outcome, error_type, cut_short=False) is again
    assert rules.may_fall_back(outcome, error_type, cut_short=True) is (again or outcome == "canceled")


#: What Anthropic says when an account may not spend, as of 2026.
NO_CREDIT = (
    "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase "
    "credits."
)
OWN_LIMIT = "You have reached your specified API usage limits. You will regain access on 2100-01-01 at 00:00 UTC."
RATE_LIMIT = (
    "This request would exceed your organization's rate limit of 40,000 input tokens per minute. For details, refer "
    "to: https://docs.claude.com/en/api/rate-limits. You can see the response headers for current usage. Please reduce "
    "the prompt length or the maximum tokens requested, or try again later. You may also contact sales to discuss your "
    "options for a rate limit increase."
)


class TestWhatConcernsTheWholeAccount:
    @pytest.mark.parametrize(
        ("error_type", "message", "known"),
        [
            ("authentication_error", "invalid x-api-key", {"status": 401}),
            (None, None, {"status": 402}),
            ("permission_error", "not allowed", {"status": 403}),
            ("invalid_request_error", NO_CREDIT, {"status": 400}),
            ("invalid_request_error", OWN_LIMIT, {"status": 400}),
            ("rate_limit_error", "slow down", {"status": 429, "code": "enforced_spend_limit_reached"}),
            ("invalid_request_error", "This organization has been disabled.", {"status": 400}),
            ("rate_limit_error", "slow down", {"status": 429, "code": "ramp_limit_exceeded"}),
            ("api_error", "try later", {"status": 503, "code": "cmek_key_unreachable"}),
            ("invalid_request_error", "x", {"status": 400, "code": "cmek_key_network_blocked"}),
            ("invalid_request_error", "x", {"status": 400, "code": "workspace_human_review_disabled"}),
            ("invalid_request_error", "x", {"status": 400, "code": "claude_code_key_creator_not_member"}),
            # Nobody knows these yet, but what they are about.
            ("invalid_request_error", "x", {"status": 400, "code": "workspace_suspended"}),
            ("rate_limit_error", "x", {"status": 429, "code": "prepaid_credit_exhausted"}),
            # In a result file, which has no status:
            ("authentication_error", None, {}),
            ("billing_error", "", {}),
            ("invalid_request_error", NO_CREDIT, {}),
        ],
    )
    def test_is_that_it_may_not_call_or_not_pay(self, error_type: str, message: str, known: dict[str, Any]) -> None:
        assert rules.concerns_account(error_type, message, **known)

    @pytest.mark.parametrize(
        ("error_type", "message", "known"),
        [
            ("rate_limit_error", RATE_LIMIT, {"status": 429}),
            ("rate_limit_error", RATE_LIMIT, {"status": 429, "code": "a_code_of_next_year"}),
            ("invalid_request_error", "max_tokens: 999999 > 64000", {"status": 400}),
            ("invalid_request_error", "x", {"status": 400, "code": "image_dimensions_too_large"}),
            ("invalid_request_error", "x", {"status": 400, "code": "user_profile_not_found"}),
            ("invalid_request_error", "x", {"status": 400, "code": "storage_quota_exceeded"}),
            ("invalid_request_error", "prompt is too long", {}),
            ("not_found_error", f"model: {NO_CREDIT}", {"status": 404}),
            ("overloaded_error", OWN_LIMIT, {"status": 529}),
            ("billing_error", None, {"status": 500}),
            ("permission_error", "no access to this model", {}),
            (None, "Just a moment...", {"status": 403}),
            (None, None, {}),
        ],
    )
    def test_is_nothing_that_another_request_may_not_meet(
        self, error_type: str, message: str, known: dict[str, Any]
    ) -> None:
        assert not rules.concerns_account(error_type, message, **known)


class TestTheNextChance:
    @pytest.mark.parametrize(
        ("again", "eligible", "fallback", "in_time", "chance"),
        [
            (3, 2, "messages", True, "resubmit"),
            (3, 2, "off", True, "resubmit"),
            (3, 0, "messages", True, "resubmit"),  # repairs alone
            (3, 0, "off", True, "resubmit"),
            (0, 2, "messages", True, "messages"),
            (0, 2, "off", True, "none"),
            (0, 0, "messages", True, "none"),
            (3, 2, "messages", False, "messages"),
            (3, 2, "off", False, "none"),
            (3, 0, "messages", False, "none"),  # repairs never go through the Messages API
            (0, 2, "messages", False, "messages"),
        ],
    )
    def test_is_the_cheaper_one_while_there_is_time(
        self, again: int, eligible: int, fallback: str, in_time: bool, chance: str
    ) -> None:
        known = {"again": again, "eligible": eligible, "fallback": fallback, "in_time": in_time}
        assert rules.choose_next_attempt(barred=False, **known) == chance
        assert rules.choose_next_attempt(barred=True, **known) == "none"

    def test_comes_in_time_if_the_slowest_batch_of_this_size_would(self) -> None:
        past = [(100, 60.0 + n) for n in range(5)] + [(100_000, 20_000.0)] * 5
        assert rules.ends_in_time(64, past, 100)
        assert not rules.ends_in_time(63.9, past, 100)
        assert rules.ends_in_time(20_000, past, 50_000)

    @pytest.mark.parametrize("past", [[], [(100, 60.0)] * 4, [(10_000, 60.0)] * 9])
    def test_takes_an_hour_where_too_little_is_known(self, past: list[tuple[int, float]]) -> None:
        assert rules.ends_in_time(3600, past, 100)
        assert not rules.ends_in_time(3599, past, 100)
        assert rules.ends_in_time(None, past, 100)


class TestACallOfTheMessagesApi:
    @pytest.mark.parametrize(
        ("model", "max_tokens", "streamed"),
        [
            ("claude-haiku-4-5", 21_333, False),
            ("claude-haiku-4-5", 21_334, True),
            ("claude-opus-4-20250514", 8_192, False),
            ("claude-opus-4-20250514", 8_193, True),
            ("claude-x", 8_193, False),
        ],
    )
    def test_is_streamed_where_the_sdk_insists_on_it(self, model: str, max_tokens: int, streamed: bool) -> None:
        assert rules.must_stream(model, max_tokens) is streamed
        client: Any = anthropic.Anthropic(api_key="x", base_url="http://127.0.0.1:1", max_retries=0)
        with pytest.raises(ValueError if streamed else anthropic.APIConnectionError):
            client.messages.create(model=model, max_tokens=max_tokens, messages=[{"role": "user", "content": "x"}])

    @pytest.mark.parametrize(
        ("seconds", "width"), [(None, 2), (0.0, 2), (0.04, 2), (0.041, 3), (0.2, 10), (0.32, 16), (60.0, 16)]
    )
    def test_has_others_beside_it_as_long_as_it_takes(self, seconds: float | None, width: int) -> None:
        assert rules.choose_concurrency(seconds) == width


class TestTheLimitsOfTheMessagesApi:
    def headers(self, **named: str) -> dict[str, str]:
        return {f"anthropic-ratelimit-{name.replace('_', '-')}": value for name, value in named.items()}

    def test_are_read_each_with_what_is_left_of_it(self) -> None:
        assert rules.read_rate_limits({}) == {}
        found = {}
        for n, name in enumerate(rules.RATE_LIMITS):
            found |= self.headers(**{f"{name}-limit": str(50 + n), f"{name}-remaining": str(n)})
        assert rules.read_rate_limits(found) == {
            "requests": (50, 0), "tokens": (51, 1), "input-tokens": (52, 2), "output-tokens": (53, 3),
        }  # fmt: skip

    @pytest.mark.parametrize(
        "named",
        [
            {"requests_limit": "50"},
            {"requests_remaining": "7"},
            {"requests_limit": "50", "requests_remaining": "many"},
            {"requests_limit": "", "requests_remaining": "7"},
            {"searches_limit": "50", "searches_remaining": "7"},
        ],
    )
    def test_are_left_out_where_they_are_not_whole(self, named: dict[str, str]) -> None:
        tokens = self.headers(tokens_limit="9", tokens_remaining="1")
        assert rules.read_rate_limits({**tokens, **self.headers(**named)}) == {"tokens": (9, 1)}

    def test_hold_calls_back_for_as_long_as_a_429_says(self) -> None:
        assert rules.pause_of_model(429, {"retry-after": "7"}, NOW) == 7
        assert rules.pause_of_model(429, {"retry-after": "0"}, NOW) == rules.SHORTEST_MESSAGES_PAUSE
        assert rules.pause_of_model(429, {}, NOW) == rules.DEFAULT_PAUSE

    def test_hold_them_back_until_the_reset_where_no_request_is_left(self) -> None:
        reset = datetime.fromtimestamp(NOW + 9, timezone.utc).isoformat()
        headers = self.headers(requests_remaining="0", requests_reset=reset)
        assert rules.pause_of_model(429, headers, NOW) == 9
        assert rules.pause_of_model(429, {**headers, "retry-after": "3"}, NOW) == 3
        assert (
            rules.pause_of_model(429, self.headers(requests_remaining="1", requests_reset=reset), NOW)
            == rules.DEFAULT_PAUSE
        )

    @pytest.mark.parametrize("status", [200, 500, 529])
    def test_hold_nothing_back_otherwise(self, status: int) -> None:
        headers = {"retry-after": "7", **self.headers(requests_remaining="0")}
        assert rules.pause_of_model(status, headers, NOW) is None
