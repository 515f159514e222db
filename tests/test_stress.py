"""
Many threads at once: every count is exact, on any build of CPython.

On a build without the interpreter's lock this is where a lost update would show.
"""

from __future__ import annotations

import sys
import threading

from pathlib import Path
from typing import Any

import pytest

from posthog_logging import PostHogHandler
from posthog_logging.wire import Request, Response
from posthog_logging.wire.posthog import V0


THREADS = 8


class Counting:
    """A transport that keeps the uuids of what it is given."""

    def __init__(self) -> None:
        self.uuids: list[str] = []

    def send(self, request: Request, timeout: float) -> Response:
        self.uuids += [one.uuid for one in V0.decode(request)]
        return Response(200, body=b'{"status": "Ok"}')

    def close(self) -> None:
        pass


@pytest.mark.parametrize("each", [1_000, pytest.param(50_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("spool", [False, True], ids=["memory", "journal"])
@pytest.mark.timeout(300)
def test_eight_threads(each: int, spool: bool, tmp_path: Path, make_log: Any) -> None:
    """Of all that eight threads log, refuse and flush meanwhile, nothing is missing or twice."""
    transport = Counting()
    handler = PostHogHandler(
        "phc_x",
        "http://127.0.0.1:9",
        dialect=V0,
        transport=transport,
        spool=tmp_path if spool else None,
        max_queue_size=10**7,
    )
    log = make_log(handler)
    ready = threading.Barrier(THREADS)

    def write(name: int) -> None:
        ready.wait()
        for number in range(each):
            log.info("e", extra={"distinct_id": f"u{name}", "properties": {"n": number}})
            if number % 10 == 0:
                log.info("", extra={"event": " ", "distinct_id": "u"})  # refused
            if number % 500 == 0:
                handler.flush(0.01)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=write, args=(name,)) for name in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert handler.flush(60)
    counts = dict(handler.counts)
    handler.close()

    assert THREADS * each == len(transport.uuids) == len(set(transport.uuids))
    assert THREADS * each == counts["delivered"]
    assert THREADS * each // 10 == counts["no_event_name"]
    assert counts["delivered"] + counts["no_event_name"] == counts["accepted"]
    assert 0 == counts["waiting"]


def test_without_the_interpreters_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the interpreter has no lock, bytes and refusals are counted under one of our own."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    handler = PostHogHandler("phc_x", "http://127.0.0.1:9", transport=Counting(), dialect=V0)
    for number in range(10):
        handler.accept({"event": "e" if number % 2 else " ", "distinct_id": "u"})

    assert handler.flush(10)
    counts = dict(handler.counts)
    handler.close()
    assert (10, 5, 5) == (counts["accepted"], counts["delivered"], counts["no_event_name"])
