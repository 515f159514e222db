"""
What a relay shows of itself over HTTP: ``/healthz``, ``/readyz`` and ``/metrics``.
"""

from __future__ import annotations

import threading

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ..delivery.ledger import NOT_LOSSES
from ..version import VERSION
from .relay import BUCKETS, State


__all__ = ["Monitor", "metrics"]

#: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Neither lost nor dead: what the broker took back, and what came twice in one batch.
_NOT_LOST = NOT_LOSSES | {"returned", "duplicates"}

_PREFIX = "posthog_logging_relay"


class Monitor:
    """
    Answer on *host* and *port*, in threads of its own, from `start` to `close`.

    Args:
        state: returns how the relay fares.
        patience: for how many seconds a worker may not turn before the relay is not healthy;
            longer than any request takes. Health depends on nothing else: an outage of the
            endpoint or the broker must not restart every relay there is.
    """

    def __init__(self, host: str, port: int, state: Callable[[], State], patience: float) -> None:
        self._server = _Server((host, port), _handler(state, patience))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="monitor", daemon=True
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop to answer."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


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
            """Say nothing: a probe comes every few seconds."""

    return Handler


def _answer(path: str, state: State, patience: float) -> tuple[int, str, str]:
    if path == "/metrics":
        return 200, _METRICS_TYPE, metrics(state)
    plain = "text/plain; charset=utf-8"
    if path == "/healthz":
        well = state.turned < patience
        return 200 if well else 503, plain, f"turned {state.turned:.1f} s ago\n"
    if path == "/readyz":
        ready = state.connected == state.workers
        text = f"{state.connected} of {state.workers} workers have the broker\n"
        return 200 if ready else 503, plain, text
    return 404, plain, "/healthz, /readyz or /metrics\n"


def metrics(state: State) -> str:
    """Return *state* in Prometheus's text format."""
    return "".join(f"{line}\n" for line in _lines(state))


def _lines(state: State) -> Iterator[str]:
    counts = state.counts
    lost = {name: n for name, n in counts.items() if name not in _NOT_LOST}
    spoken = f'{{dialect="{state.dialect}",protocol="{state.protocol}",version="{VERSION}"}}'
    yield from _metric("info", "gauge", "Which protocol the endpoint is spoken to.", {spoken: 1})
    yield from _metric(
        "events_total",
        "counter",
        "Events; accepted is delivered, duplicates, returned, lost and waiting together.",
        {
            f'{{outcome="{name}"}}': counts.get(name, 0)
            for name in ("accepted", "delivered", "duplicates", "returned", "retried")
        },
    )
    yield from _metric(
        "events_lost_total",
        "counter",
        "Events that will never be delivered, by reason; each is a dead letter.",
        {f'{{reason="{name}"}}': n for name, n in sorted(lost.items())},
    )
    for name, kind, about, value in (
        ("events_waiting", "gauge", "Events that are here.", counts["waiting"]),
        ("messages_held", "gauge", "Messages that are not acknowledged.", state.held),
        ("messages_redelivered_total", "counter", "Messages delivered before.", state.redelivered),
        (
            "dead_letters_total",
            "counter",
            "Events and messages with the dead.",
            state.dead_letters,
        ),
        ("workers", "gauge", "Workers.", state.workers),
        ("workers_connected", "gauge", "Workers that have the broker.", state.connected),
    ):
        yield from _metric(name, kind, about, {"": value})
    if state.success is not None:
        about = "Seconds since the endpoint last took a batch."
        yield from _metric("last_success_age_seconds", "gauge", about, {"": state.success})
    yield from _histogram(state)


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
