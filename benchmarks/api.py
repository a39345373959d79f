"""The cheapest server that a batch client can talk to, so that what is measured is the client.

It answers every create with a batch, every poll with one that has ended, and sends result files from a folder. Batches
that are named as ``many_jobs`` names them run, as the file ``in_flight.json`` says: how many, and since when.

    python -m benchmarks.api FOLDER PORT
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

BATCHES = "/v1/messages/batches"

#: How the ids of batches begin that run; a number of seven digits follows.
RUNNING = "msgbatch_flying-"


class Handler(BaseHTTPRequestHandler):
    """Anthropic's endpoints as far as the benchmarks need them."""

    protocol_version = "HTTP/1.1"
    folder = Path()

    def do_GET(self) -> None:
        if urlsplit(self.path).path == BATCHES:
            self._list()
            return
        batch_id, _, rest = self.path.removeprefix(BATCHES + "/").partition("/")
        if not rest:
            self._batch(batch_id)
            return
        path = self.folder / f"{batch_id}.jsonl"
        self.send_response(200)
        self.send_header("Content-Type", "application/x-jsonl")
        self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()
        self.wfile.flush()
        with path.open("rb") as file:
            self.connection.sendfile(file)

    def do_POST(self) -> None:
        left = int(self.headers["Content-Length"])
        buffer = memoryview(bytearray(1 << 20))
        while left:
            left -= self.rfile.readinto1(buffer[: min(left, len(buffer))])  # type: ignore[attr-defined]
        self._batch("msgbatch_created")

    def _list(self) -> None:
        """Answer with a page of the batches that run, the last one first."""
        query, known = parse_qs(urlsplit(self.path).query), self._read_running()
        cursor = query.get("after_id")
        last = int(cursor[0].removeprefix(RUNNING)) if cursor else known["count"]
        first = max(last - int(query["limit"][0]), 0)
        alike = {**self._describe(RUNNING), **known["running"]}
        data = [{**alike, "id": f"{RUNNING}{number:07d}"} for number in range(last - 1, first - 1, -1)]
        self._answer({"data": data, "has_more": first > 0, "last_id": data[-1]["id"] if data else None})

    def _batch(self, batch_id: str) -> None:
        running = self._read_running()["running"] if batch_id.startswith(RUNNING) else {}
        self._answer({**self._describe(batch_id), **running})

    def _read_running(self) -> dict[str, Any]:
        """Return how many batches run, and what differs from those that have ended."""
        return dict(json.loads((self.folder / "in_flight.json").read_text()))

    def _describe(self, batch_id: str) -> dict[str, Any]:
        counts = self.folder / f"{batch_id}.json"
        return {
            "id": batch_id,
            "type": "message_batch",
            "processing_status": "ended",
            "request_counts": json.loads(counts.read_text()) if counts.exists() else {"processing": 1},
            "created_at": "2026-11-01T00:00:00Z",
            "expires_at": "2026-11-02T00:00:00Z",
            "ended_at": "2026-11-01T01:00:00Z",
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"http://{self.headers['Host']}{BATCHES}/{batch_id}/results",
        }

    def _answer(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    Handler.folder = folder
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
