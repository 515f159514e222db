"""How a process ends and forks: pipelines close within one deadline, and children begin anew."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import weakref

from collections.abc import Sequence
from types import FrameType
from typing import Any, Protocol

from .clock import monotonic
from .own_log import sending_threads


__all__ = [
    "all_pipelines",
    "close_all",
    "close_at_exit",
    "close_together",
    "deadline_in",
    "is_ending",
    "left_of_shutdown",
    "open_pipelines",
    "opened",
    "shutdown_of",
]


class Closable(Protocol):
    """A pipeline, as far as this module needs it."""

    shutdown_timeout: float

    def begin_to_close(self, timeout: float) -> Any:
        """Leave a request to close, without waiting for it; None if nothing is open."""

    def end_close(self, request: Any) -> None:
        """Wait for the answer to *request*, until its deadline at most."""

    def after_fork(self) -> None:
        """Begin anew in a forked child."""


#: Every pipeline of this process, and those with a thread.
all_pipelines: weakref.WeakSet[Closable] = weakref.WeakSet()
open_pipelines: weakref.WeakSet[Closable] = weakref.WeakSet()

_hooked_in: set[int] = set()
_ends_at: list[float] = []  # the deadline of the exit, once it has begun
# The last `logging.shutdown`, by its frame's identity, and its deadline. A later one may have the
# same identity, but hardly as soon after it.
_shutdown: list[float] = [0, 0.0]
_GRACE = 1.0


def opened() -> list[Any]:
    """Return the pipelines of this process that are not closed."""
    return list(open_pipelines)


def close_all(final: bool = False) -> None:
    """
    Close every pipeline at once, within the longest of their ``shutdown_timeout``.

    Args:
        final: whether the process ends; what is logged afterwards is sent in the time left.
    """
    pipelines = opened()
    concerned = list(all_pipelines) if final else pipelines
    limit = max((one.shutdown_timeout for one in concerned), default=0.0)
    if final:
        _ends_at[:] = [monotonic() + limit]
    close_together(pipelines, limit)


def close_together(pipelines: Sequence[Closable], timeout: float) -> None:
    """Close *pipelines*, all within the same *timeout* seconds."""
    requests = [(one, one.begin_to_close(timeout)) for one in pipelines]
    for pipeline, request in requests:
        if request is not None:
            pipeline.end_close(request)


def shutdown_of(frame: FrameType) -> FrameType | None:
    """Return the frame of the `logging.shutdown` that has led to *frame*, by a few calls."""
    for _ in range(5):
        if frame.f_code is logging.shutdown.__code__:
            return frame
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return None


def left_of_shutdown(shutdown: FrameType, limit: float) -> float:
    """
    Return the seconds, *limit* at most, that are left of one `logging.shutdown`.

    With its first handler all are closed together: they have one deadline, as at the exit.
    """
    now = monotonic()
    known, ends_at = _shutdown
    if known != id(shutdown) or now > ends_at + _GRACE:
        pipelines = opened()
        longest = max((one.shutdown_timeout for one in pipelines), default=limit)
        _shutdown[:] = id(shutdown), now + longest
        close_together(pipelines, longest)
    return min(limit, max(0.0, _shutdown[1] - monotonic()))


def is_ending() -> bool:
    """Return whether the process is ending, so that nothing will wait for a thread again."""
    return bool(_ends_at)


def deadline_in(timeout: float) -> float:
    """Return the time *timeout* seconds from now, but not after the deadline of the exit."""
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
    _hooked_in.add(os.getpid())  # last, so that an interrupted caller tries again


def _close_at_celerys_exit() -> None:
    """Close when celery signals the end of a worker, which ends by ``os._exit``."""
    signals = sys.modules.get("celery.signals")
    if signals is not None:
        signals.worker_process_shutdown.connect(lambda **_: close_all(final=True), weak=False)


def _after_fork() -> None:
    sending_threads.clear()
    _ends_at.clear()
    for pipeline in list(all_pipelines):
        pipeline.after_fork()
    open_pipelines.clear()


# `weakref` registers its exit hook with its first finaliser. This one makes it run after ours: a
# finaliser of urllib3 closes connections, which the last events still need.
weakref.finalize(Closable, int)
# Registered after logging's own hook, so it runs before it: events are sent before handlers close.
atexit.register(close_all, final=True)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
