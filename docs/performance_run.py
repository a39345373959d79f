"""Writes the output of a run into docs/performance.md: ``python -m benchmarks | python docs/performance_run.py``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

PAGE = Path(__file__).parent / "performance.md"
_BETWEEN = re.compile(r"(<!-- run: begin -->\n).*(<!-- run: end -->)", re.DOTALL)


def main() -> None:
    run = "".join(f"{line.rstrip()}\n" for line in sys.stdin)
    PAGE.write_text(_BETWEEN.sub(lambda found: f"{found[1]}```text\n{run}```\n{found[2]}", PAGE.read_text()))


if __name__ == "__main__":
    main()
