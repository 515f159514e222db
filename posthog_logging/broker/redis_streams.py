"""
Redis Streams, by way of ``redis``: as durable as that Redis is.

Nothing is trimmed: ``MAXLEN`` drops what nobody has acknowledged, without a word. What a
relay holds it refreshes from time to time, and what nobody refreshes is another's to claim.
"""

from __future__ import annotations

import os
import socket
import time
import uuid

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis

from redis.backoff import NoBackoff
from redis.retry import Retry

from .address import Address
from .engine import MISSING, BrokerError, Finding, Intake, no_entry
from .envelope import CONTENT_TYPE, Delivery, Envelope


__all__ = ["GROUP", "StreamConsumer", "StreamPublisher", "consumer", "examine", "publisher"]

#: The consumer group of all relays.
GROUP = b"posthog-logging"

_CONNECT_WITHIN = 10.0
_BLOCK_AT_MOST = 1.0
_AGAIN = b"0-0"


class StreamPublisher:
    """Add entries to a stream, many in one round trip."""

    def __init__(self, address: Address, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._client: Any = None

    def publish(self, envelopes: Sequence[Envelope], timeout: float) -> list[BrokerError | None]:
        """Add entries; an answer to each says whether it is there."""
        if self._client is None:
            self._client = _client(self._address, min(self._timeout, max(0.1, timeout)))
        pipeline = self._client.pipeline(transaction=False)
        for envelope in envelopes:
            pipeline.xadd(self._address.queue, _fields(envelope))
        try:
            answers = pipeline.execute(raise_on_error=False)
        except Exception as error:
            self.close()
            raise _in_words(error) from None
        return [_in_words(one) if isinstance(one, Exception) else None for one in answers]

    def close(self) -> None:
        """Give back the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()


class StreamConsumer:
    """Read a stream as one of a group, under a name that nobody else has."""

    def __init__(self, address: Address, intake: Intake) -> None:
        self.revision = 0
        self._address = address
        self._intake = intake
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}".encode()
        self._client: Any = None
        self._inbox: deque[Delivery] = deque()
        self._held: set[bytes] = set()
        self._claim_at = self._refresh_at = 0.0
        self._stopped = False

    @property
    def held(self) -> int:
        """How many entries are here."""
        return len(self._held)

    def fetch(self, most: int, timeout: float) -> list[Delivery]:
        """Return entries: new ones, and from time to time those of relays that ended."""
        try:
            self._open()
            self._look_after()
            self._read(most, timeout)
        except redis.exceptions.ResponseError as error:
            if "NOGROUP" not in str(error) or not self._intake.declare:
                raise _in_words(error) from None
            self._make_group()  # somebody removed the stream, and all that was in it
        except Exception as error:
            raise _in_words(error) from None
        return [self._inbox.popleft() for _ in range(min(most, len(self._inbox)))]

    def pause(self) -> None:
        """Do nothing: what nobody fetches does not come."""

    def holds(self, token: bytes) -> bool:
        """Return whether it is here."""
        return token in self._held

    def ack(self, tokens: Sequence[bytes]) -> None:
        """Acknowledge and remove entries, in one step."""
        mine = [token for token in tokens if token in self._held]
        if not mine or self._client is None:
            return
        pipeline = self._client.pipeline(transaction=True)
        pipeline.xack(self._address.queue, GROUP, *mine)
        pipeline.xdel(self._address.queue, *mine)
        try:
            pipeline.execute()
        except Exception as error:
            raise _in_words(error) from None
        self._held.difference_update(mine)

    def dead(self, envelope: Envelope, timeout: float) -> None:
        """Add an entry to the stream of the dead."""
        try:
            self._open().xadd(self._address.dead, _fields(envelope))
        except Exception as error:
            raise _in_words(error) from None

    def stop(self) -> None:
        """Read no more."""
        self._stopped = True

    def close(self) -> None:
        """Let others have at once what is here."""
        client, self._client = self._client, None
        self.revision += 1
        held, self._held = list(self._held), set()
        self._inbox.clear()
        if client is None:
            return
        try:
            if held:  # as if nobody had refreshed them for long enough
                idle = int(self._intake.patience * 1000)
                client.execute_command(
                    *("XCLAIM", self._address.queue, GROUP, self._name, 0, *held),
                    *("IDLE", idle, "JUSTID"),
                )
            elif self._stopped:
                client.xgroup_delconsumer(self._address.queue, GROUP, self._name)
        except Exception:  # they are claimed later
            pass
        client.close()

    def _open(self) -> Any:
        if self._client is None:
            self._client = _client(self._address, _CONNECT_WITHIN)
            if self._intake.declare:
                self._make_group()
        return self._client

    def _make_group(self) -> None:
        try:
            self._client.xgroup_create(self._address.queue, GROUP, id="0", mkstream=True)
        except redis.exceptions.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise _in_words(error) from None

    def _read(self, most: int, timeout: float) -> None:
        room = self._intake.prefetch - len(self._held)
        wait = min(timeout, _BLOCK_AT_MOST)
        if self._inbox or self._stopped or most <= 0 or room <= 0:
            if most <= 0 or (not self._inbox and not self._stopped):
                time.sleep(wait)
            return
        found = self._client.xreadgroup(
            GROUP,
            self._name,
            {self._address.queue: b">"},
            count=min(most, room),
            block=max(1, int(wait * 1000)),
        )
        for _, entries in found or ():
            self._take_in(entries, {})

    def _look_after(self) -> None:
        """Refresh what is here, and claim what nobody looks after."""
        now = time.monotonic()
        patience = self._intake.patience
        if now >= self._refresh_at and self._held:
            self._refresh_at = now + patience / 4
            self._refresh()
        if now >= self._claim_at and not self._stopped:
            self._claim_at = now + patience / 2
            self._claim()

    def _refresh(self) -> None:
        """Say that this relay is alive; what another has claimed meanwhile is that one's."""
        pending = self._client.xpending_range(
            self._address.queue, GROUP, "-", "+", len(self._held) + 1, consumername=self._name
        )
        mine = {one["message_id"] for one in pending}
        gone = self._held - mine
        if gone:
            self._held -= gone
            self._inbox = deque(one for one in self._inbox if one.token not in gone)
            self.revision += 1
        if self._held:
            self._client.xclaim(
                self._address.queue, GROUP, self._name, 0, list(self._held), justid=True
            )

    def _claim(self) -> None:
        """Take over entries of relays that ended; each was delivered once more then."""
        room = self._intake.prefetch - len(self._held)
        start, idle = _AGAIN, int(self._intake.patience * 1000)
        while room > 0:
            answer = self._client.xautoclaim(
                self._address.queue, GROUP, self._name, idle, start, count=room
            )
            start, entries = answer[0], [one for one in answer[1] if one[1]]
            if entries:
                self._take_in(entries, self._deliveries(entries))
            room -= len(entries)
            if start == _AGAIN:
                return

    def _deliveries(self, entries: Sequence[Any]) -> dict[bytes, int]:
        pending = self._client.xpending_range(
            self._address.queue,
            GROUP,
            entries[0][0],
            entries[-1][0],
            len(entries),
            consumername=self._name,
        )
        return {one["message_id"]: one["times_delivered"] - 1 for one in pending}

    def _take_in(self, entries: Sequence[Any], before: Mapping[bytes, int]) -> None:
        for token, fields in entries:
            self._held.add(token)
            self._inbox.append(_delivery(token, fields, before.get(token, 0)))


def _fields(envelope: Envelope) -> dict[Any, Any]:
    body, coding = envelope.packed()
    return {
        "body": body,
        "message_id": envelope.message_id,
        "content_type": CONTENT_TYPE,
        **({"content_encoding": coding} if coding else {}),
        **envelope.headers(),
    }


def _delivery(token: bytes, fields: Mapping[bytes, bytes], before: int) -> Delivery:
    texts = {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, value in fields.items()
        if name != b"body"
    }
    return Delivery(
        token,
        fields.get(b"body", b""),
        texts.get("message_id") or token.decode(),
        texts.get("content_encoding"),
        texts,
        before,
        int(token.partition(b"-")[0]) / 1000,  # https://redis.io/docs/latest/commands/xadd/
    )


def _client(address: Address, timeout: float) -> Any:
    parts = urlsplit(address.url)
    path = parts.path if parts.path.strip("/") else "/0"
    return redis.Redis.from_url(
        urlunsplit(parts._replace(path=path)),
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),  # whoever calls tries again
        client_name="posthog-logging",
    )


def _in_words(error: BaseException) -> BrokerError:
    """Return what *error* means; of its text only the first word, which Redis gives a meaning."""
    if isinstance(error, BrokerError):
        return error
    if isinstance(error, redis.exceptions.AuthenticationError):
        return BrokerError("the broker refused the user or the password")
    word = type(error).__name__
    for kind, text in _WORDS.items():
        if str(error).startswith(kind) or kind in word:
            return BrokerError(text)
    if isinstance(error, redis.exceptions.ResponseError):
        return BrokerError(f"the broker refused the command ({word})")
    return BrokerError(f"the broker cannot be reached ({word})")


_WORDS = {
    "OOM": "the broker takes nothing for now: it is out of memory",
    "OutOfMemory": "the broker takes nothing for now: it is out of memory",
    "MISCONF": "the broker takes nothing for now: it cannot write to its disk",
    "command not allowed when used memory": "the broker takes nothing for now: out of memory",
    "NOAUTH": "the broker wants a password",
    "WRONGPASS": "the broker refused the user or the password",
    "NOPERM": "the broker refused the right to that",
    "NoPermission": "the broker refused the right to that",
    "NOGROUP": "the broker has no such stream or group; a relay makes it",
    "WRONGTYPE": "the queue's name is that of a key which is no stream",
    "READONLY": "the broker is a replica that takes no writes",
    "LOADING": "the broker is loading its data",
}


def publisher(address: Address, timeout: float) -> StreamPublisher:
    """Return what publishes."""
    return StreamPublisher(address, timeout)


def consumer(address: Address, intake: Intake) -> StreamConsumer:
    """Return what consumes."""
    return StreamConsumer(address, intake)


def examine(address: Address, timeout: float) -> Iterator[Finding]:
    """Yield what is well and what is wrong: the server, how it keeps data, the stream."""
    client = _client(address, timeout)
    try:
        server = client.info("server")
        yield _version(address, str(server.get("redis_version", "0")))
        yield from _durability(client)
        yield from _stream(client, address)
    except Exception as error:
        yield no_entry(address, _in_words(error))
    finally:
        client.close()


def _version(address: Address, version: str) -> Finding:
    numbers = [int(part) if part.isdecimal() else 0 for part in version.split(".")[:2]]
    if numbers < [6, 2]:
        text = f"{address.server}, Redis {version}: too old, as it has no XAUTOCLAIM"
        return Finding("WRONG", "broker", text, "a relay needs Redis 6.2 or newer")
    return Finding("ok", "broker", f"{address.server}, Redis {version}")


def _durability(client: Any) -> Iterator[Finding]:
    """Judge what becomes of events when the server is killed, or full."""
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
        text = f"{address.queue} is a {kind.decode()} of somebody else's"
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
