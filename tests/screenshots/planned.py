"""
Take the pictures of a plan on the inspector's page: ``python tests/screenshots/planned.py``.

The recipe's service sends what is planned, and an old till what is not.
"""

from __future__ import annotations

import sys
import tempfile
import time

from selenium.webdriver.common.by import By
from take import HERE, KEY, browser, resize, take

from posthog_logging import Analytics
from posthog_logging.inspector import Inspector
from posthog_logging.plan import Plan


sys.path.insert(0, str(HERE.parent / "recipes"))

from cinema_events import FilmRated, FilmSearched, TicketSold, TrailerPlayed


def sell(url: str) -> None:
    """Send what is planned, and what is not."""
    analytics = Analytics(KEY, url)
    for number in range(140):
        analytics.capture(f"user-{number % 9}", FilmSearched("slow cinema", number % 13))
        analytics.capture(f"user-{number % 9}", TrailerPlayed(str(number), 41.5))
    for number in range(38):
        analytics.capture(f"user-{number % 9}", TicketSold(str(number), 12.9))
        analytics.capture(f"user-{number % 9}", FilmRated(str(number), 4))
    for price in ("12.90", "8.50", "12.90"):
        analytics.capture("user-7", "ticket sold", {"movie_id": "123", "price": price})
    analytics.capture("user-7", "film rated", {"movie_id": 123, "stars": 6})
    analytics.capture("user-7", "ticket sould", {"movie_id": "123", "price": 12.9})
    analytics.capture("user-7", "popcorn sold", {"salted": True})
    analytics.close()


def main() -> None:
    """Fill an inspector and take its pictures, wide and narrow, in both themes."""
    plan = Plan.of("cinema_events")
    with tempfile.TemporaryDirectory() as folder, Inspector(plan=plan) as inspector:
        sell(inspector.url)
        driver = browser(folder)
        try:
            for size, name in (("page", "plan"), ("phone", "plan-phone")):
                resize(driver, size)
                driver.get(inspector.url)
                time.sleep(2)  # until what is new looks like all else
                if size == "phone":
                    driver.find_element(By.CSS_SELECTOR, "#overview > summary").click()
                    driver.execute_script("document.getElementById('plan').scrollIntoView()")
                for theme in ("light", "dark"):
                    take(driver, name, theme)
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
