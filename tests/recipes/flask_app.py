"""
Flask under gunicorn.

    gunicorn --preload --workers 2 --threads 4 flask_app:app
"""

from __future__ import annotations

import logging

from flask import Flask, request, stream_with_context

from posthog_logging import PostHogHandler
from posthog_logging.middleware.wsgi import PostHogMiddleware


app = Flask(__name__)
app.wsgi_app = PostHogMiddleware(app.wsgi_app)

log = logging.getLogger("analytics")
log.setLevel(logging.INFO)
log.addHandler(PostHogHandler())  # POSTHOG_API_KEY and POSTHOG_HOST


@app.get("/play")
def play():
    log.info("movie played", extra={"event": "movie played", "who": request.args["who"]})
    return "enjoy"


@app.get("/download")
def download():
    def pieces():
        for _ in range(2):
            play()
            yield "piece"

    return stream_with_context(pieces())
