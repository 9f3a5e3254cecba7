"""What every test runs under: shapes and types checked, few threads, no network, no hidden compiler runs."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import hypothesis
import jaxtyping
import pytest

PACKAGES = ["guidance", "renderers", "configs", "sds3d", "app"]
THREADS = 2

# Every call in our packages is checked against its annotations. An int passes for a float, as type checkers have it
# (PEP 484). In code because jaxtyping's own command-line option reads arguments in brackets wrongly.
assert not set(PACKAGES) & set(sys.modules), "imported too early to be checked"
jaxtyping.install_import_hook(PACKAGES, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

# Before torch is imported: idle OpenMP threads sleep, and no library asks a hub for anything.
os.environ["OMP_WAIT_POLICY"] = "passive"
os.environ["HF_HUB_OFFLINE"] = "1"


def without_nvcc(path: str) -> str:
    """The search path `path` without the folders that hold nvcc."""
    return os.pathsep.join(folder for folder in path.split(os.pathsep) if not (Path(folder) / "nvcc").exists())


def pytest_configure() -> None:
    import torch

    # The same examples every time, and no failure because a machine was busy.
    unchecked = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture]
    hypothesis.settings.register_profile(
        "steady", None, deadline=None, derandomize=True, suppress_health_check=unchecked
    )
    hypothesis.settings.load_profile("steady")
    torch.set_num_threads(min(THREADS, torch.get_num_threads()))
    if not torch.cuda.is_available():
        # gsplat and nerfacc start a build of minutes as soon as they see nvcc, even where no GPU could run it.
        os.environ["PATH"] = without_nvcc(os.environ["PATH"])
        for variable in ("CUDA_HOME", "CUDA_PATH"):
            os.environ.pop(variable, None)
        assert shutil.which("nvcc") is None


def pytest_runtest_setup(item: pytest.Item) -> None:
    import torch

    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """What a test draws without a generator is the same every time, whatever ran before or was set up for it."""
    import torch

    torch.manual_seed(0)
