"""Runs one client on one scenario, and judges what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from claude_batch_tasks.simulator import Journal, Simulator
from tests.compat.clients import Client
from tests.compat.environments import CACHE, make_command
from tests.compat.proxy import HostProxy

#: A client that has not ended by then hangs: one of them polls no oftener than every 30 seconds.
LIMIT_SECONDS = 180
COUNT = 20
EXPECTED = {f"question-{n}": f"Echo: Question {n}?" for n in range(COUNT)}
EXPECTED_MESSAGES = ("Echo: Whole?", "Echo: Streamed?")


@dataclass(frozen=True)
class Seen:
    """What the journal of the simulator says of one run."""

    batches: int = 0
    paid: int = 0
    paid_twice: int = 0
    downloads: int = 0
    creates: int = 0
    cancels: int = 0
    #: The last call that failed: its endpoint and status.
    failed: str = ""

    @classmethod
    def read(cls, journal: Journal) -> Seen:
        failed = [f"{call.endpoint or call.path} {call.status}" for call in journal.calls if call.status >= 400]
        return cls(
            batches=len(journal.batches),
            paid=journal.totals.paid_batch,
            paid_twice=len(journal.paid_twice()),
            downloads=sum(batch.downloads for batch in journal.batches),
            creates=len(journal.calls_to("create")),
            cancels=len(journal.calls_to("cancel", 200)),
            failed=failed[-1] if failed else "",
        )


def run_client(client: Client, folder: Path, scenario: str) -> dict[str, Any]:
    """Run the driver in an empty folder against a simulator of its own; return the verdict and what was seen."""
    with ExitStack() as stack:
        simulator = stack.enter_context(Simulator(scenario))
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="claude-batch-compat-")))
        env = _make_env(simulator.env, work)
        if client.fixed_host:
            env |= stack.enter_context(HostProxy("api.anthropic.com", simulator.port, work)).env
        started = time.monotonic()
        log = CACHE / "logs" / f"{client.name}.{scenario}.log"
        report = _run_driver(make_command(client, folder), work, env, log)
        seconds = round(time.monotonic() - started, 1)
        # What it left behind goes on at the API, and is paid for.
        simulator.advance(3600)
        journal = simulator.journal()
    with log.open("a") as file:
        for call in journal.calls:
            at = call.at - journal.calls[0].at
            print(f"{at:7.2f} {call.method} {call.path} {call.status} {', '.join(call.faults)}", file=file)
    seen = Seen.read(journal)
    return {"verdict": judge(report, seen, client.answers), "seconds": seconds, **asdict(seen)}


def _make_env(simulator: Mapping[str, str], work: Path) -> dict[str, str]:
    """Return an environment with this machine's programs, and with nothing else of this user or project."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "SSL_CERT_FILE") if name in os.environ}
    own = {"HOME": str(work), "XDG_CONFIG_HOME": str(work), "AIRFLOW_HOME": str(work / "airflow"), "NO_COLOR": "1"}
    # Prices and the like that clients load from the network at their start.
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"}
    return kept | own | offline | dict(simulator)


def _run_driver(command: list[str | Path], work: Path, env: Mapping[str, str], log: Path) -> dict[str, Any] | None:
    """Return the report of a driver; None where it did not end in time.

    Raises:
        RuntimeError: the driver ended without a report.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w+") as file:
        process = subprocess.Popen(
            command, cwd=work, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
        try:
            process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end_session(process)
        file.seek(0)
        text = file.read()
    lines = [line for line in text.splitlines() if line.startswith('{"answers":')]
    if not lines:
        raise RuntimeError(f"the driver ended with status {process.returncode} and no report: see {log}")
    report: dict[str, Any] = json.loads(lines[-1])
    return report


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """End the driver with all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()


def judge(report: Mapping[str, Any] | None, seen: Seen, answers: str = "echo") -> str:
    """Say in a few words what a client did: what it raised, lost, or paid twice; `works` where nothing of that."""
    found = ["hangs"] if report is None else _judge_report(report, seen, answers)
    if seen.paid_twice:
        found.append(f"pays twice for {seen.paid_twice}")
    if found:
        return "; ".join(found)
    if raised := report["raised"] if report else []:
        return f"works ({len(raised)} of its runs raised {_name_of(raised[0])})"
    return "works" if seen.creates else "works (without batches)"


def _judge_report(report: Mapping[str, Any], seen: Seen, answers: str) -> list[str]:
    got: Mapping[str, Any] = report["answers"]
    missing = COUNT - len(got)
    found = []
    if report["error"]:
        found.append(f"raises {_explain(report['error'], seen)}")
    elif missing:
        raised = report["raised"]
        cause = f"failed: {_explain(raised[0], seen)}" if raised else "lost without a word"
        found.append(f"{missing} of {COUNT} {cause}")
    if missing and seen.cancels:
        found.append("cancels the batch")
    if paid := min(seen.paid, missing):
        found.append(f"paid and not collected: {paid}")
    if wrong := _count_wrong(got, report["messages"], answers):
        found.append(f"{wrong} wrong answers")
    return found


def _count_wrong(got: Mapping[str, Any], messages: list[str], answers: str) -> int:
    rows = [name for name, text in got.items() if not (text == EXPECTED.get(name) if answers == "echo" else text)]
    return len(rows) + sum(text not in EXPECTED_MESSAGES for text in messages)


def _explain(error: str, seen: Seen) -> str:
    """Return the class of an error with the call that failed last; the text where no call failed."""
    if seen.failed:
        return f"{_name_of(error)} ({seen.failed})"
    return f"`{error[:100].replace('`', chr(39)).strip()}`"


def _name_of(error: str) -> str:
    return f"`{error.split(':')[0]}`"
