"""
Take events out of a broker's queue and deliver them, until Ctrl-C or SIGTERM.

The programs that log have PostHogHandler(broker="amqp://…") and need no key; only the relay does.
Any number of relays may run on one queue. A relay that is ended takes nothing more, makes one
attempt for what it has, acknowledges what was delivered, and leaves the rest in the queue.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..broker.engine import Intake, engine_for
from ..delivery import checks
from ..delivery.clock import monotonic
from ..wire import Dialect, Endpoint, find_dialect
from . import broker, destination
from .command import FAILED, OK, CommandError, seconds, whole
from .output import Output, counted


if TYPE_CHECKING:
    from ..broker.relay import Plan, Relay, State

__all__ = ["HELP", "add_arguments", "run"]

HELP = "deliver what programs have put into a broker's queue"

EPILOG = """\
examples:
  posthog-logging relay --broker amqp://relay@rabbit/analytics \\
      --broker-password-file /run/secrets/rabbit --api-key-file /run/secrets/posthog
  posthog-logging relay --once
  posthog-logging relay --listen 127.0.0.1:9464

What can never be delivered goes, with the reason, to the queue of the same name plus ".dead".

exit statuses: 0 it was ended, or with --once, the queue is empty; 1 --drain was too short, or
--once lost something or gave up; 2 wrong usage
"""

_LOOK = 0.1
_IDLE_FOR = 1.0  # seconds: longer than a worker waits for a message
_GIVE_UP_AFTER = 60.0  # seconds: a restart of a broker, or of an endpoint, takes less


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    broker.add_arguments(parser)
    parser.add_argument(
        "--no-declare", action="store_true", help="do not make the queue if it is missing"
    )
    parser.add_argument(
        "--api-key-file", metavar="FILE", help="a file that holds only the project's key"
    )
    destination.add_arguments(parser)
    _number("--workers", 4, "how many requests may be open at once", parser)
    _number("--prefetch", 60, "how many messages a worker may hold", parser)
    _number("--batch", 2000, "how many events a request may have", parser)
    _add_end(parser)
    parser.add_argument(
        "--listen",
        type=_listening,
        metavar="HOST:PORT",
        help="answer /healthz, /readyz and /metrics there",
    )
    parser.add_argument("--json", action="store_true", help="print the counts as a line of JSON")


def _add_end(parser: argparse.ArgumentParser) -> None:
    """Add the options on when and how the relay ends."""
    parser.add_argument(
        "--drain",
        type=seconds,
        default=25.0,
        metavar="SECONDS",
        help="how long the relay may take to end (default 25)",
    )
    parser.add_argument("--once", action="store_true", help="end when the queue is empty")
    parser.add_argument(
        "--give-up-after",
        type=seconds,
        metavar="SECONDS",
        help="with --once: after how long without progress to end with status 1 "
        f"(default {_GIVE_UP_AFTER:g})",
    )


def _number(name: str, default: int, about: str, parser: argparse.ArgumentParser) -> None:
    """Add an option that is a whole number."""
    parser.add_argument(
        name, type=whole(1), default=default, metavar="N", help=f"{about} (default {default})"
    )


def run(options: argparse.Namespace) -> int:
    """Relay until a signal, or with ``--once`` until the queue is empty."""
    from ..broker.relay import Relay

    output = Output(options.json)
    plan = _plan(options)
    stop = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(_signals(stop))
        relay = Relay(plan)
        if options.listen is not None:
            stack.callback(_monitor(options, plan, relay).close)
        relay.start()
        workers = counted(plan.workers, "worker")
        output.say(f"From {plan.address.public} to {plan.endpoint.host}, {workers}.")
        stuck = _wait(stop, relay, plan, options)
        ended = relay.stop(options.drain)
    counts = relay.ledger.counts
    output.counts(f"relayed as {relay.protocol}:", counts)
    output.give({"protocol": relay.protocol, "counts": counts})
    if stuck:
        raise CommandError(stuck, FAILED)
    well = (counts[name] for name in ("delivered", "duplicates", "returned") if name in counts)
    settled = counts["accepted"] == sum(well)
    return OK if ended and (settled or not options.once) else FAILED


def _wait(stop: threading.Event, relay: Relay, plan: Plan, options: argparse.Namespace) -> str:
    """Wait for the end; return why it comes too early, "" if it does not."""
    idle, settled, since = 0.0, -1, monotonic()
    while not stop.wait(_LOOK):
        if not options.once:
            continue
        idle = idle + _LOOK if relay.is_idle() else 0.0
        if idle > _IDLE_FOR:
            break
        counts = relay.ledger.counts
        if counts["accepted"] - counts["waiting"] != settled:
            settled, since = counts["accepted"] - counts["waiting"], monotonic()
        elif monotonic() - since > options.give_up_after:
            return _stuck(relay.state(), plan, options.give_up_after)
    return ""


def _stuck(state: State, plan: Plan, waited: float) -> str:
    """Return why the relay makes no progress, where the events are, and what to do."""
    where = plan.address
    if state.connected < state.workers:
        why = f"{state.connected} of {state.workers} workers are connected to {where.public}"
        left = "What waits there stays there"
        doctor = "doctor --broker"
    else:
        why = f"{plan.endpoint.host} took nothing"
        waiting = counted(state.counts["waiting"], "event")
        left = f"The relay gives {waiting} back to the queue {where.queue}"
        doctor = "doctor"
    return (
        f"--once gave up after {waited:g} s without progress: {why}. {left}. Look for the cause "
        f"with `posthog-logging {doctor}`, then run this command again"
    )


def _plan(options: argparse.Namespace) -> Plan:
    from ..broker.relay import Plan

    destination.ensure_enabled()
    if options.give_up_after is None:
        options.give_up_after = _GIVE_UP_AFTER
    elif not options.once:
        raise CommandError("--give-up-after needs --once; without it a relay never gives up")
    try:
        where = broker.address_of(options)
        dialect = find_dialect(options.dialect)
        endpoint = _endpoint(options, dialect)
        engine_for(where)  # raises if its package is missing
    except (TypeError, ValueError) as error:
        raise CommandError(str(error)) from None
    patience = max(60.0, 3 * options.timeout)
    return Plan(
        where,
        dialect,
        endpoint,
        Intake(options.prefetch, not options.no_declare, patience),
        options.workers,
        min(options.batch, dialect.limits.batch_count),
        options.timeout,
    )


def _endpoint(options: argparse.Namespace, dialect: Dialect) -> Endpoint:
    """Return where to deliver; raises ``ValueError`` for a wrong key or host."""
    key = checks.api_key(broker.secret_in(options.api_key_file) or options.api_key)
    if not key:
        raise CommandError(
            "there is no key to send with: set POSTHOG_API_KEY or give --api-key-file"
        )
    host = dialect.ingestion_host(checks.host(options.host, dialect.default_host), key)
    return Endpoint(host, key, "gzip" if "gzip" in dialect.codings else None)


def _monitor(options: argparse.Namespace, plan: Plan, relay: Relay) -> Any:
    from ..broker.monitor import Monitor

    host, port = options.listen
    try:
        monitor = Monitor(host, port, relay.state, patience=plan.timeout + 60.0)
    except OSError as error:
        raise CommandError(f"--listen: {host}:{port}: {os.strerror(error.errno or 0)}") from None
    monitor.start()
    return monitor


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM set *stop*; a second signal ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        for one, handler in before.items():
            signal.signal(one, handler)
        stop.set()

    before = {one: signal.signal(one, end) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _listening(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        if parts.hostname and parts.port is not None and parts.netloc == text:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a host and a port such as 127.0.0.1:9464")
