"""Runs the Python blocks of a page in one namespace: a JSON object a line comes in, and one goes out for each."""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import sys
import traceback
from typing import Any

from tests.docs.shown import plain


class _Checker(doctest.OutputChecker):
    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return super().check_output(plain(want), plain(got), optionflags)


def _run(block: dict[str, Any], namespace: dict[str, Any]) -> str | None:
    """What went wrong, if anything did."""
    out = io.StringIO()
    if block["language"] == "pycon":
        test = doctest.DocTestParser().get_doctest(block["text"], {}, block["page"], block["page"], block["line"] - 1)
        test.globs = namespace
        runner = doctest.DocTestRunner(_Checker(), verbose=False, optionflags=doctest.ELLIPSIS)
        runner.run(test, out=out.write, clear_globs=False)
        return out.getvalue() or None
    try:
        # So that a traceback names the line of the page.
        code = compile("\n" * (block["line"] - 1) + block["text"], block["page"], "exec")
        with contextlib.redirect_stdout(out):
            exec(code, namespace)
    except BaseException:  # noqa: BLE001 - SystemExit among them
        return traceback.format_exc()
    return None


def main() -> None:
    answers, namespace = sys.stdout, {"__name__": "__main__"}
    for line in sys.stdin:
        answers.write(json.dumps(_run(json.loads(line), namespace)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
