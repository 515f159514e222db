"""Exceptions as ``$exception`` events for PostHog's error tracking."""
