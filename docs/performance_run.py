"""Writes a run into a page: ``python -m benchmarks | python docs/performance_run.py explanation/performance.md``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_BETWEEN = re.compile(r"(<!-- run: begin -->\n).*(<!-- run: end -->)", re.DOTALL)


def main() -> None:
    page = Path(__file__).parent / sys.argv[1]
    run = "".join(f"{line.rstrip()}\n" for line in sys.stdin)
    page.write_text(_BETWEEN.sub(lambda found: f"{found[1]}```text\n{run}```\n{found[2]}", page.read_text()))


if __name__ == "__main__":
    main()
