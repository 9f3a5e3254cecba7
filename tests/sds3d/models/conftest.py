"""Folders of tiny models."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.guidance.tiny_models import build
from tests.support.sds3d.model_runs import Folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder of a tiny pipeline of a kind."""
    root, known = tmp_path_factory.mktemp("tiny"), set[str]()

    def of(kind: str) -> Path:
        if kind not in known:
            build(kind).save_pretrained(root / kind)
            known.add(kind)
        return root / kind

    return of


@pytest.fixture
def copy(folder: Folder, tmp_path: Path) -> Path:
    """A folder of Stable Diffusion to damage."""
    return Path(shutil.copytree(folder("sd"), tmp_path / "copy"))
