"""
Flask and SQLAlchemy: an event that is logged in a transaction goes when that commits.

    gunicorn --workers 2 --threads 4 sqlalchemy_app:app

A session's own events tell what becomes of it; what was rolled back, also to a savepoint, did
not happen, and is counted as ``rolled_back``. The database is the file ``SHOP_DATABASE``.
"""

from __future__ import annotations

import logging
import os

from flask import Flask, request
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from posthog_logging import PostHogHandler, context
from posthog_logging.context import Kept
from posthog_logging.middleware.wsgi import PostHogMiddleware


engine = create_engine(f"sqlite:///{os.environ.get('SHOP_DATABASE', 'shop.db')}")
sessions = scoped_session(sessionmaker(engine))

WAITING, BEGAN = "posthog_waiting", "posthog_began"


class SessionTransactions:
    """Hold the events of a thread for as long as its session is in a transaction."""

    def keep(self, kept: Kept) -> bool:
        if sessions.registry.has() and sessions().in_transaction():
            sessions().info[WAITING].append(kept)
        else:
            kept.let_go()
        return True


@event.listens_for(Session, "after_transaction_create")
def begin(session, transaction):
    waiting = session.info.setdefault(WAITING, [])
    session.info.setdefault(BEGAN, {})[transaction] = len(waiting)


@event.listens_for(Session, "after_soft_rollback")
def roll_back(session, transaction):
    del session.info[WAITING][session.info[BEGAN].get(transaction, 0) :]  # these are dropped


@event.listens_for(Session, "after_commit")
def commit(session):
    if not session.in_nested_transaction():  # a savepoint that ends well is no commit yet
        waiting, session.info[WAITING] = session.info[WAITING], []
        for kept in waiting:
            kept.let_go()


@event.listens_for(Session, "after_transaction_end")
def end(session, transaction):
    if transaction.parent is None:
        session.info[WAITING].clear()  # closed without a commit
        session.info[BEGAN].clear()


handler = PostHogHandler()  # POSTHOG_API_KEY and POSTHOG_HOST
handler.hold_by(SessionTransactions())
log = logging.getLogger("analytics")
log.setLevel(logging.INFO)
log.addHandler(handler)

app = Flask(__name__)
app.wsgi_app = PostHogMiddleware(app.wsgi_app, handler=handler, cookie=True)


@app.teardown_request
def close(error):
    sessions.remove()


@app.post("/order")
def order():
    """Place an order of several items; items that are sold out are left out."""
    who = request.args["who"]
    sessions.execute(text("create table if not exists orders (item text)"))
    for item in request.args["items"].split(","):
        try:
            with sessions.begin_nested():
                sessions.execute(text("insert into orders values (:item)"), {"item": item})
                log.info("item ordered", extra={"event": "item ordered", "who": who, "item": item})
                if item == "sold-out":
                    raise LookupError(item)
        except LookupError:
            pass
    context.identify(f"customer-{who}")
    log.info("order placed", extra={"event": "order placed", "who": who})
    if request.args.get("payment") == "refused":
        sessions.rollback()
        log.info("payment refused", extra={"event": "payment refused", "who": who})
        return "refused", 402
    sessions.commit()
    return "thank you"
