"""The command line from beginning to end, with its settings and jobs in this folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from report import REQUESTS, Report, run

OPTIONS = ["--provider", "anthropic", "--check-interval", "1"]


def main(report: Report) -> None:
    questions, answers = Path("questions.jsonl"), Path("answers")
    questions.write_text("".join(json.dumps(row) + "\n" for row in REQUESTS))
    command = Path(sys.executable).with_name("batchwizard")
    done = subprocess.run(
        [command, "process", questions, *OPTIONS, "--output-directory", answers],
        check=False,
        capture_output=True,
        text=True,
    )
    print(done.stdout, done.stderr)
    for path in sorted(answers.rglob("*.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if row.get("result", {}).get("type") == "succeeded":
                report.answers[row["custom_id"]] = row["result"]["message"]["content"][0]["text"]
    if done.returncode:
        raise SystemExit(f"batchwizard: status {done.returncode}")
    if " 0 actionable" not in done.stdout:
        report.raised.append("watch paused: " + " ".join(done.stdout.split("Watch paused", 1)[-1].split()))


run(main)
