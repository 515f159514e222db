"""What the interpreter promises: whether one lock makes a step of Python's atomic."""

from __future__ import annotations

import sys


__all__ = ["has_lock"]


def has_lock() -> bool:
    """
    Return whether this interpreter has a global lock, which makes ``x += n`` safe.

    Free-threaded builds of Python have none, unless it was switched on again (PEP 703).
    """
    enabled = getattr(sys, "_is_gil_enabled", None)
    return enabled is None or bool(enabled())
