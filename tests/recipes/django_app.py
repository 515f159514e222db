"""
Django with `LOGGING`, by WSGI or by ASGI, in one file.

    gunicorn --preload --workers 2 django_app:application
    uvicorn django_app:asgi_application

The key and the host come from ``POSTHOG_API_KEY`` and ``POSTHOG_HOST``.
"""

from __future__ import annotations

import asyncio
import logging

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from django.utils.decorators import sync_and_async_middleware

from posthog_logging.middleware import asgi
from posthog_logging.middleware.django import PostHogMiddleware


log = logging.getLogger("analytics")


@sync_and_async_middleware
def posthog(get_response):
    """Say who is signed in; here everybody is who they say, in your site ask `request.user`."""
    return PostHogMiddleware(get_response, user=lambda request: request.GET.get("member"))


def play(request):
    log.info("movie played", extra={"event": "movie played", "who": request.GET["who"]})
    return HttpResponse("enjoy")


async def play_async(request):
    await asyncio.sleep(0)
    return play(request)


def download(request):
    def pieces():
        for _ in range(2):
            play(request)
            yield b"piece"

    return StreamingHttpResponse(pieces())


urlpatterns = [
    path("play", play),
    path("play-async", play_async),
    path("download", download),
]

if not settings.configured:
    settings.configure(
        SECRET_KEY="your own",
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=[f"{__name__}.posthog"],
        LOGGING={
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"posthog": {"class": "posthog_logging.PostHogHandler"}},
            "loggers": {"analytics": {"handlers": ["posthog"], "level": "INFO"}},
        },
    )

application = get_wsgi_application()
# Uvicorn's exit delivers by this, since Django itself knows no lifespan; the identity is the
# middleware's above.
asgi_application = asgi.PostHogMiddleware(
    get_asgi_application(), handler=log.handlers[0], lifespan=True
)
