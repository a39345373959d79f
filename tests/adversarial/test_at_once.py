"""Threads of a process that get their first answers of a kind at the same moment, as those of a lane do."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.release, pytest.mark.timeout(600)]

#: What a worker's process does, in a process of its own: msgspec fills in what it knows of a type when that is first
#: decoded, and a thread that comes upon it half filled in ends the process (SIGSEGV, msgspec 0.22).
PROGRAM = """
import sys, threading, time
import anthropic
import claude_batch_tasks.tasks
from claude_batch_tasks.api import calls
from claude_batch_tasks import api, errors

AT_ONCE = 8
http = calls._transport(anthropic.DefaultHttpxClient)
together = threading.Barrier(AT_ONCE)

def answer(request):
    together.wait()
    if request.method == "GET":
        return http.Response(200, content=b'{"data": [], "has_more": false}')
    return http.Response(402, content=b'{"type": "error", "error": {"type": "billing_error", "message": "no"}}')

client = anthropic.Anthropic(api_key="x", http_client=http.Client(transport=http.MockTransport(answer)))
client = client.with_options(max_retries=0)

def message():
    try:
        api.create_message(client, b'{"model": "m"}')
    except errors.PermanentError as exc:
        assert exc.error_type == "billing_error"
        done.append(exc)

def listing():
    done.append(list(api.list_pages(client, timeout=5)))

sys.setswitchinterval(1e-6)
for call in (message, listing):
    done = []
    threads = [threading.Thread(target=call) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == AT_ONCE
"""

#: Processes: where it happens at all, every fifth dies.
TIMES = 20


@pytest.mark.workers
def test_no_process_dies_of_answers_that_come_at_once() -> None:
    for _ in range(TIMES):
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=500, check=False)
        assert done.returncode == 0, done.stderr
