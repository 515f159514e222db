"""
Celery with a pool of processes; who sent a task is who its events are about.

    celery --app celery_app worker --pool prefork --concurrency 2

``python celery_app.py`` sends some tasks. The broker is the folder ``BROKER_FOLDER``.
"""

from __future__ import annotations

import logging
import os

from celery import Celery

from posthog_logging import PostHogHandler, context
from posthog_logging.middleware import celery as posthog


folder = os.environ["BROKER_FOLDER"]
app = Celery("celery_app", broker="filesystem://")
app.conf.update(
    broker_transport_options={
        "data_folder_in": folder,
        "data_folder_out": folder,
        "control_folder": folder,
        "polling_interval": 0.05,
    },
    broker_connection_retry_on_startup=True,
)

handler = PostHogHandler()  # POSTHOG_API_KEY and POSTHOG_HOST
log = logging.getLogger("analytics")
log.setLevel(logging.INFO)
log.addHandler(handler)
posthog.connect(handler)


@app.task
def play(who: str) -> None:
    log.info("movie played", extra={"event": "movie played", "who": who})
    rate.delay(who)


@app.task
def rate(who: str) -> None:
    log.info("movie rated", extra={"event": "movie rated", "who": who})


if __name__ == "__main__":
    for number in range(6):
        with context.identity(f"user-{number}", plan="gold"):
            play.delay(str(number))
