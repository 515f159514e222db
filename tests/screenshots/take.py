"""
Take the README's pictures of the inspector's page: ``python tests/screenshots/take.py``.

Everything on them is real: a handler sends, the inspector judges, and Chromium looks.
"""

from __future__ import annotations

import json
import logging
import math
import random
import sys
import tempfile
import time
import urllib.request
import uuid

from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait


sys.path.insert(0, str(Path(__file__).parents[2]))

from posthog_logging import PostHogHandler, PostHogLogsHandler, extras
from posthog_logging.inspector import Answer, Inspector


HERE = Path(__file__).parent
KEY = "phc_films_0123456789abcdef"
SIZES = {"page": (1280, 800), "phone": (390, 844)}
FILMS = ("Amélie", "Brief Encounter", "Paterson", "Past Lives", "When Harry Met Sally")
PEOPLE = ("ada@example.org", "grace@example.org", "linus@example.org", "user-1042", "user-77")
CATEGORIES = ("romcom", "drama", "documentary")
EVENTS = (
    (
        "movie played",
        lambda: {"movie": random.choice(FILMS), "category": random.choice(CATEGORIES)},
    ),
    ("movie played", lambda: {"movie": random.choice(FILMS), "resumed": True}),
    ("movie paused", lambda: {"movie": random.choice(FILMS), "minute": random.randint(1, 110)}),
    ("search made", lambda: {"words": "slow cinema", "results": random.randint(0, 40)}),
    ("checkout started", lambda: {"plan": "family", "price": 12.9, "currency": "EUR"}),
    ("signed up", lambda: {"plan": "trial", "referrer": "newsletter"}),
)
CHROMIUM = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run
    --disable-background-networking --disable-component-update --disable-sync
    --hide-scrollbars --force-device-scale-factor=1""".split()


def browser(folder: str) -> webdriver.Chrome:
    """Return a Chromium without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in [*CHROMIUM, f"--user-data-dir={folder}"]:
        options.add_argument(flag)
    return webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))


def send(inspector: Inspector, seconds: float) -> None:
    """Log for so many seconds, with a short outage and three bad events among them."""
    log = logging.getLogger("films")
    log.setLevel(logging.INFO)
    handler = PostHogHandler(KEY, host=inspector.url, flush_interval=0.2, exceptions="ERROR")
    log.addHandler(handler)
    started = time.monotonic()
    while (passed := time.monotonic() - started) < seconds:
        if len(inspector.requests) in (5, 40):
            inspector.script(Answer(503, {"Retry-After": "1"}))
        for _ in range(random.randint(0, round(6 + 5 * math.sin(passed / 4)))):
            name, properties = random.choices(EVENTS, (9, 4, 6, 5, 2, 1))[0]
            log.info(
                name, extra={"distinct_id": random.choice(PEOPLE), "properties": properties()}
            )
        time.sleep(0.25)
    handler.flush(5)
    charge(inspector)
    bad(inspector)
    inspector.script(Answer(reset_after=1))  # it has the event, and the client does not know
    log.info("list shared", extra={"distinct_id": "user-77", "properties": {"movies": 12}})
    inspector.wait("list shared", count=2)
    inspector.script(Answer(503, {"Retry-After": "1"}))
    log.info("movie played", extra=FEATURED)
    log.info("signed in", extra=extras.identify("ada@example.org", {"plan": "family"}))
    fail(log)
    handler.close()
    time.sleep(1.5)  # until what is new looks like all else


def average(prices: list[float]) -> float:
    """Return what a film in the cart costs."""
    return sum(prices) / len(prices)


def fail(log: logging.Logger) -> None:
    """Log an exception with a cause."""
    try:
        try:
            average([])
        except ZeroDivisionError as error:
            raise RuntimeError("the cart of ada@example.org is empty") from error
    except RuntimeError:
        log.exception("checkout failed", extra={"distinct_id": "ada@example.org"})


def charge(inspector: Inspector) -> None:
    """Send some log lines to PostHog Logs."""
    log = logging.getLogger("films.billing")
    log.propagate = False
    log.setLevel(logging.DEBUG)
    handler = PostHogLogsHandler(KEY, inspector.url)
    log.addHandler(handler)
    log.info("charged 12.90 EUR", extra={"order": "A-1042", "gateway": "stripe"})
    log.warning("gateway answered late", extra={"ms": 2810, "gateway": "stripe"})
    handler.close()


FEATURED = {
    "distinct_id": "ada@example.org",
    "properties": {
        "movie": "Brief Encounter",
        "category": "drama",
        "minutes": 86,
        "device": {"kind": "television", "hdr": True},
        "watched_with": ["grace@example.org", "user-77"],
    },
}


def bad(inspector: Inspector) -> None:
    """Send what the servers refuse, and what they only warn of."""
    batch = [
        {"event": "", "distinct_id": "user-77"},
        {"event": "movie rated", "distinct_id": "null", "properties": {"stars": 4}},
        {"event": "movie rated", "distinct_id": "user-1042", "timestamp": "yesterday"},
    ]
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    for one in batch:
        one.update({"uuid": str(uuid.uuid4()), "timestamp": one.get("timestamp", moment)})
    headers = {
        "Authorization": f"Bearer {KEY}",
        "Content-Type": "application/json",
        "User-Agent": "films/1.0",
        "PostHog-Sdk-Info": "films/1.0",
        "PostHog-Attempt": "1",
        "PostHog-Request-Id": str(uuid.uuid4()),
        "PostHog-Request-Timestamp": moment,
    }
    said = json.dumps({"created_at": moment, "batch": batch}).encode()
    url = f"{inspector.url}/i/v1/analytics/events"
    urllib.request.urlopen(urllib.request.Request(url, said, headers)).close()


def take(driver: webdriver.Chrome, name: str, theme: str) -> None:
    """Save one picture."""
    turn = driver.find_element(By.ID, "theme")  # named after what it turns to
    if turn.text.lower() == theme:
        driver.execute_script("arguments[0].click()", turn)  # on a phone a detail covers it
    driver.save_screenshot(str(HERE / f"{name}-{theme}.png"))


def resize(driver: webdriver.Chrome, name: str) -> None:
    """Give the page the size of a screen."""
    width, height = SIZES[name]
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": name == "phone"}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def open_row(driver: webdriver.Chrome, text: str) -> None:
    """Open the detail of the first row with *text* in it."""
    rows = WebDriverWait(driver, 5).until(lambda d: d.find_elements(By.CSS_SELECTOR, ".row"))
    next(row for row in rows if text in row.text).find_element(By.CSS_SELECTOR, ".name").click()
    WebDriverWait(driver, 5).until(lambda d: d.find_elements(By.CSS_SELECTOR, ".fold"))


def main(seconds: float = 40.0) -> None:
    """Fill an inspector and take its pictures, wide and narrow, in both themes."""
    random.seed(7)
    with tempfile.TemporaryDirectory() as folder, Inspector() as inspector:
        driver = browser(folder)
        try:
            resize(driver, "page")
            driver.get(inspector.url)
            send(inspector, seconds)
            open_row(driver, "RuntimeError")
            for theme in ("light", "dark"):
                take(driver, "page", theme)
            driver.find_element(By.ID, "close").click()
            resize(driver, "phone")
            time.sleep(0.5)  # the layout follows the size
            for theme in ("light", "dark"):
                take(driver, "phone", theme)
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
