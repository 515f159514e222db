"""
Choose between PostHog's two protocols for a host: V1, or V0 for an old server.

A state machine, without a clock or a network. PostHog's own hosts always speak V1. Any other
host is *unknown* until it answers. An answer of V1's form settles on V1 for the life of the
process. If the answer looks like an old server's, the same batch is sent once to V0, and only
an answer of V0's form settles on V0, for a day; then V1 is tried again. Any other answer
changes nothing, and the batch is kept.
"""

from __future__ import annotations

import dataclasses
import enum

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Protocol as Interface
from urllib.parse import urlsplit

from .answers import is_page, object_in
from .dialect import Dialect, Endpoint, Response
from .posthog import AI_PATH, V1_PATH, PostHogDialect


__all__ = ["Fixed", "Known", "PostHogProtocol", "Protocol", "Sign", "protocol_for", "sign_of"]

DAY = 24 * 3600.0

_FIRST_WAIT = 60.0
_LONGEST_WAIT = 15 * 60.0
_NOT_FOUND = frozenset({404, 405, 410})

#: V1's error codes (PostHog's rust/capture, v1; wire notes, 2.6).
_V1_ERRORS = frozenset(
    """missing_required_headers invalid_header_value request_decoding_error
    request_parsing_error empty_body empty_batch invalid_batch missing_event_uuid
    invalid_event_uuid duplicate_event_uuid missing_authorization invalid_api_token
    billing_limit_exceeded request_timeout body_read_timeout payload_too_large
    unsupported_content_type unsupported_encoding rate_limited internal_error
    service_unavailable gateway_timeout""".split()
)


class Sign(enum.Enum):
    """What a response to a V1 request shows about the server."""

    NOTHING = "nothing"
    PROOF = "proof"  # the server speaks V1
    DOUBT = "doubt"  # an old server, or not a PostHog server
    STRIPPED = "stripped"  # the server speaks V1, but a proxy removes the Authorization header


class Speaks(enum.Enum):
    """The protocol that a host is known to speak."""

    UNKNOWN = "unknown"
    V1 = "v1"
    V0 = "v0"


@dataclass
class Known:
    """
    What is known about one host, for one key.

    Times are in seconds on the sender's monotonic clock: ``v1_again_at`` is when to try V1
    again, ``confirm_again_at`` the earliest time to try V0 again after ``failures`` attempts
    without a proper answer.
    """

    speaks: Speaks = Speaks.UNKNOWN
    v1_again_at: float = 0.0
    confirm_again_at: float = 0.0
    failures: int = 0
    has_ai_lane: bool = True


#: By host and key; a forked child inherits it.
_MEMORY: MutableMapping[tuple[str, str], Known] = {}


def sign_of(response: Response, request_id: str) -> Sign:
    """Return what *response* to the V1 request with *request_id* shows about the server."""
    status, answer = response.status, object_in(response)
    if status is None:
        return Sign.NOTHING
    error = answer.get("error")
    if status == 401 and error == "missing_authorization":
        return Sign.STRIPPED
    if (
        isinstance(answer.get("results"), dict)
        or (isinstance(error, str) and (error in _V1_ERRORS or "error_description" in answer))
        or response.headers.get("posthog-request-id") == request_id
    ):
        return Sign.PROOF
    if status in _NOT_FOUND or 300 <= status < 400:
        return Sign.DOUBT
    if 200 <= status < 300:  # a server that accepts any path, or something in front of one
        return Sign.NOTHING if response.error else Sign.DOUBT
    return Sign.DOUBT if status == 403 and is_page(response) else Sign.NOTHING


def is_posthogs_own(host: str) -> bool:
    """Return whether the base URL *host* belongs to PostHog Cloud."""
    return f".{urlsplit(host).hostname or ''}".endswith(".posthog.com")


class Protocol(Interface):
    """Choose the dialect of each attempt, and learn from the responses."""

    @property
    def name(self) -> str:
        """The name of the dialect in use, as far as it is known."""

    @property
    def proven(self) -> bool:
        """Whether the endpoint is known to exist."""

    def choose(self, lane: str, now: float) -> Dialect:
        """Return the dialect for the next attempt to send a batch of *lane*."""

    def heed(
        self, dialect: Dialect, response: Response, request_id: str, now: float
    ) -> Dialect | None:
        """Learn from *response*; return a dialect to send the same batch in at once, or None."""

    def counts(self, dialect: Dialect, response: Response, now: float) -> bool:
        """Return whether *response*, to the attempt that `heed` asked for, decides the batch."""

    def news(self) -> str:
        """Return a message for the user, once; "" if there is none."""

    def trouble(self) -> str:
        """Return what the last responses showed to be wrong; "" if nothing."""


class Fixed:
    """A `Protocol` that always chooses the same dialect."""

    proven = False

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    @property
    def name(self) -> str:
        """The dialect's name."""
        return self._dialect.name

    def choose(self, lane: str, now: float) -> Dialect:
        """Return the dialect."""
        return self._dialect

    def heed(
        self, dialect: Dialect, response: Response, request_id: str, now: float
    ) -> Dialect | None:
        """Learn nothing."""
        return None

    def counts(self, dialect: Dialect, response: Response, now: float) -> bool:
        """Return True: `heed` never asks for another attempt."""
        return True

    def news(self) -> str:
        """Return ""."""
        return ""

    def trouble(self) -> str:
        """Return ""."""
        return ""


class PostHogProtocol:
    """
    Choose the protocol for one host and key.

    Args:
        dialect: the preferred dialect; without a ``fallback`` it is always used.
        endpoint: the host and key.
        memory: what is known about hosts; None: one mapping for the process.
    """

    def __init__(
        self,
        dialect: PostHogDialect,
        endpoint: Endpoint,
        memory: MutableMapping[tuple[str, str], Known] | None = None,
    ) -> None:
        memory = _MEMORY if memory is None else memory
        self._dialect = dialect
        self._host = endpoint.host
        self._own = is_posthogs_own(endpoint.host)
        self._fallback = None if self._own else dialect.fallback
        self._known = memory.setdefault((endpoint.host, endpoint.api_key), Known())
        self._ai = (
            dataclasses.replace(dialect, path=AI_PATH)
            if dialect.v1 and dialect.path == V1_PATH
            else None
        )
        self._news = ""
        self._trouble = ""

    @property
    def name(self) -> str:
        """The name of the protocol in use; the dialect's own name until that is known."""
        if self._fallback is None:
            return self._dialect.name
        return {
            Speaks.UNKNOWN: self._dialect.name,
            Speaks.V1: "posthog-v1",
            Speaks.V0: self._fallback.name,
        }[self._known.speaks]

    @property
    def proven(self) -> bool:
        """Whether the host has answered in V1, or is PostHog's own."""
        return self._dialect.v1 and (self._own or self._known.speaks is Speaks.V1)

    def choose(self, lane: str, now: float) -> PostHogDialect:
        """Return V0 for a host known to speak it, except once a day; else V1."""
        known = self._known
        self._trouble = ""
        if self._fallback is not None and known.speaks is Speaks.V0:
            if now < known.v1_again_at:
                if lane:
                    self._miss_ai_lane()
                return self._fallback
            known.v1_again_at = now + DAY
        if lane and known.has_ai_lane and self._ai is not None:
            return self._ai
        return self._dialect

    def heed(
        self, dialect: Dialect, response: Response, request_id: str, now: float
    ) -> PostHogDialect | None:
        """Learn from *response*; return the dialect to send the same batch in at once, or None."""
        if not isinstance(dialect, PostHogDialect):
            return None
        if not dialect.v1:
            self._heed_v0(response, now)
            return None
        if self.proven:  # checked first, as reading the response takes time
            return self._without_ai(response) if dialect is self._ai else None
        sign = sign_of(response, request_id)
        if sign is Sign.PROOF:
            if self._known.speaks is Speaks.V0:  # a newer server, which may have the lane
                self._known.has_ai_lane = True
            self._known.speaks = Speaks.V1
            return None
        if dialect is self._ai:
            return self._without_ai(response)
        if sign is Sign.NOTHING or self._fallback is None:
            return None
        self._trouble = _description(sign, response)
        return self._fallback if now >= self._known.confirm_again_at else None

    def counts(self, dialect: Dialect, response: Response, now: float) -> bool:
        """Return whether V0 was confirmed: by a 2xx whose JSON object has a ``status``."""
        if dialect is not self._fallback:
            return True
        known = self._known
        if not (200 <= (response.status or 0) < 300 and "status" in object_in(response)):
            known.failures += 1
            wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(known.failures - 1, 8))
            known.confirm_again_at = now + wait
            return False
        if known.speaks is not Speaks.V0:
            self._warn(
                f"{self._host} does not speak PostHog's newer protocol ({self._trouble}): "
                "events go to /batch/ from now on, and V1 is tried again in a day"
            )
        known.speaks, known.failures, self._trouble = Speaks.V0, 0, ""
        known.v1_again_at = now + DAY
        return True

    def news(self) -> str:
        """Return a message for the user, once; "" if there is none."""
        news, self._news = self._news, ""
        return news

    def trouble(self) -> str:
        """Return what is wrong with the address if both protocols failed; else ""."""
        return self._trouble and (
            f"neither of PostHog's protocols is spoken at {self._host}, {self._trouble}"
        )

    def _heed_v0(self, response: Response, now: float) -> None:
        """If V0's path is gone, the server was replaced: try V1 next."""
        if response.status in _NOT_FOUND:
            self._known.v1_again_at = now

    def _warn(self, news: str) -> None:
        """Add to the news, as one attempt may bring two messages."""
        self._news = f"{self._news}; {news}" if self._news else news

    def _without_ai(self, response: Response) -> PostHogDialect | None:
        """Return the main dialect if the deployment has no route for AI events, else None."""
        status = response.status or 0
        missing = status in _NOT_FOUND or 300 <= status < 400
        if not (missing or (200 <= status < 300 and is_page(response))):
            return None
        self._miss_ai_lane()
        return self._dialect

    def _miss_ai_lane(self) -> None:
        """Remember that the host has no route for AI events, and report that once."""
        if self._known.has_ai_lane:
            self._known.has_ai_lane = False
            self._warn(
                f"{self._host} has no route for large AI events: they go with all others, "
                "and what is too large for that is cut"
            )


def protocol_for(
    dialect: Dialect,
    endpoint: Endpoint,
    memory: MutableMapping[tuple[str, str], Known] | None = None,
) -> Protocol:
    """Return the `Protocol` that chooses between *dialect* and its fallback at *endpoint*."""
    if isinstance(dialect, PostHogDialect):
        return PostHogProtocol(dialect, endpoint, memory)
    return Fixed(dialect)


def _description(sign: Sign, response: Response) -> str:
    """Describe the response in a few words, for a log message."""
    if sign is Sign.STRIPPED:
        return "a proxy strips the Authorization header"
    if 300 <= (response.status or 0) < 400:
        return f"HTTP {response.status}, a redirect"
    what = ", a web page" if is_page(response) else ""
    if not what and 200 <= (response.status or 0) < 300:
        what = " with a body that is not PostHog's"
    return f"HTTP {response.status}{what}"
