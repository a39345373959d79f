"""The built pages in a real browser: nothing is cut off at the right edge, on a desk and on a phone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.django.project import BROWSER
from tests.docs.pages import ROOT

pytestmark = [
    pytest.mark.latest,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not BROWSER, reason="no chromium or google-chrome on the PATH; no page was opened"),
]

#: Widths of a window, in pixels.
WIDTHS = (1280, 390)

#: What is wider than its place: the page itself, and a block of code. Only a table of figures (``text``) may scroll.
MEASURE = """() => {
  const wide = [];
  const page = document.documentElement;
  if (page.scrollWidth > page.clientWidth) {
    const far = [...document.querySelectorAll("article *")].filter(
      (part) => part.getBoundingClientRect().right > page.clientWidth && !part.closest(".table-wrapper, pre"));
    wide.push(`the page, ${page.scrollWidth} px: ${far.slice(0, 3).map((part) => part.outerHTML.slice(0, 80))}`);
  }
  for (const block of document.querySelectorAll("pre")) {
    const scrolls = block.closest(".highlight-text") && getComputedStyle(block).overflowX === "auto";
    if (block.scrollWidth > block.clientWidth && !scrolls) wide.push(block.innerText.slice(0, 80));
  }
  return wide;
}"""


def test_nothing_is_cut_off_at_the_right_edge(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    command = [sys.executable, "-m", "sphinx", "--quiet", "-b", "html", str(ROOT / "docs"), str(tmp_path / "built")]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True, timeout=400)
    pages = sorted(path for path in (tmp_path / "built").rglob("*.html") if "http-equiv" not in path.read_text()[:400])
    assert len(pages) > 30
    found = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        for width in WIDTHS:
            tab = browser.new_page(viewport={"width": width, "height": 900})
            for path in pages:
                tab.goto(path.as_uri())
                name = path.relative_to(tmp_path / "built")
                found += [f"{name} at {width} px: {wide}" for wide in tab.evaluate(MEASURE)]
        browser.close()
    assert not found, "\n".join(found)
