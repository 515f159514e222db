"""
How a process ends, and how it forks: every pipeline closes, within one deadline for all.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref

from collections.abc import Sequence
from typing import Any, Protocol

from .clock import monotonic
from .own_log import sending_threads


__all__ = [
    "close_all",
    "close_at_exit",
    "close_together",
    "deadline_in",
    "is_ending",
    "made",
    "open_now",
    "opened",
]


class Closable(Protocol):
    """What this module needs of a pipeline."""

    shutdown_timeout: float

    def begin_to_close(self, timeout: float) -> Any:
        """Ask for the close, without waiting; return the request, None where nothing is open."""

    def end_close(self, request: Any) -> None:
        """Wait for the close, until the request's own deadline at most."""

    def after_fork(self) -> None:
        """Begin anew in a child."""


#: Every pipeline of this process, and those with a thread.
made: weakref.WeakSet[Closable] = weakref.WeakSet()
open_now: weakref.WeakSet[Closable] = weakref.WeakSet()

_hooked_in: set[int] = set()
_ends_at: list[float] = []  # the one deadline of an exit, once there is one


def opened() -> list[Any]:
    """Return the pipelines of this process that are not closed."""
    return list(open_now)


def close_all(final: bool = False) -> None:
    """
    Close every pipeline at once, within the time that the slowest may take.

    *final* is for the end of the process: whatever comes later is sent in the time that is left.
    """
    pipelines = opened()
    limit = max((one.shutdown_timeout for one in list(made if final else open_now)), default=0.0)
    if final:
        _ends_at[:] = [monotonic() + limit]
    close_together(pipelines, limit)


def close_together(pipelines: Sequence[Closable], timeout: float) -> None:
    """Close *pipelines*, all within the same *timeout* seconds."""
    requests = [(one, one.begin_to_close(timeout)) for one in pipelines]
    for pipeline, request in requests:
        if request is not None:
            pipeline.end_close(request)


def is_ending() -> bool:
    """Return whether the process is at its end, and nobody will wait for a thread again."""
    return bool(_ends_at)


def deadline_in(timeout: float) -> float:
    """Return the moment *timeout* seconds from now, but not after the end of the process."""
    deadline = monotonic() + min(max(0.0, timeout), threading.TIMEOUT_MAX / 2)
    return min([deadline, *_ends_at])


def close_at_exit() -> None:
    """Close at the end of a multiprocessing child, where ``atexit`` does not run before 3.13."""
    if os.getpid() in _hooked_in:
        return
    for name in ("multiprocessing", "billiard"):
        process = sys.modules.get(f"{name}.process")
        util = sys.modules.get(f"{name}.util")
        if process is None or util is None:
            continue
        if getattr(process.current_process(), "_parent_pid", None) is not None:
            util.Finalize(None, close_all, kwargs={"final": True}, exitpriority=10)
            _close_at_celerys_exit()
    _hooked_in.add(os.getpid())  # last: a caller who is interrupted before comes again


def _close_at_celerys_exit() -> None:
    """Close when celery says that a worker ends: it does so by ``os._exit``."""
    signals = sys.modules.get("celery.signals")
    if signals is not None:
        signals.worker_process_shutdown.connect(lambda **_: close_all(final=True), weak=False)


def _after_fork() -> None:
    sending_threads.clear()
    _ends_at.clear()
    for pipeline in list(made):
        pipeline.after_fork()
    open_now.clear()


# `weakref` registers its hook with its first finaliser. Made here, it runs after ours: urllib3
# closes its connections by one, and the last events still need them.
weakref.finalize(Closable, int)
# Registered after logging's own hook, so it runs before: handlers are closed with events sent.
atexit.register(close_all, final=True)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
