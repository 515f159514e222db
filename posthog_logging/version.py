"""The name and the version under which the library introduces itself to servers."""

from __future__ import annotations


__all__ = ["LIBRARY", "VERSION"]

LIBRARY = "posthog-logging"
VERSION = "0.1.0"
