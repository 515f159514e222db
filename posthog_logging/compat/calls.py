"""Module-level functions that call a method of the module's client, as the old clients have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar


__all__ = ["forward"]

_Result = TypeVar("_Result")


def forward(
    method: Callable[..., _Result], client: Callable[[], object], module: str
) -> Callable[..., _Result]:
    """
    Return a function that calls *method* of the object that *client* returns.

    The function returns None where *client* does. It has the name and the docstring of *method*,
    and belongs to *module*.
    """
    name = method.__name__

    def call(*args: Any, **kwargs: Any) -> Any:
        target = client()
        return None if target is None else getattr(target, name)(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = method.__doc__
    call.__module__ = module
    return call
