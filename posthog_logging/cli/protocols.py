"""
Judge by a server's answers to requests without events which protocol it speaks. Pure.

Every server of PostHog's refuses an empty batch, and the form of the refusal shows which
protocol it speaks, and whether it knows the key, which it checks before the batch.
"""

from __future__ import annotations

import json

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit


__all__ = ["Answer", "Judgement", "judge_get", "judge_posthog"]

OK, NOTE, WRONG = "ok", "note", "WRONG"


class Answer(NamedTuple):
    """One HTTP answer; header names in lower case."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Judgement(NamedTuple):
    """A verdict on a server's answers, with what was found and what to do about it."""

    verdict: str
    found: str
    remedy: str = ""
    #: Whether the server knows the key; None if its answers do not show it.
    key_known: bool | None = None


def judge_posthog(
    got: Answer, v1: Answer | None, v0: Answer | None, request_id: str = ""
) -> Judgement:
    """
    Judge a server by its answers to an empty batch.

    Args:
        got: the answer to a GET on the path; capture's is a 405, as it takes only POST there.
        v1: the answer to a POST to ``/i/v1/analytics/events``; None if V1 was not tried.
        v0: the answer to a POST to ``/batch/``; None if V0 was not tried.
        request_id: the ``PostHog-Request-Id`` that was sent; a V1 server echoes it.
    """
    if v1 is not None and _speaks_v1(v1, request_id):
        return _v1(v1, v0)
    if v0 is not None and _speaks_v0(v0):
        return _v0(v1, v0)
    asked = v1 or v0 or got
    if got.status == 405 and _is_in_trouble(asked):
        return Judgement(
            NOTE,
            f"HTTP {asked.status}: the address takes POST only, as capture's, and is in trouble",
            _WAITS,
        )
    if v1 is not None and v0 is None and v1.status in (404, 405, 410):
        return Judgement(
            WRONG,
            f"no capture V1 at this address (HTTP {v1.status})",
            "an older server speaks V0 only: use dialect='posthog', which finds out by itself, "
            "or 'posthog-v0'",
        )
    return _neither(asked)


def judge_get(answer: Answer, name: str) -> Judgement:
    """Judge a server by its answer to a GET on the ingestion path of dialect *name*."""
    known = f"the address of {name} answers a GET with HTTP {answer.status}"
    if answer.status in (404, 410) or 300 <= answer.status < 400:
        return _neither(answer)
    if _is_in_trouble(answer):
        return Judgement(NOTE, f"{known}: the server is in trouble", _WAITS)
    if _is_html(answer):
        return _neither(answer)
    return Judgement(OK, known)


_WAITS = "nothing; events wait until the server is back"
_KEY = (
    "compare the key with the one in the project's settings; PostHog's US and EU clouds do not "
    "know each other's keys"
)


def _v1(v1: Answer, v0: Answer | None) -> Judgement:
    fault = _member(v1, "error")
    speaks = "speaks capture V1"
    if v1.status == 401 and fault == "missing_authorization":
        works = "V0 works, and dialect='posthog' uses it" if v0 and _speaks_v0(v0) else ""
        return Judgement(
            WRONG,
            "a proxy on the way strips the Authorization header, which the server needs",
            f"let the proxy pass that header on{works and f'; until then {works}'}",
        )
    if v1.status == 401:
        found = f"{speaks}, but it knows no project with this key (HTTP 401)"
        return Judgement(WRONG, found, _KEY, False)
    if v1.status in (402, 429):
        return Judgement(
            NOTE,
            f"{speaks}, and asks to wait: the project is over its quota or its rate "
            f"(HTTP {v1.status})",
            "look at the project's billing limits; events wait meanwhile",
        )
    if v1.status >= 500:
        return Judgement(NOTE, f"{speaks}, and is in trouble (HTTP {v1.status})", _WAITS)
    return Judgement(OK, f"{speaks}, and lets this key in", key_known=True)


def _v0(v1: Answer | None, v0: Answer) -> Judgement:
    speaks = "speaks capture V0"
    if v1 is not None:
        speaks += f", not V1 (HTTP {v1.status})"
    if v0.status == 401:
        found = f"{speaks}, but it knows no project with this key (HTTP 401)"
        return Judgement(WRONG, found, _KEY, False)
    if v1 is None:
        return Judgement(OK, speaks)
    if v1.status == 401:
        return Judgement(
            WRONG,
            f"{speaks}: a proxy may strip the Authorization header, which only V1 needs",
            "let the proxy pass that header on; dialect='posthog' uses V0 until then",
        )
    return Judgement(
        NOTE,
        speaks,
        "nothing for dialect='posthog', which uses V0 here; to get V1, update the server, or let "
        "the proxy pass /i/v1/ on to capture",
    )


def _neither(answer: Answer) -> Judgement:
    """Judge an answer that no ingestion endpoint gives."""
    http = f"HTTP {answer.status}"
    if 300 <= answer.status < 400:
        return _redirect(http, urlsplit(answer.headers.get("location", "")))
    if _is_in_trouble(answer):
        return Judgement(NOTE, f"{http}: the server is in trouble", _WAITS)
    if answer.status == 401:
        return Judgement(WRONG, f"{http}: the server does not know the key", _KEY, False)
    if _is_html(answer):
        kind = "a web application" if answer.status == 403 else "a web page"
        return Judgement(
            WRONG,
            f"{http}: {kind} answers, not an ingestion endpoint",
            "give the ingestion host, not the address at which people look at the data; on a "
            "self-hosted server let the proxy pass /i/v1/ and /batch/ on to capture",
        )
    return Judgement(
        WRONG,
        f"{http}: the server has no ingestion endpoint at this address",
        "check that host has the right path and port, and that the dialect is the server's",
    )


def _redirect(http: str, to: SplitResult) -> Judgement:
    if not to.netloc:
        return Judgement(
            WRONG,
            f"{http}: the address redirects to {to.path[:60] or 'another path'}, as a login does, "
            "and takes no events",
            "let what asks for the login pass /i/v1/ and /batch/ without one, or give the address "
            "of the ingestion endpoint as host",
        )
    place = f"{to.scheme}://{to.netloc.rpartition('@')[2]}"
    return Judgement(
        WRONG,
        f"{http}: the address redirects to {place}, and the key is not sent after it",
        f"give {place} as host, if that is the ingestion endpoint",
    )


def _is_in_trouble(answer: Answer) -> bool:
    """Return whether the status is 5xx, except 501: no POST there, as with plain web servers."""
    return answer.status >= 500 and answer.status != 501


def _speaks_v1(answer: Answer, request_id: str) -> bool:
    if request_id and answer.headers.get("posthog-request-id") == request_id:
        return True
    found = _json(answer)
    if not isinstance(found, dict):
        return False
    # Gateways answer {"error": …} as well; V1's errors have a description.
    return "results" in found or ("error" in found and "error_description" in found)


def _speaks_v0(answer: Answer) -> bool:
    """Return whether the answer is V0's: JSON with a status, or a refusal in plain text."""
    found = _json(answer)
    if isinstance(found, dict):
        return "status" in found
    refuses = answer.status in (400, 401, 413, 429, 503)
    return refuses and bool(answer.body.strip()) and not _is_html(answer)


def _member(answer: Answer, name: str) -> Any:
    found = _json(answer)
    return found.get(name) if isinstance(found, dict) else None


def _json(answer: Answer) -> Any:
    try:
        return json.loads(answer.body)
    except ValueError:
        return None


def _is_html(answer: Answer) -> bool:
    """Return whether the body is a web page; some frameworks label JSON as HTML."""
    body = answer.body.lstrip(b"\xef\xbb\xbf \t\r\n")
    labelled = "html" in answer.headers.get("content-type", "")
    return body.startswith(b"<") or (labelled and bool(body) and _json(answer) is None)
