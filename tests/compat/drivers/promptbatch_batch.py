"""The command line: submit, ask for the status until the batch has ended, collect."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from report import MODEL, QUESTIONS, Report, run

TASK = f'+++\nmodel = "{MODEL}"\nmax_tokens = 100\nextensions = [".txt"]\n+++\n---prompt---\n{{{{content}}}}\n'


def call(*arguments: str) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name("promptbatch"), "batch", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout, done.stderr)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        raise SystemExit(last.removeprefix("anthropic."))
    return done.stdout


def main(report: Report) -> None:
    inputs, output = Path("inputs"), Path("output")
    inputs.mkdir()
    Path("task.md").write_text(TASK)
    for name, question in QUESTIONS.items():
        (inputs / f"{name}.txt").write_text(question)
    call("submit", "task.md", "inputs", "-o", "output", "--max-cost", "20")
    while " ended " not in call("status", "output"):
        time.sleep(1)
    call("collect", "task.md", "output")
    for path in output.glob("*.txt"):
        report.answers[path.stem] = path.read_text()


run(main)
