"""What may be concluded from what an account shows, and does not show."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import anthropic
import pytest

from claude_batch_tasks import api, errors, rules
from claude_batch_tasks.api import Account, clients
from claude_batch_tasks.lifecycle import not_found, reconciliation
from claude_batch_tasks.records import BatchRecord, JobRecord, Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.steps import credentials
from claude_batch_tasks.steps.decisions import Done
from claude_batch_tasks.steps.step import Step
from claude_batch_tasks.store.redis import RedisStore

JOB = "job-1"
BATCH = Unit(JOB, 0)
MINE, OTHER, SILENT = Account("o", "w"), Account("p", "w"), Account()
GRACE = 10.0


class Unsigned(anthropic.Anthropic):
    """A client that gets its tokens somewhere."""

    @property
    def auth_headers(self) -> dict[str, str]:
        return {"Authorization": "Bearer from somewhere"}


@pytest.fixture
def make_step(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Step]]:
    """``make_step({"batch_id": "msgbatch_1"}, key=None, organization="o")``: of a batch, a client, a job."""
    made = SimpleNamespace(made=None)
    module = type(sys)("account_clients")
    module.make = lambda: made.made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def make(batch: dict[str, Any], *, key: str | None = "a key", **job: Any) -> Step:
        clients._client.cache_clear()
        kind = anthropic.Anthropic if key else Unsigned
        made.made = kind(base_url="http://127.0.0.1:9", api_key=key or "unused")
        record = store.jobs.read_job(JOB)
        if record is None:
            own = {"nonce": "n", "requests": 4, "batches": 1, "submitted_at": 0.0, "state": "running", **job}
            batches = [BatchRecord(**{"first": 0, "count": 4, "body_bytes": 9, **batch})]
            store.jobs.create_job(JOB, JobRecord(**own), batches, 600, staged=False)
            record = store.jobs.read_job(JOB)
            store.leases.acquire_lease(BATCH, 0, "me", 600)
        assert record is not None
        found = {"client_factories": {"default": "account_clients.make"}, "not_found_grace": GRACE, "listings": 2}
        return Step(store, Settings(**found), record, BATCH, "me", (JOB, 0, 0, 0), object())

    yield make
    clients._client.cache_clear()


def shows(monkeypatch: pytest.MonkeyPatch, seen: Account, *batches: api.Batch) -> list[float]:
    """The listings of the account that answers."""
    made: list[float] = []

    def list_since(client: api.Caller, since: float, *, timeout: float, now: Any = None) -> Iterator[api.Batch]:
        made.append(since)
        client.answered(seen)
        return iter(batches)

    monkeypatch.setattr(api, "list_since", list_since)
    return made


def long_ago(**own: Any) -> dict[str, Any]:
    then = time.time() - 2 * GRACE
    return {"state": "in_progress", "batch_id": "msgbatch_1", "created_at": then, "sighting": then, **own}


def answer_not_found(step: Step, seen: Account = SILENT) -> str:
    credentials.compare_account(step, seen)
    follows = not_found.handle_not_found(
        step, errors.NotFoundError("retrieve: 404", 404, "not_found_error"), "retrieve"
    )
    assert isinstance(follows, Done)
    return str(follows.value)


class TestABatchThatIsNotShown:
    @pytest.mark.parametrize(
        ("key", "job", "seen"),
        [
            ("a key", {}, SILENT),
            ("a key", {"organization": "o", "workspace": "w"}, SILENT),
            ("a key", {"organization": "o", "workspace": "w"}, MINE),
            (None, {"organization": "o", "workspace": "w"}, MINE),
        ],
    )
    def test_is_lost_on_the_account_of_the_job(
        self, make_step: Any, monkeypatch: pytest.MonkeyPatch, key: str | None, job: dict[str, Any], seen: Account
    ) -> None:
        shows(monkeypatch, seen)
        step = make_step(long_ago(), key=key, **job)
        with pytest.raises(errors.NotFoundError):
            answer_not_found(step, seen)
        assert answer_not_found(step, seen).startswith("lost")
        assert step.batch.unidentified == 0

    def test_is_not_lost_where_only_its_results_are_missing(
        self, make_step: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = shows(monkeypatch, MINE)
        step = make_step(long_ago(absences=2), organization="o", workspace="w")
        text = "results: Message Batch msgbatch_1 has no available results."
        for _ in range(3):
            with pytest.raises(errors.NotFoundError, match="seen 0 s ago"):
                not_found.handle_not_found(step, errors.NotFoundError(text, 404, "not_found_error"), "results")
        assert (made, step.batch.absences) == ([], 0)

    @pytest.mark.parametrize(
        "job", [{}, {"organization": "o", "workspace": "w"}, {"organization": "o", "workspace": None}]
    )
    def test_is_waited_for_where_nothing_tells_the_account(
        self, make_step: Any, monkeypatch: pytest.MonkeyPatch, job: dict[str, Any]
    ) -> None:
        seen = Account("o", "w") if job.get("workspace", "") is None else SILENT
        made = shows(monkeypatch, seen)
        step = make_step(long_ago(), key=None, **job)
        for _ in range(5):
            with pytest.raises(errors.NotFoundError, match="nothing shows that client 'default' uses the account"):
                answer_not_found(step, seen)
        assert len(made) == step.batch.unidentified == 5
        assert step.batch.absences == 0

    def test_is_lost_after_listings_that_prove_it_and_no_others(
        self, make_step: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Those of a worker behind another gateway are not counted together with them."""
        job = {"organization": "o", "workspace": "w"}
        shows(monkeypatch, SILENT)
        step = make_step(long_ago(), key=None, **job)
        for _ in range(3):
            with pytest.raises(errors.NotFoundError):
                answer_not_found(step)
        shows(monkeypatch, MINE)
        with pytest.raises(errors.NotFoundError):
            answer_not_found(step, MINE)
        assert answer_not_found(step, MINE).startswith("lost")

    def test_is_given_up_after_a_day_at_last(self, make_step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        shows(monkeypatch, SILENT)
        then = time.time() - rules.BATCH_LIFETIME - 1
        step = make_step(long_ago(created_at=then, sighting=then), key=None)
        with pytest.raises(errors.WaitExceeded, match=r"was not seen since .*, and nothing shows that client"):
            answer_not_found(step)

    def test_is_waited_for_anew_when_the_job_was_resumed(self, make_step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        shows(monkeypatch, SILENT)
        then = time.time() - rules.BATCH_LIFETIME - 1
        step = make_step(long_ago(created_at=then, sighting=then), key=None, resumed_at=time.time())
        with pytest.raises(errors.NotFoundError):
            answer_not_found(step)

    @pytest.mark.parametrize("seen", [OTHER, Account("o", "v")])
    @pytest.mark.parametrize("key", ["a key", None])
    def test_is_on_another_account_where_the_answer_names_one(
        self, make_step: Any, monkeypatch: pytest.MonkeyPatch, key: str | None, seen: Account
    ) -> None:
        """At once, whatever the credential: behind a gateway, the same one may lead elsewhere tomorrow."""
        made = shows(monkeypatch, seen)
        step = make_step(long_ago(), key=key, organization="o", workspace="w")
        with pytest.raises(errors.AccountChanged, match=r"its (organization|workspace) is [pv]\w*, the job's [ow]"):
            answer_not_found(step, seen)
        assert made == []

    def test_is_compared_with_where_its_own_create_went(self, make_step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        step = make_step(long_ago(organization="p", workspace="w"), organization="o", workspace="w")
        credentials.compare_account(step, OTHER)
        with pytest.raises(errors.AccountChanged):
            credentials.compare_account(step, MINE)

    def test_of_another_key_is_not_taken_for_lost(self, make_step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        made = shows(monkeypatch, SILENT)
        assert credentials.uses_original_credential(make_step(long_ago()))
        step = make_step({}, key="another key")
        with pytest.raises(errors.NotFoundError):
            answer_not_found(step)
        with pytest.raises(errors.AccountChanged, match="a batch that it does not show may still run"):
            answer_not_found(step)
        assert len(made) == 2


class TestACreateThatWasNotAnswered:
    def sent(self, **own: Any) -> dict[str, Any]:
        then = time.time() - 200
        return {"state": "creating", "intent_at": then, "unanswered_at": then, "ambiguous_at": then, **own}

    def test_is_repeated_where_the_account_proves_that_it_was_never_stored(
        self, make_step: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shows(monkeypatch, MINE)
        step = make_step(self.sent(organization="o", workspace="w"), key=None)
        with pytest.raises(errors.CreateUnresolved):
            reconciliation.reconcile_create(step)
        assert reconciliation.reconcile_create(step) is False
        assert (step.batch.intent_at, step.batch.organization) == (None, None)

    def test_is_not_repeated_where_it_does_not(self, make_step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        shows(monkeypatch, SILENT)
        step = make_step(self.sent(organization="o", workspace="w"), key=None)
        for _ in range(5):
            with pytest.raises(errors.CreateUnresolved):
                reconciliation.reconcile_create(step)
        with pytest.raises(errors.CreateUnresolved, match="nothing shows that client"):
            reconciliation.reconcile_create(step)
        assert step.batch.create_looks == 0
        assert step.batch.intent_at is not None

    def test_is_not_looked_for_on_another_account(self, make_step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        shows(monkeypatch, OTHER)
        step = make_step(self.sent(organization="o", workspace="w"), key=None)
        with pytest.raises(errors.AccountChanged):
            reconciliation.reconcile_create(step)


class TestBeforeAnythingIsPaid:
    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[Account]:
        told: list[Account] = []

        def identify(client: api.Caller, *, timeout: float) -> Account:
            client.answered(told[-1])
            return told[-1]

        monkeypatch.setattr(api, "identify_account", identify)
        return told

    def test_nobody_is_asked_about_the_key_that_the_job_was_begun_with(self, make_step: Any, asked: Any) -> None:
        step = make_step({}, organization="o")
        assert credentials.check_to_spend(step) == SILENT

    @pytest.mark.parametrize(
        ("key", "job", "seen", "may"),
        [
            (None, {}, MINE, True),
            (None, {}, SILENT, True),
            (None, {"organization": "o"}, MINE, True),
            (None, {"organization": "o"}, SILENT, False),
            (None, {"organization": "o"}, OTHER, False),
            (None, {"organization": "o", "workspace": "v"}, MINE, False),
            ("another key", {"organization": "o"}, MINE, True),
            ("another key", {"organization": "o", "workspace": "v"}, MINE, False),
            ("another key", {"organization": "o"}, SILENT, False),
        ],
    )
    def test_the_api_is_asked_about_any_other(
        self, make_step: Any, asked: list[Account], key: str | None, job: dict[str, Any], seen: Account, may: bool
    ) -> None:
        asked.append(seen)
        credentials.uses_original_credential(make_step({}, key="a key" if key else None, **job))
        step = make_step({}, key=key)
        if may:
            assert credentials.check_to_spend(step) == seen
        else:
            with pytest.raises(errors.AccountChanged):
                credentials.check_to_spend(step)

    @pytest.mark.parametrize(
        ("batch", "may"), [({}, True), ({"batch_id": "msgbatch_1"}, False), ({"intent_at": 1.0}, False)]
    )
    def test_another_key_may_begin_a_job_of_which_nothing_exists(
        self, make_step: Any, batch: dict[str, Any], may: bool
    ) -> None:
        """The first one was refused, say."""
        credentials.uses_original_credential(make_step(batch))
        step = make_step({}, key="another key")
        if not may:
            with pytest.raises(errors.AccountChanged, match="nothing was sent on it"):
                credentials.check_to_spend(step)
            return
        credentials.check_to_spend(step)
        assert credentials.uses_original_credential(make_step({}, key="another key"))

    def test_a_job_of_the_first_release_keeps_its_credential(self, make_step: Any, asked: list[Account]) -> None:
        """That knew keys, and no identity beside them."""
        known = api.hash_credential(make_step({}).client.client, "n")
        make_step({}).store.jobs.update_job(JOB, account=known)
        step = make_step({})
        assert step.job.identity is None
        assert credentials.uses_original_credential(step)
        assert credentials.check_to_spend(step) == SILENT


class TestAnAccount:
    def test_is_learned_from_what_is_done_for_the_job(self, make_step: Any) -> None:
        step = make_step({}, key=None)
        name = step.account
        credentials.remember_credential(step, MINE)
        assert (step.job.organization, step.job.workspace) == MINE
        assert step.account != name
        credentials.learn_account(step, OTHER)
        again = make_step({}, key=None)
        assert (again.job.organization, again.job.workspace) == MINE
