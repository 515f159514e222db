"""
The old clients' settings: the name of each in this library, and those without a counterpart.

A setting without a counterpart is logged, with what to do instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..delivery.own_log import logger


__all__ = ["changed", "missing", "options_of"]

# Settings with the same name and meaning as an option of the handler.
_SAME = frozenset(
    """before_send debug disable_geoip flush_at flush_interval gzip historical_migration
    max_queue_size max_retries on_error proxies send sync_mode timeout""".split()
)
_RENAMED = {
    "upload_size": "flush_at",
    "upload_interval": "flush_interval",
    "capture_compression": "compression",
    "enable_exception_autocapture": "exception_hooks",
    "capture_exception_code_variables": "exception_variables",
    "in_app_modules": "in_app_include",
}
# A handler always has one sending thread; a different number would make no difference.
_NOT_NEEDED = frozenset({"thread"})


def options_of(
    module: str, given: Mapping[str, Any], without: Mapping[str, str]
) -> dict[str, Any]:
    """
    Return the options of a handler for an old client's settings.

    Args:
        module: the name of the compat module, for messages.
        given: the settings that differ from the old client's defaults.
        without: the settings without a counterpart, each with what to do instead.

    Raises ``TypeError`` for a name that the old client did not have either.
    """
    options: dict[str, Any] = {}
    for name, value in given.items():
        if name in without:
            logger.warning("%s: %s has no effect here; %s", module, name, without[name])
        elif name not in _NOT_NEEDED and not (name in _RENAMED and value is None):
            options[_option(module, name)] = value
    return options


def changed(namespace: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a module that differ from its *defaults*."""
    return {
        name: namespace[name]
        for name, default in defaults.items()
        if namespace[name] is not default and namespace[name] != default
    }


def missing(module: str, without: Mapping[str, str]) -> Callable[[str], Any]:
    """
    Return a ``__getattr__`` for *module*, which raises ``AttributeError`` with a replacement.

    *without* has the replacement for each name of the old client without a counterpart.
    """

    def look_up(name: str) -> Any:
        hint = "" if name.startswith("__") else f"; {without.get(name, _UNKNOWN)}"
        raise AttributeError(f"module {module!r} has no attribute {name!r}{hint}", name=name)

    return look_up


_GUIDE = "posthog-logging docs migrate"
_UNKNOWN = f"see posthog_logging.Analytics and `{_GUIDE}` for what replaces it"


def _option(module: str, name: str) -> str:
    if name in _SAME:
        return name
    if name in _RENAMED:
        return _RENAMED[name]
    raise TypeError(f"{module}.Client has no setting {name!r}; `{_GUIDE}` lists those there are")
