"""Asks PyPI for known vulnerabilities of what is installed here: ``python .ci/audit.py``.

Fails on one. Where PyPI's advisories cannot be reached (a mirror, no internet) it says so loudly, and does not fail:
that says nothing of the change.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from importlib.metadata import version

_ADVISORIES = f"https://pypi.org/pypi/anthropic/{version('anthropic')}/json"
_COMMAND = [sys.executable, "-m", "pip_audit", "--skip-editable", "--progress-spinner=off", "--format=json"]


def main() -> int:
    """The exit code."""
    try:
        # Of an index that has none, pip-audit would ask for every package, and then find no vulnerability.
        with urllib.request.urlopen(_ADVISORIES, timeout=5) as answer:
            json.load(answer)["vulnerabilities"]
        done = subprocess.run(_COMMAND, capture_output=True, text=True, timeout=120)
        found = json.loads(done.stdout)["dependencies"]
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as exc:
        print("!" * 79)
        print(f"!! NOT AUDITED: PyPI's advisories cannot be reached ({type(exc).__name__}: {str(exc)[:200]})")
        print("!! Run `make audit` where they can.")
        print("!" * 79)
        return 0
    bad = [each for each in found if each.get("vulns")]
    for each in bad:
        for vulnerability in each["vulns"]:
            mended = ", ".join(vulnerability["fix_versions"]) or "no version"
            print(f"{each['name']} {each['version']}: {vulnerability['id']}, mended in {mended}")
    skipped = [each["name"] for each in found if "skip_reason" in each]
    print(f"{len(found)} packages, {len(bad)} with known vulnerabilities; not audited: {', '.join(skipped)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
