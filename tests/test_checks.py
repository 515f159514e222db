"""What a constructor is given: an error names the parameter, and never quotes a secret."""

from __future__ import annotations

import math
import threading

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posthog_logging import PostHogHandler
from posthog_logging.delivery import checks
from posthog_logging.delivery.transport import MemoryTransport
from posthog_logging.wire.posthog import V0, V1


SECRET = "s3cret"


def call(name: str, *more: Any) -> Callable[[Any], Any]:
    """Return the check *name* of a value for the parameter that goes by the same name."""
    check = getattr(checks, name)
    if name in ("headers", "api_key", "host", "coding", "spool"):
        return lambda value: check(value, *more)
    return lambda value: check(name, value, *more)


RIGHT: dict[str, tuple[Callable[[Any], Any], Any, Any]] = {
    "whole": (call("whole", 1), 1, 1),
    "rate": (call("rate"), [5, 10**9], (5, 1e9)),
    "no seconds": (call("seconds"), 0, 0.0),
    "seconds": (call("seconds"), 2, 2.0),
    "longest wait": (call("seconds"), threading.TIMEOUT_MAX, threading.TIMEOUT_MAX),
    "boolean": (call("boolean"), False, False),
    "one of": (call("one_of", ("a", "b")), "b", "b"),
    "level": (call("level"), "INFO", 20),
    "threshold": (call("threshold"), "ERROR", 40),
    "threshold: all": (call("threshold"), True, 0),
    "threshold: none": (call("threshold"), False, None),
    "no mapping": (call("mapping"), None, {}),
    "mapping": (call("mapping"), {"a": 1}, {"a": 1}),
    "no headers": (call("headers"), None, {}),
    "headers": (call("headers"), {"X-Team": "a b"}, {"X-Team": "a b"}),
    "no proxies": (call("proxies"), None, None),
    "proxies": (call("proxies"), {"http": None, "https": "h:1"}, {"http": None, "https": "h:1"}),
    "trust": (call("trust"), Path(__file__), __file__),
    "certificate": (call("certificate"), [__file__, Path(__file__)], (__file__, __file__)),
    "no hook": (call("hooks"), None, ()),
    "hook": (call("hooks"), print, (print,)),
    "hooks": (call("hooks"), [print, len], (print, len)),
    "api_key": (call("api_key"), " phc_key\n", "phc_key"),
    "no api_key": (call("api_key"), None, ""),
    "host": (call("host", "d"), " https://example.org/posthog/ ", "https://example.org/posthog"),
    "no host": (call("host", "https://d"), None, "https://d"),
    "blank host": (call("host", "https://d"), " ", "https://d"),
    "port": (call("host", "d"), "http://[::1]:8000", "http://[::1]:8000"),
    "no coding": (call("coding", V0), None, None),
    "coding": (call("coding", V0), "gzip", "gzip"),
}


@pytest.mark.parametrize(("check", "value", "expected"), RIGHT.values(), ids=RIGHT)
def test_what_is_right_is_returned(check: Any, value: Any, expected: Any) -> None:
    """A value that may be is returned in the form in which it is used."""
    found = check(value)

    assert (type(expected), expected) == (type(found), found)


WRONG: dict[str, tuple[Callable[[Any], Any], Any, type[Exception], str]] = {
    "whole: float": (call("whole", 1), 1.0, TypeError, "whole"),
    "whole: bool": (call("whole", 0), True, TypeError, "whole"),
    "whole: text": (call("whole", 1), "1", TypeError, "whole"),
    "whole: None": (call("whole", 1), None, TypeError, "None"),
    "whole: large": (call("whole", 1, 9), 10, ValueError, "at most 9"),
    "rate: negative": (call("rate"), (1, -1), ValueError, "from 0 to 1000000000 a second"),
    "rate: large": (call("rate"), (5, 1e15), ValueError, "from 0 to 1000000000 a second"),
    "rate: huge": (call("rate"), (5, 10**400), ValueError, "a second"),
    "rate: no number": (call("rate"), (5, math.nan), ValueError, "a second"),
    "rate: text": (call("rate"), (5, "1"), TypeError, "how many a second must be a number"),
    "whole: small": (call("whole", 1), 0, ValueError, "at least 1, not 0"),
    "seconds: text": (call("seconds"), "1", TypeError, "seconds"),
    "seconds: bool": (call("seconds"), True, TypeError, "seconds"),
    "seconds: negative": (call("seconds"), -0.1, ValueError, "seconds"),
    "seconds: NaN": (call("seconds"), float("nan"), ValueError, "seconds"),
    "seconds: infinite": (call("seconds"), float("inf"), ValueError, "seconds"),
    "seconds: no wait": (call("seconds"), 10**400, ValueError, "seconds"),
    "boolean: number": (call("boolean"), 1, TypeError, "boolean"),
    "one of: another": (call("one_of", ("a", "b")), "c", ValueError, "must be 'a' or 'b'"),
    "one of: one": (call("one_of", ("a", None)), "c", ValueError, "must be 'a' or None"),
    "one of: None": (call("one_of", ("a", "b")), None, TypeError, "one_of"),
    "one of: number": (call("one_of", ("a", "b")), 1, TypeError, "one_of"),
    "level: name": (call("level"), "LOUD", ValueError, "level: 'LOUD'"),
    "level: bool": (call("level"), True, TypeError, "level: "),
    "level: list": (call("level"), [], TypeError, "level: "),
    "threshold: name": (call("threshold"), "LOUD", ValueError, "threshold: 'LOUD'"),
    "threshold: list": (call("threshold"), [], TypeError, "threshold: must be True, False or"),
    "mapping: list": (call("mapping"), [], TypeError, "mapping"),
    "mapping: keys": (call("mapping"), {1: 2}, TypeError, "must be strings"),
    "headers: list": (call("headers"), [SECRET], TypeError, "headers"),
    "headers: number": (call("headers"), {"X": 1}, TypeError, "'X'"),
    "headers: new line": (call("headers"), {"X": f"{SECRET}\r\nY: 1"}, ValueError, "'X'"),
    "headers: blank around": (call("headers"), {"X": f" {SECRET}"}, ValueError, "'X'"),
    "headers: no ASCII": (call("headers"), {"X": f"{SECRET}€"}, ValueError, "'X'"),
    "headers: no name": (call("headers"), {"": SECRET}, ValueError, "headers"),
    "headers: of a body": (call("headers"), {"Content-Encoding": "br"}, ValueError, "leave it"),
    "headers: of an attempt": (call("headers"), {"posthog-attempt": "7"}, ValueError, "leave it"),
    "headers: name": (call("headers"), {"X: Y": SECRET}, ValueError, "'X: Y'"),
    "headers: name's new line": (call("headers"), {"X\r\nY": SECRET}, ValueError, "headers"),
    "proxies: number": (call("proxies"), {"http": 1}, TypeError, "proxies"),
    "proxies: bracket": (call("proxies"), {"http": "http://[::1"}, ValueError, "proxies"),
    "proxies: letter": (
        call("proxies"),
        {"a": f"http://u:{SECRET}@\u2100"},
        ValueError,
        "proxies",
    ),
    "hooks: text": (call("hooks"), "print", TypeError, "hooks"),
    "hooks: number": (call("hooks"), 7, TypeError, "hooks"),
    "hooks: list": (call("hooks"), [print, None], TypeError, "hooks"),
    "api_key: number": (call("api_key"), 7, TypeError, "api_key"),
    "api_key: bytes": (call("api_key"), SECRET.encode(), TypeError, "api_key"),
    "api_key: new line": (call("api_key"), f"{SECRET}\nX", ValueError, "api_key"),
    "api_key: no ASCII": (call("api_key"), f"{SECRET}é", ValueError, "api_key"),
    "api_key: personal": (call("api_key"), f"phx_{SECRET}", ValueError, "the project's"),
    "host: number": (call("host", "d"), 7, TypeError, "host"),
    "host: no default": (call("host", ""), None, ValueError, "host"),
    "trust: no such file": (call("trust"), "/nowhere.pem", ValueError, "'/nowhere.pem'"),
    "trust: empty": (call("trust"), "", ValueError, "no file ''"),
    "certificate: no such file": (call("certificate"), "/nowhere.pem", ValueError, "nowhere"),
    "certificate: no such key": (
        call("certificate"),
        (__file__, "/nowhere.pem"),
        ValueError,
        "nowhere",
    ),
    "having: a class": (call("having", "send"), MemoryTransport, TypeError, "with send"),
    "host: no scheme": (call("host", "d"), "example.org", ValueError, "http"),
    "host: another scheme": (call("host", "d"), "ftp://example.org", ValueError, "http"),
    "host: nothing in it": (call("host", "d"), "https://", ValueError, "host"),
    "host: password": (call("host", "d"), f"https://u:{SECRET}@h", ValueError, "password"),
    "host: query": (call("host", "d"), f"https://h/?k={SECRET}", ValueError, "query"),
    "host: fragment": (call("host", "d"), "https://h/#x", ValueError, "fragment"),
    "host: port": (call("host", "d"), "https://h:99999", ValueError, "host"),
    "host: port's letters": (call("host", "d"), "https://h:port", ValueError, "host"),
    "host: bracket": (call("host", "d"), "https://[::1", ValueError, "host"),
    "host: blank": (call("host", "d"), "https://a b", ValueError, "host"),
    "host: new line": (call("host", "d"), "https://a\nb", ValueError, "host"),
    "coding: number": (call("coding", V1), 7, TypeError, "compression"),
    "coding: unknown": (call("coding", V1), "lzma", ValueError, "compression"),
    "coding: not this server's": (call("coding", V0), "br", ValueError, "compression"),
    "spool: number": (call("spool"), 7, TypeError, "spool"),
}


@pytest.mark.parametrize(("check", "value", "error", "text"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(check: Any, value: Any, error: type[Exception], text: str) -> None:
    """A value that may not be raises; the text says for which parameter, and no secret."""
    with pytest.raises(error) as caught:
        check(value)

    assert text in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_environment_speaks_where_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """``POSTHOG_API_KEY`` and ``POSTHOG_HOST`` stand in for what is not given."""
    monkeypatch.setenv("POSTHOG_API_KEY", " phc_env ")
    monkeypatch.setenv("POSTHOG_HOST", "https://env.example/")

    assert ("phc_env", "phc_key") == (checks.api_key(None), checks.api_key("phc_key"))
    assert "https://env.example" == checks.host(None, "https://default")
    assert "https://given" == checks.host("https://given", "https://default")


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("POSTHOG_HOST", "eu.i.posthog.com", r"host \(from POSTHOG_HOST\): must be a URL"),
        ("POSTHOG_HOST", "https://u:s3cret@h", r"host \(from POSTHOG_HOST\): must be a URL with"),
        ("POSTHOG_API_KEY", "phx_s3cret", r"api_key \(from POSTHOG_API_KEY\): a personal key"),
        ("POSTHOG_PROJECT_TOKEN", "phx_s3cret", r"api_key \(from POSTHOG_PROJECT_TOKEN\): a per"),
        ("POSTHOG_PROJECT_TOKEN", "phc_é", r"api_key \(from POSTHOG_PROJECT_TOKEN\): must have"),
        ("POSTHOG_BROKER", "localhost:5672", r"broker \(from POSTHOG_BROKER\): must be a URL"),
        ("POSTHOG_BROKER", "redis://h/s3cret@x", r"broker \(from POSTHOG_BROKER\): special"),
        ("POSTHOG_BROKER", "redis://h?queue=%00", r"broker \(from POSTHOG_BROKER\): a queue's"),
    ],
)
def test_a_mistake_in_the_environment_is_traced(
    variable: str, value: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error names the variable that a wrong value came from, and does not quote the value."""
    monkeypatch.setenv("POSTHOG_API_KEY", "phc_good")
    monkeypatch.setenv(variable, value)

    with pytest.raises(ValueError, match=f"^{text}") as raised:
        PostHogHandler()
    assert SECRET not in str(raised.value)


def test_a_blank_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer name that is blank leaves the older one in force."""
    monkeypatch.setenv("POSTHOG_PROJECT_TOKEN", " ")
    monkeypatch.setenv("POSTHOG_API_KEY", "phc_env")

    assert "phc_env" == checks.api_key(None)


def test_what_is_given_is_copied() -> None:
    """Headers that the caller changes later stay what they were."""
    given = {"X": "a"}
    found = checks.headers(given)
    given["X"] = "b"

    assert {"X": "a"} == found


PARAMETERS: dict[str, Any] = {
    "host": 7,
    "dialect": "mixpanel",
    "flush_at": 0,
    "flush_interval": "soon",
    "max_queue_size": 0,
    "max_queue_bytes": 1.5,
    "overflow": "explode",
    "block_timeout": -1,
    "max_retries": -1,
    "timeout": None,
    "shutdown_timeout": float("inf"),
    "compression": "lzma",
    "bisect": "yes",
    "before_send": "hook",
    "on_error": 7,
    "properties": [1],
    "flat": None,
    "disable_geoip": 1,
    "historical_migration": "no",
    "headers": {"X": 1},
    "sync_mode": 1,
    "send": 0,
    "debug": 1,
}


@pytest.mark.parametrize(("name", "value"), PARAMETERS.items(), ids=PARAMETERS)
def test_the_handler_checks_each_of_its_parameters(name: str, value: Any) -> None:
    """A wrong argument of the constructor raises with its parameter's name."""
    with pytest.raises((TypeError, ValueError), match=name):
        PostHogHandler("phc_key", **{name: value})
