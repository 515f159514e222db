"""
The words for an answer: what is wrong, and what to do about it.

A server's own text may hold anything, so it is cleaned and cut, and the key in it is masked.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..wire import Response
from ..wire.answers import PAGE, is_page


__all__ = ["advice", "cleaned", "listed", "remedy", "summary"]

_LONGEST = 200
_MOST = 5

_ADVICE = {
    401: "the key was refused",
    402: "the server takes no events until a bill is paid or a quota is raised",
    403: "the server or a firewall before it refuses access",
    407: "a proxy asks for credentials: see `proxies`",
    451: "access is blocked for legal reasons",
    511: "the network asks for a sign-in",
}
_NOWHERE = "nothing takes events at this address: is `host` right, and is the dialect?"
_ELSEWHERE = "the address redirects: give `host` the address to which it leads"
_FORM = "the server or a proxy does not take requests of this form"


def advice(response: Response) -> str:
    """Return what the answer shows to be wrong with the key, the address or the network."""
    status = response.status or 0
    if 300 <= status < 400:
        return _ELSEWHERE
    if status in (404, 405, 410):
        return _NOWHERE
    if is_page(response) and status not in _ADVICE:
        return PAGE
    return _ADVICE.get(status, _FORM)


def remedy(host: str) -> str:
    """Return what to do if nothing gets through to *host*, a server or a broker."""
    options = "" if host.startswith("http") else " --broker"
    return f"`posthog-logging doctor{options}` looks for the cause"


def summary(response: Response) -> str:
    """Return an answer's status, or the type of the error; never its text."""
    if response.status is None:
        return response.error
    unread = f", its body could not be read: {response.error}" if response.error else ""
    return f"HTTP {response.status}{unread}"


def cleaned(text: str, secret: str) -> str:
    """Return a server's *text* as one short printable line, without *secret*."""
    if secret:
        text = text.replace(secret, "***")
    text = "".join(c if c.isprintable() else " " for c in text[: 4 * _LONGEST])
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def listed(texts: Iterable[str], secret: str) -> str:
    """Return the first few different *texts*, cleaned."""
    found = sorted({cleaned(text, secret) for text in texts})
    more = len(found) - _MOST
    return ", ".join(found[:_MOST]) + (f" and {more} more" if more > 0 else "")
