"""Models of every family, opened once."""

from __future__ import annotations

import pytest

from tests.support.guidance.tiny_models import KINDS
from tests.support.guidance.tiny_pipelines import Open, Opened


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Open:
    known: dict[str, Opened] = {}

    def open_one(kind: str) -> Opened:
        if kind not in known:
            known[kind] = Opened(kind, tmp_path_factory.mktemp("models") / kind)
        return known[kind]

    return open_one


@pytest.fixture(params=KINDS)
def one(request: pytest.FixtureRequest, opened: Open) -> Opened:
    return opened(str(request.param))
