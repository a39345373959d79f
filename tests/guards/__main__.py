"""Write down what users see of this release, in ``tests/guards/surface.json``::

    python -m tests.guards          # adds what is new; refuses where something is gone or different
    python -m tests.guards --all    # writes it as it is: what is gone is then gone, and the diff shows it

Look at the diff: what is in it is promised from the next release on.
"""

from __future__ import annotations

import sys

from tests.guards import surface


def main(arguments: list[str]) -> int:
    """Return the exit code."""
    new = surface.present()
    old = surface.written() if surface.GOLDEN.exists() else {}
    found = list(surface.differences(old, new))
    for what, where in found:
        print(f"{what}: {where}")
    if any(what != "new" for what, _ in found) and "--all" not in arguments:
        print("Nothing was written. What is gone or different breaks what users have; --all writes it all the same.")
        return 1
    surface.GOLDEN.write_text(surface.text(new) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
