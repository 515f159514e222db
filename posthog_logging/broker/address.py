"""
The address of a broker: a URL whose user and password are never shown.

The only module that parses one. Errors name the parameter, never its value.
"""

from __future__ import annotations

import dataclasses

from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit


__all__ = ["DEFAULT_QUEUE", "FORMS", "SCHEMES", "Address", "address"]

#: What a URL looks like, for messages and helps; ``memory://`` is for tests.
FORMS = "amqp://user@host/vhost, redis://host/0 or kafka://host"

#: The module that implements each scheme: an `engine.Engine`.
SCHEMES = {
    "amqp": "rabbitmq",
    "amqps": "rabbitmq",
    "redis": "redis_streams",
    "rediss": "redis_streams",
    "kafka": "kafka",
    "memory": "memory",
}

#: The queue, stream or topic if the URL names none.
DEFAULT_QUEUE = "analytics"


@dataclass(frozen=True)
class Address:
    """
    A broker and a queue in it.

    ``url`` is for the client library and may hold a password; ``server`` may be shown.
    """

    scheme: str
    server: str
    queue: str
    url: str = field(repr=False)
    settings: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def public(self) -> str:
        """Server and queue, without user, password and settings."""
        return f"{self.server}?queue={quote(self.queue)}"

    @property
    def dead(self) -> str:
        """The name of the queue of dead letters."""
        return f"{self.queue}.dead"

    @property
    def hosts(self) -> str:
        """The host and port; with Kafka there may be several, separated by commas."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def credentials(self) -> tuple[str, str]:
        """Return the user and the password, "" for one that is missing."""
        user, _, password = urlsplit(self.url).netloc.rpartition("@")[0].partition(":")
        return unquote(user), unquote(password)

    def with_password(self, password: str) -> Address:
        """Return this address with another password."""
        parts = urlsplit(self.url)
        user = parts.netloc.rpartition("@")[0].partition(":")[0]
        netloc = f"{user}:{quote(password, safe='')}@{self.hosts}"
        return dataclasses.replace(self, url=urlunsplit(parts._replace(netloc=netloc)))


def address(url: str, queue: str | None = None, name: str = "broker") -> Address:
    """
    Return the address in *url*; raises ``ValueError`` if it is not a broker's URL.

    Args:
        queue: the queue, stream or topic; if None the URL's ``queue=``, else ``analytics``.
        name: what the URL was given as, for errors.
    """
    parts = _split(url.strip(), name)
    settings = dict(parse_qsl(parts.query, keep_blank_values=True))
    named, path = settings.pop("queue", None), parts.path.rstrip("/")
    if parts.scheme == "kafka":
        named, path = named or unquote(path.strip("/")), ""
    server = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"
    url = urlunsplit(parts._replace(query=urlencode(settings)))
    queue = _queue(queue or named or DEFAULT_QUEUE, name)
    return Address(parts.scheme, server, queue, url, settings)


def _split(url: str, name: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_valid = url.isprintable() and " " not in url and bool(parts.netloc)
        if parts.scheme != "kafka":  # which may have several hosts
            is_valid = is_valid and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or parts.scheme not in SCHEMES:
        raise ValueError(
            f"{name}: must be a URL such as {FORMS}, without blanks: it begins with one of "
            f"{', '.join(f'{scheme}://' for scheme in SCHEMES)} and has a host"
        )
    # A "/", "?" or "#" in a password ends the part of user and host: the rest would be shown.
    if "@" in f"{parts.path}{parts.query}" or parts.fragment:
        raise ValueError(
            f"{name}: special characters of the user or password must be percent-encoded"
        )
    return parts


def _queue(queue: str, name: str) -> str:
    if not queue.isprintable() or not 0 < len(queue.encode()) <= 200:
        raise ValueError(f"{name}: a queue's name must have 1 to 200 bytes, all of them printable")
    return queue
