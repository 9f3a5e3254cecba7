"""Tests in this folder need the pretended CUDA device; `tests/test_pretend_cuda.py` runs them with it."""

from __future__ import annotations

from tests.sds3d.conftest import prior, prior_folder
from tests.sds3d.models.conftest import folder
from tests.support.pretend_cuda.install import installed

__all__ = ["folder", "prior", "prior_folder"]

collect_ignore_glob = [] if installed() else ["test_*.py"]
