"""What a browser does in the tests of pages; of the standard library alone, so that ``make newcomer`` can use it."""

from __future__ import annotations

import http.cookiejar
import urllib.parse
import urllib.request


class Browser:
    """What a browser does here: keeps cookies, follows redirects, sends forms."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))

    def open(self, path: str, form: dict[str, str] | None = None) -> tuple[str, str]:
        """The address arrived at, and the page."""
        data = urllib.parse.urlencode(form).encode() if form is not None else None
        with self._opener.open(urllib.parse.urljoin(self.base, path), data, timeout=20) as answer:
            return answer.url, answer.read().decode()
