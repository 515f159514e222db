"""
Find the object behind a proxy: an object that forwards everything, including ``__class__``.

Such are werkzeug's and celery's ``LocalProxy``, Django's ``SimpleLazyObject`` and lazy values,
the proxies of wrapt and lazy-object-proxy, and the standard library's weak proxies.
"""

from __future__ import annotations

import weakref

from typing import Any


__all__ = ["claimed_type", "unwrapped"]

# The most frequent types, none of which is a proxy.
_PLAIN = frozenset({str, int, dict, list, bool, float, type(None)})

_MISSING = object()
_WEAK = (weakref.ProxyType, weakref.CallableProxyType)
# Where proxies keep their object; Django's keeps it once its ``__class__`` was read.
_ATTRIBUTES = ("__wrapped__", "_wrapped", "__subject__")


def unwrapped(value: Any) -> Any:
    """Return the object behind the proxy *value*; *value* itself if there is none."""
    for _ in range(16):  # proxies of proxies, within bounds
        if type(value) in _PLAIN:
            break
        behind = _behind(value)
        if behind is value:
            break
        value = behind
    return value


def claimed_type(value: Any) -> Any:
    """Return the ``__class__`` of *value*; its real type if that is not a class or raises."""
    try:
        claimed = value.__class__
    except Exception:  # a lazy proxy without its request, a dead weak reference
        return type(value)
    return claimed if isinstance(claimed, type) else type(value)


def _behind(value: Any) -> Any:
    kind = type(value)
    try:
        if claimed_type(value) is kind:
            return _called(value) if _is_of(kind, "django", "Promise") else value
        if _is_of(kind, "unittest", "NonCallableMock"):
            return value
        if kind in _WEAK:
            return value.__repr__.__self__
        current = _own(value, "_get_current_object")
        if current is not _MISSING:
            return current()
        kept = (_own(value, name) for name in _ATTRIBUTES)
        return next((behind for behind in kept if behind is not _MISSING), value)
    except Exception:  # the caller's proxy may raise anything
        return value


def _called(promise: Any) -> Any:
    """Return what Django's ``lazy`` function returns, by the method that its own use."""
    call = _own(promise, "_proxy____cast")
    return str(promise) if call is _MISSING else call()


def _own(value: Any, name: str) -> Any:
    """Return an attribute of the proxy itself, bypassing its `__getattr__`."""
    try:
        return object.__getattribute__(value, name)
    except AttributeError:
        return _MISSING


def _is_of(kind: type, package: str, name: str) -> bool:
    """Return whether *kind* is or inherits from the class *name* of *package*."""
    return any(
        base.__name__ == name and str(base.__module__).partition(".")[0] == package
        for base in kind.__mro__
    )
