"""What takes long may take short; the times that clients are shown stay near the wall clock."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import anthropic
import pytest

from claude_batch_tasks.simulator import Fault, Simulator

from .conftest import requests

pytestmark = pytest.mark.latest

HOUR = 3600.0


def near_now(at: datetime | None, seconds: float = 20.0) -> bool:
    assert at is not None
    return abs((datetime.now(timezone.utc) - at).total_seconds()) < seconds


def test_at_any_speed_times_are_near_the_wall_clock(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(processing_seconds=20 * HOUR, clock_speed=1_000_000.0)
    for _ in range(3):
        time.sleep(0.1)
        batch = client.messages.batches.create(requests=requests(1))
        assert near_now(batch.created_at)
        assert batch.expires_at - batch.created_at == timedelta(hours=24)
    time.sleep(0.1)
    ended = client.messages.batches.retrieve(batch.id)
    assert ended.processing_status == "ended"
    assert near_now(ended.ended_at)
    assert ended.ended_at is not None
    assert timedelta() < ended.ended_at - ended.created_at < timedelta(seconds=1)


def test_what_is_not_processed_expires_at_a_fast_clock(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(processing_seconds=48 * HOUR, clock_speed=1_000_000.0)
    batch = client.messages.batches.create(requests=requests(2))
    time.sleep(0.1)
    ended = client.messages.batches.retrieve(batch.id)
    assert (ended.request_counts.succeeded, ended.request_counts.expired) == (1, 1)
    assert near_now(ended.ended_at)
    assert ended.expires_at == batch.expires_at


def test_a_change_of_speed_moves_no_time_that_was_shown(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(processing_seconds=HOUR, clock_speed=36_000.0)
    batch = client.messages.batches.create(requests=requests(1))
    time.sleep(0.2)
    before = client.messages.batches.retrieve(batch.id)
    simulator.behave(clock_speed=0.5)
    assert client.messages.batches.retrieve(batch.id) == before
    simulator.behave(clock_speed=50_000.0)
    assert client.messages.batches.retrieve(batch.id) == before
    assert near_now(before.ended_at)


def test_a_slow_clock_makes_a_batch_slow(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(processing_seconds=1.0, clock_speed=0.001)
    batch = client.messages.batches.create(requests=requests(1))
    simulator.advance(0.9)
    assert client.messages.batches.retrieve(batch.id).processing_status == "in_progress"
    simulator.advance(0.2)
    assert client.messages.batches.retrieve(batch.id).processing_status == "ended"


def test_only_advance_moves_what_is_shown(simulator: Simulator, client: anthropic.Anthropic) -> None:
    first = client.messages.batches.create(requests=requests(1))
    simulator.advance(2 * HOUR)
    second = client.messages.batches.create(requests=requests(1))
    assert timedelta(hours=2) <= second.created_at - first.created_at < timedelta(hours=2, seconds=20)
    assert client.messages.batches.retrieve(first.id).created_at == first.created_at
    journal = simulator.journal()
    assert 2 * HOUR <= journal.calls[1].at - journal.calls[0].at < 2 * HOUR + 20
    assert simulator.state().now - time.time() > 2 * HOUR - 20


def test_windows_of_faults_pass_in_simulated_seconds(simulator: Simulator, client: anthropic.Anthropic) -> None:
    simulator.behave(clock_speed=36_000.0)
    simulator.faults(Fault("retrieve", "status", status=404, before=HOUR))
    batch = client.messages.batches.create(requests=requests(1))
    time.sleep(0.15)
    assert client.messages.batches.retrieve(batch.id).id == batch.id


def test_a_batch_that_is_expired_says_when(simulator: Simulator, client: anthropic.Anthropic) -> None:
    batch = client.messages.batches.create(requests=requests(1))
    simulator.expire()
    ended = client.messages.batches.retrieve(batch.id)
    assert ended.expires_at == ended.ended_at
    assert near_now(ended.expires_at)
