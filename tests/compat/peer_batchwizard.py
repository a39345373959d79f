"""Let batchwizard 0.5.0 from PyPI, unmodified, complete a job against the simulator.

    PYTHONPATH=. python tests/compat/peer_batchwizard.py                        # about 30 s, most of it pip
    PYTHONPATH=. python tests/compat/peer_batchwizard.py --scenario issue-1432  # what a fault makes of it
    PYTHONPATH=. python tests/compat/peer_batchwizard.py --venv DIR             # keep and reuse its environment

batchwizard is installed into an environment of its own in a temporary folder, with its settings and its job database
there too. The exit status is 0 where it has collected the right answer to every request.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from claude_batch_tasks.simulator import SCENARIOS, Simulator

PEER = "batchwizard==0.5.0"
COUNT = 20
OPTIONS = ["--provider", "anthropic", "--check-interval", "1"]


def install(folder: Path) -> Path:
    """The peer's command, installed where it is not yet."""
    command = folder / ("Scripts" if os.name == "nt" else "bin") / "batchwizard"
    if not command.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([command.with_name("python"), "-m", "pip", "install", "--quiet", PEER], check=True)
    return command


def run(command: Path, simulator: Simulator, folder: Path) -> dict[str, str]:
    """Submit, wait and collect; answers by custom_id."""
    rows = [
        {
            "custom_id": f"question-{n}",
            "params": {
                "model": "claude-haiku-4-5",
                "max_tokens": 100,
                "messages": [{"role": "user", "content": f"Question {n}?"}],
            },
        }
        for n in range(COUNT)
    ]
    questions = folder / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = folder / "answers"
    env = {**os.environ, **simulator.env, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "NO_COLOR": "1"}
    env.pop("PYTHONPATH", None)
    done = subprocess.run(
        [command, "process", questions, *OPTIONS, "--output-directory", answers],
        cwd=folder,
        env=env,
        timeout=120,
        check=False,
    )
    print(f"batchwizard ended with status {done.returncode}")
    found = {}
    for path in sorted(answers.rglob("*.jsonl")):
        print(f"  {path.relative_to(folder)}: {len(path.read_text().splitlines())} lines")
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if row.get("result", {}).get("type") == "succeeded":
                found[row["custom_id"]] = row["result"]["message"]["content"][0]["text"]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="healthy", choices=SCENARIOS)
    parser.add_argument("--venv", type=Path, help="an environment to make or reuse")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Simulator(options.scenario) as simulator:
        command = install(options.venv or Path(name, "venv"))
        simulator.reset()
        found = run(command, simulator, Path(name))
        journal = simulator.journal()
    for call in journal.calls:
        fault = f" ({', '.join(call.faults)})" if call.faults else ""
        print(f"  {call.at - journal.calls[0].at:5.1f} s  {call.endpoint} {call.status}{fault}")
    complete = found == {f"question-{n}": f"Echo: Question {n}?" for n in range(COUNT)}
    print(f"{len(found)} of {COUNT} answers; {journal.totals.paid_batch} paid; twice: {len(journal.paid_twice())}")
    return not complete


if __name__ == "__main__":
    sys.exit(main())
