"""The summary of a job, and the progress that is shown before it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from claude_batch_tasks.records import Again, Round
from claude_batch_tasks.steps import job_summary, publishing
from tests.factories import make_batch_record, make_job_record

JOB = "job-1"


class TestTheSummary:
    BATCHES = (
        make_batch_record(
            count=3,
            body_bytes=1,
            batch_id="msgbatch_1",
            counts={"succeeded": 2, "expired": 1, "processing": 0},
            usage={"input_tokens": 5, "output_tokens": 7},
            incomplete={"refusal": 1, "max_tokens": 1},
            repairs={"continue": 2},
            answered=1,
            published=1,
            done=True,
        ),
        make_batch_record(
            first=3,
            count=2,
            body_bytes=1,
            published=1,
            counts={"errored": 2},
            usage={"input_tokens": 1},
            skipped=2,
            incomplete={"refusal": 2},
            repairs={"continue": 1, "reask": 0},
            done=True,
        ),
    )

    def record(self, **own: Any) -> Any:
        return make_job_record(**{"requests": 5, "batches": 2, "started_at": 2.0, **own})

    def test_adds_the_batches_up(self) -> None:
        summary = job_summary.summarize_job(JOB, self.record(), self.BATCHES, 60.0)
        assert {name: summary[name] for name in ("succeeded", "errored", "expired", "canceled")} == {
            "succeeded": 2, "errored": 2, "expired": 1, "canceled": 0,
        }  # fmt: skip
        assert (summary["fallback"], summary["fallback_skipped"], summary["resubmitted"]) == (1, 2, 0)
        assert summary["incomplete"] == {"refusal": 3, "max_tokens": 1}
        assert summary["repairs"] == {"continue": 3}
        assert summary["batch_ids"] == ["msgbatch_1"]
        assert summary["usage"]["input_tokens"] == 6
        assert summary["started_at"] == "1970-01-01T00:00:02+00:00"
        assert summary["ended_at"] == "1970-01-01T00:01:00+00:00"
        assert json.loads(json.dumps(summary)) == summary

    def test_leaves_out_answers_that_are_to_be_repaired(self) -> None:
        again = Again(count=3, outcomes={"succeeded": 3}, incomplete={"refusal": 3}, kinds={"refusal_model": 3})
        known: dict[str, Any] = {"count": 9, "counts": {"succeeded": 9}, "incomplete": {"refusal": 3, "empty": 1}}
        for more, expected in (
            ({}, {"refusal": 3, "empty": 1}),
            ({"again": again}, {"empty": 1}),
            ({"again": again, "final": True}, {"refusal": 3, "empty": 1}),
            ({"again": again, "done": True}, {"refusal": 3, "empty": 1}),
        ):
            found = job_summary.make_progress(self.record(), [make_batch_record(**known, **more)])
            assert found["incomplete"] == expected

    @pytest.mark.parametrize(
        ("canceled", "error", "state"),
        [
            (False, None, "completed"),
            (True, None, "canceled"),
            (False, ["BatchLost", ["x"]], "failed"),
            (True, ["BatchLost", ["x"]], "failed"),
        ],
    )
    def test_has_a_state(self, canceled: bool, error: Any, state: str) -> None:
        batch = make_batch_record(count=5, body_bytes=1, published=1, counts={"succeeded": 5}, error=error)
        assert job_summary.summarize_job(JOB, self.record(cancel_requested=canceled), [batch], 9.0)["state"] == state

    def test_names_all_batches_and_what_they_cost(self) -> None:
        past = {"attempt": 1, "counts": {}, "usage": {}, "costs": {}, "eligible": 1, "open": {}}
        rounds = [Round(batch_id=name, **past) for name in ("msgbatch_0", None, "msgbatch_2")]
        batch = make_batch_record(count=5, body_bytes=1, rounds=rounds, batch_id="msgbatch_3", costs={"m": "0.1"})
        summary = job_summary.summarize_job(JOB, self.record(stopped="no credit"), [batch, *self.BATCHES], 60.0)
        assert summary["batch_ids"] == ["msgbatch_0", "msgbatch_2", "msgbatch_3", "msgbatch_1"]
        assert (summary["cost"], summary["cost_by_model"], summary["stopped"]) == (0.1, {"m": 0.1}, "no credit")

    def test_leaves_out_what_is_to_be_sent_again(self) -> None:
        known: dict[str, Any] = {"first": 0, "count": 5, "body_bytes": 1, "counts": {"succeeded": 2, "expired": 3}}
        open_ = {"eligible": 2, "open": {"expired": 2}}
        for more, expired in (({}, 3), (open_, 1), ({**open_, "final": True}, 3), ({**open_, "done": True}, 3)):
            counts = job_summary.count_outcomes([make_batch_record(**known, **more)])
            assert (counts["succeeded"], counts["expired"]) == (2, expired)

    def test_is_foretold_by_the_progress(self) -> None:
        progress = job_summary.make_progress(self.record(), self.BATCHES)
        assert (progress["requests"], progress["processing"], progress["batches_done"]) == (5, 0, 2)
        assert (progress["incomplete"], progress["repairs"]) == ({"refusal": 3, "max_tokens": 1}, {"continue": 3})
        assert json.loads(json.dumps(progress)) == progress
        assert [progress[key] for key in ("polls", "polls_404", "next_poll_at")] == [
            progress[key] for key in ("looks", "not_found", "next_look")
        ]

    def test_is_foretold_in_one_line_for_flower(self, monkeypatch: pytest.MonkeyPatch) -> None:
        events: list[Any] = []

        @contextmanager
        def dispatch(app: Any, hostname: str) -> Iterator[Any]:
            yield SimpleNamespace(send=lambda kind, **fields: events.append((kind, fields["result"])))

        monkeypatch.setattr(publishing, "event_dispatcher", dispatch)
        backend = SimpleNamespace(store_result=lambda *_: None)
        task: Any = SimpleNamespace(backend=backend, app=None, request=SimpleNamespace(hostname="w", is_eager=False))
        for batches, said in (
            (self.BATCHES, "5 of 5 done; 4 answers are incomplete (3 refusal, 1 max_tokens); next poll in 40 s"),
            (self.BATCHES[:0], "0 of 5 done; next poll in 40 s"),
        ):
            job_summary.publish_progress(
                task,
                JOB,
                self.record(),
                lambda own=batches: job_summary.make_progress(self.record(), own),
                "next poll in 40 s",
            )
            assert events.pop() == ("task-progress", said)

    @settings(max_examples=20)
    @given(st.lists(st.dictionaries(st.sampled_from(["succeeded", "errored", "expired", "x"]), st.integers(0, 9))))
    def test_never_counts_what_it_does_not_know(self, counts: list[dict[str, int]]) -> None:
        batches = [make_batch_record(body_bytes=1, counts=own) for own in counts]
        assert set(job_summary.count_outcomes(batches)) <= {"succeeded", "errored", "expired", "canceled"}
        assert job_summary.make_progress(self.record(), batches)["processing"] >= 0
