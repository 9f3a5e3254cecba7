"""What every test of the page runs under."""

from __future__ import annotations

import pytest

from app import jobs


@pytest.fixture(autouse=True, scope="session")
def _room_on_the_disk() -> None:
    """The queue takes jobs however full the disk of this machine is."""
    jobs.LEAST_FREE = 0.0
