"""
Pass requests on to another server, unchanged, beside answering them.

One thread sends, so the inspector's own answer never waits for the other server's.
"""

from __future__ import annotations

import queue
import sys
import threading

from types import TracebackType
from typing import Any

import requests

from ..delivery import checks
from ..inspector.rules import Asked
from .command import CommandError


__all__ = ["Forwarder"]

_TIMEOUT = 15.0
_MOST_WAITING = 1000

# Headers of one connection, and what `requests` sets by itself (RFC 9110, 7.6.1).
_NOT_OURS = frozenset(
    "accept-encoding connection content-length host keep-alive transfer-encoding".split()
)

_WHY = {
    401: "the program's own POSTHOG_API_KEY must be the real one for --forward",
    404: "check the address, and the program's dialect",
}
_LOOK = "run `posthog-logging doctor --host` with that address"


class Forwarder:
    """
    Send each request that it is called with to *url*; a context manager.

    A failure is reported on standard error once for each way to fail. Nothing is retried.
    """

    def __init__(self, url: str) -> None:
        try:
            self._url = checks.host(url, "")
        except ValueError as error:
            raise CommandError(f"--forward: {error}") from None
        self._queue: queue.Queue[Asked | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._send_all, name="forwarder", daemon=True)
        self._reported: set[str] = set()

    def __enter__(self) -> Forwarder:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._queue.put(None, timeout=_TIMEOUT)
        except queue.Full:
            return  # the other server hangs; the thread is a daemon
        self._thread.join(_TIMEOUT)

    def __call__(self, asked: Asked) -> None:
        """Take one request over; never blocks."""
        try:
            self._queue.put_nowait(asked)
        except queue.Full:
            self._report(
                f"{self._url} is too slow: {_MOST_WAITING} requests wait, and newer ones are not "
                "passed on"
            )

    def _send_all(self) -> None:
        with requests.Session() as session:
            for asked in iter(self._queue.get, None):
                self._send(session, asked)

    def _send(self, session: requests.Session, asked: Asked) -> None:
        headers: dict[str, Any] = {k: v for k, v in asked.headers.items() if k not in _NOT_OURS}
        try:
            answer = session.post(
                self._url + asked.path,
                params=dict(asked.query),
                data=asked.body,
                headers=headers,
                timeout=_TIMEOUT,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            self._report(
                f"{self._url} cannot be reached ({type(error).__name__}); "
                "requests to it are not repeated"
            )
        else:
            if not answer.ok:
                advice = _WHY.get(answer.status_code, _LOOK)
                self._report(f"{self._url} answered HTTP {answer.status_code}; {advice}")

    def _report(self, text: str) -> None:
        if text not in self._reported:
            self._reported.add(text)
            print(f"posthog-logging serve: {text}", file=sys.stderr)
