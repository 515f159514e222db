"""The inspector's page, in a real Chromium, used as a person would."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import importlib
import json
import logging
import shlex
import shutil
import urllib.error
import urllib.request
import uuid

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from posthog_logging import PostHogHandler, PostHogLogsHandler
from posthog_logging.cli import main
from posthog_logging.inspector import SERVERS, Answer, Inspector
from posthog_logging.plan import Plan, PlannedEvent


pytestmark = pytest.mark.browser


if TYPE_CHECKING:
    from selenium import webdriver
    from selenium.webdriver.remote.webelement import WebElement
    from selenium.webdriver.support import ui
else:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    ui = pytest.importorskip("selenium.webdriver.support.ui")

KEY = "phc_0123456789abcdefghij"
V1 = "/i/v1/analytics/events"
CHROMIUM = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run
    --disable-background-networking --disable-component-update --disable-sync
    --window-size=1440,900""".split()

T = TypeVar("T")


class Page:
    """What a person sees and does, in a few verbs."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)
        self.until(lambda: self.all("#live[data-on]"))

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        """Return the texts in one step: elements come and go."""
        script = "return [...document.querySelectorAll(arguments[0])].map(one => one.innerText)"
        return [text.strip() for text in self.run(script, selector)]

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def click(self, selector: str) -> None:
        self.run("document.querySelector(arguments[0]).scrollIntoView()", selector)
        self.one(selector).click()

    def press(self, *keys: str) -> None:
        for key in keys:
            webdriver.ActionChains(self.driver).send_keys(key).perform()

    def search(self, query: str) -> None:
        """Paste *query* into the search box."""
        self.run("query.value = arguments[0]; query.dispatchEvent(new Event('input'))", query)

    def until(self, check: Callable[[], T]) -> T:
        return ui.WebDriverWait(self.driver, 10, 0.03).until(lambda _: check())

    def shows(self, selector: str, expected: list[str]) -> bool:
        """Wait until the texts are *expected*, and tell what they are if they never get to be."""
        try:
            self.until(lambda: self.texts(selector) == expected)
        except Exception:
            assert expected == self.texts(selector)
        return True

    def resize(self, width: int, height: int = 844) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the browser puts what it downloads."""
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def chromium(
    downloads: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[webdriver.Chrome]:
    """One headless Chromium for all tests."""
    binary, server = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or server is None:
        pytest.skip("needs chromium and chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    for flag in [*CHROMIUM, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(server))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def page(chromium: webdriver.Chrome, inspector: Inspector) -> Iterator[Page]:
    """The page of an inspector of its own; a complaint in the browser's console is a failure."""
    shown = Page(chromium)
    shown.open(inspector.url)
    yield shown
    complaints = [one for one in chromium.get_log("browser") if one["level"] == "SEVERE"]
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    chromium.get("about:blank")
    assert [] == complaints


@contextmanager
def logger(inspector: Inspector) -> Iterator[tuple[logging.Logger, PostHogHandler]]:
    """A logger with a handler that sends to *inspector*."""
    log = logging.getLogger("films")
    log.setLevel(logging.INFO)
    handler = PostHogHandler(KEY, inspector.url, flush_interval=0.05)
    log.addHandler(handler)
    try:
        yield log, handler
    finally:
        log.removeHandler(handler)
        handler.close()


def event(name: str = "movie played", person: str = "user-1", **fields: Any) -> dict[str, Any]:
    moment = "2026-03-04T05:06:07.000Z"
    known = {"event": name, "distinct_id": person, "uuid": str(uuid.uuid4()), "timestamp": moment}
    return {**known, "properties": {}, **fields}


def post(inspector: Inspector, *events: Any, path: str = "/batch/", **head: str) -> None:
    said = json.dumps({"api_key": KEY, "created_at": "2026-03-04T05:06:08Z", "batch": events})
    request = urllib.request.Request(f"{inspector.url}{path}", said.encode(), head)
    urllib.request.urlopen(request, timeout=20).close()


def post_v1(inspector: Inspector, *events: Any) -> None:
    head = {
        "Authorization": f"Bearer {KEY}",
        "Content-Type": "application/json",
        "User-Agent": "test/1",
        "PostHog-Sdk-Info": "test/1",
        "PostHog-Attempt": "1",
        "PostHog-Request-Id": str(uuid.uuid4()),
        "PostHog-Request-Timestamp": "2026-03-04T05:06:08Z",
    }
    post(inspector, *events, path=V1, **head)


def kinds(page: Page) -> dict[str, int]:
    """Return how many of each kind the page says there are, where there are any."""
    said = [text.rpartition(" ") for text in page.texts(".tab:not([hidden])")]
    return {kind.strip(): int(n.replace(",", "")) for kind, _, n in said if n != "0"}


def facts(page: Page) -> dict[str, str]:
    return dict(zip(page.texts(".facts dt"), page.texts(".facts dd"), strict=True))


# Events as they arrive.


def test_events_appear_without_a_reload(page: Page, inspector: Inspector) -> None:
    """What is logged shows up by itself, the newest first, with its person and properties."""
    page.run("window.isSame = true")
    with logger(inspector) as (log, handler):
        log.info("signed up", extra={"distinct_id": "user-1"})
        assert handler.flush(5)
        page.shows(".row .name", ["signed up"])
        log.info("movie played", extra={"distinct_id": "user-2", "movie": "Amélie"})
        assert handler.flush(5)
        page.shows(".row .name", ["movie played", "signed up"])

    assert ["user-2", "user-1"] == page.texts(".row .who")
    assert "Amélie" in page.texts(".row .what")[0]
    assert page.run("return window.isSame")
    assert ["0 bad", "0 warned", "0 duplicates", "2 requests"] == page.texts(".counts li")
    assert {"All": 2, "Events": 2, "People": 2} == kinds(page)
    assert "Inspector (2)" == page.driver.title


def test_what_was_there_before_is_shown(page: Page, inspector: Inspector) -> None:
    """Who opens the page later sees all that is remembered, once."""
    post(inspector, event("a"), event("b"))
    page.shows(".row .name", ["b", "a"])

    page.driver.refresh()

    page.shows(".row .name", ["b", "a"])


def test_bad_events_say_why(page: Page, inspector: Inspector) -> None:
    """Bad events have their reason and another shape, doubtful ones their warnings."""
    post_v1(inspector, event(""), event("b", "null"))
    page.shows(".row .name", ["(no name)", "b"])

    assert ["missing_event_name"] == page.texts(".row.is-bad .what")
    assert ["1 warning"] == page.texts(".note")
    assert ["refused"] == [one.get_attribute("aria-label") for one in page.all(".is-bad .mark")]
    page.click(".row:last-child .name")
    assert any("illegal distinct_id" in text for text in page.texts(".verdict"))


def test_the_empty_page_says_what_to_do(page: Page, inspector: Inspector) -> None:
    """The lines of an empty page work as they stand: events arrive."""
    send, shell, python = page.texts(".empty pre code")
    log = logging.getLogger("mine")

    exec(python, {"log": log, "PostHogHandler": PostHogHandler})
    (handler,) = log.handlers
    log.warning("it works", extra={"distinct_id": "user-1"})
    log.removeHandler(handler)
    handler.close()

    assert f"export POSTHOG_HOST={inspector.url} POSTHOG_API_KEY=phc_local" == shell
    page.shows(".row .name", ["it works"])
    assert not page.one("#empty").is_displayed()
    assert 0 == main(shlex.split(send)[1:])
    page.shows(".row .name", ["movie played", "it works"])


def test_the_page_comes_back(page: Page, inspector: Inspector) -> None:
    """An inspector that was away is found again, and nothing is shown twice."""
    post(inspector, event("before"))
    page.shows(".row .name", ["before"])

    inspector.stop()
    page.until(lambda: not page.all("#live[data-on]"))
    inspector.start()
    page.until(lambda: page.all("#live[data-on]"))
    post(inspector, event("after"))

    page.shows(".row .name", ["after", "before"])
    page.driver.get_log("browser")  # Chromium complains of the connection, as it should


# Looking for something.


PAUSED = {"title": "Past Lives", "device": {"kind": "tv"}}


QUERIES = (
    ("romcom", ["movie played"]),
    ("ROMCOM", ["movie played"]),
    ("user-2", ["movie paused", "movie"]),
    ("event:movie", ["movie paused", "movie played", "movie"]),
    ('event:"movie"', ["movie"]),
    ('event:"movie played" person:user-1', ["movie played"]),
    ("person:user-1", ["", "movie played"]),
    ("prop:category=rom", ["movie played"]),
    ('prop:category="rom"', []),
    ('prop:title="Past Lives"', ["movie paused"]),
    ("prop:device.kind=tv", ["movie paused"]),
    ("prop:device", ["movie paused"]),
    ("prop:stars=5", ["movie"]),
    ("is:bad", [""]),
    ("is:good event:movie -person:user-2", ["movie played"]),
    ("-is:bad", ["movie paused", "movie played", "movie"]),
    ("missing_event_name", [""]),
    ("is:nonsense", []),
    ('"', ["", "movie paused", "movie played", "movie"]),
    ("event:", []),
)


def test_search(page: Page, inspector: Inspector) -> None:
    """Words match anywhere, fields where they say, quotes exactly, and a minus turns it round."""
    post_v1(
        inspector,
        event("movie", "user-2", properties={"stars": 5}),
        event("movie played", properties={"category": "romcom"}),
        event("movie paused", "user-2", properties=PAUSED),
        event(""),
    )
    page.until(lambda: len(page.all(".row")) == 4)

    for query, expected in QUERIES:
        page.search(query)

        assert [name or "(no name)" for name in expected] == page.texts(".row .name"), query
        assert page.one("#nothing").is_displayed() == (expected == [])


def test_search_goes_on_with_what_arrives(page: Page, inspector: Inspector) -> None:
    """What arrives later is shown if it fits the search."""
    post(inspector, event("a"), event("b"))
    page.until(lambda: len(page.all(".row")) == 2)
    page.search("event:a")
    page.shows(".row .name", ["a"])

    post(inspector, event("b"), event("ab"))

    page.shows(".row .name", ["ab", "a"])
    assert {"All": 2, "Events": 2} == kinds(page)


def test_timeline_of_a_person(page: Page, inspector: Inspector) -> None:
    """A click on a person shows what they did, in the order of their time, and grows."""
    post(inspector, event("third", timestamp="2026-03-04T05:06:10Z"), event("other", "user-2"))
    post(inspector, event("first", timestamp="2026-03-04T05:06:07Z"))
    page.until(lambda: len(page.all(".row")) == 3)

    page.click(".row:last-child .who span")
    page.shows(".line-of .link", ["first", "third"])
    post(inspector, event("second", timestamp="2026-03-04T05:06:08.500Z"))

    page.shows(".line-of .link", ["first", "second", "third"])
    assert "1.5 s later" in page.texts(".line-of p")[1]
    page.click("#detail-body .soft .link")
    page.shows(".row .name", ["second", "first", "third"])
    page.click(".line-of li:first-child .link")
    page.shows("#detail-body h2", ["first"])


def test_detail_of_an_event(page: Page, inspector: Inspector) -> None:
    """An event is shown as it came, with where it came from."""
    with logger(inspector) as (log, handler):
        log.info("a", extra={"distinct_id": "user-1"})
        said = {"deep": [{"n": 1.5}, None], "large": 12345678901234567890}
        log.info("b", extra={"distinct_id": "user-1", "properties": said})
        assert handler.flush(5)
    page.until(lambda: len(page.all(".row")) == 2)

    page.click(".row:first-child .name")
    page.until(lambda: len(page.all(".fold")) == 3)
    page.run("for (const one of document.querySelectorAll('.fold')) one.open = true")
    shown = [json.loads(text) for text in page.texts(".fold > .json")]

    kept, request = inspector.events[1], inspector.requests[-1]
    assert {**kept.raw, "api_key": ...} == {**shown[0], "api_key": ...}
    assert "gzip" == shown[1]["content-encoding"]
    said = facts(page)
    wanted = {"Dialect": "posthog-v1", "Path": V1, "Compression": "gzip", "Attempt": "1"}
    assert wanted == {name: said[name] for name in wanted}
    assert f"{request.bytes}, unpacked {request.size}" == said["Bytes"].replace(",", "", 0)
    assert said["Arrived"].endswith((" ms later", " s later"))
    assert said["Request"].startswith(f"{request.number}, answered 200")


def test_duplicates_are_marked(page: Page, inspector: Inspector) -> None:
    """The same uuid once more is a duplicate, its attempts are counted and named."""
    one = event("twice")
    post(inspector, one)
    post(inspector, one)
    page.shows(".row .name", ["twice", "twice"])

    assert ["duplicate", "attempt 2"] == page.texts(".note")
    assert ["0 bad", "0 warned", "1 duplicate", "2 requests"] == page.texts(".counts li")
    page.click(".row:first-child .name")
    page.until(lambda: "request 1 (200), request 2 (200)" in facts(page)["Attempt"])


def test_overview_counts(page: Page, inspector: Inspector) -> None:
    """Events by name are bars that filter; events per second are a line that rises."""
    assert "" == (page.one("#rate-line").get_attribute("points") or "")
    post(inspector, event("a"), event("b"), event("b"))

    page.shows(".bars button", ["b\n2", "a\n1"])
    heights = page.until(lambda: page.one("#rate-line").get_attribute("points")).split()
    assert 60 == len(heights)
    assert {2.0, 39.0} == {float(point.partition(",")[2]) for point in heights}
    page.click(".bars li:last-child button")
    page.shows(".row .name", ["a"])


# Logs, exceptions and people.


@contextmanager
def logs(inspector: Inspector) -> Iterator[logging.Logger]:
    """A logger whose records go to PostHog Logs."""
    log = logging.getLogger("films.billing")
    log.setLevel(logging.DEBUG)
    handler = PostHogLogsHandler(KEY, inspector.url)
    log.addHandler(handler)
    try:
        yield log
        assert handler.flush(5)
    finally:
        log.removeHandler(handler)
        handler.close()


def test_logs_are_apart_from_events(page: Page, inspector: Inspector) -> None:
    """A log has its level and its message, its own count, and shows what is useful first."""
    post(inspector, event("movie played"))
    with logs(inspector) as log:
        log.warning("gateway answered late", extra={"ms": 2810, "gateway": "stripe"})
        log.debug("cache warm")
    page.until(lambda: kinds(page) == {"All": 3, "Events": 1, "Logs": 2, "People": 1})

    page.click('[data-kind="log"]')
    page.shows(".row .name", ["cache warm", "gateway answered late"])
    assert ["debug", "warn"] == page.texts(".row .level")
    what = page.texts(".row:last-child .what")[0]
    assert what.startswith("ms 2810")
    assert "code." not in what
    page.until(lambda: {"warn\n1", "debug\n1"} == set(page.texts("#levels button")))
    page.search("level:warn")
    page.shows(".row .name", ["gateway answered late"])
    page.click(".row .name")
    said = facts(page)
    assert ("warn", "films.billing", "2810") == (said["Level"], said["Logger"], said["ms"])
    assert "test_page.py:" in said["In the code"]


def test_an_exception_in_a_log_is_shown(page: Page, inspector: Inspector) -> None:
    """A log with an exception names it in its row, and has the traceback in its detail."""
    with logs(inspector) as log:
        try:
            raise KeyError("order")
        except KeyError:
            log.exception("settlement failed")
    page.shows(".row .name", ["settlement failed"])

    assert page.texts(".row .raised")[0].startswith("KeyError: 'order'")
    page.click(".row .name")
    assert page.until(lambda: page.texts(".trace"))[0].endswith("KeyError: 'order'")


def _fail(film: str) -> None:
    try:
        json.loads("{")
    except ValueError as error:
        raise RuntimeError(f"{film} cannot be played") from error


def test_exceptions_can_be_read(page: Page, inspector: Inspector) -> None:
    """Type and message are in the row; the detail has cause, source and the project's frames."""
    log = logging.getLogger("films")
    handler = PostHogHandler(KEY, inspector.url, exceptions="ERROR", flush_interval=0.05)
    log.addHandler(handler)
    try:
        _fail("Paterson")
    except RuntimeError:
        log.exception("failed")
    assert handler.flush(5)
    log.removeHandler(handler)
    handler.close()
    page.click('[data-kind="exception"]')
    page.shows(".row .name", ["RuntimeError"])

    assert page.texts(".row .what")[0].startswith("Paterson cannot be played")
    page.click(".row .name")
    page.shows("#detail-body h2", ["RuntimeError"])
    assert ["Paterson cannot be played"] == page.texts(".message")
    assert "handled by python.logging" == facts(page)["Caught"]
    assert "Caused by" in page.texts("#detail-body h3")
    assert page.texts(".cause")[0].startswith("JSONDecodeError")
    assert "_fail" in page.texts(".frames")[0].split()[:1]
    assert ['raise RuntimeError(f"{film} cannot be played") from error'] == [
        text.split(maxsplit=1)[1] for text in page.texts(".frames:first-of-type .here")[:1]
    ]
    assert "of libraries" in page.texts(".frames")[1]  # of `json`: folded, ours are not


def test_one_request(page: Page, inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request's events and its report: who, the way to it, what it was asked, what answered."""
    for needed in ("fastapi", "httpx"):
        pytest.importorskip(needed)
    monkeypatch.syspath_prepend(Path(__file__).with_name("screenshots"))
    importlib.import_module("one_request").serve(inspector)
    page.shows(".row .name", ["$http_log", "PaymentError", "checkout started", "$identify"])

    what = page.texts(".row .what")
    assert what[0].startswith("POST /checkout answered 402 in ")
    assert what[1].startswith("25.80 EUR were not charged")
    assert ["seats 2", "visitor-7 → user-1 plan gold"] == what[2:]
    assert ["", *["user-1"] * 3] == page.texts(".row .who")
    page.search("PaymentError")
    page.click(".row .name")
    page.until(lambda: len(page.all(".fold")) >= 2)
    assert ["TimeoutError no answer from the gateway within 3 s"] == page.texts(".cause")
    assert ["cart opened", "$identify", "checkout started", "gateway answered late"] == page.texts(
        ".before b"
    )
    said = facts(page)
    assert (
        "POST https://films.example/checkout?utm_source=newsletter"
        == page.texts(".facts dd")[list(page.texts(".facts dt")).index("Request")]
    )
    wanted = {"Person": "user-1 also visitor-7", "Address": "203.0.113.7", "order": "A-1042"}
    assert wanted == {name: said[name] for name in wanted}


STEPS = [
    {"timestamp": "2026-03-04T05:06:05Z", "level": "info", "logger": "cart", "message": "opened"},
    {
        "timestamp": "2026-03-04T05:06:06Z",
        "level": "warning",
        "logger": "pay",
        "message": "late",
        "ms": 2810,
    },
    "no step",
]


def test_steps_before_an_exception(page: Page, inspector: Inspector) -> None:
    """The log lines before an exception are listed with time, level, logger and extras."""
    properties = {"$exception_list": [{"type": "E", "value": "v"}], "$exception_steps": STEPS}
    post(inspector, event("$exception", properties=properties))
    page.shows(".row .name", ["E"])
    page.click(".row .name")
    page.until(lambda: page.all(".before li"))

    assert ["opened cart", "late pay ms=2810"] == page.texts(".before p")
    assert ["info", "warning"] == page.texts(".before .level")
    assert ["2026-03-04 05:06"] * 2 == page.texts(".before time")


ODD_EXCEPTIONS: tuple[Any, ...] = (
    {},
    {"$exception_list": "no list"},
    {"$exception_list": [5, None]},
    {"$exception_list": [{"type": {"a": 1}, "value": [1], "stacktrace": "x", "mechanism": 5}]},
    {"$exception_list": [{"stacktrace": {"frames": [5, {"lineno": "x", "context_line": "y"}]}}]},
    {"$exception_list": [{}], "$exception_steps": {"a": 1}, "$exception_level": {"a": 1}},
    {"$exception_list": [{}, {"mechanism": {"source": "constructor"}}], "$exception_steps": [[]]},
)


def test_odd_exceptions_are_shown(page: Page, inspector: Inspector) -> None:
    """Whatever an exception's properties are, the page shows what it can."""
    post(inspector, *(event("$exception", properties=one) for one in ODD_EXCEPTIONS))
    page.until(lambda: len(page.all(".row")) == len(ODD_EXCEPTIONS))

    for row in page.all(".row .name"):
        row.click()
        page.until(lambda: len(page.all(".fold")) >= 2)
    post(inspector, *(event(name) for name in ("constructor", "__proto__", "toString")))
    page.until(lambda: len(page.all(".row")) == len(ODD_EXCEPTIONS) + 3)


def test_people_and_their_merges(page: Page, inspector: Inspector) -> None:
    """A person is listed once under all ids, with the merges that made it and those refused."""
    post(inspector, event("seen", "visitor-1"))
    post(inspector, event("$identify", "ada", properties={"$anon_distinct_id": "visitor-1"}))
    post(inspector, event("$create_alias", "visitor-2", properties={"alias": "ada"}))
    page.until(lambda: kinds(page) == {"All": 3, "Events": 3, "People": 2})
    assert "visitor-1 → ada" in page.texts(".row .what")

    page.click('[data-kind="person"]')
    page.shows(".row .name", ["visitor-2", "ada"])
    assert ["a merge was refused", "also visitor-1"] == page.texts(".row .what")
    assert ["1 event", "2 events"] == page.texts(".row .who")
    page.click(".row:last-child .name")
    page.shows(".line-of .link", ["seen", "$identify"])
    page.shows(".merges li", ["visitor-1 merged into ada, by $identify"])
    page.click(".row:first-child .name")
    page.shows(".merges li", ["ada was not merged into visitor-2, by $create_alias"])


def schema_of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties]}


TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
PLAN = Plan(
    "cinema.events",
    [
        PlannedEvent("movie played", schema_of(movie=TEXT), "A film began."),
        PlannedEvent("ticket sold", schema_of(seats={"type": "array", "items": WHOLE})),
        PlannedEvent("seat taken", {**schema_of(row=WHOLE), "additionalProperties": False}),
        PlannedEvent("film rated", schema_of(stars=WHOLE)),
        PlannedEvent("trailer seen", {}, deprecated="see movie played"),
    ],
)


@pytest.fixture
def planned_inspector() -> Iterator[Inspector]:
    """An inspector that has a plan."""
    with Inspector(plan=PLAN) as inspector:
        yield inspector


def group(page: Page, kind: str) -> list[str]:
    """Return the names in a group of the plan, each with its count."""
    return [
        text.replace("\n", " ") for text in page.texts(f".planned.{kind} > ul > li > :first-child")
    ]


def test_the_plan(page: Page, planned_inspector: Inspector) -> None:
    """
    With a plan the overview lists what does not fit, is not planned, never came, or is fine.

    It grows with what arrives; a problem opens its latest example, a name lists its events.
    """
    page.open(planned_inspector.url)
    page.shows("#plan-came", ["0 of 4 planned events came"])
    assert ["movie played", "ticket sold", "seat taken", "film rated"] == group(page, "missing")

    post(planned_inspector, *(event(properties={"movie": title}) for title in ("A", "B", 3, 4)))
    post(planned_inspector, event("seat taken", properties={"row": "five", "hall": 2}))
    post(planned_inspector, event("ticket sold", properties={"seats": [1, "2", "3"]}))
    post(planned_inspector, event("movie plaid"), event("film rated", properties={"stars": 5}))
    page.shows("#plan-came", ["4 of 4 planned events came"])

    assert ["movie played 2 of 4", "ticket sold 1 of 1", "seat taken 1 of 1"] == group(
        page, "wrong"
    )
    assert [
        "movie: expected a string, got 4 (2 times)",
        'seats[2]: expected a whole number, got "3"',
        'row: expected a whole number, got "five"',
        "hall: expected nothing, got 2",
    ] == page.texts(".planned ul ul li")
    assert ["movie plaid 1"] == group(page, "unplanned")
    assert ["did you mean movie played?"] == page.texts(".unplanned p.soft")
    assert ["film rated 1"] == group(page, "fine")
    assert [] == group(page, "missing")
    page.click(".planned .link")
    page.shows("#detail-body h2", ["movie played"])
    assert "4" == facts(page)["movie"]
    assert "plan: movie: expected a string, got 4" in page.texts(".verdict")
    page.click(".planned.wrong .came")
    page.shows(".row .name", ["movie played"] * 4)

    page.click("#clear")
    page.shows("#plan-came", ["0 of 4 planned events came"])
    page.driver.get("about:blank")


def test_without_a_plan_there_is_none(page: Page, inspector: Inspector) -> None:
    """Who gave no plan sees nothing of it."""
    post(inspector, event())
    page.shows(".bars button", ["movie played\n1"])

    assert not page.one("#plan").is_displayed()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_plan_has_room(page: Page, planned_inspector: Inspector, width: int) -> None:
    """Long names and texts stay inside the page, hostile ones stay text, on a phone as well."""
    page.resize(width)
    page.open(planned_inspector.url)
    page.run("overview.open = true")
    post(planned_inspector, event(properties={"movie": {"a": "W" * 400}}))
    post(planned_inspector, *(event(text) for text in HOSTILE))
    page.until(lambda: len(group(page, "unplanned")) == len(HOSTILE))

    for one in page.all("#plan .link, #plan .came, #plan .soft"):
        assert width >= one.rect["x"] + one.rect["width"]
    assert page.run("return overview.scrollWidth <= overview.clientWidth")
    assert page.run("return window.isTaken") is None
    page.driver.get("about:blank")


def test_the_time_is_the_event_s_own(page: Page, inspector: Inspector) -> None:
    """The first column is the event's time in UTC, as ``tail`` prints it; the last the arrival."""
    now = dt.datetime.now(dt.UTC)
    sent = now - dt.timedelta(seconds=90)
    post(inspector, event("late", timestamp=sent.isoformat()), event("old"))
    page.until(lambda: len(page.all(".row")) == 2)

    heads = ["Time, UTC", "Kind", "Event", "Person", "Details", "Arrived"]
    assert heads == page.texts(".heads [role=columnheader]")
    old, late = page.texts(".row time")
    assert ("2026-03-04 05:06", sent.isoformat()[11:23]) == (old, late)
    arrived = page.texts(".row:last-child .late")[0]
    assert arrived > late or arrived < "00:10"  # midnight lies between
    assert page.one(".row:last-child .late").get_attribute("title").endswith("later")


def test_dead_letters_have_a_place(page: Page, inspector: Inspector) -> None:
    """What a relay gave up is listed by itself, with the reason; without any there is no tab."""
    assert not page.one('[data-kind="dead"]').is_displayed()
    lines = [json.dumps({**event("lost"), "dlq_reason": "rejected 422"}), json.dumps(event("b"))]
    url = f"{inspector.url}/api/dead-letters?reason=max_age"
    urllib.request.urlopen(urllib.request.Request(url, "\n".join(lines).encode())).close()
    page.until(lambda: kinds(page) == {"All": 2, "Dead letters": 2, "People": 1})

    page.click('[data-kind="dead"]')
    page.shows(".row .what", ["dead letter: max_age", "dead letter: rejected 422"])
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(url, b"{"))


def test_counts_agree(page: Page, inspector: Inspector) -> None:
    """All is the sum of its kinds, also while a search is on; a failed request is one of them."""
    inspector.script(Answer(503))
    with contextlib.suppress(urllib.error.HTTPError):
        post(inspector, event("a"))
    post(inspector, event("a"), event("b"), event("$exception"))
    page.until(lambda: kinds(page).get("All") == 4)

    every = kinds(page)
    assert {"All": 4, "Events": 2, "Exceptions": 1, "Failed requests": 1, "People": 1} == every
    page.search("event:a")
    page.until(lambda: kinds(page) == {"All": 1, "Events": 1})
    assert 1 == len(page.all(".row"))
    page.click('[data-kind="log"]')
    assert page.one("#nothing").is_displayed()
    page.click("#nothing-clear")
    page.until(lambda: kinds(page) == every)


def test_what_was_forgotten_is_said(chromium: webdriver.Chrome) -> None:
    """More than the inspector keeps is more than the page shows, and it says so."""
    with Inspector(capacity=3) as inspector:
        page = Page(chromium)
        post(inspector, *(event(name) for name in "abcde"))
        page.open(inspector.url)
        page.shows(".row .name", ["e", "d", "c"])

        assert page.texts("#older")[0].startswith("2 older ones of 5 forgotten")
        page.driver.get("about:blank")


def test_a_phone_shows_properties(page: Page, inspector: Inspector) -> None:
    """At 390 pixels a row has name, time, person and the first properties."""
    page.resize(390)
    post(inspector, event("movie played", "ada", properties={"movie": "Paterson"}))
    page.until(lambda: page.all(".row"))

    for selector, text in (
        (".name", "movie played"),
        (".who", "ada"),
        (".what", "movie Paterson"),
    ):
        shown = page.one(f".row {selector}")
        assert (text, True) == (shown.text.strip(), shown.is_displayed())
        assert 390 >= shown.rect["x"] + shown.rect["width"]
    assert page.one(".row time").is_displayed()


# Chaos, clearing, exporting.


def test_chaos_on_and_off(page: Page, inspector: Inspector) -> None:
    """A handler retries while chaos is on, and has delivered once it is off."""
    page.click("#chaos-button")
    ui.Select(page.one("[name=status]")).select_by_value("503")
    page.one("[name=retry]").send_keys("1")
    page.click("#chaos .primary")
    page.shows("#alarm-text", ["status 503, Retry-After 1"])

    with logger(inspector) as (log, handler):
        log.info("movie played", extra={"distinct_id": "user-1"})
        assert not handler.flush(5)
        page.until(lambda: page.texts(".row.is-request .what"))
        assert (
            "503 service_unavailable: Service Unavailable: 1 event, none kept"
            == page.texts(".row .what")[0]
        )
        page.click("#alarm-off")
        page.until(lambda: not page.one("#alarm").is_displayed())
        assert handler.flush(5)

    page.until(lambda: page.texts(".row:not(.is-request) .name") == ["movie played"])
    page.click(".row:first-child .name")
    page.until(lambda: "request 1 (503)" in facts(page)["Attempt"])
    assert inspector.answer_always is None


def test_other_servers_can_be_played(page: Page, inspector: Inspector) -> None:
    """The inspector can be another server, which the page says as long as it lasts."""
    page.press("c")
    assert {"", *SERVERS} == {one.get_attribute("value") for one in page.all("[name=play] option")}
    page.click("#chaos .primary")
    page.shows("#chaos-error", ["Choose what should go wrong."])
    ui.Select(page.one("[name=play]")).select_by_value("old-server")
    page.click("#chaos .primary")
    page.shows("#alarm-text", ["Plays old-server"])

    with pytest.raises(urllib.error.HTTPError, match="404"):
        post_v1(inspector, event())
    page.click("#alarm-off")
    page.until(lambda: not page.one("#alarm").is_displayed())
    post_v1(inspector, event())


def test_chaos_says_what_it_can_do(page: Page, inspector: Inspector) -> None:
    """Every part of the form reaches the inspector's answer; a mistake is explained."""
    page.press("c")
    page.one("[name=latency]").send_keys("250")
    ui.Select(page.one("[name=reset]")).select_by_value("1")
    ui.Select(page.one("[name=verdict]")).select_by_value("missing")
    page.click("#chaos .primary")
    page.shows("#chaos-error", ["A verdict needs the names of the events that get it."])
    page.one("[name=named]").send_keys("movie played, b")
    page.one("[name=share]").send_keys(webdriver.Keys.HOME)
    page.click("#chaos .primary")

    answer = page.until(lambda: inspector.answer_always)

    assert (0.25, 1, 0.05) == (answer.delay, answer.reset_after, answer.rate)
    assert {"movie played": None, "b": None} == answer.verdicts
    page.click("#chaos-off")
    page.until(lambda: inspector.answer_always is None)


def test_clear_forgets(page: Page, inspector: Inspector) -> None:
    """Cleared is cleared, on the page and in the inspector; what comes later is shown."""
    post(inspector, event("old"))
    page.shows(".row .name", ["old"])

    page.click("#clear")

    page.until(lambda: page.one("#empty").is_displayed())
    assert ([], {}) == (inspector.events, kinds(page))
    post(inspector, event("new"))
    page.shows(".row .name", ["new"])


def test_export_is_a_file(page: Page, inspector: Inspector, downloads: Path) -> None:
    """The export is a download with one event a line."""
    post(inspector, event("a"), event("b"))
    page.until(lambda: len(page.all(".row")) == 2)
    page.click("#export")
    file = downloads / "events.ndjson"

    lines = page.until(lambda: file.exists() and file.read_text().splitlines())

    assert ["a", "b"] == [json.loads(line)["event"] for line in lines]


# What must not happen.


HOSTILE = (
    "<script>window.isTaken = true</script>",
    "<img src=x onerror='window.isTaken = true'>",
    "</pre><svg onload=alert(1)>",
    '" onmouseover="window.isTaken = true',
    'a\\"b',
    "\u202egnp.exe\u2066",
    "__proto__",
    "{{constructor.constructor('window.isTaken = true')()}}",
    "line\nbreak\ttab",
    "W" * 5000,
    "😀 ünï",
)


NO_TEXT = {"toString": 1, "valueOf": 1, "toJSON": 1, "__proto__": 1}


def test_values_without_a_text_break_nothing(page: Page, inspector: Inspector) -> None:
    """An object that JavaScript cannot turn into a text is shown as JSON, wherever it stands."""
    frame = {"filename": NO_TEXT, "function": NO_TEXT, "lineno": NO_TEXT, "in_app": True}
    frame |= {"context_line": "x", "pre_context": [NO_TEXT], "post_context": NO_TEXT}
    caught = {"type": NO_TEXT, "value": NO_TEXT, "mechanism": {"source": NO_TEXT}}
    caught["stacktrace"] = {"frames": [frame]}
    steps = [{"timestamp": NO_TEXT, "level": NO_TEXT, "message": NO_TEXT, "x": NO_TEXT}]
    properties = {"$exception_list": [caught, caught], "$exception_steps": steps}
    properties |= {"$exception_level": NO_TEXT, "$exception_source": NO_TEXT}
    names = {
        "$create_alias": {"alias": NO_TEXT},
        "$identify": {"$anon_distinct_id": NO_TEXT, "$set": NO_TEXT, "$set_once": [NO_TEXT]},
        "$groupidentify": {"$group_type": NO_TEXT, "$group_key": NO_TEXT, "$group_set": NO_TEXT},
        "$http_log": {"method": NO_TEXT, "$pathname": NO_TEXT, "status_code": NO_TEXT},
        "$pageview": {"$current_url": NO_TEXT, "$request_method": NO_TEXT, "$ip": NO_TEXT},
        "$exception": properties,
        "constructor": NO_TEXT,
    }
    post(inspector, *(event(name, properties=of) for name, of in names.items()))

    page.until(lambda: len(page.all(".row")) == len(names))
    for row in range(len(names)):
        page.run("document.querySelectorAll('.row')[arguments[0]].click()", row)
        page.until(lambda: page.texts("#detail .fold summary"))
    post(inspector, event("last"))
    page.until(lambda: "last" in page.texts(".row .name"))
    page.press("5")
    page.until(lambda: page.all(".is-person"))


def test_hostile_text_stays_text(page: Page, inspector: Inspector) -> None:
    """Whatever is in names, ids, properties and reasons is shown as text, and can be found."""
    for text in HOSTILE:
        post(inspector, event(text, text, properties={text: text, "$set": {text: [text]}}))
    page.until(lambda: len(page.all(".row")) == len(HOSTILE))

    for text in HOSTILE:
        page.search(f"event:{json.dumps(text)}")
        page.until(lambda: kinds(page) == {"All": 1, "Events": 1})
        page.click(".row .name")
        page.until(lambda: len(page.all(".fold")) >= 2)
        page.click(".facts .link")
        page.until(lambda: page.all(".line-of"))

    assert page.run("return window.isTaken") is None
    assert page.run("return ({}).polluted") is None
    assert [] == page.all("main script, main img, main svg:not(.line), [onmouseover], [onload]")
    assert "\u202e" not in page.run("return document.body.innerText")
    page.search("")
    assert HOSTILE[0] in page.texts(".row .name")
    assert any(text.startswith(HOSTILE[1]) for text in page.texts(".bars span"))


def test_markup_cannot_be_made_of_text(page: Page, inspector: Inspector) -> None:
    """The policy forbids inline scripts, foreign requests, and innerHTML to our own script."""
    attempt = """
    const place = document.body.appendChild(document.createElement("p"));
    try { place.innerHTML = "<b>x</b>"; } catch (error) { return error.name; }"""

    assert "TypeError" == page.run(attempt)
    page.driver.get_log("browser")  # it complained, as it should


def test_files_say_what_they_are(inspector: Inspector) -> None:
    """Each file has its type and the policy; there is nothing else to read."""
    types = {"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript"}
    for path, kind in types.items():
        with urllib.request.urlopen(f"{inspector.url}{path}") as answer:
            assert f"{kind}; charset=utf-8" == answer.headers["Content-Type"]
            assert "nosniff" == answer.headers["X-Content-Type-Options"]
            policy = answer.headers["Content-Security-Policy"]
            assert {"default-src 'none'", "script-src 'self'"} <= set(policy.split("; "))
            assert "unsafe" not in policy
    for path in ("/page.py", "/../store.py", "/page.js/"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{inspector.url}{path}")


def test_no_key_is_shown(page: Page, inspector: Inspector) -> None:
    """Keys are masked in all that the page has, wherever they stood."""
    said = {"token": KEY, "note": f"my key is {KEY}!", f"{KEY}": 1}
    post(inspector, event(f"with {KEY}", properties=said))
    post_v1(inspector, event(), event(""))
    page.until(lambda: len(page.all(".row")) == 3)

    seen = []
    for row in page.all(".row .name"):
        row.click()
        page.until(lambda: page.all(".json"))
        seen.append(page.driver.page_source)

    assert [] == [text for text in seen if KEY in text]
    assert "phc_…ghij" in seen[-1]


# Hands and eyes.


def test_keyboard_alone_is_enough(page: Page, inspector: Inspector) -> None:
    """Every part of the page can be reached and left with keys, and shows where one is."""
    post(inspector, event("a"), event("b"), event("c", "user-2"))
    page.until(lambda: len(page.all(".row")) == 3)

    page.press("j", "j")
    page.shows(".row.chosen .name", ["b"])
    chosen = page.one(".row.chosen").get_attribute("id")
    assert chosen == page.one("#list").get_attribute("aria-activedescendant")
    page.press(webdriver.Keys.ENTER)
    page.shows("#detail-body h2", ["b"])
    page.press(webdriver.Keys.ARROW_DOWN)
    page.shows("#detail-body h2", ["a"])
    page.press("p")
    page.shows(".line-of .link", ["a", "b"])
    page.press(webdriver.Keys.ESCAPE)
    page.until(lambda: not page.one("#detail").is_displayed())
    page.press("g")
    page.shows(".row.chosen .name", ["c"])
    page.press("/", "e", "v", "e", "n", "t", ":", "b")
    page.shows(".row .name", ["b"])
    page.press(webdriver.Keys.ESCAPE)
    page.shows(".row .name", ["c", "b", "a"])
    page.press("?")
    page.until(lambda: page.one("#help").is_displayed())
    page.press(webdriver.Keys.ESCAPE)
    page.until(lambda: not page.one("#help").is_displayed())
    page.press("c")
    assert "play" == page.run("return document.activeElement.name")
    page.press(webdriver.Keys.ESCAPE)
    assert "list" == page.run("return document.activeElement.id")
    assert not page.one("#chaos").is_displayed()


def test_focus_is_visible(page: Page, inspector: Inspector) -> None:
    """Tab reaches every control, and each has an outline then."""
    seen = {}
    script = """const one = document.activeElement, style = getComputedStyle(one);
    return [one.id || one.innerText || one.name, style.outlineStyle, style.outlineWidth]"""
    for _ in range(24):
        page.press(webdriver.Keys.TAB)
        name, *outline = page.run(script)
        seen[name.strip()] = outline

    wanted = {"chaos-button", "export", "clear", "theme", "help-button", "query", "list", "Copy"}
    assert wanted <= set(seen)
    assert [["solid", "2px"]] * len(wanted) == [seen[name] for name in wanted]


def test_screen_readers_are_told(page: Page, inspector: Inspector) -> None:
    """New events are announced together, politely; the list says how long it is."""
    post(inspector, event("a"), event("b"))

    page.until(lambda: "2 new events" == page.run("return spoken.textContent"))
    assert "polite" == page.one("#spoken").get_attribute("aria-live")
    assert "3" == page.one("#list").get_attribute("aria-rowcount")  # with the columns' heads
    unnamed = """return [...document.querySelectorAll("button, a, input, select, [role=grid]")]
    .filter(one => !(one.innerText || one.textContent || one.labels?.length || one.ariaLabel))
    .map(one => one.outerHTML)"""
    assert [] == page.run(unnamed)


def test_ten_thousand_events(page: Page, inspector: Inspector) -> None:
    """However many events there are, few elements exist, all can be reached, and none jumps."""
    for start in range(0, 10_000, 1000):
        numbers = range(start, start + 1000)
        post(inspector, *(event(f"event {n}", f"user-{n % 7}") for n in numbers))
    page.until(lambda: kinds(page)["All"] == 10_000)

    def elements() -> int:
        return int(page.run("return document.querySelectorAll('*').length"))

    page.until(lambda: page.texts(".row .name")[:1] == ["event 9999"])
    assert elements() < 1500
    page.run("list.scrollTop = list.scrollHeight")
    page.until(lambda: page.texts(".row .name")[-1:] == ["event 0"])
    page.run("list.scrollTop = 5000 * 44")
    page.until(lambda: "event 4995" in page.texts(".row .name"))
    before = page.run("return list.scrollTop")
    post(inspector, event("latest"))
    page.shows("#newer", ["1 newer"])
    assert before + 44 == page.run("return list.scrollTop")
    page.click("#newer")
    page.until(lambda: page.texts(".row .name")[:1] == ["latest"])
    page.search("person:user-3 event:99")
    page.until(lambda: 1 < kinds(page)["All"] < 100)
    page.click(".row .who span")
    page.until(lambda: len(page.all(".line-of li")) == 200)
    assert elements() < 2500


SMOOTHNESS = """
const [list, done] = [document.getElementById("list"), arguments[0]];
const times = [];
let last = performance.now();
function step(now) {
  times.push(now - last);
  last = now;
  list.scrollTop += 1500;
  if (times.length < 60) requestAnimationFrame(step);
  else done(times.slice(1).sort((one, other) => one - other));
}
requestAnimationFrame(step);"""


def test_ten_thousand_rows_scroll_smoothly(page: Page, inspector: Inspector) -> None:
    """A long list scrolls at the pace of the screen, half of the frames at the least."""
    for start in range(0, 10_000, 2000):
        post(inspector, *(event(f"event {n}", f"user-{n}") for n in range(start, start + 2000)))
    page.until(lambda: kinds(page).get("All") == 10_000)

    frames = page.driver.execute_async_script(SMOOTHNESS)

    assert (
        34.0 > frames[len(frames) // 2]
    )  # milliseconds: 30 frames a second with no room to spare


@pytest.mark.parametrize("width", [320, 390, 700, 1000])
def test_narrow_screens_do_not_overflow(page: Page, inspector: Inspector, width: int) -> None:
    """No part of the page is wider than the screen, whatever it shows."""
    page.resize(width)
    long = "w" * 180
    post_v1(inspector, event(long, long, properties={long: 5 * long}), event("", long))
    page.until(lambda: len(page.all(".row")) == 2)
    overflow = """return [...document.querySelectorAll("body *")].filter(one =>
    one.getBoundingClientRect().right > innerWidth + 1 && one.checkVisibility()
    && !one.closest(".cut, .canvas, .unseen, .kinds, .source"))
    .map(one => one.outerHTML.slice(0, 200))"""

    def check() -> None:
        assert width == page.run("return Math.max(innerWidth, document.body.scrollWidth)")
        assert [] == page.run(overflow)

    check()
    page.click(".row:last-child .name")
    page.until(lambda: page.all(".json"))
    check()
    page.click("#close")
    for key, selector in (("c", "#chaos"), ("?", "#help")):
        page.press(key)
        page.until(lambda: page.one(selector).is_displayed())  # noqa: B023 - called at once
        check()
        page.press(webdriver.Keys.ESCAPE)


def test_a_phone_shows_one_thing_at_a_time(page: Page, inspector: Inspector) -> None:
    """On a phone the detail covers the list, and a button leads back."""
    page.resize(390)
    post(inspector, event("a"))
    page.until(lambda: page.all(".row"))

    page.click(".row .name")

    assert {"width": 390, "height": 844} == page.one("#detail").size
    page.click("#close")
    assert "a" == page.one(".row .name").text


CONTRAST = """
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const rgb = (colour) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const light = (colour) => rgb(colour).slice(0, 3).map((c) => c / 255)
  .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
const behind = (one) => {
  for (; one; one = one.parentElement) {
    const colour = getComputedStyle(one).backgroundColor;
    if (rgb(colour)[3] === 255) return colour;
  }
};
return arguments[0].map((selector) => {
  const one = document.querySelector(selector);
  const [high, low] = [light(getComputedStyle(one).color), light(behind(one))].sort().reverse();
  return [selector, (Math.max(high, low) + 0.05) / (Math.min(high, low) + 0.05)];
})"""


MEASURED = """h1; .live; .counts; .counts .some b; nav button; .bars b; .row time; .row .who;
    .is-bad .what; .note; .verdict.ok; .verdict.hm; .facts dt; .facts .link; .json .k; .json .s;
    .json .n; #chaos .primary; #chaos label; #rate-peak; #query""".split(";")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_can_be_read(page: Page, inspector: Inspector, scheme: str) -> None:
    """The page follows the system's theme, and all its text has WCAG AA's contrast of 4.5."""
    wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
    one = event("b", "null", properties={"n": 1, "s": "x"})
    post_v1(inspector, event(""), one)
    post_v1(inspector, one)
    page.until(lambda: len(page.all(".row")) == 3)
    page.click(".row:first-child .name")
    page.until(lambda: page.all(".json .n") and page.all(".bars b"))
    page.press("c")

    measured = dict(page.run(CONTRAST, MEASURED))

    assert {} == {name: ratio for name, ratio in measured.items() if ratio < 4.5}


def test_theme_can_be_turned(page: Page, inspector: Inspector) -> None:
    """The other theme is one key away, and stays after a reload."""
    colour = "return getComputedStyle(document.body).backgroundColor"
    first = page.run(colour)

    page.press("t")
    second = page.run(colour)
    page.driver.refresh()

    assert first != second
    assert second == page.run(colour)
    page.press("t")
    assert first == page.run(colour)


# The stream below it.


class Stream:
    """The messages of a stream, read one by one."""

    def __init__(self, inspector: Inspector, after: str = "") -> None:
        self._connection = http.client.HTTPConnection(inspector.url[7:], timeout=10)
        self._connection.request("GET", f"/api/stream?after={after}")
        self.response = self._connection.getresponse()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self._connection.close()

    def message(self) -> Any:
        line = self.response.readline()
        assert b"\n" == self.response.readline()
        return json.loads(line.removeprefix(b"data: "))


def names(message: Any) -> list[str]:
    return [one.get("event", one.get("path")) for one in message["arrived"]]


def test_stream_goes_on_where_it_was(inspector: Inspector) -> None:
    """A position is enough to get all that came after it, and only that."""
    post(inspector, event("a"))
    with Stream(inspector) as stream:
        first = stream.message()
        assert ["/batch/", "a"] == names(first)
        assert "text/event-stream" == stream.response.headers["Content-Type"]
        post(inspector, event("b"))
        assert ["/batch/", "b"] == names(stream.message())

    with Stream(inspector, f"{first['generation']}.1.1") as stream:
        assert ["/batch/", "b"] == names(stream.message())


@pytest.mark.parametrize("after", ["", "x", "1.2", "other.5.5", "..", "x.-1.2"])
def test_stream_of_who_is_lost_begins_anew(inspector: Inspector, after: str) -> None:
    """A position that is none, or of before a reset, begins with all that is there."""
    post(inspector, event("a"))

    with Stream(inspector, after) as stream:
        assert ["/batch/", "a"] == names(stream.message())


def test_stream_tells_of_a_reset(inspector: Inspector) -> None:
    """After a reset there is a new generation, with nothing in it."""
    post(inspector, event("a"))
    with Stream(inspector) as stream:
        first = stream.message()
        inspector.reset()
        second = stream.message()

    assert first["generation"] != second["generation"]
    assert ([], 0) == (second["arrived"], second["counts"]["total"])


def test_stream_ends_with_the_inspector(inspector: Inspector) -> None:
    """Who reads the stream is let go at once when the inspector stops."""
    with Stream(inspector) as stream:
        stream.message()
        inspector.stop()

        assert b"" == stream.response.read()


def test_forgotten_events_are_said_to_be(inspector: Inspector) -> None:
    """An event that is not there, or no longer, is a 404."""
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{inspector.url}/api/event?number=99")
