"""What every test of the page runs under."""

from __future__ import annotations

import pytest

from app.jobs import queue


@pytest.fixture(autouse=True, scope="session")
def _room_on_the_disk() -> None:
    """The queue takes jobs however full the disk of this machine is."""
    queue.MIN_FREE_BYTES = 0.0
