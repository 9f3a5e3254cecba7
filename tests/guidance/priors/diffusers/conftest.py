"""Models of every family, opened once."""

from __future__ import annotations

import pytest

from tests.support.guidance.tiny_models import KINDS
from tests.support.guidance.tiny_pipelines import LoadedPipeline, LoadPipeline


@pytest.fixture(scope="session")
def load_pipeline(tmp_path_factory: pytest.TempPathFactory) -> LoadPipeline:
    known: dict[str, LoadedPipeline] = {}

    def open_one(kind: str) -> LoadedPipeline:
        if kind not in known:
            known[kind] = LoadedPipeline(kind, tmp_path_factory.mktemp("models") / kind)
        return known[kind]

    return open_one


@pytest.fixture(params=KINDS)
def pipeline(request: pytest.FixtureRequest, load_pipeline: LoadPipeline) -> LoadedPipeline:
    return load_pipeline(str(request.param))
