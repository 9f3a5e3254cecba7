"""What every test runs under: few threads, no network, no compiler started behind our back."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

# Before torch is imported: idle OpenMP threads sleep, and no library asks a hub for anything.
os.environ["OMP_WAIT_POLICY"] = "passive"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch

THREADS = 2


def without_nvcc(path: str) -> str:
    """The search path `path` without the folders that hold nvcc."""
    return os.pathsep.join(folder for folder in path.split(os.pathsep) if not (Path(folder) / "nvcc").exists())


def pytest_configure() -> None:
    torch.set_num_threads(THREADS)
    if not torch.cuda.is_available():
        # gsplat and nerfacc start a build of minutes as soon as they see nvcc, even where no GPU could run it.
        os.environ["PATH"] = without_nvcc(os.environ["PATH"])
        for variable in ("CUDA_HOME", "CUDA_PATH"):
            os.environ.pop(variable, None)
        assert shutil.which("nvcc") is None
