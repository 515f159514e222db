"""Wait in a thread for a call that blocks, so that the event loop of asyncio or trio goes on."""

from __future__ import annotations

import sys

from collections.abc import Callable
from typing import Any, TypeVar


__all__ = ["in_thread"]

_Result = TypeVar("_Result")


async def in_thread(call: Callable[..., _Result], *args: Any) -> _Result:
    """Return what *call* returns, from a thread; the task that waits may be cancelled."""
    trio = sys.modules.get("trio")  # whatever runs in it has imported it
    if trio is not None and _runs_in(trio):
        found: _Result = await trio.to_thread.run_sync(call, *args, abandon_on_cancel=True)
        return found
    import asyncio

    return await asyncio.to_thread(call, *args)


def _runs_in(trio: Any) -> bool:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True
