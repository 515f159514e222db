"""
Pass the identity on with Celery tasks, from the sender to the worker.

It is in a header of the task's message, as one line of JSON. Celery's configuration does not
change, and a worker without this module ignores the header.
"""

from __future__ import annotations

import logging

from collections.abc import MutableMapping
from functools import partial
from typing import Any

from .. import context
from ..context import Bound
from ..errors import steps
from ..errors.exception_list import TASK
from ..events import jsonable
from .front import Reporter, reporter


__all__ = ["HEADER", "connect"]

#: The header; also the attribute of ``task.request`` under which Celery shows it.
HEADER = "posthog_logging"

_LONGEST = 32_000  # characters of the header
_RUNNING = "_posthog_logging_identity"


def connect(handler: Reporter | None = None) -> None:
    """
    Bind in each task the identity and properties bound where it was sent.

    Call it next to the Celery app, in producers and workers. Another call replaces the
    *handler*.

    Args:
        handler: a `PostHogHandler` or `Analytics` that reports the exceptions of tasks, and
            delivers its queue before a process of the pool ends. If it is a handler on the root
            logger, it is added again after a worker removes the root logger's handlers.

    Raises:
        TypeError: *handler* is something else.
    """
    from celery import signals

    reporter(handler)
    place = _RootPlace(handler)
    receivers = {
        signals.before_task_publish: _send,
        signals.task_prerun: _begin,
        signals.task_postrun: _end,
        signals.task_failure: partial(_report, handler),
        signals.worker_process_shutdown: partial(_deliver, handler),
        signals.celeryd_init: place.remember,
        signals.after_setup_logger: place.restore,
    }
    for signal, receiver in receivers.items():
        signal.disconnect(dispatch_uid=HEADER)
        signal.connect(receiver, weak=False, dispatch_uid=HEADER)


class _RootPlace:
    """
    Keep a handler on the root logger, which a worker clears (``worker_hijack_root_logger``).

    Celery documents ``after_setup_logger`` as the place to add handlers.
    """

    def __init__(self, handler: Any) -> None:
        self._handler = handler
        self._was_on_root = False

    def remember(self, **_: Any) -> None:
        """Note whether the handler is on the root logger, before the worker sets up logging."""
        self._was_on_root = self._handler in logging.root.handlers

    def restore(self, **_: Any) -> None:
        """Put the handler back on the root logger, if it was there."""
        if self._was_on_root:
            logging.root.addHandler(self._handler)  # which does nothing if it is still there


def _send(headers: MutableMapping[str, Any] | None = None, **_: Any) -> None:
    bound = context.with_structlog()
    if headers is None or not any(bound):
        return
    fields = jsonable.encode([bound.distinct_id, dict(bound.properties)]).decode()
    if len(fields) > _LONGEST:  # send the id without the properties
        fields = jsonable.encode([bound.distinct_id, {}]).decode()
    headers[HEADER] = fields


def _begin(task: Any = None, **_: Any) -> None:
    """Bind the values from the header, on top of those of an enclosing task."""
    request = task.request
    setattr(request, _RUNNING, (context.enter(_received(request)), steps.begin_anew()))


def _end(task: Any = None, **_: Any) -> None:
    running = getattr(task.request, _RUNNING, None)
    if running is not None:
        token, trail = running
        context.leave(token)
        steps.end(trail)


def _received(request: Any) -> Bound:
    fields = getattr(request, HEADER, None) or (request.headers or {}).get(HEADER)
    try:
        distinct_id, properties = jsonable.decode(str(fields))
        return Bound(distinct_id, {str(key): value for key, value in properties.items()})
    except Exception:  # no header, or not one of this library
        return Bound()


def _report(handler: Any, exception: Any = None, **_: Any) -> None:
    if handler is not None:
        handler.capture_exception(exception, boundary=TASK)


def _deliver(handler: Any, **_: Any) -> None:
    if handler is not None:
        handler.flush()
