"""
FastAPI under uvicorn.

    uvicorn fastapi_app:app
"""

from __future__ import annotations

import asyncio
import logging

from fastapi import BackgroundTasks, FastAPI, WebSocket
from fastapi.responses import StreamingResponse

from posthog_logging import PostHogHandler, context
from posthog_logging.middleware.asgi import PostHogMiddleware


app = FastAPI()
handler = PostHogHandler()  # POSTHOG_API_KEY and POSTHOG_HOST
app.add_middleware(PostHogMiddleware, handler=handler)  # uvicorn's exit delivers by this

log = logging.getLogger("analytics")
log.setLevel(logging.INFO)
log.addHandler(handler)


def played(who: str) -> None:
    log.info("movie played", extra={"event": "movie played", "who": who})


@app.get("/play")
def play(who: str) -> str:
    played(who)
    return "enjoy"


@app.get("/play-async")
async def play_async(who: str) -> str:
    await asyncio.sleep(0)
    played(who)
    return "enjoy"


@app.get("/later")
async def later(who: str, tasks: BackgroundTasks) -> str:
    tasks.add_task(played, who)
    return "soon"


@app.get("/download")
async def download(who: str) -> StreamingResponse:
    async def pieces():
        for _ in range(2):
            await asyncio.sleep(0)
            played(who)
            yield b"piece"

    return StreamingResponse(pieces())


@app.websocket("/chat")
async def chat(socket: WebSocket) -> None:
    await socket.accept()
    who = await socket.receive_text()
    with context.identity(f"user-{who}"):
        played(who)
    await socket.send_text("welcome")
    await socket.close()
