"""A relay's health and metrics over HTTP: ``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

import sys
import threading

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from ..delivery.ledger import NOT_LOSSES
from ..version import VERSION
from .relay import BUCKETS, State


__all__ = ["Monitor", "metrics"]

#: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Not lost: events that the broker took back, and that came twice in one batch.
_NOT_LOST = NOT_LOSSES | {"returned", "duplicates"}

_PREFIX = "posthog_logging_relay"


class Monitor:
    """
    Serves *host* and *port* in threads of its own, from `start` to `close`.

    Args:
        state: returns the state of the relay.
        patience: how many seconds a worker may be stalled while the relay is healthy; longer
            than any request takes. Health depends on nothing else: an outage of the endpoint or
            the broker must not restart every relay.
    """

    def __init__(self, host: str, port: int, state: Callable[[], State], patience: float) -> None:
        self._server = _Server((host, port), _handler(state, patience))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="monitor", daemon=True
        )

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Start serving."""
        self._thread.start()

    def close(self) -> None:
        """Stop serving, and close the port."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without `HTTPServer`'s look-up of the host's full name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "", int(self.server_address[1])  # unused

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect, as a probe with a short time-out does."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _handler(state: Callable[[], State], patience: float) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0
        server_version = f"posthog-logging/{VERSION}"
        sys_version = ""

        def do_GET(self) -> None:
            status, kind, text = _answer(self.path.partition("?")[0], state(), patience)
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the stdlib's
            """Log nothing: probes come every few seconds."""

    return Handler


def _answer(path: str, state: State, patience: float) -> tuple[int, str, str]:
    if path == "/metrics":
        return 200, _METRICS_TYPE, metrics(state)
    plain = "text/plain; charset=utf-8"
    if path == "/healthz":
        text = f"the last turn was {state.stalled:.1f} s ago\n"
        return 200 if state.stalled < patience else 503, plain, text
    if path == "/readyz":
        ready = state.connected == state.workers
        text = f"{state.connected} of {state.workers} workers are connected to the broker\n"
        return 200 if ready else 503, plain, text
    return 404, plain, "/healthz, /readyz or /metrics\n"


def metrics(state: State) -> str:
    """Return *state* in Prometheus's text format."""
    return "".join(f"{line}\n" for line in _lines(state))


def _lines(state: State) -> Iterator[str]:
    counts = state.counts
    lost = {name: n for name, n in counts.items() if name not in _NOT_LOST}
    labels = f'{{dialect="{state.dialect}",protocol="{state.protocol}",version="{VERSION}"}}'
    yield from _metric("info", "gauge", "The protocol that is used for the endpoint.", {labels: 1})
    yield from _metric(
        "events_total",
        "counter",
        "Events; accepted is the sum of delivered, duplicates, returned, lost and waiting.",
        {
            f'{{outcome="{name}"}}': counts.get(name, 0)
            for name in ("accepted", "delivered", "duplicates", "returned", "retried")
        },
    )
    yield from _metric(
        "events_lost_total",
        "counter",
        "Events that will never be delivered, by reason.",
        {f'{{reason="{name}"}}': n for name, n in sorted(lost.items())},
    )
    yield from _numbers(state)
    yield from _histogram(state)


def _numbers(state: State) -> Iterator[str]:
    for name, kind, about, value in (
        ("events_waiting", "gauge", "Events that are not settled yet.", state.counts["waiting"]),
        ("messages_held", "gauge", "Messages that are not acknowledged.", state.held),
        ("messages_redelivered_total", "counter", _REDELIVERED, state.redelivered),
        ("dead_letters_total", "counter", _DEAD_LETTERS, state.dead_letters),
        ("workers", "gauge", "Workers.", state.workers),
        ("workers_connected", "gauge", "Workers that the broker accepted.", state.connected),
    ):
        yield from _metric(name, kind, about, {"": value})
    if state.success is not None:
        about = "Seconds since the endpoint last accepted a batch."
        yield from _metric("last_success_age_seconds", "gauge", about, {"": state.success})


_REDELIVERED = "Messages that had been delivered before."
_DEAD_LETTERS = "Dead letters: events, and messages that could not be read."


def _histogram(state: State) -> Iterator[str]:
    bounds = [*map(str, BUCKETS), "+Inf"]
    samples: dict[str, float] = {
        f'_bucket{{le="{bound}"}}': n for bound, n in zip(bounds, state.buckets, strict=True)
    }
    samples |= {"_sum": state.request_seconds, "_count": state.buckets[-1]}
    yield from _metric("request_seconds", "histogram", "How long requests took.", samples)


def _metric(name: str, kind: str, about: str, samples: dict[str, float]) -> Iterator[str]:
    yield f"# HELP {_PREFIX}_{name} {about}"
    yield f"# TYPE {_PREFIX}_{name} {kind}"
    yield from (f"{_PREFIX}_{name}{suffix} {value}" for suffix, value in samples.items())
