"""
Forward the inspector's requests to another server, unchanged.

A thread sends them, so the inspector's own answer never waits for the other server's.
"""

from __future__ import annotations

import queue
import sys
import threading

from types import TracebackType
from typing import Any

import requests

from ..delivery import checks
from ..inspector.rules import Incoming
from .command import CommandError


__all__ = ["Forwarder"]

_TIMEOUT = 15.0
_MOST_WAITING = 1000

# Headers of one connection (RFC 9110, 7.6.1), and those that `requests` sets itself.
_NOT_FORWARDED = frozenset(
    "accept-encoding connection content-length host keep-alive transfer-encoding".split()
)

#: What to do about a status.
_REMEDIES = {
    401: "give the program the real POSTHOG_API_KEY",
    404: "check the address, and the program's dialect",
}
_REMEDY = "run `posthog-logging doctor --host` with that address"


class Forwarder:
    """
    Send each request that it is called with to *url*; a context manager.

    Nothing is retried. Each kind of failure is reported on standard error once.
    """

    def __init__(self, url: str) -> None:
        try:
            self._url = checks.host(url, "", "--forward")
        except ValueError as error:
            raise CommandError(str(error)) from None
        self._queue: queue.Queue[Incoming | None] = queue.Queue(_MOST_WAITING)
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

    def __call__(self, incoming: Incoming) -> None:
        """Queue one request; never block."""
        try:
            self._queue.put_nowait(incoming)
        except queue.Full:
            self._report(
                f"{self._url} is too slow: {_MOST_WAITING} requests wait, and newer ones are not "
                "forwarded"
            )

    def _send_all(self) -> None:
        with requests.Session() as session:
            for incoming in iter(self._queue.get, None):
                self._send(session, incoming)

    def _send(self, session: requests.Session, incoming: Incoming) -> None:
        headers: dict[str, Any] = {
            k: v for k, v in incoming.headers.items() if k not in _NOT_FORWARDED
        }
        try:
            answer = session.post(
                self._url + incoming.path,
                params=dict(incoming.query),
                data=incoming.body,
                headers=headers,
                timeout=_TIMEOUT,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            name = type(error).__name__
            self._report(f"{self._url} cannot be reached ({name}); nothing is sent again")
        else:
            if not answer.ok:
                remedy = _REMEDIES.get(answer.status_code, _REMEDY)
                self._report(f"{self._url} answered HTTP {answer.status_code}. To do: {remedy}")

    def _report(self, text: str) -> None:
        if text not in self._reported:
            self._reported.add(text)
            print(f"posthog-logging serve: {text}", file=sys.stderr)
