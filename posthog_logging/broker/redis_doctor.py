"""What may be wrong with a Redis and its stream, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis

from .address import Address
from .engine import MISSING, Finding, no_entry
from .redis_client import GROUP, connect, described


__all__ = ["examine"]


def examine(address: Address, timeout: float) -> Iterator[Finding]:
    """Check the server, whether it keeps its data, and the stream."""
    try:
        client = connect(address, timeout)
    except ValueError as error:
        yield no_entry(address, described(error))
        return
    try:
        server = client.info("server")
        yield _version(address, str(server.get("redis_version", "0")))
        yield from _durability(client)
        yield from _stream(client, address)
    except Exception as error:
        yield no_entry(address, described(error))
    finally:
        client.close()


def _version(address: Address, version: str) -> Finding:
    numbers = [int(part) if part.isdecimal() else 0 for part in version.split(".")[:2]]
    if numbers < [6, 2]:
        text = f"{address.server}, Redis {version}: too old, as it has no XAUTOCLAIM"
        return Finding("WRONG", "broker", text, "a relay needs Redis 6.2 or newer")
    return Finding("ok", "broker", f"{address.server}, Redis {version}")


def _durability(client: Any) -> Iterator[Finding]:
    """Check what happens to events when the server is killed, or full."""
    try:
        found = {**client.config_get("appendonly"), **client.config_get("maxmemory-policy")}
    except redis.exceptions.ResponseError:  # of a service that does not show its configuration
        text = "this Redis does not show its configuration"
        remedy = "make sure that it has appendonly yes and maxmemory-policy noeviction"
        yield Finding("note", "durability", text, remedy)
        return
    if found.get("appendonly") == "yes":
        yield Finding("ok", "durability", "appendonly is yes")
    else:
        text = "appendonly is no: all that waits is lost when it is killed"
        yield Finding("WRONG", "durability", text, "set appendonly yes")
    policy = found.get("maxmemory-policy", "")
    if policy == "noeviction":
        yield Finding("ok", "eviction", "maxmemory-policy is noeviction")
    elif policy.startswith("volatile"):
        yield Finding("ok", "eviction", f"maxmemory-policy is {policy}: a stream does not expire")
    else:
        text = f"maxmemory-policy is {policy}: a full Redis removes the stream"
        yield Finding("WRONG", "eviction", text, "set maxmemory-policy noeviction")


def _stream(client: Any, address: Address) -> Iterator[Finding]:
    kind = client.type(address.queue)
    if kind == b"none":
        yield Finding("note", "stream", f"{address.queue} is missing", MISSING)
        return
    if kind != b"stream":
        text = f"{address.queue} is somebody else's {kind.decode()}"
        yield Finding("WRONG", "stream", text, "choose another name by queue= in the URL")
        return
    groups = {one["name"]: one for one in client.xinfo_groups(address.queue)}
    if GROUP not in groups:
        yield Finding("note", "stream", f"{address.queue} has no relays' group yet", MISSING)
        return
    own = groups[GROUP]
    waiting = client.xlen(address.queue)
    text = (
        f"{address.queue}: {waiting} messages, {own['pending']} with {own['consumers']} worker(s)"
    )
    yield Finding("ok", "stream", text)
