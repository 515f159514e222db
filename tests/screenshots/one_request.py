"""
Show what one request leaves behind: ``python tests/screenshots/one_request.py``.

A visitor logs in half-way, a payment fails and is logged: the events, the report with its steps
and the request's log arrive at an inspector. The picture is of its page with the report open,
and ``one_request.json`` is what arrived.
"""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
import time

from typing import Any

import httpx

from fastapi import FastAPI, Response
from take import HERE, KEY, browser, open_row, resize, take

from posthog_logging import PostHogHandler, context
from posthog_logging.inspector import Inspector
from posthog_logging.middleware.asgi import PostHogMiddleware


log = logging.getLogger("cinema.till")

HEADERS = {
    "X-POSTHOG-DISTINCT-ID": "visitor-7",
    "X-POSTHOG-SESSION-ID": "0192f0c1-5b7a-7c3e-9d54-1f2e3d4c5b6a",
    "X-Forwarded-For": "203.0.113.7",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0",
    "Referer": "https://films.example/now-showing",
}


class PaymentError(Exception):
    """The gateway did not take the money."""


def charge(amount: float) -> None:
    """Ask the gateway for the money, in vain."""
    try:
        raise TimeoutError("no answer from the gateway within 3 s")
    except TimeoutError as error:
        raise PaymentError(f"{amount:.2f} EUR were not charged") from error


def application(handler: PostHogHandler) -> FastAPI:
    """Return a till that fails."""
    app = FastAPI()
    app.add_middleware(PostHogMiddleware, handler=handler, trusted_proxies=1, http_log=True)

    @app.post("/checkout")
    async def checkout(response: Response) -> str:
        log.info("cart opened", extra={"seats": 2})
        context.identify("user-1", plan="gold")
        log.info("checkout started", extra={"event": "checkout started", "seats": 2})
        log.warning("gateway answered late", extra={"gateway": "stripe", "ms": 2810})
        try:
            charge(25.8)
        except PaymentError:
            log.exception("payment failed", extra={"order": "A-1042"})
            response.status_code = 402
        return "sorry"

    return app


def serve(inspector: Inspector) -> None:
    """Serve one request, with everything it logs going to *inspector*."""
    handler = PostHogHandler(KEY, inspector.url, exceptions="ERROR", exception_steps=20)
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        asyncio.run(_ask(application(handler)))
    finally:
        log.removeHandler(handler)
        handler.close()


async def _ask(app: Any) -> None:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://films.example") as client:
        await client.post("/checkout?utm_source=newsletter", headers=HEADERS)


def arrived(inspector: Inspector) -> list[dict[str, Any]]:
    """Return the events of the request, as they arrived."""
    return [
        {
            "event": one.event,
            "distinct_id": one.distinct_id,
            "timestamp": one.timestamp,
            "properties": one.properties,
        }
        for one in sorted(inspector.events, key=lambda one: one.timestamp)
    ]


def main() -> None:
    """Write the JSON, and take the pictures, wide and narrow, in both themes."""
    with tempfile.TemporaryDirectory() as folder, Inspector() as inspector:
        serve(inspector)
        text = json.dumps(arrived(inspector), indent=2, ensure_ascii=False)
        (HERE / "one_request.json").write_text(f"{text}\n", encoding="utf-8")
        driver = browser(folder)
        try:
            for size, name in (("page", "request"), ("phone", "request-phone")):
                resize(driver, size)
                driver.get(inspector.url)
                open_row(driver, "PaymentError")
                time.sleep(1.5)  # until what is new looks like all else
                for theme in ("light", "dark"):
                    take(driver, name, theme)
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
