"""The recipe for SQLAlchemy: real transactions on SQLite, concurrent customers of a Flask shop."""

from __future__ import annotations

import importlib.util
import logging

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from posthog_logging.inspector import Inspector


pytest.importorskip("flask")
pytest.importorskip("sqlalchemy")


@pytest.fixture
def shop(inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The recipe's module, which sends to the inspector."""
    monkeypatch.setenv("POSTHOG_API_KEY", "phc_recipe")
    monkeypatch.setenv("POSTHOG_HOST", inspector.url)
    monkeypatch.setenv("SHOP_DATABASE", str(tmp_path / "shop.db"))
    path = Path(__file__).parent / "recipes" / "sqlalchemy_app.py"
    spec = importlib.util.spec_from_file_location("sqlalchemy_app", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    module.handler.close()
    module.engine.dispose()
    logging.getLogger("analytics").handlers.clear()
    for listener, moment in LISTENERS.items():
        module.event.remove(module.Session, moment, getattr(module, listener))


LISTENERS = {
    "begin": "after_transaction_create",
    "roll_back": "after_soft_rollback",
    "commit": "after_commit",
    "end": "after_transaction_end",
}


def order(shop: Any, who: str, items: str, **more: str) -> int:
    headers = {"X-PostHog-Distinct-Id": f"visitor-{who}"}
    query = {"who": who, "items": items, **more}
    status: int = (
        shop.app.test_client().post("/order", query_string=query, headers=headers).status_code
    )
    return status


def happened(shop: Any, inspector: Inspector) -> list[Any]:
    assert shop.handler.flush(10)
    assert [] == inspector.bad
    return list(inspector.events)


def test_commit_and_savepoints(shop: Any, inspector: Inspector) -> None:
    """What is rolled back to a savepoint did not happen; the rest goes with the commit."""
    assert 200 == order(shop, "savepoints", "book,sold-out,pen")

    events = happened(shop, inspector)
    merge, *others = events

    assert "$identify" == merge.event
    assert [("item ordered", "book"), ("item ordered", "pen"), ("order placed", None)] == [
        (event.event, event.properties.get("item")) for event in others
    ]
    assert 1 == shop.handler.counts["rolled_back"]


def test_rollback(shop: Any, inspector: Inspector) -> None:
    """A transaction that is rolled back leaves what was logged outside of it, and the merge."""
    assert 402 == order(shop, "rollback", "book,pen", payment="refused")

    assert ["$identify", "payment refused"] == [event.event for event in happened(shop, inspector)]
    assert 3 == shop.handler.counts["rolled_back"]


def test_concurrent_customers(shop: Any, inspector: Inspector) -> None:
    """Customers who log in half-way: each event and each merge is with the right person."""
    order(shop, "first", "book")  # makes the table
    happened(shop, inspector)
    before = len(inspector.events)
    with ThreadPoolExecutor(6) as pool:
        statuses = list(
            pool.map(
                lambda n: order(
                    shop,
                    f"concurrent-{n}",
                    "book,sold-out",
                    payment="refused" if n % 3 == 0 else "paid",
                ),
                range(12),
            )
        )
    events = happened(shop, inspector)[before:]

    assert {200: 8, 402: 4} == Counter(statuses)
    assert {"item ordered": 8, "order placed": 8, "payment refused": 4, "$identify": 12} == (
        Counter(event.event for event in events)
    )
    for event in events:
        who = event.properties.get("who") or event.distinct_id.removeprefix("customer-")
        expected = f"visitor-{who}" if event.event == "item ordered" else f"customer-{who}"
        assert expected == event.distinct_id
        if event.event == "$identify":
            assert f"visitor-{who}" == event.properties["$anon_distinct_id"]
