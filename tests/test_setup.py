"""Setting it up: one line, ``dictConfig`` in both forms, ``fileConfig``, the environment alone."""

from __future__ import annotations

import logging
import logging.config
import threading
import time

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from posthog_logging import PostHogHandler
from posthog_logging.inspector import Answer


yaml = pytest.importorskip("yaml")


SOON = 10.0


@pytest.fixture(name="log", autouse=True)
def _log() -> Iterator[logging.Logger]:
    """The logger that is configured, left clean."""
    log = logging.getLogger("tests.setup")
    yield log
    for handler in log.handlers:
        handler.close()
    log.handlers.clear()
    log.propagate = True
    log.setLevel(logging.NOTSET)


def config(handler: dict[str, Any], *, root: bool = False) -> dict[str, Any]:
    """Return a ``dictConfig`` with one handler, on a logger or on the root at DEBUG."""
    wired = {"handlers": ["posthog"], "level": "DEBUG"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"posthog": handler},
        **(
            {"root": wired}
            if root
            else {"loggers": {"tests.setup": {**wired, "propagate": False}}}
        ),
    }


def workers() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "posthog-logging"]


def test_add_handler(inspector: Any, log: logging.Logger) -> None:
    """One line is all that it takes."""
    log.addHandler(PostHogHandler("phc_test", inspector.url))
    log.error("movie played", extra={"distinct_id": "user-1"})
    log.handlers[0].flush()

    assert ["movie played"] == [event.event for event in inspector.events]


@pytest.mark.parametrize("how", ["class", "()"])
@pytest.mark.parametrize("name", ["PostHogHandler", "handler.PostHogHandler"])
def test_dict_config(how: str, name: str, inspector: Any, log: logging.Logger) -> None:
    """``class`` and ``()`` both work, with every argument, level and filters of ``dictConfig``."""
    described = config(
        {
            how: f"posthog_logging.{name}",
            "api_key": "phc_test",
            "host": inspector.url,
            "level": "WARNING",
            "filters": ["only"],
            "flush_interval": 60.0,
            "headers": {"X-Own": "1"},
            "properties": {"service": {"name": "shop"}, "agent": f"ext://{__name__}.AGENT"},
            "before_send": [f"ext://{__name__}.mark"],
            "dialect": "posthog-v1",
        }
    )
    described["filters"] = {"only": {"name": "tests.setup"}}
    logging.config.dictConfig(described)
    (handler,) = log.handlers
    log.info("below", extra={"distinct_id": "user-1"})
    log.warning("movie played", extra={"distinct_id": "user-1"})
    handler.flush()

    (event,) = inspector.events
    assert ("movie played", "posthog-v1") == (event.event, event.dialect)
    assert ({"name": "shop"}, True) == (event.properties["service"], event.properties["marked"])
    assert AGENT == event.properties["agent"]
    assert "1" == inspector.requests[0].headers["x-own"]


AGENT = "tests/1.0"


def mark(event: dict[str, Any]) -> dict[str, Any]:
    event["properties"]["marked"] = True
    return event


def test_yaml(inspector: Any, log: logging.Logger) -> None:
    """The same from a YAML file, as many services have it."""
    text = f"""
    version: 1
    disable_existing_loggers: false
    handlers:
      posthog:
        class: posthog_logging.PostHogHandler
        api_key: phc_test
        host: {inspector.url}
        max_retries: 3
        compression: null
    loggers:
      tests.setup: {{handlers: [posthog], level: INFO, propagate: no}}
    """
    logging.config.dictConfig(yaml.safe_load(text))
    log.info("movie played", extra={"distinct_id": "user-1"})
    log.handlers[0].flush()

    assert ["movie played"] == [event.event for event in inspector.events]
    assert "" == inspector.requests[0].coding


def test_file_config(inspector: Any, log: logging.Logger, tmp_path: Path) -> None:
    """``fileConfig`` with positional and with keyword arguments."""
    path = tmp_path / "logging.ini"
    path.write_text(
        f"""
[loggers]
keys=root,setup
[handlers]
keys=posthog
[formatters]
keys=
[logger_root]
handlers=
[logger_setup]
qualname=tests.setup
handlers=posthog
level=INFO
propagate=0
[handler_posthog]
class=posthog_logging.PostHogHandler
args=("phc_test",)
kwargs={{"host": "{inspector.url}", "flush_at": 5}}
"""
    )
    logging.config.fileConfig(path, disable_existing_loggers=False)
    log.info("movie played", extra={"distinct_id": "user-1"})
    log.handlers[0].flush()

    assert ["movie played"] == [event.event for event in inspector.events]


def test_the_environment_alone(inspector: Any, log: logging.Logger, monkeypatch: Any) -> None:
    """With key and host in the environment, ``dictConfig`` needs the class only."""
    monkeypatch.setenv("POSTHOG_API_KEY", "phc_environment")
    monkeypatch.setenv("POSTHOG_HOST", inspector.url)
    logging.config.dictConfig(config({"class": "posthog_logging.PostHogHandler"}))
    log.info("movie played", extra={"distinct_id": "user-1"})
    log.handlers[0].flush()

    assert ["movie played"] == [event.event for event in inspector.events]
    assert inspector.url == log.handlers[0].describe().host


def test_a_wrong_config_says_so() -> None:
    """An unknown or a wrong argument ends ``dictConfig`` with an error that names it."""
    for wrong, name in (({"flush_at": "many"}, "flush_at"), ({"flash_at": 1}, "flash_at")):
        described = config({"class": "posthog_logging.PostHogHandler", "api_key": "phc", **wrong})
        with pytest.raises(ValueError, match="Unable to configure handler 'posthog'") as raised:
            logging.config.dictConfig(described)
        assert name in str(raised.value.__cause__)


@pytest.mark.parametrize("answer", [Answer(), Answer(delay=0.3)], ids=["quick", "slow"])
@pytest.mark.parametrize("when", ["at once", "amid a request"])
def test_configured_twice(answer: Answer, when: str, inspector: Any) -> None:
    """
    A second ``dictConfig`` while events wait does not hang, and loses none of them.

    It flushes and closes the old handlers while it holds logging's lock, which urllib3 needs
    in the sending thread: the root is at DEBUG, and what was cached of that is forgotten.
    """
    inspector.answer_always = answer
    before = set(workers())
    log = logging.getLogger("tests.setup.service")
    described = config(
        {"class": "posthog_logging.PostHogHandler", "api_key": "phc_test", "host": inspector.url},
        root=True,
    )
    described["handlers"]["posthog"]["flush_at"] = 1
    began = time.monotonic()
    for round_ in range(3):
        logging.config.dictConfig(described)
        for number in range(10):
            log.info("x", extra={"event": f"e{round_}.{number}"})
        if when != "at once":
            inspector.wait(count=round_ * 10 + 1, timeout=SOON)
            log.info("x", extra={"event": f"late{round_}"})
            logging.getLogger("urllib3").setLevel(logging.NOTSET)  # forgets what is cached
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})

    assert time.monotonic() - began < 3.0
    expected = {f"e{round_}.{number}" for round_ in range(3) for number in range(10)}
    if when != "at once":
        expected |= {f"late{round_}" for round_ in range(3)}
    arrived = inspector.wait(count=len(expected), timeout=SOON)
    for thread in set(workers()) - before:
        thread.join(SOON)
    assert sorted(expected) == sorted(event.event for event in arrived)
    assert set(workers()) <= before


def test_host_logging_is_left_alone(inspector: Any) -> None:
    """Neither levels nor handlers of other loggers change, nor is the root configured."""
    root, own = logging.getLogger(), logging.getLogger("posthog_logging")
    before = (root.level, root.handlers[:], own.level, logging.raiseExceptions, logging.lastResort)
    handler = PostHogHandler("phc_test", inspector.url)
    handler.accept({"event": "e"})
    handler.close()

    assert before == (
        root.level,
        root.handlers,
        own.level,
        logging.raiseExceptions,
        logging.lastResort,
    )
    assert any(isinstance(one, logging.NullHandler) for one in own.handlers)
