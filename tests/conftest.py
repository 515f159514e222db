"""What more than one module's tests need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from posthog_logging.inspector import Inspector


@pytest.fixture
def inspector() -> Iterator[Inspector]:
    """A local server that judges as the real ones do."""
    with Inspector() as serving:
        yield serving
