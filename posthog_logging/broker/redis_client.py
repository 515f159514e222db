"""A client of Redis, and the words for its errors."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis

from redis.backoff import NoBackoff
from redis.retry import Retry

from .address import Address
from .engine import INVALID_SETTING, BrokerError


__all__ = ["GROUP", "connect", "described"]

#: The consumer group of all relays.
GROUP = b"posthog-logging"


def connect(address: Address, timeout: float) -> Any:
    """Return a client, in which nothing waits for more than *timeout* seconds."""
    parts = urlsplit(address.url)
    path = parts.path if parts.path.strip("/") else "/0"
    return redis.Redis.from_url(
        urlunsplit(parts._replace(path=path)),
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),  # the caller tries again
        client_name="posthog-logging",
    )


def described(error: BaseException) -> BrokerError:
    """Return what *error* means; only the first word of its text, a code of Redis's, is read."""
    if isinstance(error, BrokerError):
        return error
    if isinstance(error, redis.exceptions.AuthenticationError):
        return BrokerError("the broker refused the user or the password")
    if isinstance(error, (TypeError, ValueError)) and not isinstance(error, redis.RedisError):
        return BrokerError(INVALID_SETTING)
    word = type(error).__name__
    for kind, text in _TEXTS.items():
        if str(error).startswith(kind) or kind in word:
            return BrokerError(text)
    if isinstance(error, redis.exceptions.ResponseError):
        return BrokerError(f"the broker refused the command ({word})")
    return BrokerError(f"the broker cannot be reached ({word})")


_TEXTS = {
    "OOM": "the broker takes nothing for now: it is out of memory",
    "OutOfMemory": "the broker takes nothing for now: it is out of memory",
    "MISCONF": "the broker takes nothing for now: it cannot write to its disk",
    "command not allowed when used memory": "the broker takes nothing for now: out of memory",
    "NOAUTH": "the broker wants a password",
    "WRONGPASS": "the broker refused the user or the password",
    "NOPERM": "the broker refused the right to that",
    "NoPermission": "the broker refused the right to that",
    "NOGROUP": "the broker has no such stream or group; a relay makes it",
    "WRONGTYPE": "the key with the queue's name is not a stream",
    "READONLY": "the broker is a replica that takes no writes",
    "LOADING": "the broker is loading its data",
}
