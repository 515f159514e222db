"""
A local server that judges events as the real servers do, and shows what it received.

It listens on 127.0.0.1 only and needs nothing except the standard library. It is for tests, for
the demo, and for watching events during development.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from ..delivery import checks
from ..plan import Plan
from .answers import Answer, Script
from .identity import Person
from .plan import Planned
from .rules import Incoming
from .server import HOST, Server
from .servers import SERVERS, server_of
from .store import Event, Received, Store


__all__ = ["CAPACITY", "SERVERS", "Answer", "Event", "Inspector", "Person", "Received"]

#: The default capacity.
CAPACITY = 10_000


class Inspector:
    """
    The local server; a context manager.

    ``url`` is known at once, and stays the same when it is started again after `stop`.

    Args:
        port: the port to listen on; 0 takes a free one.
        capacity: how many good events, bad events and requests are remembered, each; the
            oldest are forgotten, and counted under ``forgotten``.
        forward: called with every ingestion request that is answered with a 2xx; must not block.
        play: the name of the server in `SERVERS` to act as, instead of PostHog's own.
        plan: events that do not fit it get a warning, and `counts` has what is ``missing``.

    Raises ``TypeError`` or ``ValueError`` for wrong arguments, OSError if the port is taken.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        capacity: int = CAPACITY,
        forward: Callable[[Incoming], None] = lambda incoming: None,
        play: str | None = None,
        plan: Plan | None = None,
    ) -> None:
        port = checks.whole("port", port, 0)
        if port > 65_535:
            raise ValueError(f"port: must be at most 65535, not {port}")
        if not (plan is None or isinstance(plan, Plan)):
            raise TypeError(f"plan: must be a Plan, not a value of type {type(plan).__name__}")
        if not callable(forward):
            kind = type(forward).__name__
            raise TypeError(f"forward: must be a callable, not a value of type {kind}")
        self._store = Store(capacity, None if plan is None else Planned(plan))
        self._script = Script()
        self._script.play(server_of(play))
        self._forward = forward
        self._server: Server | None = Server(port, self._store, self._script, forward)
        self._serving = False
        self._port = self._server.server_port
        self.url = f"http://{HOST}:{self._port}"

    def __enter__(self) -> Inspector:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Inspector {self.url} {'serving' if self._serving else 'stopped'}>"

    def start(self) -> Inspector:
        """Serve, if it does not already."""
        if not self._serving:
            if self._server is None:
                self._server = Server(self._port, self._store, self._script, self._forward)
            self._server.start()
            self._serving = True
        return self

    def stop(self) -> None:
        """Close the port and every connection; the events can still be read."""
        if self._server is not None:
            self._server.stop()
            self._server = None
            self._serving = False

    @property
    def events(self) -> list[Event]:
        """The accepted events, in order of arrival."""
        return self._store.events()

    @property
    def bad(self) -> list[Event]:
        """The refused events, in order of arrival, each with its ``reason``."""
        return self._store.bad()

    @property
    def requests(self) -> list[Received]:
        """Every request to an ingestion path, in order of arrival."""
        return self._store.requests()

    @property
    def answer_always(self) -> Answer | None:
        """The answer to requests after the script's; None is the real server's."""
        return self._script.always

    @answer_always.setter
    def answer_always(self, answer: Answer | None) -> None:
        self._script.always = answer

    def counts(self) -> dict[str, Any]:
        """
        Return how much arrived since the last `reset`; duplicates are among the good ones.

        Where there were more events than are remembered, ``forgotten`` says how many are gone.
        """
        return self._store.counts()

    def person(self, distinct_id: str) -> Person:
        """Return the person of *distinct_id*: all its ids, and the merges that made it."""
        return self._store.person(distinct_id)

    def play(self, name: str | None) -> None:
        """Act as the server of that name in `SERVERS`; None is PostHog's own again."""
        self._script.play(server_of(name))

    def reset(self) -> None:
        """Forget what arrived; the script stays."""
        self._store.reset()

    def script(self, *answers: Answer) -> None:
        """Give these answers to the next ingestion requests, in turn."""
        self._script.add(*answers)

    def wait(self, event: str | None = None, count: int = 1, timeout: float = 5.0) -> list[Event]:
        """
        Wait up to *timeout* seconds for *count* good events; return all there are.

        Args:
            event: count and return only events of this name.
        """
        return self._store.wait(event, count, timeout)
