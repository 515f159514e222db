"""The library's name and version, as sent to servers."""

from __future__ import annotations


__all__ = ["LIBRARY", "VERSION"]

LIBRARY = "posthog-logging"
VERSION = "0.1.0"
