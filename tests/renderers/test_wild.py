"""No number crashes the kernels of volumes and meshes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from renderers import native

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kernels", ["avx2", "baseline"])
def test_no_number_crashes_the_kernels(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernels == "avx2" and not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        pytest.skip("this processor has no AVX2")
    monkeypatch.setenv("SDS3D_KERNELS", kernels)
    if native.library() is None:
        pytest.skip(native.why_missing())
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.renderers.wild"]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
