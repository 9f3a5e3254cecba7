"""The tests of tests/pretend, each file in a process of its own that has the pretended CUDA device."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path.name for path in (ROOT / "tests" / "pretend").glob("test_*.py"))
QUIET = {"PYTEST_ADDOPTS": "", "OMP_NUM_THREADS": "1"}
"""Tensors of a few numbers want no second thread."""
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="the pretended device is built by g++")


def pretended(*arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest with the pretended device, its output together."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.pretend_cuda.plugin", "-q", *arguments]
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "check": False}
    return subprocess.run(command, cwd=ROOT, env=os.environ | QUIET, **given)  # type: ignore[call-overload,no-any-return]


@needs_compiler
@pytest.mark.parametrize("name", FILES)
def test_on_the_pretended_device(name: str) -> None:
    done = pretended(f"tests/pretend/{name}")
    assert done.returncode in (0, 5), done.stdout[-6000:]  # 5: all of its tests are slow ones


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_slow_ones_on_the_pretended_device(name: str) -> None:
    done = pretended(f"tests/pretend/{name}", "-m", "slow and not cuda")
    assert done.returncode in (0, 5), done.stdout[-6000:]


@needs_compiler
@pytest.mark.slow
def test_what_needs_a_gpu_passes_on_the_pretended_device() -> None:
    """The suite for real GPUs, but for PyTorch3D, which has no stand-in."""
    files = ("tests/renderers/volumes/test_nerfacc_parity.py", "tests/sds3d/diagnostics/test_selftest.py")
    done = pretended(*files, "-m", "cuda", "-k", "not mesh and not step")
    assert done.returncode == 0, done.stdout[-6000:]
